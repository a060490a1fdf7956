import type { IncomingMessage } from "node:http";
import cors from "@koa/cors";
import type Koa from "koa";
import type { Dispatcher } from "undici";
import { isAmongUs } from "#kit/dapr.js";
import type { Dialects } from "#kit/dialects.js";
import { BODY_LIMIT, get, type Route, resource, write } from "#kit/http.js";
import { currentTrace } from "#kit/log.js";
import { bodyTooLarge, methodNotAllowed, noSuchRoute, Problem, tryLater } from "#kit/problem.js";
import { Gate, type GateOptions } from "#kit/shedding.js";
import type { Shop } from "#kit/shop.js";

/** Which service answers for which collection, and the methods that it opens to the outside. */
const COLLECTIONS: Record<string, Opened> = {
  orders: { app: "order" },
  orderStatuses: { app: "orderview" },
  history: { app: "orderview" },
  products: { app: "inventory" },
  storeOrders: { app: "store" },
  deliveries: { app: "delivery" },
  // Announcing or taking a payment is a step of an order; from outside there is paying what has been announced.
  payments: { app: "payment", methods: ["GET", "HEAD", "PUT", "PATCH", "DELETE"] },
  messages: { app: "notification" },
  stamps: { app: "loyalty" },
};

interface Opened {
  app: string;
  methods?: readonly string[];
}

/** The services behind the collections. */
export const APPS: readonly string[] = [...new Set(Object.values(COLLECTIONS).map(({ app }) => app))];

/** The collections, and the other looks at them that the dialects have. */
export function openings(dialects: Dialects): ReadonlyMap<string, Opened> {
  const looks = dialects.looks().flatMap(([path, { of }]): [string, Opened][] => {
    const opened = COLLECTIONS[of];
    return opened === undefined ? [] : [[path, opened]];
  });
  return new Map([...Object.entries(COLLECTIONS), ...looks]);
}

/** For each service, reads and changes apart. On two cores, more than 16 at once make the orders no more per second. */
const BOUNDS: GateOptions = {
  atOnce: 128,
  waitingEach: 256,
  waiting: 1_024,
  patienceMs: 5_000,
  slowMs: 2_000,
};

/** Longest that a client waits for an answer, in ms. */
const TIMEOUT_MS = 15_000;
/** They belong to one connection (RFC 9110, 7.6.1), or are ours to set. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "te",
  "trailer",
  "upgrade",
  "host",
  "content-length",
  "expect",
  "dapr-app-id",
  "dapr-api-token",
]);

/** What stands at the front door: the collections. */
export const routes = (openings: ReadonlyMap<string, Opened>): Route[] => [
  get("/", async () => ({
    status: 200,
    body: resource("/", {}, Object.fromEntries([...openings.keys()].map((name) => [name, `/${name}`]))),
  })),
];

/** Lets other origins' pages use the gateway, as the shop says (S3-G2). Before all else, so that errors are told too. */
export const crossOrigin = ({ origins, credentials }: Shop["cors"]): Koa.Middleware =>
  cors({
    // Where credentials may come along, browsers refuse a bare "*"; the origin that asks is named instead.
    origin: (ctx) => {
      const asking = ctx.get("origin");
      if (origins !== "*") return origins.includes(asking) ? asking : "";
      return credentials ? asking : "*";
    },
    credentials,
    exposeHeaders: ["Location", "Retry-After"],
    maxAge: 600,
  });

/**
 * Passes requests to the service that answers for their collection, through the gateway's own sidecar. Each service has a
 * gate for reads and one for what changes things, so that what is slow keeps only its own callers waiting.
 */
export function proxy(
  sidecar: Dispatcher,
  openings: ReadonlyMap<string, Opened>,
  clientOf: (request: IncomingMessage) => string,
  bounds: GateOptions = BOUNDS,
): Koa.Middleware {
  const gates = new Map<string, Gate>();
  const gateTo = (app: string, kind: "reads" | "changes"): Gate => {
    const gate = gates.get(`${app} ${kind}`) ?? new Gate(bounds);
    gates.set(`${app} ${kind}`, gate);
    return gate;
  };
  return async (ctx, next) => {
    // S0-G1: /api/fashion-order/products is /products of the shop behind the prefix.
    const path = ctx.path.replace(/^\/api\/[a-z0-9-]+(?=\/)/, "");
    const [first, second] = path.split("/").slice(1);
    const name = (first === "profile" ? second : first) ?? "";
    const route = openings.get(name);
    if (route === undefined) return next();
    if (!/^[\w/.~:@-]*$/.test(path) || path.includes("..")) {
      throw noSuchRoute(ctx.path);
    }
    if (route.methods !== undefined && !route.methods.includes(ctx.method)) {
      throw methodNotAllowed(ctx.path, route.methods.join(", "));
    }
    const gate = gateTo(route.app, ctx.method === "GET" || ctx.method === "HEAD" ? "reads" : "changes");
    const client = clientOf(ctx.req);
    gate.check(client);
    const body = await readBody(ctx.req);
    const until = performance.now() + TIMEOUT_MS;
    const leave = await gate.enter(client, ctx.res);
    let answer: Answered | undefined;
    try {
      answer = await ask(sidecar, route.app, {
        method: ctx.method,
        path: `${path}${ctx.search}`,
        headers: forwarded(ctx),
        body,
        withinMs: until - performance.now(),
      });
    } finally {
      leave(answer?.status === 503 && answer.text.includes('"urn:jangteo:problem:overloaded"'));
    }
    pass(ctx, answer);
  };
}

/** One request to a service, through the gateway's own sidecar. @throws Problem 503 where the service does not answer */
export async function ask(
  sidecar: Dispatcher,
  app: string,
  { method, path, headers, body = null, withinMs = TIMEOUT_MS }: Asked,
): Promise<Answered> {
  const gone = () => {
    throw notNow(app);
  };
  const answer = await sidecar
    .request({
      method: method as "GET",
      path: `/v1.0/invoke/${app}/method${path}`,
      headers,
      body,
      headersTimeout: withinMs,
      bodyTimeout: withinMs,
    })
    .catch(gone);
  const text = await answer.body.text().catch(gone);
  if (isAmongUs(answer.statusCode, ofSidecar(answer.headers["content-type"], text))) throw notNow(app);
  // Our services answer 200 and 201 with a body; a sidecar whose other end was cut off half-way answers without.
  const cutOff = answer.statusCode < 202 && text === "" && !["HEAD", "OPTIONS"].includes(method);
  if (cutOff) throw notNow(app);
  return { status: answer.statusCode, headers: answer.headers, text };
}

interface Asked {
  method: string;
  /** path and query */
  path: string;
  headers: Record<string, string>;
  body?: Buffer | null;
  /** ms until the caller gives up */
  withinMs?: number;
}

interface Answered {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

function pass(ctx: Koa.Context, { status, headers, text }: Answered): void {
  const kept = Object.entries(headers).filter(
    ([name, value]) =>
      value !== undefined && !HOP_BY_HOP.has(name) && name !== "content-type" && !name.startsWith("dapr-"),
  );
  write(ctx, {
    status,
    headers: Object.fromEntries(kept.map(([name, value]) => [name, String(value)])),
    ...(text === "" ? {} : { body: text, type: String(headers["content-type"] ?? "application/json") }),
  });
}

function forwarded(ctx: Koa.Context): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(ctx.headers)) {
    if (value !== undefined && !HOP_BY_HOP.has(name)) headers[name] = String(value);
  }
  // What is asked for twice with one key is made once, so the sidecar may repeat the call (dapr/resiliency-gateway.yaml).
  if (ctx.method === "POST") headers["idempotency-key"] ??= crypto.randomUUID();
  const trace = currentTrace();
  if (trace !== undefined) headers.traceparent = trace.traceparent;
  return headers;
}

/** What may be a sidecar's own words: our services' errors are of another type. */
function ofSidecar(type: unknown, text: string): unknown {
  if (!String(type ?? "").startsWith("application/json")) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const notNow = (app: string): Problem =>
  tryLater("unavailable", `The ${app} service does not answer at the moment; please try a little later.`, 2, {
    service: app,
  });

const incomplete = (): Problem =>
  new Problem(400, "body-incomplete", "The body did not arrive", "The connection ended before the body did.");

async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  const tooLarge = () => bodyTooLarge(BODY_LIMIT, { connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > BODY_LIMIT) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > BODY_LIMIT) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    // The client has gone, or was too slow and is told so already (kit/limits.ts).
    throw error instanceof Problem ? error : incomplete();
  }
  return size === 0 ? null : Buffer.concat(chunks);
}
