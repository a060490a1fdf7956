/** What a store and a bus must do, whatever is behind them: the real sidecar and its twin pass the same tests. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { type EventType, type Message, on } from "#kit/events.js";
import { notFound, Problem } from "#kit/problem.js";
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
import type { BrokerFeatures, StoreFeatures } from "./features.js";

let unique = 0;
/** A key that nobody has used, also in an earlier run. */
const newKey = () => `conformance:${process.pid}:${Date.now()}:${++unique}`;

/** A component to be tested. */
export interface OpenedStore {
  /** One more client of it, as another replica would have it. */
  open(): Store;
  /** Its URL in the sidecar's API. */
  state?: string;
  /** Ends what holds the data with SIGKILL. */
  away?(): Promise<void>;
  /** Starts it again. */
  back?(): Promise<void>;
  close(): Promise<void>;
}

/** @param features what a real one is said to be like */
export function storeSuite(name: string, start: () => Promise<OpenedStore>, features?: StoreFeatures): void {
  describe(`the store of ${name}`, () => {
    let opened: OpenedStore;
    let store: Store;
    /** clients of the same component that know nothing of each other */
    let clients: Store[];
    before(async () => {
      opened = await start();
      clients = Array.from({ length: 16 }, () => opened.open());
      store = opened.open();
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

    /** Exactly one of many has got its way, and all others were told so. */
    const oneWon = (outcomes: PromiseSettledResult<void>[]): number => {
      const [winner, ...more] = outcomes.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : []));
      for (const outcome of outcomes)
        if (outcome.status === "rejected")
          assert.ok(outcome.reason instanceof Conflict, String(outcome.reason));
      assert.ok(winner !== undefined && more.length === 0, `${[winner, ...more]} won`);
      return winner;
    };

    it("lets one of many create a key", async () => {
      const key = newKey();
      const winner = oneWon(
        await Promise.allSettled(Array.from({ length: 10 }, (_, n) => store.save(key, { n }, null))),
      );
      assert.deepEqual(await value(key), { n: winner });
    });

    it("lets one of many replicas create a key, and one change it", async () => {
      for (let round = 0; round < 3; round++) {
        const key = newKey();
        const created = clients.map((client, n) => client.save(key, { n }, null));
        const first = oneWon(await Promise.allSettled(created));
        assert.deepEqual(await value(key), { n: first });
        const { etag } = await entry(key);
        const changed = clients.map((client, n) => client.save(key, { n: 100 + n }, etag));
        const second = oneWon(await Promise.allSettled(changed));
        assert.deepEqual(await value(key), { n: 100 + second });
      }
    });

    it("lets one of many replicas create a key, whatever else they write with it", async () => {
      for (let round = 0; round < 3; round++) {
        const key = newKey();
        const tries = clients.map((client, n) =>
          Promise.all([
            client.save(newKey(), { other: n }, null),
            client.save(key, { n }, null),
            client.save(newKey(), { other: n }, null),
          ]).then(() => undefined),
        );
        const winner = oneWon(await Promise.allSettled(tries));
        assert.deepEqual(await value(key), { n: winner });
        // And for who comes later, whether alone or with others, it is there as well.
        const late = await Promise.allSettled([
          store.save(key, { n: "late" }, null),
          store.save(newKey(), { n: "late" }, null),
        ]);
        assert.deepEqual(
          late.map(({ status }) => status),
          ["rejected", "fulfilled"],
        );
        await assert.rejects(store.save(key, { n: "later" }, null), Conflict);
        assert.deepEqual(await value(key), { n: winner });
      }
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

    it("loses no increment of many replicas that compete for a key", async () => {
      const key = await created({ n: 0 });
      const increment = async (client: Store) => {
        for (let done = false; !done; ) {
          const { value, etag } = (await client.get([key])).get(key) ?? assert.fail("it is there");
          const next = { n: (value as { n: number }).n + 1, by: crypto.randomUUID() };
          done = await client.save(key, next, etag).then(
            () => true,
            (error) => {
              assert.ok(error instanceof Conflict, String(error));
              return false;
            },
          );
        }
      };
      await Promise.all(clients.flatMap((client) => [increment(client), increment(client)]));
      assert.equal(((await value(key)) as { n: number }).n, 2 * clients.length);
    });

    it("writes 64 keys at once, from each of four replicas", async () => {
      const keys = Array.from({ length: 256 }, () => newKey());
      const client = (n: number) => clients[Math.floor(n / 64)] ?? store;
      await Promise.all(keys.map((key, n) => client(n).save(key, { n }, null)));
      const first = await store.get(keys);
      await Promise.all(
        keys.map((key, n) => client(n).save(key, { n: 1000 + n }, first.get(key)?.etag ?? "")),
      );
      const found = await store.get(keys);
      assert.deepEqual(
        keys.map((key) => found.get(key)?.value),
        keys.map((_, n) => ({ n: 1000 + n })),
      );
    });

    it("reads 256 keys at once, whether they are there or not", async () => {
      const keys = Array.from({ length: 256 }, () => newKey());
      const there = keys.filter((_, n) => n % 3 === 0);
      await Promise.all(there.map((key) => store.save(key, { key }, null)));
      const found = await store.get(keys);
      assert.deepEqual([...found.keys()].sort(), [...there].sort());
      for (const [key, { value }] of found) assert.deepEqual(value, { key });
    });

    it("forgets a key when its time is up, and no other", async () => {
      const [short, lifted, later, long] = [newKey(), newKey(), newKey(), newKey()];
      // Some stores count in whole seconds, from the last full one.
      await store.save(short, { n: 1 }, null, 2);
      assert.deepEqual(await value(short), { n: 1 });
      await store.save(lifted, { n: 1 }, null, 2);
      await store.save(lifted, { n: 2 }, (await entry(lifted)).etag);
      await store.save(later, { n: 1 }, null, 3);
      await store.save(long, { n: 2 }, null, 3600);
      await until(async () => (await value(short)) === undefined, "the key has gone");
      const again = await store.save(short, { n: 3 }, null).then(
        () => true,
        (error) => {
          assert.ok(error instanceof Unavailable, String(error));
          return false;
        },
      );
      assert.equal(again, features?.freesExpired ?? true, "its place is free");
      assert.deepEqual(await value(short), again ? { n: 3 } : undefined);
      await until(async () => (await value(later)) === undefined, "what was to live longer has gone");
      const isLifted = (await value(lifted)) !== undefined;
      assert.equal(isLifted, features?.liftsTtl ?? true, "a save without a lifetime lifts an earlier one");
      assert.deepEqual(await value(long), { n: 2 });
    });

    it("keeps values as they are", async () => {
      for (const kept of [
        { text: "온라인 의류 쇼핑몰 👕 \"quoted\" 'single' \\ / \n\t\u0000 é <b>&amp;</b>" },
        { nested: { deeply: [{ a: [] }, {}, [[1], []]] }, empty: [], none: null, no: false },
        { most: Number.MAX_SAFE_INTEGER, least: Number.MIN_SAFE_INTEGER, part: 0.1, small: 1e-9, zero: 0 },
        { "a key with spaces, dots. and $signs": { $set: 1, "a.b": 2 } },
        { long: "x".repeat(200_000) },
        { "": "", text: "", zero: 0, no: false, nothing: null, list: [0, "", false, null, {}] },
        { big: 1e21, huge: 1.7976931348623157e308, tiny: 5e-324, half: -0.5, third: 1 / 3 },
        {
          $ROOT: "$$ROOT",
          "0": "$value.n",
          a: { $literal: 1, $unset: "a" },
          texts: ["$a", "$$NOW", "'", "%"],
        },
        { 주문: "온라인 🏴󠁧󠁢󠁳󠁣󠁴󠁿 👩‍👩‍👧 \u007f\u200b\u2028 \ud83d\ude00", "emoji 👕": "👕" },
        nested(12),
      ])
        assert.deepEqual(await value(await created(kept)), kept);
    });

    it("keeps of a value what was saved last, and nothing that was there before", async () => {
      const key = await created({ kept: 1, gone: { a: 1 }, part: { kept: 1, gone: 2 }, list: [1, 2, 3] });
      const next = { kept: 2, part: { kept: 3 }, list: [{ n: 1 }], fresh: "$kept" };
      await store.save(key, next, (await entry(key)).etag);
      assert.deepEqual(await value(key), next);
      await store.save(key, {}, (await entry(key)).etag);
      assert.deepEqual(await value(key), {});
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
        `${base}:e`,
        `${base}|`,
        `${base}:고객 7`,
        `${base}:👕`,
        `${base}'"\\`,
        `${base}_`,
        `${base}$a.b`,
      ];
      for (const [n, key] of keys.entries()) await store.save(key, { n }, null);
      const found = await store.get(keys);
      for (const [n, key] of keys.entries()) assert.deepEqual(found.get(key)?.value, { n }, key);
      for (const key of keys) await store.delete(key, (await entry(key)).etag);
      assert.deepEqual(await store.get(keys), new Map());
    });

    if (features !== undefined) realStoreSuite({ opened: () => opened, features, value, entry, created });
  });
}

interface Real {
  opened(): OpenedStore;
  features: StoreFeatures;
  value(key: string): Promise<unknown>;
  entry(key: string): Promise<Entry>;
  created(value?: unknown): Promise<string>;
}

/** How long a caller may have to wait until it hears that a store is away, in ms. */
const TOLD_WITHIN_MS = 3_000;

/** What only real stores do: differ, and die. */
function realStoreSuite({ opened, features, value, entry, created }: Real): void {
  /** Asks the sidecar without kit's help; answers whether it was done. */
  const ask = async (method: string, path: string, body?: unknown, headers?: Record<string, string>) => {
    const url = `${opened().state}${path}`;
    const answer = await fetch(url, { method, body: JSON.stringify(body) ?? null, headers: headers ?? {} });
    return { done: answer.ok, text: await answer.text() };
  };
  const row = (key: string, value: unknown, etag?: string) => ({
    ...{ key, value, options: { concurrency: "first-write", consistency: "strong" } },
    ...(etag === undefined ? {} : { etag }),
  });
  const raw = async (key: string) => {
    const { text } = await ask("POST", "/bulk", { keys: [key] });
    const [found] = JSON.parse(text) as { data?: unknown; etag?: string }[];
    return { value: found?.data, etag: found?.etag ?? "" };
  };
  const save = (...rows: object[]) => ask("POST", "", rows);
  const transact = (...rows: object[]) =>
    ask("POST", "/transaction", { operations: rows.map((request) => ({ operation: "upsert", request })) });

  it(`writes several keys in one step: ${told(features.atomicBatches)}`, async () => {
    const [a, b, c, stale] = [newKey(), newKey(), newKey(), await created()];
    const { done } = await transact(row(a, { n: 1 }), row(b, { n: 1 }));
    const both = [(await raw(a)).value, (await raw(b)).value].filter((value) => value !== undefined);
    assert.equal(both.length, done ? 2 : 0);
    const { etag } = await entry(stale);
    await save(row(stale, { n: "newer" }, etag));
    assert.equal((await transact(row(c, { n: 1 }), row(stale, { n: "stale" }, etag))).done, false);
    assert.deepEqual((await raw(stale)).value, { n: "newer" });
    const isAtomic = done && (await raw(c)).value === undefined;
    assert.equal(isAtomic, features.atomicBatches);
  });

  it(`stores a value as the JSON that it is: ${told(features.plainValues)}`, async () => {
    const key = newKey();
    const first = { before: 1, text: "$text", part: 1 / 3 };
    await save(row(key, first));
    const kept = await raw(key);
    await save(row(key, { after: 1 }, kept.etag));
    const isPlain =
      isDeepStrictEqual(kept.value, first) && isDeepStrictEqual((await raw(key)).value, { after: 1 });
    assert.equal(isPlain, features.plainValues);
    const stored = (await raw(await created({ n: 1 }))).value;
    assert.deepEqual(stored, isPlain ? { n: 1 } : ['{"n":1}'], "and kit finds that out");
  });

  it(`creates a key once, if in a batch: ${told(features.guardedBatches)}`, async () => {
    const [a, b] = [newKey(), newKey()];
    const { done } = await transact(row(a, { n: 1 }), row(b, { n: 1 }));
    const isGuarded = done && !(await save(row(a, { n: 2 }))).done;
    assert.equal(isGuarded, features.guardedBatches);
  });

  it(`keeps a deleted key deleted: ${told(features.staysDeleted)}`, async () => {
    const key = newKey();
    await save(row(key, { n: 1 }));
    const { etag } = await raw(key);
    assert.ok((await ask("DELETE", `/${encodeURIComponent(key)}`, undefined, { "if-match": etag })).done);
    await save(row(key, { n: 2 }, etag));
    assert.equal((await raw(key)).value === undefined, features.staysDeleted);
  });

  it(`takes long keys: ${told(features.longKeys)}`, async () => {
    const key = `${newKey()}${"k".repeat(300)}`;
    const { done } = await save(row(key, { n: 1 }));
    assert.equal(done, features.longKeys);
    const fits = newKey().padEnd(240, "k");
    assert.ok((await save(row(fits, { n: 1 }))).done);
    assert.deepEqual((await raw(fits)).value, { n: 1 });
  });

  it(`takes deep values: ${told(features.deepValues)}`, async () => {
    const kept = opened().open().save(newKey(), nested(60), null).then(isTrue, isFalse);
    assert.equal(await kept, features.deepValues);
  });

  it("is unavailable when it is away, tells so soon, and is there again by itself", async () => {
    const key = await created({ n: 1 });
    const { etag } = await entry(key);
    const client = opened().open();
    await client.get([key]);
    await opened().away?.();
    // Who is connected may be served to the end by a process that the killed one has left.
    await until(() => client.get([key]).then(isFalse, isTrue), "it is away");
    const fresh = opened().open();
    const calls = [
      () => client.get([key]),
      () => client.save(key, { n: 2 }, etag),
      () => Promise.all([fresh.save(newKey(), {}, null), fresh.save(newKey(), {}, null)]),
      () => client.delete(key, etag),
    ].map(async (call) => {
      const began = performance.now();
      await assert.rejects(call, Unavailable);
      const took = performance.now() - began;
      assert.ok(took < TOLD_WITHIN_MS + 500, `${String(call)} took ${took} ms`);
    });
    await Promise.all(calls);
    await opened().back?.();
    await until(() => client.get([key]).then(isTrue, isFalse), "it is read again", 30_000);
    await until(() => client.save(newKey(), {}, null).then(isTrue, isFalse), "it is written again", 30_000);
    // What was asked while it was away may have been done late, but only once, and in its order.
    const now = (await client.get([key])).get(key)?.value;
    assert.ok(now === undefined || isDeepStrictEqual(now, { n: 1 }) || isDeepStrictEqual(now, { n: 2 }));
  });

  it("has everything that it said it had, after a kill -9 among 16 writers", async () => {
    const clients = Array.from({ length: 16 }, () => opened().open());
    const counter = await created({ n: 0, by: "nobody" });
    // Keys that nobody touches: a writer could put its own back unknowingly.
    const resting = await Promise.all(Array.from({ length: 50 }, (_, n) => created({ resting: n })));
    const acknowledged = new Map<string, number>();
    let counted = 0;
    let unknown = 0;
    let killed = false;
    let since = 0;
    const done = () => killed && since >= 200;
    const write = async (client: Store) => {
      const key = newKey();
      acknowledged.set(key, 0);
      for (let n = 1; !done(); n++) {
        try {
          const now = await client.get([key, counter]);
          const etag = now.get(key)?.etag ?? null;
          await client.save(key, { n, by: key }, etag);
          acknowledged.set(key, n);
          const shared = now.get(counter);
          assert.ok(shared);
          const next = { n: (shared.value as { n: number }).n + 1, by: `${key} ${n}` };
          unknown++;
          const outcome = await client.save(counter, next, shared.etag).then(
            () => undefined,
            (error: unknown) => error,
          );
          if (outcome === undefined) counted++;
          // A conflict tells that others wrote, and not that ours was not written before.
          if (!killed || outcome === undefined) unknown -= outcome instanceof Unavailable ? 0 : 1;
          if (killed) since++;
        } catch (error) {
          assert.ok(error instanceof Unavailable, String(error));
        }
      }
    };
    const writers = Promise.all(clients.map(write));
    await until(async () => [...acknowledged.values()].every((n) => n > 3), "all are writing", 30_000);
    await opened().away?.();
    const atKill = new Map(acknowledged);
    killed = true;
    await opened().back?.();
    await writers;
    const rested = [...((await clients[0]?.get(resting)) ?? [])].map(([, { value }]) => value);
    assert.deepEqual(
      rested,
      resting.map((_, n) => ({ resting: n })),
    );
    for (const [key, n] of acknowledged) {
      const found = (await value(key)) as { n: number } | undefined;
      assert.ok(found !== undefined && found.n >= n, `${key}: ${found?.n} of ${n}`);
      assert.ok(n >= (atKill.get(key) ?? 0));
    }
    const { n } = (await value(counter)) as { n: number };
    assert.ok(counted <= n && n <= counted + unknown, `${counted} were counted, ${unknown} unknown: ${n}`);
  });
}

const [isTrue, isFalse] = [() => true, () => false];

/** So many objects and lists in one another, `levels` of each. */
const nested = (levels: number): unknown => (levels === 0 ? "deep" : { deep: [nested(levels - 1)] });

const told = (yes: boolean) => (yes ? "yes" : "no");

/** An installation with an app that publishes and, for each replica named, one that subscribes. */
export interface Bus {
  publisher: Sidecar;
  /** takes a replica off its sidecar, as if it had ended */
  down(replica: string): Promise<void>;
  up(replica: string): Promise<void>;
  /** ids of the messages that were set aside for an app */
  deadLetters(app: string): Promise<string[]>;
  /** resolves when nothing is on its way */
  settled?(): Promise<void>;
  /** ends a replica's sidecar with SIGKILL; resolves when it listens again */
  killSidecar?(replica: Replica): Promise<void>;
  /** ends the broker with SIGKILL */
  away?(): Promise<void>;
  back?(): Promise<void>;
  /** begins to listen to one more topic; answers the ids of what comes */
  listen?(topic: EventType): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** What the subscribers are made of; the topic is as good as any. */
const TOPIC = "ProductRegistered";
export const REPLICAS = { "delivery-0": "delivery", "store-0": "store", "store-1": "store" } as const;
export type Replica = keyof typeof REPLICAS;
export type Subscriber = (replica: Replica) => ServiceDefinition;

type Fate = (app: string, nth: number) => void | Promise<void>;

/** @param features what a real one is said to be like */
export function busSuite(
  name: string,
  open: (subscriber: Subscriber) => Promise<Bus>,
  features?: BrokerFeatures,
): void {
  describe(`the bus of ${name}`, () => {
    let bus: Bus;
    /** replicas that were given a message, in order, by its id */
    const given = new Map<string, Replica[]>();
    /** what happens to a message at its nth delivery to an app */
    const fate = new Map<string, Fate>();
    /** how often each app was given a message that was done with then, by its id */
    const answered = new Map<string, Record<string, number>>();
    /** deliveries by app that have not been answered for good */
    const pending: Record<string, Set<string>> = { store: new Set(), delivery: new Set() };

    const subscriber: Subscriber = (replica) => ({
      app: REPLICAS[replica],
      compose: () => ({
        routes: [],
        subscriptions: [
          on(TOPIC, async ({ id }: Message<typeof TOPIC>) => {
            const deliveries = [...(given.get(id) ?? []), replica];
            given.set(id, deliveries);
            const app = REPLICAS[replica];
            pending[app]?.add(id);
            const isFinal = (error?: unknown) => error === undefined || error instanceof Problem;
            let failure: unknown;
            try {
              await fate.get(id)?.(app, times(id, app));
            } catch (error) {
              failure = error;
            }
            if (isFinal(failure)) pending[app]?.delete(id);
            if (failure !== undefined) throw failure;
          }),
        ],
      }),
    });
    const times = (id: string, app: string) =>
      (given.get(id) ?? []).filter((replica) => REPLICAS[replica] === app).length;

    const message = (of: { fate?: Fate } = {}): CloudEvent => {
      const data = { id: ++unique, name: "TV", price: 1, stock: 1, imageUrl: "", options: [] };
      const event = cloudEvent(TOPIC, data, `${newKey()}/0`);
      if (of.fate) fate.set(event.id, of.fate);
      return event;
    };
    const publish = (...events: CloudEvent[]) => bus.publisher.publish(TOPIC, events);
    const received = (event: CloudEvent, app: string) =>
      until(() => times(event.id, app) > 0, `${app} has ${event.id}`, 30_000);
    const acknowledged = async (app: string) => {
      await until(() => pending[app]?.size === 0, `${app} has nothing left to do`, 30_000);
      await bus.settled?.();
    };

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
      answered.set(event.id, { store: 3, delivery: 1 });
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
      answered.set(event.id, { store: 1, delivery: 1 });
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
    });

    it("takes 2,000 in a burst, and loses none", async () => {
      const events = Array.from({ length: 2_000 }, () => message());
      await Promise.all(events.map((event) => publish(event)));
      for (const event of events) for (const app of ["store", "delivery"]) await received(event, app);
    });

    if (features !== undefined) {
      it("gives again what a sidecar held when it was killed", async () => {
        let release: () => void = () => undefined;
        const held = new Promise<void>((resolve) => {
          release = resolve;
        });
        const events = Array.from({ length: 20 }, () =>
          message({ fate: (app, nth) => (app === "delivery" && nth === 1 ? held : undefined) }),
        );
        await publish(...events);
        for (const event of events) await received(event, "delivery");
        await bus.killSidecar?.("delivery-0");
        const again = (event: CloudEvent) => times(event.id, "delivery") > 1;
        for (const event of events) await until(() => again(event), `${event.id} came again`, 30_000);
        release();
        const next = message();
        await publish(next);
        await received(next, "delivery");
      });

      it("has everything that it said it had, after a kill -9 of the broker", async () => {
        await bus.down("delivery-0"); // so that there is something that only the broker has
        const confirmed: CloudEvent[] = [];
        let killed = false;
        let failures = 0;
        let afterwards = 0;
        const publisher = async () => {
          while (afterwards < 50) {
            const events = [message(), message()];
            try {
              await publish(...events);
              confirmed.push(...events);
              if (killed && failures > 0) afterwards++;
            } catch (error) {
              assert.ok(error instanceof Unavailable, String(error));
              if (killed) failures++;
            }
          }
        };
        const publishers = Promise.all(Array.from({ length: 8 }, publisher));
        await until(() => confirmed.length > 200, "some are published", 30_000);
        killed = true;
        await bus.away?.();
        await until(() => failures >= 8, "all have been told that it is away", 30_000);
        const began = performance.now();
        await assert.rejects(publish(message()), Unavailable);
        // Two calls may be waited for: one that was under way, and one's own.
        assert.ok(performance.now() - began < 2 * TOLD_WITHIN_MS, "and soon");
        await bus.back?.();
        await publishers;
        await bus.up("delivery-0");
        for (const event of confirmed) for (const app of ["store", "delivery"]) await received(event, app);
      });

      it(`has for a later listener what came before: ${told(features.keepsForLater)}`, async () => {
        const topic = "StampsDeducted";
        const first = cloudEvent(topic, {}, newKey());
        await bus.publisher.publish(topic, [first]);
        const heard = (await bus.listen?.(topic)) ?? [];
        // Its sidecar has asked what to listen to; it begins a moment later, and where nothing is kept, what comes before is gone.
        const later: string[] = [];
        const beforeLong = performance.now() + 30_000;
        while (!later.some((id) => heard.includes(id))) {
          assert.ok(performance.now() < beforeLong, "waited in vain until a later one is heard");
          const next = cloudEvent(topic, {}, newKey());
          later.push(next.id);
          await bus.publisher.publish(topic, [next]);
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        if (features.keepsForLater)
          await until(() => heard.includes(first.id), "the earlier one is heard", 30_000);
        else assert.ok(!heard.includes(first.id));
      });
    }

    it("gives nobody again what was done with", async () => {
      for (const app of ["store", "delivery"]) await acknowledged(app);
      const last = message();
      await publish(last);
      for (const app of ["store", "delivery"]) await received(last, app);
      for (const [id, counts] of answered)
        for (const app of ["store", "delivery"]) assert.equal(times(id, app), counts[app], `${id}: ${app}`);
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
