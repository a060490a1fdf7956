import type { IncomingMessage } from "node:http";
import cors from "@koa/cors";
import type Koa from "koa";
import type { Dispatcher } from "undici";
import { isAmongUs } from "#kit/dapr.js";
import type { Dialects } from "#kit/dialects.js";
import { BODY_LIMIT, get, type Route, resource, write } from "#kit/http.js";
import { currentTrace } from "#kit/log.js";
import { bodyTooLarge, methodNotAllowed, noSuchRoute, type Problem, tryLater } from "#kit/problem.js";
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

/** The collections, and the other looks at them that the dialects have. */
export function openings(dialects: Dialects): ReadonlyMap<string, Opened> {
  const looks = dialects.looks().flatMap(([path, { of }]): [string, Opened][] => {
    const opened = COLLECTIONS[of];
    return opened === undefined ? [] : [[path, opened]];
  });
  return new Map([...Object.entries(COLLECTIONS), ...looks]);
}

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

/** Passes requests to the service that answers for their collection, through the gateway's own sidecar. */
export function proxy(sidecar: Dispatcher, openings: ReadonlyMap<string, Opened>): Koa.Middleware {
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
    const body = await readBody(ctx.req);
    const answer = await sidecar
      .request({
        method: ctx.method as "GET",
        path: `/v1.0/invoke/${route.app}/method${path}${ctx.search}`,
        headers: forwarded(ctx),
        body,
        headersTimeout: TIMEOUT_MS,
        bodyTimeout: TIMEOUT_MS,
      })
      .catch(() => {
        throw notNow(route.app);
      });
    const text = await answer.body.text().catch(() => {
      throw notNow(route.app);
    });
    if (isAmongUs(answer.statusCode, ofSidecar(answer.headers["content-type"], text)))
      throw notNow(route.app);
    // Our services answer 200 and 201 with a body; a sidecar whose other end was cut off half-way answers without.
    const cutOff = answer.statusCode < 202 && text === "" && !["HEAD", "OPTIONS"].includes(ctx.method);
    if (cutOff) throw notNow(route.app);
    const headers = Object.entries(answer.headers).filter(
      ([name, value]) =>
        value !== undefined && !HOP_BY_HOP.has(name) && name !== "content-type" && !name.startsWith("dapr-"),
    );
    write(ctx, {
      status: answer.statusCode,
      headers: Object.fromEntries(headers.map(([name, value]) => [name, String(value)])),
      ...(text === ""
        ? {}
        : { body: text, type: String(answer.headers["content-type"] ?? "application/json") }),
    });
  };
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

async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  const tooLarge = () => bodyTooLarge(BODY_LIMIT, { connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > BODY_LIMIT) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_LIMIT) throw tooLarge();
    chunks.push(chunk);
  }
  return size === 0 ? null : Buffer.concat(chunks);
}
