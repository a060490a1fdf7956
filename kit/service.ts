import { createServer, type Server } from "node:http";
import { networkInterfaces } from "node:os";
import { pathToFileURL } from "node:url";
import type Koa from "koa";
import { container, type DependencyContainer } from "tsyringe";
import { type Config, readConfig } from "#kit/config.js";
import { daprSidecar } from "#kit/dapr.js";
import { type Dialects, readDialects } from "#kit/dialects.js";
import { catalogue, isPublic, type Subscription } from "#kit/events.js";
import { keepHearing } from "#kit/hearing.js";
import { type Answer, createKoa, get, post, put, type Request, type Route } from "#kit/http.js";
import { createLogger, inTrace, type Logger } from "#kit/log.js";
import { Problem, tryLater } from "#kit/problem.js";
import { Records } from "#kit/records.js";
import { readShop, type Shop } from "#kit/shop.js";
import type { Sidecar, Verdict } from "#kit/sidecar.js";

/** Name of the pub/sub component in every components/ folder. */
const PUBSUB = "events";

/** What the composition root of a service can ask for. */
export const CONFIG = Symbol("Config");
export const SHOP = Symbol("Shop");
export const DIALECTS = Symbol("Dialects");
export const LOG = Symbol("Log");
export const NOW = Symbol("Now");
export const SIDECAR = Symbol("Sidecar");
export const RECORDS = Symbol("Records");

/** What a service is made of, once composed. */
export interface Parts {
  routes: readonly Route[];
  subscriptions?: readonly Subscription[];
  /** runs once the sidecar and the store answer, before the service reports itself ready */
  onStart?(): Promise<void>;
  /** Koa middleware that comes before the routes (the gateway's proxy) */
  before?: Koa.Middleware[];
}

export interface ServiceDefinition {
  /** app-id */
  app: string;
  /** name of its state component, if it owns one */
  store?: string;
  /** whether strangers reach it; then nobody sets it down over HTTP */
  front?: true;
  /** registers the service's own classes and answers its parts */
  compose(c: DependencyContainer): Parts;
}

/** A service that has been put together but listens nowhere yet. */
export interface Composed {
  /** its own routes, and those for operation and messages */
  routes: readonly Route[];
  /** serves the routes; made when it is first asked for */
  readonly koa: Koa;
  subscriptions: readonly Subscription[];
  deliver(event: unknown): Promise<Verdict>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Puts a service together from its definition and what it stands on: the same for the real sidecar and the twin. */
export function compose(
  definition: ServiceDefinition,
  on: {
    config: Config;
    shop: Shop;
    dialects: Dialects;
    log: Logger;
    sidecar: Sidecar;
    replica: string;
    now?: () => Date;
  },
): Composed {
  const { config, shop, dialects, log, sidecar, replica, now = () => new Date() } = on;
  const c = container.createChildContainer();
  c.register(CONFIG, { useValue: config });
  c.register(SHOP, { useValue: shop });
  c.register(DIALECTS, { useValue: dialects });
  c.register(NOW, { useValue: now });
  c.register(LOG, { useValue: log });
  c.register(SIDECAR, { useValue: sidecar });
  const records =
    definition.store === undefined
      ? undefined
      : new Records({
          app: definition.app,
          replica,
          slot: config.slot,
          sidecar,
          isPublic,
          log,
          now,
        });
  if (records !== undefined) c.register(RECORDS, { useValue: records });
  const parts = definition.compose(c);
  const subscriptions = parts.subscriptions ?? [];
  const byTopic = new Map(subscriptions.map((one) => [one.topic as string, one]));
  const health = { down: false, started: false };

  const deliver = (event: unknown) => deliverTo(byTopic, event, log);
  const routes = [
    ...parts.routes,
    ...operation(definition.front === true, config, sidecar, health),
    ...subscriptionRoutes(definition.app, subscriptions, deliver),
  ];
  let koa: Koa | undefined;
  return {
    routes,
    get koa() {
      if (koa === undefined) {
        koa = createKoa(routes, log);
        koa.middleware.splice(1, 0, ...(parts.before ?? []));
      }
      return koa;
    },
    subscriptions,
    deliver,
    async start() {
      await records?.start();
      await parts.onStart?.();
      health.started = true;
    },
    async stop() {
      health.started = false;
      await records?.stop();
      await sidecar.close();
    },
  };
}

/**
 * The main program of a service: listens, waits for its sidecar, reports ready, drains on SIGTERM or SIGINT.
 * Does nothing when the module is only imported.
 */
export async function main(definition: ServiceDefinition, moduleUrl: string): Promise<void> {
  if (process.argv[1] === undefined || pathToFileURL(process.argv[1]).href !== moduleUrl) return;
  try {
    await serve(definition);
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}

async function serve(definition: ServiceDefinition): Promise<void> {
  const config = readConfig(definition.app);
  const shop = readShop(config.shop);
  const dialects = readDialects(config.dialects, shop.dialect);
  const replica = `${config.slot}-${crypto.randomUUID().slice(0, 8)}`;
  const log = createLogger(definition.app, replica, config.logLevel);
  const sidecar = daprSidecar({
    port: config.daprPort,
    pubsub: PUBSUB,
    ...(definition.store ? { store: definition.store } : {}),
  });
  const composed = compose(definition, { config, shop, dialects, log, sidecar, replica });

  const server = createServer(composed.koa.callback());
  // The sidecar keeps its connections for 90 s; whoever closes first must be the client.
  server.keepAliveTimeout = 120_000;
  server.headersTimeout = 125_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(config.port, config.host, resolve);
  });
  log.info({ port: config.port, shop: shop.name }, "listening");

  const topics = composed.subscriptions.map(({ topic }) => topic);
  const stopHearing = keepHearing(sidecar, topics, log);
  let stopping: Promise<void> | undefined;
  const stop = (signal: string) => {
    stopHearing();
    stopping ??= shutDown(server, composed, log, signal);
  };
  process.once("SIGTERM", () => stop("SIGTERM"));
  process.once("SIGINT", () => stop("SIGINT"));

  for (let wait = 50; stopping === undefined; wait = Math.min(wait * 1.5, 1_000)) {
    try {
      await sidecar.ready();
      await composed.start();
      log.info("ready");
      return;
    } catch (error) {
      log.debug({ err: error }, "waiting for the sidecar");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

async function shutDown(server: Server, composed: Composed, log: Logger, signal: string): Promise<void> {
  log.info({ signal }, "stopping");
  const drained = new Promise<void>((resolve) => server.close(() => resolve()));
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  server.closeIdleConnections();
  const late = new Promise<void>((resolve) => setTimeout(resolve, 2_500).unref());
  await Promise.race([drained, late]);
  clearInterval(idle);
  await composed
    .stop()
    .catch((error) => log.warn({ err: error }, "not everything could be put away; the journal has it"));
  server.closeAllConnections();
  process.exit(0);
}

interface Health {
  down: boolean;
  started: boolean;
}

function operation(front: boolean, config: Config, sidecar: Sidecar, health: Health): Route[] {
  const ready = async () => {
    if (health.down) throw tryLater("down", "Set down by an operator; PUT /actuator/up brings it back.");
    if (!health.started) throw tryLater("starting", "The service waits for its sidecar.", 1);
    await sidecar.ready();
  };
  const status = (up: boolean): Answer => ({
    status: up ? 200 : 503,
    body: { status: up ? "UP" : "DOWN" },
    type: "application/json",
  });
  return [
    get("/healthz", async () => ({ status: 200, body: { status: "alive" }, type: "application/json" })),
    get("/readyz", async () => {
      await ready();
      return { status: 200, body: { status: "ready" }, type: "application/json" };
    }),
    get("/actuator/health", () =>
      ready().then(
        () => status(true),
        () => status(false),
      ),
    ),
    get("/actuator/echo", async () => {
      if (health.down) throw tryLater("down", "Set down by an operator; PUT /actuator/up brings it back.");
      return { status: 200, body: `${config.slot}/${address()}`, type: "text/plain" };
    }),
    ...(front ? [] : switches(health, status)),
  ];
}

/** S0-H9: an operator takes one replica out, so that the others answer. */
function switches(health: Health, status: (up: boolean) => Answer): Route[] {
  return [
    put("/actuator/down", async () => {
      health.down = true;
      return { ...status(false), status: 200 };
    }),
    put("/actuator/up", async () => {
      health.down = false;
      return status(true);
    }),
  ];
}

function address(): string {
  const outward = Object.values(networkInterfaces())
    .flat()
    .find((one) => one !== undefined && one.family === "IPv4" && !one.internal);
  return outward?.address ?? "127.0.0.1";
}

/** The two things that Dapr asks of a subscriber. https://docs.dapr.io/reference/api/pubsub_api/ */
function subscriptionRoutes(
  app: string,
  subscriptions: readonly Subscription[],
  deliver: (event: unknown) => Promise<Verdict>,
): Route[] {
  const described = subscriptions.map(({ topic }) => ({
    pubsubname: PUBSUB,
    topic,
    route: `/events/${topic}`,
    deadLetterTopic: `dead-letters-${app}`,
  }));
  const subscribe = get("/dapr/subscribe", async () => ({
    status: 200,
    body: described,
    type: "application/json",
  }));
  if (subscriptions.length === 0) return [subscribe];
  return [
    subscribe,
    post("/events/:topic", async ({ body }: Request) => {
      return verdict({ status: await deliver(body) });
    }),
  ];
}

const verdict = (body: object): Answer => ({ status: 200, body, type: "application/json" });

async function deliverTo(
  byTopic: Map<string, Subscription>,
  received: unknown,
  log: Logger,
): Promise<Verdict> {
  const event = received as { id?: unknown; type?: unknown; data?: unknown; traceparent?: string } | null;
  return inTrace(event?.traceparent, async () => {
    const subscription = byTopic.get(String(event?.type));
    const parsed =
      subscription === undefined || event === null
        ? undefined
        : catalogue[subscription.topic].safeParse(event.data);
    if (subscription === undefined || event === null || typeof event.id !== "string" || !parsed?.success) {
      log.error(
        { event, reason: parsed?.error?.issues },
        "a message that can never be understood is set aside",
      );
      return "DROP";
    }
    try {
      await subscription.handle({ id: event.id, type: subscription.topic, data: parsed.data as never });
      return "SUCCESS";
    } catch (error) {
      if (error instanceof Problem && error.status < 500) {
        log.error({ err: error, event: event.id }, "a message that will always be refused is set aside");
        return "DROP";
      }
      log.warn({ err: error, event: event.id }, "a message could not be handled and will come again");
      return "RETRY";
    }
  });
}
