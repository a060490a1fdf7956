import { networkInterfaces } from "node:os";
import { pathToFileURL } from "node:url";
import type Koa from "koa";
import { container, type DependencyContainer } from "tsyringe";
import { trusts } from "#kit/clients.js";
import { type Config, readConfig } from "#kit/config.js";
import { daprSidecar } from "#kit/dapr.js";
import { DeadLetters, deadLetterRoutes } from "#kit/dead-letters.js";
import { type Dialects, readDialects } from "#kit/dialects.js";
import { isPublic, type Subscription } from "#kit/events.js";
import { keepHearing } from "#kit/hearing.js";
import { type Answer, createKoa, get, put, type Route } from "#kit/http.js";
import { delivering, handling, received, subscriptionRoutes } from "#kit/inbox.js";
import { BEHIND, FRONT, limitedServer } from "#kit/limits.js";
import { Listening } from "#kit/listening.js";
import { createLogger, type Logger } from "#kit/log.js";
import { tryLater } from "#kit/problem.js";
import { Records } from "#kit/records.js";
import { bounded } from "#kit/shedding.js";
import { readShop, type Shop } from "#kit/shop.js";
import type { CloudEvent, Sidecar, Verdict } from "#kit/sidecar.js";
import { demandToken } from "#kit/token.js";

/** Name of the pub/sub component in every components/ folder. */
const PUBSUB = "events";
/** Most requests that a service works on at once. The gateway lets far fewer through to each. */
const AT_ONCE = 512;

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
  deliver(event: CloudEvent): Promise<Verdict>;
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
  const health = { down: false, started: false };

  const { app } = definition;
  const handle = handling(subscriptions);
  const letters = records && new DeadLetters({ app, replica, records, handle, now });
  const deliver = delivering(app, handle, letters, log);
  const routes = [
    ...parts.routes,
    ...operation(definition.front === true, config, sidecar, health),
    ...subscriptionRoutes({ app, pubsub: PUBSUB, keeps: letters !== undefined }, subscriptions, deliver),
    ...(letters === undefined ? [] : deadLetterRoutes(letters, now)),
  ];
  const guard =
    config.appToken === undefined ? [] : [demandToken(config.appToken, definition.front === true)];
  // The front bounds what it lets in by itself.
  const bounds = definition.front ? [] : [bounded(AT_ONCE)];
  let koa: Koa | undefined;
  return {
    routes,
    get koa() {
      if (koa === undefined) {
        koa = createKoa(routes, log);
        koa.middleware.splice(1, 0, ...guard, ...bounds, ...(parts.before ?? []));
      }
      return koa;
    },
    subscriptions,
    deliver: (event) => deliver(received(event.type, Buffer.from(JSON.stringify(event)))),
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
 * The main program of a service: listens, waits for its sidecar, reports ready; on SIGTERM or SIGINT it finishes what it has begun.
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
  const log = createLogger(definition.app, replica, config.logLevel, config.logFile);
  const sidecar = daprSidecar({
    port: config.daprPort,
    token: config.sidecarToken,
    pubsub: PUBSUB,
    ...(definition.store ? { store: definition.store } : {}),
  });
  const composed = compose(definition, { config, shop, dialects, log, sidecar, replica });

  const limits = definition.front === true ? FRONT : BEHIND;
  const listening = await Listening.at(config, () =>
    limitedServer(composed.koa.callback(), limits, trusts(config.trustedProxies)),
  );
  log.info({ port: config.port, shop: shop.name, profile: config.profile }, "listening");

  const topics = composed.subscriptions.map(({ topic }) => topic);
  const stopHearing = keepHearing(sidecar, topics, log);
  let stopping: Promise<void> | undefined;
  // SIGTERM: the others go on, and whoever was told of this replica still comes. SIGINT (Ctrl-C): all of it stops.
  const stop = (signal: "SIGTERM" | "SIGINT") => {
    if (stopping !== undefined) return listening.hurry();
    stopHearing();
    log.info({ signal }, "stopping");
    stopping = shutDown(signal === "SIGTERM" ? listening.drain() : listening.drain(0, 2_500), composed, log);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);

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

async function shutDown(drained: Promise<void>, composed: Composed, log: Logger): Promise<void> {
  // Ready all the while: a sidecar that took this service for sick would end before the last answers, which need it.
  await drained;
  await composed
    .stop()
    .catch((error) => log.warn({ err: error }, "not everything could be put away; the journal has it"));
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
