/** What tests share. Nothing else imports it. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { join } from "node:path";
import { it } from "node:test";
import { setTimeout as delay, setImmediate as macrotask } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import inject from "light-my-request";
import type { Letter } from "#kit/dead-letters.js";
import { readDialects } from "#kit/dialects.js";
import { catalogue, type EventType, isPublic, type OrderInfo } from "#kit/events.js";
import { createLogger } from "#kit/log.js";
import type { MemoryApp, MemoryDapr } from "#kit/memory.js";
import { Problem } from "#kit/problem.js";
import type { Aggregate, DomainEvent } from "#kit/records.js";
import { type Composed, compose, type ServiceDefinition } from "#kit/service.js";
import { parseShop, type Shop } from "#kit/shop.js";
import type { CloudEvent, Reply, Sidecar } from "#kit/sidecar.js";

/** The repository's root, seen from dist/kit/. */
const root = fileURLToPath(new URL("../../", import.meta.url));

export const silent = createLogger("test", "test", "silent");

// --- domains -------------------------------------------------------------------------------------------------------

/** An order to tell events about. */
export const info: OrderInfo = {
  orderId: 7,
  productId: 1,
  productName: "Outwear-1",
  qty: 3,
  customerId: "cust1",
  customerName: "jang",
  customerAddr: "seoul",
  phoneNumber: "01012341234",
  storeId: null,
  note: null,
  method: "card",
  orderDate: "2026-11-21T00:00:00.000Z",
};

/** What a decision came to. */
export interface Decided<S, E> {
  /** "OrderPlaced OrderPaid", "nothing", or "409 out-of-stock" */
  summary: string;
  /** the state afterwards */
  state: S | undefined;
  thenHappens(...events: E[]): void;
  thenRefused(status: number, code: string): void;
}

/**
 * A state made of the events that led to it. States and events are frozen, so that a domain that changes them throws;
 * and what it tells others must be what they accept.
 */
export function given<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, ...history: E[]) {
  const replay = (from: S | undefined, events: E[]) =>
    events.reduce<S | undefined>((was, event) => frozen(aggregate.evolve(was, frozen(event))), from);
  const state = replay(undefined, history);
  return {
    state,
    when(decide: (state: S | undefined) => E[]): Decided<S, E> {
      let events: E[] = [];
      let refusal: unknown;
      try {
        events = decide(state);
      } catch (error) {
        refusal = error;
      }
      if (refusal !== undefined && !(refusal instanceof Problem)) throw refusal;
      for (const { type, data } of events) if (isPublic(type)) catalogue[type].parse(data);
      return {
        summary: refusal
          ? `${refusal.status} ${refusal.code}`
          : events.map(({ type }) => type).join(" ") || "nothing",
        state: replay(state, events),
        thenHappens: (...expected) => assert.deepEqual(refusal ?? events, expected),
        thenRefused: (status, code) =>
          assert.deepEqual(
            [refusal?.status, refusal?.code],
            [status, code],
            `it decided ${JSON.stringify(events)}`,
          ),
      };
    },
  };
}

/** Every command in every state: one test per command, one row per state. A row left out does not compile. */
export function decides<S, E extends DomainEvent, State extends string, Command extends string>(
  aggregate: Aggregate<S, E>,
  histories: Record<State, readonly E[]>,
  commands: Record<Command, (state: S | undefined) => E[]>,
  expected: Record<Command, Record<State, string>>,
): void {
  for (const [command, decide] of entries(commands)) {
    it(`${command}, in every state`, () => {
      const summaries = entries(histories).map(([state, history]) => [
        state,
        given(aggregate, ...history).when(decide).summary,
      ]);
      assert.deepEqual(Object.fromEntries(summaries), expected[command]);
    });
  }
}

const entries = <K extends string, V>(record: Record<K, V>) => Object.entries(record) as [K, V][];

/** All orders of a list. */
export function permutations<T>(list: readonly T[]): T[][] {
  if (list.length === 0) return [[]];
  return list.flatMap((one, i) => permutations(list.toSpliced(i, 1)).map((rest) => [one, ...rest]));
}

function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(frozen);
  }
  return value;
}

// --- services over the in-memory twin ------------------------------------------------------------------------------

/** A JSON value as a test looks into it: step by step, until an assertion says what it is. */
export interface Json {
  readonly [key: string | number]: Json | undefined;
}

export interface Answered {
  status: number;
  headers: Record<string, string>;
  body: Json;
}

export interface HostOptions {
  shop?: Shop;
  slot?: string;
  /** opens /drill */
  drills?: boolean;
  /** requests per second of one client */
  rateLimit?: number;
  /** whose X-Forwarded-For is believed */
  trustedProxies?: string[];
  /** port of a stand-in for the sidecar, for a service that speaks to it directly */
  daprPort?: number;
  /** what the service demands of callers */
  appToken?: string;
  /** what it shows to its sidecar */
  sidecarToken?: string;
  now?: () => Date;
  /** puts something between the service and its sidecar */
  through?: (sidecar: Sidecar) => Sidecar;
}

/** One replica of a service, run by a test. */
export interface Host {
  composed: Composed;
  /** An object as body is sent as JSON, text as it is. */
  http(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answered>;
  /** Out of the reach of calls and messages; {@link join} brings it back. */
  leave(): void;
  join(): void;
  stop(): Promise<void>;
}

export const SHOP: Shop = parseShop(
  `
name: test
title: { en: Test, ko: 시험 }
catalogue:
  - { id: 1, name: TV, price: 10000, stock: 100, options: [{ name: "60", description: inch }] }
  - { id: 2, name: MASK, price: 20000, stock: 5, imageUrl: /mask.jpg }
  - { id: 3, name: GIFT, price: 0, stock: 1 }
`,
  "test.yaml",
);

/** The test shop with other rules. */
export const shopWith = (
  rules: {
    [Rule in keyof Shop]?: Shop[Rule] extends string | unknown[] ? Shop[Rule] : Partial<Shop[Rule]>;
  },
): Shop => ({
  ...SHOP,
  ...Object.fromEntries(
    Object.entries(rules).map(([rule, value]) => {
      const usual = SHOP[rule as keyof Shop];
      const nested = typeof value === "object" && !Array.isArray(value);
      return [rule, nested ? { ...(usual as object), ...value } : value];
    }),
  ),
});

let replicas = 0;

/** Puts a service together over the twin and starts it. */
export async function hostInMemory(
  dapr: MemoryDapr,
  definition: ServiceDefinition,
  options: HostOptions = {},
): Promise<Host> {
  const { shop = SHOP, slot = `${definition.app}-0`, drills = false, daprPort = 1, now, through } = options;
  const { rateLimit = 0, trustedProxies = [] } = options;
  const sidecar = dapr.sidecar(definition.store ?? "none");
  const composed = compose(definition, {
    config: {
      app: definition.app,
      port: 1,
      host: "127.0.0.1",
      daprPort,
      sidecarToken: options.sidecarToken,
      appToken: options.appToken,
      slot,
      shop: "",
      dialects: "",
      logLevel: "fatal",
      drills,
      rateLimit,
      trustedProxies,
    },
    shop,
    dialects: readDialects(join(root, "shops", "dialects.yaml"), shop.dialect),
    log: silent,
    sidecar: through?.(sidecar) ?? sidecar,
    replica: `${slot}-${++replicas}`,
    ...(now ? { now } : {}),
  });
  const callback = composed.koa.callback();
  const http: Host["http"] = async (method, path, body, headers = {}) => {
    const answer = await inject(callback, {
      method: method as "GET",
      url: path,
      headers: { ...(isJson(body) ? { "content-type": "application/json" } : {}), ...headers },
      ...(body === undefined ? {} : { payload: isJson(body) ? JSON.stringify(body) : String(body) }),
    });
    return {
      status: answer.statusCode,
      headers: Object.fromEntries(
        Object.entries(answer.headers).map(([name, value]) => [name, String(value)]),
      ),
      body: parsed(answer.body) as Json,
    };
  };
  const app: MemoryApp = {
    topics: composed.subscriptions.map(({ topic }) => topic),
    call: ({ method, path, body, headers }): Promise<Reply> => http(method, path, body, headers),
    deliver: (event) => composed.deliver(event),
  };
  let leave = dapr.join(definition.app, app);
  await composed.start();
  return {
    composed,
    http,
    leave: () => leave(),
    join: () => {
      leave = dapr.join(definition.app, app);
    },
    stop: () => composed.stop(),
  };
}

const isJson = (body: unknown) => body !== undefined && typeof body !== "string";

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Hears every event, as one more app would. */
export function listen(dapr: MemoryDapr, app = "listener"): CloudEvent[] {
  const heard: CloudEvent[] = [];
  dapr.join(app, {
    topics: Object.keys(catalogue),
    call: async () => ({ status: 404, headers: {}, body: undefined }),
    deliver: async (event) => {
      heard.push(event);
      return "SUCCESS";
    },
  });
  return heard;
}

/** What the owner of a store has set aside; of all stores, where none is named. */
export function deadLetters(dapr: MemoryDapr, store?: string): Letter[] {
  return [...dapr.stores]
    .filter(([name]) => store === undefined || name === store)
    .flatMap(([, rows]) => [...rows])
    .filter(([key]) => key.startsWith("deadletter:"))
    .map(([, { value }]) => (value as { state: Letter }).state);
}

let messages = 0;

/** An event as its producer's sidecar would publish it. */
export function cloudEvent(
  type: EventType,
  data: Record<string, unknown>,
  id = `test/${++messages}`,
): CloudEvent {
  return {
    specversion: "1.0",
    id,
    source: "test",
    type,
    time: new Date().toISOString(),
    subject: "test",
    datacontenttype: "application/json",
    data,
  };
}

/** Resolves when nothing moves any more: a step of the twin takes microtasks, and its bus says when it is quiet. */
export async function settled(dapr: MemoryDapr): Promise<void> {
  for (let round = 0; round < 3; round++) {
    await macrotask();
    await dapr.quiet();
  }
}

/** Waits for a condition: resolves with what `check` answers once that is true-ish. @throws after `within` ms */
export async function until<T>(
  check: () => T | Promise<T>,
  what: string,
  within = 10_000,
): Promise<Exclude<T, false | undefined | null | 0 | "">> {
  for (const end = Date.now() + within; ; await delay(5)) {
    const answer = await check();
    if (answer) return answer as Exclude<T, false | undefined | null | 0 | "">;
    if (Date.now() > end) throw new assert.AssertionError({ message: `waited in vain until ${what}` });
  }
}

/** The items of a collection's page. */
export const embedded = ({ body }: Answered, name: string): Json[] =>
  (body._embedded?.[name] ?? []) as unknown as Json[];

/** Asserts that an answer is a problem+json of this status and type, and answers it. */
export function assertProblem(answer: Answered, status: number, code: string): Json {
  assert.deepEqual(
    [answer.status, answer.headers["content-type"], answer.body.type, answer.body.status],
    [status, "application/problem+json", `urn:jangteo:problem:${code}`, status],
    JSON.stringify(answer.body),
  );
  assert.ok(answer.body.title && answer.body.detail && answer.body.instance, "title, detail and instance");
  return answer.body;
}
