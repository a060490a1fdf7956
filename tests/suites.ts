/** What a store and a bus must do, whatever is behind them: the real sidecar and its twin pass the same tests. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type EventType, type Message, on } from "#kit/events.js";
import { notFound } from "#kit/problem.js";
import type { ServiceDefinition } from "#kit/service.js";
import {
  type CloudEvent,
  Conflict,
  type Entry,
  type Sidecar,
  type Store,
  Unavailable,
} from "#kit/sidecar.js";
import { cloudEvent, until } from "#kit/testing.js";

let unique = 0;
/** A key that nobody has used, also in an earlier run. */
const newKey = () => `conformance:${process.pid}:${Date.now()}:${++unique}`;

export function storeSuite(
  name: string,
  open: () => Promise<{ store: Store; close(): Promise<void> }>,
): void {
  describe(`the store of ${name}`, () => {
    let opened: Awaited<ReturnType<typeof open>> | undefined;
    let store: Store;
    before(async () => {
      opened = await open();
      store = opened.store;
    });
    after(() => opened?.close());

    const entry = async (key: string): Promise<Entry> => {
      const found = (await store.get([key])).get(key);
      assert.ok(found, `${key} is there`);
      return found;
    };
    const value = async (key: string) => (await store.get([key])).get(key)?.value;
    const created = async (value: unknown = { n: 0 }) => {
      const key = newKey();
      await store.save(key, value, null);
      return key;
    };

    it("gives what it has, and is silent about the rest", async () => {
      const [one, other, missing] = [await created({ n: 1 }), await created({ n: 2 }), newKey()];
      const found = await store.get([one, missing, other, one]);
      assert.deepEqual(
        [...found].map(([key, { value }]) => [key, value]),
        [
          [one, { n: 1 }],
          [other, { n: 2 }],
        ],
      );
      assert.deepEqual(await store.get([missing]), new Map());
      assert.deepEqual(await store.get([]), new Map());
    });

    it("creates a key once", async () => {
      const key = await created({ n: 1 });
      await assert.rejects(store.save(key, { n: 2 }, null), Conflict);
      assert.deepEqual(await value(key), { n: 1 });
    });

    it("lets one of many create a key", async () => {
      const key = newKey();
      const tries = Array.from({ length: 10 }, (_, n) => store.save(key, { n }, null));
      const outcomes = await Promise.allSettled(tries);
      const winners = outcomes.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : []));
      assert.equal(winners.length, 1);
      assert.deepEqual(await value(key), { n: winners[0] });
      for (const outcome of outcomes)
        if (outcome.status === "rejected")
          assert.ok(outcome.reason instanceof Conflict, String(outcome.reason));
    });

    it("changes a key for who has seen its last state", async () => {
      const key = await created({ n: 1 });
      const { etag } = await entry(key);
      await store.save(key, { n: 2 }, etag);
      const changed = await entry(key);
      assert.deepEqual(changed.value, { n: 2 });
      assert.notEqual(changed.etag, etag);
      await assert.rejects(store.save(key, { n: 3 }, etag), Conflict);
      assert.deepEqual(await entry(key), changed);
      await store.save(key, { n: 3 }, changed.etag);
      assert.deepEqual(await value(key), { n: 3 });
    });

    it("takes what is already there for done: the answer to an earlier try may have been lost", async () => {
      const key = await created({ n: 1, by: "me" });
      await store.save(key, { by: "me", n: 1 }, null);
      const { etag } = await entry(key);
      await store.save(key, { n: 2 }, etag);
      await store.save(key, { n: 2 }, etag);
      assert.deepEqual(await value(key), { n: 2 });
    });

    it("changes no key that has gone", async () => {
      const key = await created();
      const { etag } = await entry(key);
      await store.delete(key, etag);
      await assert.rejects(store.save(key, { n: 1 }, etag), Conflict);
      assert.equal(await value(key), undefined);
      await store.save(key, { n: 2 }, null);
      assert.deepEqual(await value(key), { n: 2 });
    });

    it("deletes a key for who has seen its last state", async () => {
      const key = await created({ n: 1 });
      const { etag } = await entry(key);
      await store.save(key, { n: 2 }, etag);
      await assert.rejects(store.delete(key, etag), Conflict);
      assert.deepEqual(await value(key), { n: 2 });
      await store.delete(key, (await entry(key)).etag);
      assert.equal(await value(key), undefined);
      await store.delete(key, etag);
    });

    it("gives each of many writes its own outcome", async () => {
      const keys = await Promise.all(Array.from({ length: 50 }, (_, n) => created({ n })));
      const etags = new Map([...(await store.get(keys))].map(([key, { etag }]) => [key, etag]));
      const isStale = (n: number) => n % 5 === 0;
      for (const [n, key] of keys.entries())
        if (isStale(n)) await store.save(key, { n, other: true }, etags.get(key) ?? "");
      const writes = keys.map((key, n) => store.save(key, { n, mine: true }, etags.get(key) ?? ""));
      const outcomes = await Promise.allSettled(writes);
      const found = await store.get(keys);
      for (const [n, key] of keys.entries()) {
        const outcome = outcomes[n];
        assert.equal(outcome?.status, isStale(n) ? "rejected" : "fulfilled", `write ${n}`);
        if (outcome?.status === "rejected")
          assert.ok(outcome.reason instanceof Conflict, String(outcome.reason));
        assert.deepEqual(found.get(key)?.value, isStale(n) ? { n, other: true } : { n, mine: true });
      }
    });

    it("loses no increment of many that compete for a key", async () => {
      const key = await created({ n: 0 });
      const increment = async () => {
        for (;;) {
          const { value, etag } = await entry(key);
          const next = { n: (value as { n: number }).n + 1, by: crypto.randomUUID() };
          const done = await store.save(key, next, etag).then(
            () => true,
            (error) => {
              assert.ok(error instanceof Conflict, String(error));
              return false;
            },
          );
          if (done) return;
        }
      };
      await Promise.all(Array.from({ length: 10 }, increment));
      assert.equal(((await value(key)) as { n: number }).n, 10);
    });

    it("forgets a key when its time is up, and no other", async () => {
      const [short, long] = [newKey(), newKey()];
      await store.save(short, { n: 1 }, null, 1);
      await store.save(long, { n: 2 }, null, 3600);
      assert.deepEqual(await value(short), { n: 1 });
      await until(async () => (await value(short)) === undefined, "the key has gone");
      assert.deepEqual(await value(long), { n: 2 });
      await store.save(short, { n: 3 }, null);
      assert.deepEqual(await value(short), { n: 3 }, "the place is free");
    });

    it("keeps values as they are", async () => {
      for (const kept of [
        { text: "온라인 의류 쇼핑몰 👕 \"quoted\" 'single' \\ / \n\t\u0000 é <b>&amp;</b>" },
        { nested: { deeply: [{ a: [] }, {}, [[1], []]] }, empty: [], none: null, no: false },
        { most: Number.MAX_SAFE_INTEGER, least: Number.MIN_SAFE_INTEGER, part: 0.1, small: 1e-9, zero: 0 },
        { "a key with spaces, dots. and $signs": { $set: 1, "a.b": 2 } },
        { long: "x".repeat(100_000) },
      ])
        assert.deepEqual(await value(await created(kept)), kept);
    });

    it("takes no key with Dapr's own separator in it", async () => {
      const key = `${newKey()}||x`;
      await assert.rejects(store.save(key, {}, null), Unavailable);
      await assert.rejects(store.get([key]), Unavailable);
    });

    it("tells apart keys that look alike", async () => {
      const base = newKey();
      const keys = [
        base,
        `${base}/1`,
        `${base} 1`,
        `${base}%201`,
        `${base}?x#y`,
        `${base}:é`,
        `${base}:É`,
        `${base}|`,
      ];
      for (const [n, key] of keys.entries()) await store.save(key, { n }, null);
      const found = await store.get(keys);
      for (const [n, key] of keys.entries()) assert.deepEqual(found.get(key)?.value, { n }, key);
      for (const key of keys) await store.delete(key, (await entry(key)).etag);
      assert.deepEqual(await store.get(keys), new Map());
    });
  });
}

/** An installation with an app that publishes and, for each replica named, one that subscribes. */
export interface Bus {
  publisher: Sidecar;
  /** takes a replica off its sidecar, as if it had ended */
  down(replica: string): Promise<void>;
  up(replica: string): Promise<void>;
  /** ids of the messages that were set aside for an app */
  deadLetters(app: string): Promise<string[]>;
  /** how many messages an app has been given and not acknowledged */
  unacknowledged(app: string, topic: EventType): Promise<number>;
  close(): Promise<void>;
}

/** What the subscribers are made of; the topic is as good as any. */
const TOPIC = "ProductRegistered";
export const REPLICAS = { "delivery-0": "delivery", "store-0": "store", "store-1": "store" } as const;
export type Replica = keyof typeof REPLICAS;
export type Subscriber = (replica: Replica) => ServiceDefinition;

export function busSuite(name: string, open: (subscriber: Subscriber) => Promise<Bus>): void {
  describe(`the bus of ${name}`, () => {
    let bus: Bus;
    /** replicas that were given a message, in order, by its id */
    const given = new Map<string, Replica[]>();
    /** what happens to a message at its nth delivery to an app */
    let fate = new Map<string, (app: string, nth: number) => void>();

    const subscriber: Subscriber = (replica) => ({
      app: REPLICAS[replica],
      compose: () => ({
        routes: [],
        subscriptions: [
          on(TOPIC, async ({ id }: Message<typeof TOPIC>) => {
            const deliveries = [...(given.get(id) ?? []), replica];
            given.set(id, deliveries);
            fate.get(id)?.(REPLICAS[replica], times(id, REPLICAS[replica]));
          }),
        ],
      }),
    });
    const times = (id: string, app: string) =>
      (given.get(id) ?? []).filter((replica) => REPLICAS[replica] === app).length;

    const message = (of: Partial<{ fate: (app: string, nth: number) => void }> = {}): CloudEvent => {
      const data = { id: ++unique, name: "TV", price: 1, stock: 1, imageUrl: "", options: [] };
      const event = cloudEvent(TOPIC, data, `${newKey()}/0`);
      if (of.fate) fate.set(event.id, of.fate);
      return event;
    };
    const publish = (...events: CloudEvent[]) => bus.publisher.publish(TOPIC, events);
    const received = (event: CloudEvent, app: string) =>
      until(() => times(event.id, app) > 0, `${app} has ${event.id}`, 30_000);
    const acknowledged = (app: string) =>
      until(
        async () => (await bus.unacknowledged(app, TOPIC)) === 0,
        `${app} has nothing left to do`,
        30_000,
      );

    before(async () => {
      bus = await open(subscriber);
    });
    after(() => bus?.close());

    it("gives every message to each app that subscribes", async () => {
      const events = [message(), message(), message()];
      await publish(...events);
      const single = message();
      await publish(single);
      for (const event of [...events, single])
        for (const app of ["store", "delivery"]) await received(event, app);
    });

    it("gives it again after a failure, to that app alone, until it succeeds", async () => {
      const event = message({
        fate: (app, nth) => {
          if (app === "store" && nth < 3) throw new Unavailable("not now");
        },
      });
      await publish(event);
      await until(() => times(event.id, "store") >= 3, "the third try is made", 30_000);
      for (const app of ["store", "delivery"]) await acknowledged(app);
      assert.deepEqual([times(event.id, "store"), times(event.id, "delivery")], [3, 1]);
    });

    it("does not hold up other messages for one that fails", async () => {
      let fail = true;
      const event = message({
        fate: (app) => {
          if (app === "delivery" && fail) throw new Unavailable("not now");
        },
      });
      const other = message();
      await publish(event);
      await until(() => times(event.id, "delivery") > 0, "the first has been tried");
      await publish(other);
      await received(other, "delivery");
      fail = false;
      await acknowledged("delivery");
    });

    it("sets aside what can never succeed, and does not give it again", async () => {
      const event = message({
        fate: (app) => {
          if (app === "store") throw notFound("anything", 1);
        },
      });
      const next = message();
      await publish(event, next);
      await received(next, "store");
      await until(async () => (await bus.deadLetters("store")).includes(event.id), "it is set aside", 30_000);
      await acknowledged("store");
      assert.deepEqual([times(event.id, "store"), times(event.id, "delivery")], [1, 1]);
      assert.ok(!(await bus.deadLetters("delivery")).includes(event.id), "delivery had nothing against it");
    });

    it("sets aside what nobody can understand", async () => {
      const poison = { ...message(), data: { nonsense: true } };
      await publish(poison);
      for (const app of ["store", "delivery"])
        await until(
          async () => (await bus.deadLetters(app)).includes(poison.id),
          `${app} has set it aside`,
          30_000,
        );
      assert.equal(given.has(poison.id), false);
    });

    it("keeps for an app what comes while it is down", async () => {
      await bus.down("delivery-0");
      const missed = [message(), message(), message()];
      await publish(...missed);
      for (const event of missed) await received(event, "store");
      for (const event of missed) assert.equal(times(event.id, "delivery"), 0);
      await bus.up("delivery-0");
      for (const event of missed) await received(event, "delivery");
    });

    it("gives each message to one replica of an app, and work to all", async () => {
      const events = Array.from({ length: 100 }, () => message());
      await Promise.all(events.map((event) => publish(event)));
      for (const event of events) await received(event, "store");
      await acknowledged("store");
      const twice = events.filter((event) => times(event.id, "store") !== 1);
      assert.deepEqual(
        twice.map(({ id }) => given.get(id)),
        [],
      );
      const worked = new Set(events.flatMap((event) => given.get(event.id) ?? []));
      assert.deepEqual([...worked].sort(), Object.keys(REPLICAS));
    });

    it("gives the messages of a replica that is down to the other", async () => {
      await bus.down("store-0");
      const events = Array.from({ length: 10 }, () => message());
      await publish(...events);
      await bus.up("store-0");
      for (const event of events) await received(event, "store");
      fate = new Map();
    });
  });
}

/** An installation with something outside that takes what output bindings hand over. */
export interface Outside {
  sidecar: Sidecar;
  /** a binding whose outside answers as `answers` says */
  open: string;
  /** a binding whose outside fails whatever it is given */
  failing: string;
  /** a binding that is not there */
  absent: string;
  /** what the outside of `open` has been given, in order; `headers`: what it could make of the metadata, by lower-case name */
  given(): { data: unknown; headers: Record<string, string | undefined> }[];
  /** what the outside of `open` answers from now on */
  answers(reply: (data: unknown) => unknown): void;
  close(): Promise<void>;
}

export function bindingSuite(name: string, open: () => Promise<Outside>): void {
  describe(`an output binding of ${name}`, () => {
    let outside: Outside;
    before(async () => {
      outside = await open();
    });
    after(() => outside?.close());
    const bind = (data: unknown, metadata?: Record<string, string>) =>
      outside.sidecar.bind(outside.open, data, metadata);
    const last = () => outside.given().at(-1);

    it("hands over JSON as it is", async () => {
      const message = {
        ...{ messageId: 7, text: "주문 7이 결제되었습니다 👕 \"quoted\" 'single' \\ / \n\t <b>&amp;</b>" },
        ...{ to: null, texts: { en: "paid", ko: "결제" }, list: [1, [], {}], no: false },
      };
      await bind(message);
      assert.deepEqual(last()?.data, message);
    });

    it("hands over text as it is", async () => {
      const text = "주문 7이 결제되었습니다 👕 \"quoted\" 'single' \\ / \n\t <b>&amp;</b>";
      await bind(text);
      assert.deepEqual(last()?.data, text);
    });

    it("hands metadata on, to an outside that has a use for it", async () => {
      await bind({ n: 1 }, { "Idempotency-Key": "message-7", subject: "Order 7" });
      assert.equal(last()?.headers["idempotency-key"], "message-7");
      await bind({ n: 2 });
      assert.equal(last()?.headers["idempotency-key"], undefined, "and keeps none of it for the next");
    });

    it("answers what the outside said: an object, a text, or nothing", async () => {
      for (const reply of [
        { approved: true, approvalCode: "12345678", of: ["결제", null] },
        "taken",
        undefined,
      ]) {
        outside.answers(() => reply);
        assert.deepEqual(await bind({ n: 1 }), reply);
      }
    });

    it("answers each of many that are under way at once for itself", async () => {
      outside.answers((data) => ({ heard: (data as { n: number }).n }));
      const numbers = Array.from({ length: 20 }, (_, n) => n);
      const replies = await Promise.all(numbers.map((n) => bind({ n })));
      assert.deepEqual(
        replies,
        numbers.map((n) => ({ heard: n })),
      );
    });

    it("is unavailable when the outside fails, or when there is no such binding", async () => {
      const { sidecar, failing, absent } = outside;
      await assert.rejects(sidecar.bind(failing, { n: 1 }), Unavailable);
      await assert.rejects(sidecar.bind(absent, { n: 1 }), Unavailable);
      outside.answers(() => "still here");
      assert.equal(await bind({ n: 1 }), "still here", "which is nothing to the others");
    });
  });
}
