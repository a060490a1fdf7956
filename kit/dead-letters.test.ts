import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { type EventData, on } from "#kit/events.js";
import { KEPT, TRIES } from "#kit/inbox.js";
import { MemoryDapr } from "#kit/memory.js";
import { notFound } from "#kit/problem.js";
import type { ServiceDefinition } from "#kit/service.js";
import { type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  deadLetters,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  info,
  type Json,
  settled,
} from "#kit/testing.js";

let dapr: MemoryDapr;
let hosts: Host[];
/** ids of what was handled */
let handled: string[];
/** what the handler does first */
let fate: (data: EventData<"OrderPaid">) => void | Promise<void>;

const definition: ServiceDefinition = {
  app: "store",
  store: "tickets",
  compose: () => ({
    routes: [],
    subscriptions: [
      on("OrderPaid", async ({ id, data }) => {
        await fate(data);
        handled.push(id);
      }),
      on("OrderCancelled", async ({ id }) => handled.push(id)),
    ],
  }),
};

const paid = { ...info, id: 7, price: 1, amount: 3, paymentId: 7, approvalCode: null };
const event = (id: string, over: object = {}) => ({ ...cloudEvent("OrderPaid", paid, id), ...over });
const refuse = () => {
  throw notFound("product", 9);
};
const away = () => {
  throw new Unavailable("not now");
};

async function open(of: ServiceDefinition, options: HostOptions = {}): Promise<Host> {
  let time = Date.parse("2026-11-21T00:00:00Z");
  const host = await hostInMemory(dapr, of, { now: () => new Date(time++), ...options });
  hosts.push(host);
  return host;
}

afterEach(() => Promise.all(hosts.map((host) => host.stop())));

beforeEach(() => {
  dapr = new MemoryDapr();
  hosts = [];
  handled = [];
  fate = () => undefined;
});

/** Brings bytes as Dapr does: in an envelope of its own. */
async function bring(host: Host, bytes: string | Buffer, topic = "OrderPaid"): Promise<unknown> {
  const payload = { data_base64: Buffer.from(bytes).toString("base64") };
  const rest = { datacontenttype: "application/octet-stream", id: crypto.randomUUID(), topic };
  const { status, body } = await host.http("POST", `/events/${topic}`, { ...payload, ...rest });
  assert.equal(status, 200, "any other answer would bring it again without end, or lose it");
  return body.status;
}
const bringEvent = (host: Host, id: string, over: object = {}) =>
  bring(host, JSON.stringify(event(id, over)));

const list = async (host: Host, query = "") =>
  embedded(await host.http("GET", `/deadLetters${query}`), "deadLetters");
const ids = async (host: Host, query = "") => (await list(host, query)).map(({ id }) => String(id));
const code = ({ reason }: Json) => String(reason?.type).split(":").at(-1);

describe("a message that can't be handled", () => {
  const cases: Record<string, [message: string | Buffer, code: string, detail: RegExp]> = {
    "no text": [Buffer.from([0, 255, 254, 7]), "no-event", /no JSON object/],
    "a text": ["hello", "no-event", /no JSON object/],
    "nothing at all": ["", "no-event", /no JSON object/],
    null: ["null", "no-event", /no JSON object/],
    "a list": ["[]", "no-event", /no JSON object/],
    "something without an id": [JSON.stringify(event("x", { id: undefined })), "invalid-field", /^id: /],
    "an id that no store keeps": [JSON.stringify(event("\0\ud800")), "invalid-field", /^id: /],
    "an id without end": [JSON.stringify(event("x".repeat(501))), "invalid-field", /^id: /],
    "another event": [
      JSON.stringify(event("x", { type: "OrderPlaced" })),
      "invalid-field",
      /^type: .*OrderPaid/,
    ],
    "wrong data": [JSON.stringify(event("x", { data: { ...paid, qty: "\0" } })), "invalid-field", /^qty: /],
    "no data": [JSON.stringify(event("x", { data: undefined })), "invalid-field", /^body: /],
    "a trace that is none": [
      JSON.stringify(event("x", { traceparent: 5, data: 1 })),
      "invalid-field",
      /^body: /,
    ],
    "too much": [JSON.stringify(event("x", { more: "y".repeat(KEPT) })), "body-too-large", /1048576 bytes/],
  };
  for (const [what, [message, reason, detail]] of Object.entries(cases))
    it(`is on record with the reason, once: ${what}`, async () => {
      const host = await open(definition);
      for (const _ of "twice.") assert.equal(await bring(host, message), "SUCCESS");
      const [letter, ...more] = await list(host);
      assert.ok(letter !== undefined && more.length === 0);
      assert.deepEqual(
        [letter.id, letter.topic, letter.state, letter.attempts, code(letter), letter.size],
        ["store-1", "OrderPaid", "Waiting", 1, reason, Buffer.from(message).length],
      );
      assert.match(String(letter.reason?.detail), detail);
      assert.doesNotMatch(JSON.stringify(letter), /\\u0000|\\ud800/, "every store can keep it");
      const shown = (await host.http("GET", "/deadLetters/store-1")).body;
      const text = message.toString();
      if (text.length > KEPT) assert.equal(shown.message, text.slice(0, 1_000));
      else if (text.startsWith("{")) assert.deepEqual(shown.message, JSON.parse(text));
      else assert.equal(shown.message ?? Buffer.from(String(shown.base64), "base64").toString(), text);
      assert.deepEqual(handled, []);
    });

  it("does not keep those after it from being handled", async () => {
    const host = await open(definition);
    dapr.accept("OrderPaid", event("bad", { data: {} }));
    dapr.accept("OrderPaid", event("good"));
    await settled(dapr);
    assert.deepEqual([handled, await ids(host)], [["good"], ["store-1"]]);
  });

  it("is one that the handler refuses for good", async () => {
    const host = await open(definition);
    fate = refuse;
    assert.equal(await bringEvent(host, "a/1"), "SUCCESS");
    const [letter] = await list(host);
    assert.deepEqual(
      [letter?.messageId, letter?.type, letter?.source, letter?.reason],
      ["a/1", "OrderPaid", "test", { ...notFound("product", 9).toJSON() }],
    );
  });

  it("is none that may succeed later", async () => {
    const host = await open(definition);
    fate = away;
    for (let tries = 0; tries < 2 * TRIES; tries++) assert.equal(await bringEvent(host, "a/1"), "RETRY");
    fate = () => undefined;
    assert.equal(await bringEvent(host, "a/1"), "SUCCESS");
    assert.deepEqual([handled, await ids(host)], [["a/1"], []]);
  });

  it("is one that fails in a way that nobody foresaw, again and again", async () => {
    const host = await open(definition);
    fate = () => {
      throw new TypeError("x is undefined");
    };
    for (let tries = 1; tries < TRIES; tries++) assert.equal(await bringEvent(host, "a/1"), "RETRY");
    assert.equal(await bringEvent(host, "a/1"), "SUCCESS");
    const [letter] = await list(host);
    assert.deepEqual(letter && [code(letter), letter.reason?.detail], [
      "internal",
      "TypeError: x is undefined",
    ]);
  });

  it("comes again while its letter can't be written, and then has one letter", async () => {
    const host = await open(definition);
    dapr.down.add("tickets");
    assert.equal(await bring(host, "poison"), "RETRY");
    dapr.down.delete("tickets");
    assert.equal(await bring(host, "poison"), "SUCCESS");
    assert.equal((await list(host)).length, 1);
  });

  it("has one letter though the service ends half-way", async () => {
    let cut = true;
    const through = (sidecar: Sidecar): Sidecar => ({
      ...sidecar,
      store: {
        ...sidecar.store,
        save: (key, ...rest) => {
          if (cut && key.startsWith("deadletter:")) throw new Unavailable("the end");
          return sidecar.store.save(key, ...rest);
        },
      },
    });
    const host = await open(definition, { through });
    assert.equal(await bring(host, "poison"), "RETRY");
    assert.deepEqual(await ids(host), []);
    cut = false;
    const next = await open(definition, { slot: "store-1" });
    assert.equal(await bring(next, "poison"), "SUCCESS");
    assert.deepEqual([await ids(host), await ids(next)], [["store-1"], ["store-1"]]);
  });

  it("is another one if it says something else, whatever its id", async () => {
    const host = await open(definition);
    for (const data of [1, 2, 2]) await bringEvent(host, "same", { data });
    assert.equal((await list(host)).length, 2);
  });

  it("may be one that the sidecar set aside by itself", async () => {
    const host = await open(definition);
    const dead = "dead-letters-store";
    assert.equal(await bring(host, JSON.stringify(event("a/1", { topic: "OrderPaid" })), dead), "SUCCESS");
    assert.equal(
      await bring(host, JSON.stringify(event("a/2", { type: "OrderCancelled" })), dead),
      "SUCCESS",
    );
    assert.equal(await bring(host, "whatever", dead), "SUCCESS");
    assert.deepEqual(
      (await list(host)).map((letter) => [letter.topic, code(letter)]),
      [dead, "OrderCancelled", "OrderPaid"].map((topic) => [topic, "set-aside-by-sidecar"]),
    );
    assert.equal((await host.http("PUT", "/deadLetters/store-1/replay")).status, 200);
    assert.deepEqual(handled, ["a/1"]);
    const refused = assertProblem(
      await host.http("PUT", "/deadLetters/store-3/replay"),
      409,
      "replay-refused",
    );
    assert.equal(code(refused), "topic-unknown");
  });

  it("is Dapr's to keep where a service has no store", async () => {
    const { store: _, ...storeless } = definition;
    const host = await open(storeless);
    assert.equal(await bring(host, "poison"), "DROP");
    assertProblem(await host.http("GET", "/deadLetters"), 404, "no-such-route");
    const { body } = await host.http("GET", "/dapr/subscribe");
    assert.equal((body as unknown as unknown[]).length, 2, "and nobody reads them there");
  });
});

describe("dead letters", () => {
  /** so many letters, refused for as long as `fate` says so */
  const start = async (count: number, over: object = {}) => {
    const host = await open(definition);
    fate = refuse;
    for (let i = 1; i <= count; i++) await bringEvent(host, `a/${i}`, over);
    return host;
  };
  const replay = (host: Host, id: string) => host.http("PUT", `/deadLetters/${id}/replay`);

  it("are listed newest first, in pages, also of one topic", async () => {
    const host = await start(3);
    await bring(host, "poison", "OrderCancelled");
    assert.deepEqual(await ids(host), ["store-4", "store-3", "store-2", "store-1"]);
    assert.deepEqual(await ids(host, "?topic=OrderPaid&size=2"), ["store-3", "store-2"]);
    const { body } = await host.http("GET", "/deadLetters?topic=OrderPaid&size=2");
    assert.deepEqual(body.page, { size: 2, totalElements: 3, totalPages: 2, number: 0 });
    assert.deepEqual(body._links?.next, { href: "/deadLetters?topic=OrderPaid&page=1&size=2" });
    const [first] = embedded({ status: 200, headers: {}, body }, "deadLetters");
    assert.deepEqual(first?._links, {
      self: { href: "/deadLetters/store-3" },
      replay: { href: "/deadLetters/store-3/replay" },
    });
    assert.equal(first?.message, undefined, "what it says is shown with itself");
  });

  it("are asked for in vain where there are none", async () => {
    const host = await start(1);
    for (const id of ["store-2", "order-1", "1", "store-0", "store-", "x"]) {
      assertProblem(await host.http("GET", `/deadLetters/${id}`), 404, "not-found");
      assertProblem(await host.http("DELETE", `/deadLetters/${id}`), 404, "not-found");
      assertProblem(await replay(host, id), 404, "not-found");
    }
    for (const query of ["?topic=Nonsense", "?size=0", "?page=x"])
      assertProblem(await host.http("GET", `/deadLetters${query}`), 422, "invalid-field");
    for (const query of ["?topic=Nonsense", "?triedBefore=yesterday"])
      assertProblem(await host.http("POST", `/deadLetters/replay${query}`), 422, "invalid-field");
    assertProblem(await host.http("DELETE", "/deadLetters?topic=Nonsense"), 422, "invalid-field");
    assertProblem(await host.http("PUT", "/deadLetters"), 405, "method-not-allowed");
    assert.deepEqual(await ids(host), ["store-1"]);
  });

  it("return with the new reason, as long as they are refused", async () => {
    const host = await start(1);
    fate = () => {
      throw new TypeError("a bug");
    };
    const refused = assertProblem(await replay(host, "store-1"), 409, "replay-refused");
    assert.deepEqual([refused.attempts, code(refused)], [2, "internal"]);
    fate = refuse;
    assert.equal((await host.http("POST", "/deadLetters/store-1/replay")).body.attempts, 3);
    const [letter] = await list(host);
    assert.deepEqual(letter && [letter.state, letter.attempts, code(letter)], ["Waiting", 3, "not-found"]);
    assert.deepEqual(handled, []);
  });

  it("leave the list once they have been handled, and are handled no more", async () => {
    const host = await start(1);
    fate = () => undefined;
    for (const _ of "twice.") {
      const { status, body } = await replay(host, "store-1");
      assert.deepEqual([status, body.state], [200, "Replayed"]);
    }
    assert.deepEqual([handled, await ids(host)], [["a/1"], []]);
    assert.equal((await host.http("DELETE", "/deadLetters/store-1")).status, 204);
    assert.equal((await host.http("GET", "/deadLetters/store-1")).body.state, "Replayed");
    fate = refuse;
    await bringEvent(host, "a/1");
    const [letter] = await list(host);
    assert.deepEqual(
      letter && [letter.id, letter.attempts],
      ["store-1", 2],
      "should it ever fail again, it is back",
    );
  });

  it("stay as they are where they can't be handled now", async () => {
    const host = await start(1);
    const before = await list(host);
    fate = away;
    assertProblem(await replay(host, "store-1"), 503, "unavailable");
    assertProblem(await host.http("POST", "/deadLetters/replay"), 503, "unavailable");
    assert.deepEqual(await list(host), before);
  });

  it("are handled once by two operators at once", async () => {
    const host = await start(1);
    let running = 0;
    fate = async () => {
      assert.equal(++running, 1);
      await settled(dapr);
      running--;
    };
    const answers = await Promise.all([replay(host, "store-1"), replay(host, "store-1")]);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
    assert.deepEqual(handled, ["a/1"]);
  });

  it("may be discarded: off the list and on record, also if they come again", async () => {
    const host = await start(2);
    for (const _ of "twice.") assert.equal((await host.http("DELETE", "/deadLetters/store-1")).status, 204);
    await bringEvent(host, "a/1");
    assert.deepEqual(await ids(host), ["store-2"]);
    assert.equal((await host.http("GET", "/deadLetters/store-1")).body.state, "Discarded");
    fate = () => undefined;
    assert.equal((await replay(host, "store-1")).body.state, "Replayed", "one may think better of it");
  });

  it("are replayed all at once, each once, and what is refused comes back", async () => {
    const host = await start(3);
    await bring(host, "poison", "OrderCancelled");
    fate = ({ orderId }) => void (handled.length < 2 || (orderId > 0 && refuse()));
    const first = (await host.http("POST", "/deadLetters/replay?topic=OrderPaid")).body;
    assert.deepEqual([first.replayed, first.returned, first.left], [2, 1, 0]);
    assert.deepEqual(handled, ["a/1", "a/2"], "oldest first");
    const query = `?triedBefore=${first.triedBefore}`;
    const again = (await host.http("POST", `/deadLetters/replay${query}`)).body;
    assert.deepEqual(
      [again.replayed, again.returned, again.left],
      [0, 1, 0],
      "only what was not tried before",
    );
    assert.deepEqual(await ids(host), ["store-4", "store-3"]);
  });

  it("are discarded all at once, of one topic or all", async () => {
    const host = await start(130);
    await bring(host, "poison", "OrderCancelled");
    const discard = async (query: string) => (await host.http("DELETE", `/deadLetters${query}`)).body;
    assert.deepEqual(await discard("?topic=OrderCancelled"), { discarded: 1, left: 0 });
    assert.deepEqual(await discard(""), { discarded: 130, left: 0 });
    assert.deepEqual(await ids(host), []);
    assert.equal(deadLetters(dapr).length, 131);
  });
});
