import { bodyParser } from "@koa/bodyparser";
import Router, { type RouterMiddleware } from "@koa/router";
import Koa from "koa";
import { z } from "zod";
import type { Way } from "#kit/dialects.js";
import { inTrace, type Logger } from "#kit/log.js";
import {
  bodyTooLarge,
  invalid,
  methodNotAllowed,
  noSuchRoute,
  notFound,
  Problem,
  tryLater,
} from "#kit/problem.js";
import type { Page } from "#kit/records.js";
import { Unavailable } from "#kit/sidecar.js";

/** What a route works on. */
export interface Request {
  params: Record<string, string>;
  query: Record<string, string | undefined>;
  /** the JSON body, not yet checked; {} where there was none */
  body: unknown;
  headers: Record<string, string | undefined>;
  path: string;
}

export interface Answer {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
  /** media type; HAL where it is not said */
  type?: string;
}

export interface Route {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  /** Its body is handed over as {@link Bytes}, whatever they are, and no more than so many of them. */
  raw?: number;
  handle(request: Request): Promise<Answer>;
}

/** A body of a {@link Route.raw} route. */
export interface Bytes {
  /** all, or the beginning */
  bytes: Buffer;
  /** how many came */
  size: number;
}

type Handler = Route["handle"];
export const get = (path: string, handle: Handler): Route => ({ method: "GET", path, handle });
export const post = (path: string, handle: Handler): Route => ({ method: "POST", path, handle });
export const put = (path: string, handle: Handler): Route => ({ method: "PUT", path, handle });
export const patch = (path: string, handle: Handler): Route => ({ method: "PATCH", path, handle });
export const del = (path: string, handle: Handler): Route => ({ method: "DELETE", path, handle });

const HAL = "application/hal+json";
/** Largest body that is read. */
export const BODY_LIMIT = 1024 * 1024;

/** 200 with JSON that is no resource. */
export const json = (body: object): Answer => ({ status: 200, body, type: "application/json" });

/** 201 with one resource and its Location. */
export function created(self: string, resource: object): Answer {
  return { status: 201, body: resource, headers: { location: self } };
}

/** A HAL resource. https://datatracker.ietf.org/doc/html/draft-kelly-json-hal */
export function resource(
  self: string,
  body: object,
  links: Record<string, string> = {},
): Record<string, unknown> {
  const named = Object.entries({ self, ...links }).map(([name, href]) => [name, { href }]);
  return { ...body, _links: Object.fromEntries(named) };
}

/** Where the items of a collection come from. */
export interface Source<S> {
  page(request: { page: number; size: number }): Promise<Page<S>>;
  load(id: number): Promise<S | undefined>;
  /** an item in our own words; the dialects say the rest */
  represent(id: number, state: S): object;
  links?(id: number): Record<string, string>;
}

/**
 * The routes that every collection has, under each of its names: the list (paged as Spring Data pages), one item, its
 * profile, and the search by orderId that S0-H6 links to.
 */
export function collection<S>(ways: readonly Way[], source: Source<S>): Route[] {
  return ways.flatMap((way) => collectionAt(way, source));
}

function collectionAt<S>(way: Way, source: Source<S>): Route[] {
  const { name, one } = way;
  const item = (id: number, state: S) => itemOf(way, id, source.represent(id, state), source.links?.(id));
  const find = async (id: string | undefined) => {
    const number = idOf(id, one);
    const state = await source.load(number);
    if (state === undefined) throw notFound(one, number);
    return item(number, state);
  };
  return [
    get(`/${name}`, async ({ query }) => {
      const asked = check(paging, query);
      const page = await source.page(asked);
      return { status: 200, body: listing(name, page, (row) => item(row.id, row.state), {}, linksOf(name)) };
    }),
    get(`/${name}/search`, async () => ({
      status: 200,
      body: {
        _links: { findByOrderId: { href: `/${name}/search/findByOrderId{?orderId}`, templated: true } },
      },
    })),
    get(`/${name}/search/findByOrderId`, async ({ query }) => ({
      status: 200,
      body: { _embedded: { [name]: [await find(query.orderId)] } },
    })),
    get(`/${name}/:id`, async ({ params }) => ({ status: 200, body: await find(params.id) })),
    profile(way),
  ];
}

/** What kind of things a collection has. http://alps.io */
export const profile = ({ name, one }: Pick<Way, "name" | "one">): Route =>
  get(`/profile/${name}`, async () => ({
    status: 200,
    type: "application/json",
    body: { alps: { version: "1.0", descriptor: [{ id: `${one}-representation`, href: `/${name}` }] } },
  }));

/** An item under one of its collection's names: in that name's words, linked to itself. */
export function itemOf(
  way: Way,
  id: number | string,
  item: object,
  links: Record<string, string> = {},
): Record<string, unknown> {
  const self = `/${way.name}/${id}`;
  return resource(self, way.say(item), { [way.one]: self, ...links });
}

/**
 * PUT routes for the commands on an item, under each name of its collection and of the command. The answer is the item.
 * @param commands by our name; each answers the new state
 */
export function commands<S>(
  ways: readonly Way[],
  source: Pick<Source<S>, "represent" | "links">,
  commands: Record<string, (id: number, request: Request) => Promise<S>>,
): Route[] {
  return ways.flatMap((way) =>
    Object.entries(commands).flatMap(([command, run]) =>
      way.namesOf(command).map((name) =>
        put(`/${way.name}/:id/${name}`, async (request) => {
          const id = idOf(request.params.id, way.one);
          const state = await run(id, request);
          return { status: 200, body: itemOf(way, id, source.represent(id, state), source.links?.(id)) };
        }),
      ),
    ),
  );
}

/** What a list links to besides its pages. */
export const linksOf = (name: string) => ({
  profile: { href: `/profile/${name}` },
  search: { href: `/${name}/search` },
});

/** One page of a collection in HAL, with Spring Data's links and counts. */
export function listing<S>(
  name: string,
  page: Page<S>,
  item: (row: { id: number; state: S }) => object,
  query: Record<string, string> = {},
  links: Record<string, { href: string }> = {},
): object {
  const { size, number, totalElements } = page;
  const totalPages = Math.ceil(totalElements / size);
  const at = (n: number) => ({
    href: `/${name}?${new URLSearchParams({ ...query, page: String(n), size: String(size) })}`,
  });
  return {
    _embedded: { [name]: page.items.map(item) },
    _links: {
      self: at(number),
      first: at(0),
      ...(number > 0 ? { prev: at(number - 1) } : {}),
      ...(number + 1 < totalPages ? { next: at(number + 1) } : {}),
      last: at(Math.max(0, totalPages - 1)),
      ...links,
    },
    page: { size, totalElements, totalPages, number },
  };
}

/** A whole number as JSON or as text (httpie and forms send text); anything else is left for the schema to refuse. */
export function number(value: unknown): unknown {
  return typeof value === "string" && /^\s*[+-]?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value;
}

/** A whole number field with its bounds, both inclusive. */
export const whole = (min: number, max: number) => {
  const error = "must be a whole number";
  const integer = z.number({ error }).refine(Number.isInteger, { error, abort: true });
  return z.preprocess(number, integer.min(min, `must be at least ${min}`).max(max, `must be at most ${max}`));
};

/** The page that a list's query asks for. */
export const paging = z.object({
  page: whole(0, 1_000_000).default(0),
  size: whole(1, 1_000).default(20),
});

/** Most ids that one request may name, see {@link idsIn}. */
export const MOST_AT_ONCE = 128;

const range = z
  .object({ from: whole(1, Number.MAX_SAFE_INTEGER), to: whole(1, Number.MAX_SAFE_INTEGER) })
  .check(({ value: { from, to }, issues }) => {
    const wrong = (message: string) => issues.push({ code: "custom", path: ["to"], message, input: to });
    if (to < from) wrong("must not be below from");
    else if (to - from >= MOST_AT_ONCE) wrong(`must be at most ${MOST_AT_ONCE - 1} above from`);
  });

/** The ids from one to another, both inclusive, that a query or a body asks for. @throws Problem 422 */
export function idsIn(asked: unknown): number[] {
  const { from, to } = check(range, asked);
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

/**
 * What a service has on record about some orders, for the view to be rebuilt from. Not for the outside: the gateway does
 * not open it.
 * @param read answers plain JSON
 */
export const onRecord = (read: (orderIds: readonly number[]) => Promise<object>): Route =>
  get("/records", async ({ query }) => ({
    status: 200,
    body: await read(idsIn(query)),
    type: "application/json",
  }));

/** Text that may be absent; null when it is, or when it is empty. */
export const optionalText = (max = 200) =>
  z
    .preprocess(
      (value) => (typeof value === "number" ? String(value) : value),
      z.string().trim().max(max).nullish(),
    )
    .transform((text) => text || null);

/** A phone number, without the spaces and dashes that people put in. */
export const phone = z.preprocess(
  (value) => (typeof value === "number" ? String(value) : value),
  z
    .string({ error: "must be a phone number" })
    .transform((text) => text.replace(/[\s().-]/g, ""))
    .pipe(z.string().regex(/^\+?\d{3,20}$/, "must be a phone number")),
);

/** Something that may be left out, or empty; null when it is. */
export const optional = <T extends z.ZodType>(schema: T) =>
  z
    .preprocess((value) => (value === "" ? null : value), schema.nullish())
    .transform((value) => value ?? null);

/** A time as ISO 8601, from anything that names one: ISO text, a date, or milliseconds since 1970. */
export const date = z
  .union([z.string(), z.number()], { error: "must be a date" })
  .transform((value, { issues }) => {
    const text = String(value).trim();
    // Digits are milliseconds only if there are as many as those have had for decades: 20220408 is something else.
    const time = /^\d+$/.test(text) ? (text.length < 12 ? Number.NaN : Number(text)) : text;
    const found = new Date(time);
    if (!Number.isNaN(found.getTime())) return found.toISOString();
    issues.push({ code: "custom", message: "must be a date", input: value });
    return z.NEVER;
  });

/** Checks what a caller sent. @throws Problem 422 that names every field that is wrong */
export function check<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const unstorable = unstorableIn(value);
  if (unstorable !== undefined)
    throw invalid([{ field: unstorable || "body", reason: "has characters that are no text" }]);
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw invalid(
    parsed.error.issues.map((issue) => ({
      field: issue.path.join(".") || "body",
      reason: reasonOf(issue, value),
    })),
  );
}

/**
 * The path of a text that some store refuses, whenever it is asked (PostgreSQL: U+0000, and halves of a surrogate pair).
 * Once it is in an event, every consumer on such a store would try for ever.
 */
function unstorableIn(value: unknown, path = ""): string | undefined {
  if (typeof value === "string") return /[\0\ud800-\udfff]/u.test(value) ? path : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  for (const [name, one] of Object.entries(value)) {
    const found = unstorableIn(one, path === "" ? name : `${path}.${name}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function reasonOf(issue: z.core.$ZodIssue, value: unknown): string {
  const sent = issue.path.reduce<unknown>(
    (at, key) =>
      typeof at === "object" && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined,
    value,
  );
  if (sent === undefined && issue.code === "invalid_type") return "is required";
  return issue.message;
}

const keyed = z.object({ "Idempotency-Key": z.string().trim().min(1).max(200).optional() });

/** The key that makes a request repeatable, if it has one. @throws Problem 422 */
export const idempotencyKey = (headers: Request["headers"]): string | undefined =>
  check(keyed, { "Idempotency-Key": headers["idempotency-key"] })["Idempotency-Key"];

/** The id in a path. What is no positive number names nothing: 404. */
export function idOf(text: string | undefined, what: string): number {
  const id = Number(text);
  if (!/^\d+$/.test(text ?? "") || !Number.isSafeInteger(id) || id < 1) throw notFound(what, text ?? "");
  return id;
}

/** Koa with the routes, and the one place where errors become answers. */
export function createKoa(routes: readonly Route[], log: Logger): Koa {
  const koa = new Koa();
  koa.silent = true;
  const router = new Router();
  const serve = (route: Route, bodyOf: (ctx: Koa.Context) => unknown) =>
    router.register(route.path, [route.method.toLowerCase()], async (ctx) => {
      const answer = await route.handle({
        params: ctx.params,
        query: ctx.query as Record<string, string | undefined>,
        body: await bodyOf(ctx as unknown as Koa.Context),
        headers: ctx.headers as Record<string, string | undefined>,
        path: ctx.path,
      });
      write(ctx, answer);
    });
  // Before those that look at the body.
  for (const route of routes) {
    const { raw } = route;
    if (raw !== undefined) serve(route, (ctx) => readBytes(ctx.req, raw));
  }
  // Within the router, so that what is not there, or not allowed, is said before anything about the body.
  router.use(mediaType as unknown as RouterMiddleware);
  router.use(
    bodyParser({
      enableTypes: ["json"],
      // Merged into the defaults by position, so the first must be named again.
      extendTypes: { json: ["application/json", "application/*+json"] },
      parsedMethods: ["POST", "PUT", "PATCH", "DELETE"],
      jsonLimit: BODY_LIMIT,
      onError: (error) => {
        throw bodyProblem(error);
      },
    }) as unknown as RouterMiddleware,
  );
  for (const route of routes) if (route.raw === undefined) serve(route, (ctx) => ctx.request.body ?? {});
  koa.use(edge(log));
  koa.use(router.routes() as unknown as Koa.Middleware);
  koa.use(router.allowedMethods() as unknown as Koa.Middleware);
  return koa;
}

async function readBytes(from: AsyncIterable<Buffer>, most: number): Promise<Bytes> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of from) {
    if (size < most) chunks.push(chunk.subarray(0, most - size));
    size += chunk.length;
  }
  return { bytes: Buffer.concat(chunks), size };
}

export function write(ctx: Koa.Context, answer: Answer): void {
  ctx.status = answer.status;
  for (const [name, value] of Object.entries(answer.headers ?? {})) ctx.set(name, value);
  ctx.body =
    answer.body === undefined || typeof answer.body === "string"
      ? (answer.body ?? null)
      : JSON.stringify(answer.body);
  if (answer.body === undefined) ctx.status = answer.status;
  else ctx.type = answer.type ?? HAL;
}

function bodyProblem(error: Error & { status?: number }): Problem {
  if (error.status === 413) {
    return bodyTooLarge(BODY_LIMIT);
  }
  return new Problem(400, "malformed-json", "The body is not JSON", error.message);
}

/** A body that is not JSON cannot be understood; no body needs no type. */
async function mediaType(ctx: Koa.Context, next: Koa.Next): Promise<void> {
  const type = ctx.get("content-type");
  const known = ctx.request.is("json", "+json") !== false;
  if (type === "" ? await hasBody(ctx) : !known && (ctx.request.length ?? 1) > 0) {
    throw new Problem(
      415,
      "unsupported-media-type",
      "The content type is not understood",
      `Send application/json, not ${type || "a body without a type"}.`,
      {},
      { accept: "application/json" },
    );
  }
  await next();
}

/** Whether there are bytes in a body of no declared type; a sidecar passes an empty one on as chunks of unknown length. */
async function hasBody(ctx: Koa.Context): Promise<boolean> {
  if (ctx.request.length !== undefined) return ctx.request.length > 0;
  if (ctx.get("transfer-encoding") === "") return false;
  for await (const chunk of ctx.req) if ((chunk as Buffer).length > 0) return true;
  ctx.request.body = {}; // read, so there is nothing left to parse
  return false;
}

function edge(log: Logger) {
  return (ctx: Koa.Context, next: Koa.Next): Promise<void> =>
    inTrace(ctx.get("traceparent") || undefined, async () => {
      const started = performance.now();
      try {
        await next();
        if (ctx.status === 404 && (ctx.body === undefined || ctx.body === null)) {
          throw noSuchRoute(ctx.path);
        }
        if (ctx.status === 405 || ctx.status === 501) {
          throw methodNotAllowed(ctx.path, ctx.response.get("allow"));
        }
      } catch (error) {
        const problem = toProblem(error);
        if (problem !== error) log.error({ err: error, method: ctx.method, path: ctx.path }, problem.message);
        write(ctx, {
          status: problem.status,
          body: { ...problem.toJSON(), instance: ctx.path },
          headers: problem.headers,
          type: "application/problem+json",
        });
      }
      // A flood is not to fill the disk: what is refused for its number is counted instead (kit/shedding.ts).
      const quiet = ctx.method === "GET" || ctx.path.startsWith("/events/") || ctx.state.shed === true;
      const level = quiet ? "debug" : "info";
      log[level](
        {
          method: ctx.method,
          path: ctx.path,
          status: ctx.status,
          ms: Math.round(performance.now() - started),
        },
        "request",
      );
    });
}

/** What an error means to a client. Ours are 503 where trying again helps, 500 where it does not. */
export function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof Unavailable) {
    return tryLater(
      "unavailable",
      "A part that this needs does not answer at the moment. Nothing was changed for good.",
    );
  }
  return new Problem(
    500,
    "internal",
    "Something went wrong here",
    "It has been logged; the request was not at fault.",
  );
}
