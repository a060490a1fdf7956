import type { IncomingMessage } from "node:http";
import cors from "@koa/cors";
import type Koa from "koa";
import type { Pool } from "undici";
import { daprErrorCode } from "#kit/dapr.js";
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
export function proxy(sidecar: Pool, openings: ReadonlyMap<string, Opened>): Koa.Middleware {
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
    const answer = await ask(sidecar, route.app, {
      method: ctx.method,
      path: `${path}${ctx.search}`,
      headers: forwarded(ctx, path),
      body,
    });
    const { text } = answer;
    const headers = Object.entries(answer.headers).filter(
      ([name, value]) =>
        value !== undefined && !HOP_BY_HOP.has(name) && name !== "content-type" && !name.startsWith("dapr-"),
    );
    write(ctx, {
      status: answer.status,
      headers: Object.fromEntries(headers.map(([name, value]) => [name, String(value)])),
      ...(text === ""
        ? {}
        : { body: text, type: String(answer.headers["content-type"] ?? "application/json") }),
    });
  };
}

/** One request to a service, through the gateway's own sidecar. @throws Problem 503 where the service does not answer */
export async function ask(
  sidecar: Pool,
  app: string,
  { method, path, headers, body = null }: Asked,
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
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
    })
    .catch(gone);
  const text = await answer.body.text().catch(gone);
  if (answer.statusCode >= 500 && fromSidecar(answer.headers["content-type"], text)) throw notNow(app);
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
}

interface Answered {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
}

function forwarded(ctx: Koa.Context, path: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(ctx.headers)) {
    if (value !== undefined && !HOP_BY_HOP.has(name)) headers[name] = String(value);
  }
  // With a key the order can be asked for twice and is made once, so a sidecar may repeat the call.
  if (ctx.method === "POST" && path === "/orders") headers["idempotency-key"] ??= crypto.randomUUID();
  const trace = currentTrace();
  if (trace !== undefined) headers.traceparent = trace.traceparent;
  return headers;
}

/** A sidecar that cannot reach the service answers in its own words. */
function fromSidecar(type: unknown, text: string): boolean {
  if (!String(type ?? "").startsWith("application/json")) return false;
  try {
    return daprErrorCode(JSON.parse(text)) !== undefined;
  } catch {
    return false;
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
