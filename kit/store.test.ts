import assert from "node:assert/strict";
import { beforeEach, describe, it, mock } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { Conflict, type Entry, Unavailable } from "#kit/sidecar.js";
import { BackendStore, habitsOf, type Raw, type Row } from "#kit/store.js";

/** What is odd about a store. */
interface Oddities {
  /** an object is merged into what is there, texts that begin with $ vanish, names with a dot are refused */
  merges?: boolean;
  /** transactions are said to work, and fail */
  failsBatches?: boolean;
  /** transactions apply what they can */
  appliesParts?: boolean;
  /** what a transaction creates may be created again */
  forgetsCreation?: boolean;
  /** an update of a key that is not there creates it, and keeps a lifetime that was set before */
  revives?: boolean;
  /** has no transactions */
  single?: boolean;
}

/** A state API over a map, as odd as one wants. */
class FakeRaw implements Raw {
  readonly entries = new Map<string, Entry & { forgotten?: boolean; ttlSeconds?: number | undefined }>();
  readonly calls: { call: string; keys: string[] }[] = [];
  /** answers of the next writes that do not follow from what is stored */
  readonly next: ("as it is" | "deadlock" | "lost" | "lost answer" | "away")[] = [];
  private etags = 0;

  constructor(private readonly odd: Oddities = {}) {}

  async hasTransactions(): Promise<boolean> {
    return this.odd.single !== true;
  }

  async rows(keys: readonly string[]): Promise<Map<string, Entry>> {
    this.calls.push({ call: "rows", keys: [...keys] });
    if (this.next[0] === "away") throw new Unavailable("away");
    return new Map(
      keys.flatMap((key) => {
        const entry = this.entries.get(key);
        return entry === undefined ? [] : [[key, structuredClone(entry)] as const];
      }),
    );
  }

  async save(rows: readonly Row[]): Promise<Error | undefined> {
    return this.asked("save", rows, () => {
      const failures = rows.map((row) => this.put(row, false)).filter((failure) => failure !== undefined);
      return failures[0];
    });
  }

  async transact(rows: readonly Row[]): Promise<Error | undefined> {
    return this.asked("transact", rows, () => {
      if (this.odd.failsBatches)
        return new Error("Transaction numbers are only allowed on a replica set member");
      const before = new Map(this.entries);
      const failure = rows.map((row) => this.put(row, true)).find((one) => one !== undefined);
      if (failure !== undefined && !this.odd.appliesParts) {
        this.entries.clear();
        for (const [key, entry] of before) this.entries.set(key, entry);
      }
      return failure;
    });
  }

  async remove(key: string, etag: string): Promise<Error | undefined> {
    return this.asked("remove", [{ key, value: undefined, etag }], () => {
      if (this.entries.get(key)?.etag !== etag) return new Error("etag mismatch");
      this.entries.delete(key);
      return undefined;
    });
  }

  private asked(call: string, rows: readonly Row[], act: () => Error | undefined): Error | undefined {
    this.calls.push({ call, keys: rows.map(({ key }) => key) });
    const fate = this.next[0] === "away" ? "away" : this.next.shift();
    if (fate === "deadlock") return new Error("Error 1213 (40001): Deadlock found");
    if (fate === "lost" || fate === "away") return new Unavailable("no answer");
    const failure = act();
    return fate === "lost answer" ? new Unavailable("no answer") : failure;
  }

  private put({ key, value, etag, ttlSeconds }: Row, inBatch: boolean): Error | undefined {
    const { merges = false, forgetsCreation = false, revives = false } = this.odd;
    const had = this.entries.get(key);
    if (had !== undefined && had.etag !== etag && !(etag === null && had.forgotten === true))
      return new Error("etag mismatch");
    if (had === undefined && etag !== null && !revives) return new Error("etag mismatch");
    if (merges && hasDots(value)) return new Error("FieldPath must not contain '.'");
    const isObject = (one: unknown) => typeof one === "object" && one !== null && !Array.isArray(one);
    const stored =
      merges && isObject(value) && isObject(had?.value)
        ? { ...(had?.value as object), ...(value as object) }
        : value;
    const lifetime = ttlSeconds === -1 ? undefined : (ttlSeconds ?? (revives ? had?.ttlSeconds : undefined));
    this.entries.set(key, {
      ...{ value: JSON.parse(JSON.stringify(stored)), etag: String(++this.etags), ttlSeconds: lifetime },
      forgotten: had === undefined ? inBatch && forgetsCreation : had.forgotten === true,
    });
    return undefined;
  }
}

const hasDots = (value: unknown): boolean =>
  typeof value === "object" &&
  value !== null &&
  Object.entries(value).some(([key, inside]) => key.includes(".") || hasDots(inside));

const usual = { altersValues: false, forgetsCreation: false, revivesKeys: false, transacts: true };

describe("the habits of a store are found out by trying", () => {
  for (const [what, odd, habits] of [
    ["one that does as it is told", {}, usual],
    ["one that mixes values", { merges: true }, { ...usual, altersValues: true }],
    [
      "one whose transactions fail",
      { failsBatches: true },
      { ...usual, forgetsCreation: true, transacts: false },
    ],
    ["one without transactions", { single: true }, { ...usual, forgetsCreation: true, transacts: false }],
    [
      "one that forgets what a transaction created",
      { forgetsCreation: true },
      { ...usual, forgetsCreation: true },
    ],
    ["one that revives keys", { revives: true }, { ...usual, revivesKeys: true }],
    [
      "one with all of it",
      { merges: true, revives: true, forgetsCreation: true },
      { altersValues: true, revivesKeys: true, forgetsCreation: true, transacts: true },
    ],
  ] as const)
    it(what, async () => {
      const raw = new FakeRaw(odd);
      assert.deepEqual(await habitsOf(raw), habits);
      assert.deepEqual([...raw.entries.keys()], [], "and nothing of the trial stays");
    });

  it("not at all while it is away, but later", async () => {
    const raw = new FakeRaw({ merges: true });
    const store = new BackendStore("orders", raw);
    raw.next.push("away");
    await assert.rejects(store.save("a", { n: 1 }, null), Unavailable);
    raw.next.length = 0;
    await store.save("a", { n: 1 }, null);
    assert.deepEqual((await store.get(["a"])).get("a")?.value, { n: 1 });
  });
});

describe("a store over a state API", () => {
  let raw: FakeRaw;
  let store: BackendStore;
  const open = async (odd: Oddities = {}) => {
    raw = new FakeRaw(odd);
    store = new BackendStore("orders", raw);
    await store.learn();
    raw.calls.length = 0;
  };
  const saves = (keys: string[], etag: (key: string) => string | null = () => null) =>
    Promise.allSettled(keys.map((key, n) => store.save(key, { n }, etag(key))));
  const calls = () => raw.calls.map(({ call, keys }) => `${call} ${keys.join(" ")}`);
  const value = async (key: string) => (await store.get([key])).get(key)?.value;
  const etagOf = async (key: string) => (await store.get([key])).get(key)?.etag ?? null;
  const statuses = (outcomes: PromiseSettledResult<void>[]) =>
    outcomes.map((outcome) => (outcome.status === "fulfilled" ? "ok" : (outcome.reason as Error).name));
  beforeEach(() => open());

  it("sends what is written at once in one transaction", async () => {
    assert.deepEqual(statuses(await saves(["a", "b", "c"])), ["ok", "ok", "ok"]);
    assert.deepEqual(calls(), ["transact a b c"]);
  });

  it("finds the one that is in the way of the others, and sends these together again", async () => {
    await saves(["a", "b", "c"]);
    const etags = new Map([...(await store.get(["a", "b", "c"]))].map(([key, { etag }]) => [key, etag]));
    await store.save("b", { n: "other" }, etags.get("b") ?? null);
    raw.calls.length = 0;
    const outcomes = await Promise.allSettled(
      ["a", "b", "c"].map((key) => store.save(key, { mine: key }, etags.get(key) ?? null)),
    );
    assert.deepEqual(statuses(outcomes), ["ok", "Conflict", "ok"]);
    assert.deepEqual(calls(), ["transact a b c", "rows a b c", "transact a c"]);
    assert.deepEqual([await value("a"), await value("b")], [{ mine: "a" }, { n: "other" }]);
  });

  it("lets one of those win that write the same key at once", async () => {
    const outcomes = await saves(["a", "a", "a", "b"]);
    assert.deepEqual(statuses(outcomes), ["ok", "Conflict", "Conflict", "ok"]);
    assert.deepEqual(await value("a"), { n: 0 });
    assert.deepEqual(calls().slice(0, 2), ["transact a b", "rows a"]);
  });

  it("settles by reading what a transaction applied in part", async () => {
    await open({ appliesParts: true });
    await store.save("b", { n: "other" }, null);
    assert.deepEqual(statuses(await saves(["a", "b", "c"])), ["ok", "Conflict", "ok"]);
    assert.deepEqual(
      [await value("a"), await value("b"), await value("c")],
      [{ n: 0 }, { n: "other" }, { n: 2 }],
    );
  });

  it("writes again what lost against a deadlock of others", async () => {
    raw.next.push("deadlock", "deadlock");
    await store.save("a", { n: 1 }, null);
    assert.deepEqual(await value("a"), { n: 1 });
    raw.next.push("deadlock");
    await store.delete("a", (await etagOf("a")) ?? "");
    assert.equal(await value("a"), undefined);
  });

  it("takes a deadlock during the trial for no habit", async () => {
    for (let call = 0; call < 12; call++) {
      raw = new FakeRaw();
      raw.next.push(...Array.from({ length: call }, () => "as it is" as const), "deadlock");
      const { altersValues, revivesKeys } = await habitsOf(raw);
      assert.deepEqual([altersValues, revivesKeys], [false, false], `${call}`);
    }
    for (let call = 0; call < 12; call++) {
      raw = new FakeRaw({ revives: true, forgetsCreation: true });
      raw.next.push(...Array.from({ length: call }, () => "as it is" as const), "deadlock");
      const { revivesKeys, forgetsCreation } = await habitsOf(raw);
      assert.deepEqual([revivesKeys, forgetsCreation], [true, true], `${call}`);
    }
  });

  it("gives up after some deadlocks, and says that it does not know", async () => {
    raw.next.push(...Array.from({ length: 10 }, () => "deadlock" as const));
    await assert.rejects(store.save("a", { n: 1 }, null), Unavailable);
  });

  it("does not repeat what had no answer, and finds what was written all the same", async () => {
    raw.next.push("lost");
    await assert.rejects(store.save("a", { n: 1 }, null), Unavailable);
    raw.next.push("lost answer");
    await store.save("a", { n: 2 }, null);
    raw.next.push("lost answer");
    assert.deepEqual(statuses(await saves(["b", "c"])), ["ok", "ok"]);
    raw.next.push("lost");
    assert.deepEqual(statuses(await saves(["d", "e"])), ["Unavailable", "Unavailable"]);
  });

  it("stops trying transactions that fail where single writes succeed, for a minute", async (t) => {
    let now = 1_000_000;
    mock.method(performance, "now", () => now);
    t.after(() => mock.restoreAll());
    const odd: Oddities = {};
    await open(odd);
    odd.failsBatches = true;
    const transactions = () => calls().filter((call) => call.startsWith("transact")).length;
    for (const n of [1, 2, 3, 4]) assert.deepEqual(statuses(await saves([`a${n}`, `b${n}`])), ["ok", "ok"]);
    assert.equal(transactions(), 4, "two writes tried it, twice each");
    now += 60_000;
    odd.failsBatches = false;
    await saves(["c", "d"]);
    assert.equal(transactions(), 5);
  });

  it("tries once in a minute whether a store has learned transactions", async (t) => {
    let now = 1_000_000;
    mock.method(performance, "now", () => now);
    t.after(() => mock.restoreAll());
    const odd: Oddities = { failsBatches: true };
    await open(odd);
    for (const key of ["a", "b"]) assert.deepEqual(statuses(await saves([key, `${key}1`])), ["ok", "ok"]);
    assert.deepEqual(calls(), ["save a a1", "save b b1"]);
    now += 60_000;
    raw.calls.length = 0;
    await saves(["c", "c1"]);
    assert.deepEqual([calls().length, calls().at(-1)], [2, "save c c1"]);
    now += 60_000;
    odd.failsBatches = false;
    await saves(["d", "d1"]);
    assert.deepEqual(calls().at(-1), "transact d d1");
  });

  it("goes on with transactions that fail because of a conflict", async () => {
    await saves(["x"]);
    for (const n of [1, 2, 3, 4]) await saves([`a${n}`, "x", `b${n}`]);
    raw.calls.length = 0;
    await saves(["e", "f"]);
    assert.deepEqual(calls(), ["transact e f"]);
  });

  it("carries values as text where the store would alter them", async () => {
    await open({ merges: true });
    const odd = { "a.b": { $set: "$x" }, none: null, list: [1, { "c.d": "" }] };
    await store.save("a", odd, null);
    assert.deepEqual(await value("a"), odd);
    await store.save("a", { only: "$this" }, await etagOf("a"));
    assert.deepEqual(await value("a"), { only: "$this" });
    assert.deepEqual(raw.entries.get("a")?.value, ['{"only":"$this"}']);
  });

  it("reads what was stored as it is, and keeps lists apart from what it stores itself", async () => {
    await store.save("a", { n: 1 }, null);
    assert.deepEqual(raw.entries.get("a")?.value, { n: 1 }, "as it is");
    for (const [n, list] of [[], ["text"], [[]], [{ n: 1 }, 2]].entries()) {
      await store.save(`list${n}`, list, null);
      assert.deepEqual(await value(`list${n}`), list);
    }
  });

  it("creates for itself what a transaction would forget to protect", async () => {
    await open({ forgetsCreation: true });
    await saves(["a", "b"]);
    assert.deepEqual(calls(), ["save a b"]);
    const other = new BackendStore("orders", raw);
    await assert.rejects(other.save("a", { n: 9 }, null), Conflict);
    raw.calls.length = 0;
    const etag = { a: await etagOf("a"), b: await etagOf("b") };
    raw.calls.length = 0;
    const outcomes = await Promise.allSettled([
      store.save("a", { m: 1 }, etag.a),
      store.save("b", { m: 2 }, etag.b),
      store.save("c", { m: 3 }, null),
      store.save("d", { m: 4 }, null),
    ]);
    assert.deepEqual(statuses(outcomes), ["ok", "ok", "ok", "ok"]);
    assert.deepEqual(calls(), ["transact a b", "save c d"]);
  });

  it("lets no update bring a deleted key back", async () => {
    await open({ revives: true });
    await store.save("a", { n: 1 }, null);
    const etag = (await etagOf("a")) ?? "";
    await store.delete("a", etag);
    assert.equal(await value("a"), undefined);
    await assert.rejects(store.save("a", { n: 2 }, etag), Conflict);
    await store.delete("a", etag);
    await store.save("a", { n: 3 }, null);
    assert.deepEqual(await value("a"), { n: 3 });
    assert.equal(
      raw.entries.get("a")?.ttlSeconds,
      undefined,
      "and the new one does not go with the gravestone",
    );
    await assert.rejects(store.save("a", { n: 4 }, null), Conflict);
  });

  it("creates many keys at once where there were gravestones", async () => {
    await open({ revives: true });
    await saves(["a", "b", "c"]);
    for (const key of ["a", "b", "c"]) await store.delete(key, (await etagOf(key)) ?? "");
    assert.deepEqual(statuses(await saves(["a", "b", "c"])), ["ok", "ok", "ok"]);
    assert.ok(isDeepStrictEqual(await value("c"), { n: 2 }));
  });
});
