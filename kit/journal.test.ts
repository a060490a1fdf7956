import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setImmediate as macrotask } from "node:timers/promises";
import { Journal } from "#kit/journal.js";
import { MemoryDapr } from "#kit/memory.js";
import { type Store, Unavailable } from "#kit/sidecar.js";
import { until } from "#kit/testing.js";

/** Fast enough to wait for; slow enough that a busy machine does not look dead. */
const QUICK = { beat: 20, linger: 0, idleBeat: 20, watch: 20, takeover: 400, forget: 400 };

const dapr = () => new MemoryDapr();
const rows = (dapr: MemoryDapr) => dapr.stores.get("things") ?? new Map();
const tokensOf = (dapr: MemoryDapr, replica: string) => {
  const value = rows(dapr).get(`journal:${replica}`)?.value as { tokens: string[]; beat: number } | undefined;
  return value?.tokens;
};
const beatOf = (dapr: MemoryDapr, replica: string) =>
  (rows(dapr).get(`journal:${replica}`)?.value as { beat: number } | undefined)?.beat ?? 0;
const roster = (dapr: MemoryDapr) =>
  (rows(dapr).get("replicas")?.value as { slots: Record<string, string> } | undefined)?.slots ?? {};

/** A journal of a process that a test can kill or pause. */
function process(
  t: TestContext,
  dapr: MemoryDapr,
  replica: string,
  options: {
    slot?: string;
    times?: object;
    recover?: (tokens: string[], dead: string) => Promise<void>;
    store?: (store: Store) => Store;
  } = {},
) {
  let running = Promise.resolve();
  const store = dapr.sidecar("things").store;
  const stoppable: Store = {
    get: async (keys) => running.then(() => store.get(keys)),
    save: async (...args) => running.then(() => store.save(...args)),
    delete: async (...args) => running.then(() => store.delete(...args)),
  };
  const recovered: { tokens: string[]; dead: string }[] = [];
  const said: string[] = [];
  const journal = new Journal({
    store: options.store?.(stoppable) ?? stoppable,
    replica,
    slot: options.slot ?? replica,
    times: { linger: 0, ...options.times },
    recover: async (tokens, dead) => {
      recovered.push({ tokens, dead });
      await options.recover?.(tokens, dead);
    },
    log: (message) => said.push(message),
  });
  const die = () => {
    running = new Promise(() => undefined);
    void journal.stop();
  };
  const pause = () => {
    let go = () => {};
    running = new Promise((resolve) => {
      go = resolve;
    });
    return go;
  };
  t.after(die);
  return { journal, recovered, said, die, pause };
}

describe("a journal", () => {
  it("has a token on record before it says so, and lets go of it with a later write", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a", { times: { ...QUICK, takeover: 60_000 } });
    await journal.start();
    await journal.begin("order:1");
    assert.deepEqual(tokensOf(bus, "a"), ["order:1"]);
    await journal.begin("order:2");
    assert.deepEqual(tokensOf(bus, "a"), ["order:1", "order:2"]);
    journal.end("order:1");
    await until(() => tokensOf(bus, "a")?.join() === "order:2", "the token has faded");
  });

  it("counts: a token stays while anyone needs it", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a");
    await journal.start();
    await journal.begin("order#32");
    await journal.begin("order#32");
    journal.end("order#32");
    await journal.begin("other");
    assert.deepEqual(tokensOf(bus, "a"), ["order#32", "other"]);
    journal.end("order#32");
    await journal.begin("third");
    assert.deepEqual(tokensOf(bus, "a"), ["other", "third"]);
  });

  it("writes once for all that begin together", async (t) => {
    const bus = dapr();
    let writes = 0;
    const { journal } = process(t, bus, "a", {
      store: (store) => ({
        ...store,
        save: (key, ...rest) => {
          if (key === "journal:a") writes++;
          return store.save(key, ...rest);
        },
      }),
    });
    await journal.start();
    await Promise.all(Array.from({ length: 50 }, (_, i) => journal.begin(`order:${i}`)));
    assert.ok(writes <= 2, `${writes} writes`);
    assert.equal(tokensOf(bus, "a")?.length, 50);
  });

  it("records a token that begins again while a write without it is under way", async (t) => {
    const bus = dapr();
    let gate: Promise<void> | undefined;
    let atGate = 0;
    const { journal } = process(t, bus, "a", {
      times: { ...QUICK, takeover: 60_000 },
      store: (store) => ({
        ...store,
        save: async (key, ...rest) => {
          if (key === "journal:a" && gate !== undefined) {
            atGate++;
            await gate;
          }
          return store.save(key, ...rest);
        },
      }),
    });
    await journal.start();
    await journal.begin("order:1");
    let open = () => {};
    gate = new Promise((resolve) => {
      open = resolve;
    });
    journal.end("order:1");
    await until(() => atGate, "the next beat, which lets go of the token, is being written");
    let begun = false;
    const beginning = journal.begin("order:1").then(() => {
      begun = true;
    });
    await macrotask();
    assert.equal(begun, false, "the write under way does not name it");
    gate = undefined;
    open();
    await beginning;
    assert.deepEqual(tokensOf(bus, "a"), ["order:1"]);
  });

  it("goes on after a first write whose answer was lost", { timeout: 5_000 }, async (t) => {
    const bus = dapr();
    let lose = true;
    const { journal } = process(t, bus, "a", {
      store: (store) => ({
        ...store,
        save: async (key, ...rest) => {
          await macrotask();
          await store.save(key, ...rest);
          if (key === "journal:a" && lose) throw new Unavailable("no answer");
        },
      }),
    });
    await journal.start();
    await assert.rejects(journal.begin("order:1"), Unavailable);
    lose = false;
    await journal.begin("order:2");
    assert.deepEqual(tokensOf(bus, "a"), ["order:2"]);
  });

  it("refuses to begin while the store is away, and keeps no trace of that", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a");
    await journal.start();
    bus.down.add("things");
    await assert.rejects(journal.begin("order:1"), Unavailable);
    bus.down.clear();
    await journal.begin("order:2");
    assert.deepEqual(tokensOf(bus, "a"), ["order:2"]);
  });

  it("is gone after a clean stop, and its replica off the roster", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a");
    await journal.start();
    assert.deepEqual(roster(bus), { a: "a" });
    await journal.begin("order:1");
    journal.end("order:1");
    await journal.stop();
    assert.equal(tokensOf(bus, "a"), undefined);
    assert.deepEqual(roster(bus), {});
  });

  it("is gone as well when it had to be started twice", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a", { times: QUICK });
    await journal.start();
    await journal.start();
    await until(() => beatOf(bus, "a") > 0, "it beats");
    await journal.stop();
    const other = process(t, bus, "b", { times: QUICK });
    await other.journal.start();
    await until(() => beatOf(bus, "b") > 3, "another has beaten for a while");
    assert.equal(tokensOf(bus, "a"), undefined);
    assert.deepEqual(roster(bus), { b: "b" });
  });

  it("stays after a stop that had to leave something unfinished", async (t) => {
    const bus = dapr();
    const { journal } = process(t, bus, "a");
    await journal.start();
    await journal.begin("order:1");
    await journal.stop();
    assert.deepEqual(tokensOf(bus, "a"), ["order:1"]);
    assert.deepEqual(roster(bus), { a: "a" });
  });
});

describe("the journal of a dead replica", () => {
  it("is taken over at once by the next process in its slot", async (t) => {
    const bus = dapr();
    const dead = process(t, bus, "a", { slot: "order-0" });
    await dead.journal.start();
    await dead.journal.begin("order:1");
    await dead.journal.begin("order:2");
    dead.die();
    const next = process(t, bus, "b", { slot: "order-0" });
    await next.journal.start();
    assert.deepEqual(next.recovered, [{ tokens: ["order:1", "order:2"], dead: "a" }]);
    assert.equal(tokensOf(bus, "a"), undefined);
    assert.deepEqual(roster(bus), { b: "order-0" });
  });

  it("is found also if its process never got through its start", async (t) => {
    const twin = dapr();
    const dead = process(t, twin, "a-1", { slot: "a" });
    await dead.journal.begin("x");
    dead.die();
    const next = process(t, twin, "a-2", { slot: "a" });
    await next.journal.start();
    assert.deepEqual(next.recovered, [{ tokens: ["x"], dead: "a-1" }]);
  });

  it("is left alone by a new process in another slot", async (t) => {
    const bus = dapr();
    const dead = process(t, bus, "a", { slot: "order-0" });
    await dead.journal.start();
    await dead.journal.begin("order:1");
    dead.die();
    const other = process(t, bus, "b", { slot: "order-1" });
    await other.journal.start();
    assert.deepEqual(other.recovered, []);
    assert.deepEqual(await other.journal.alive(), new Set(["a", "b"]));
  });

  it("is taken over by another replica once its beat stands still", async (t) => {
    const bus = dapr();
    const other = process(t, bus, "b", { times: QUICK });
    await other.journal.start();
    const dead = process(t, bus, "a", { times: QUICK });
    await dead.journal.start();
    await dead.journal.begin("order:1");
    dead.die();
    await until(() => tokensOf(bus, "a") === undefined, "the journal is taken over");
    assert.deepEqual(other.recovered, [{ tokens: ["order:1"], dead: "a" }]);
    await until(() => !("a" in roster(bus)), "the dead one is off the roster");
  });

  it("is kept until it has been recovered, and that is tried again", async (t) => {
    const bus = dapr();
    const dead = process(t, bus, "a", { times: QUICK });
    await dead.journal.start();
    await dead.journal.begin("order:1");
    dead.die();
    let tries = 0;
    const other = process(t, bus, "b", {
      times: QUICK,
      recover: async () => {
        if (++tries < 2) throw new Unavailable("not now");
        assert.deepEqual(tokensOf(bus, "a"), ["order:1"], "still on record");
      },
    });
    await other.journal.start();
    await until(() => tokensOf(bus, "a") === undefined, "the journal is taken over");
    assert.equal(tries, 2);
  });

  it("with nothing in it is just forgotten", async (t) => {
    const bus = dapr();
    const dead = process(t, bus, "a", { times: QUICK });
    await dead.journal.start();
    await until(() => beatOf(bus, "a") > 0, "it has shown that it lives");
    dead.die();
    const other = process(t, bus, "b", { times: QUICK });
    await other.journal.start();
    await until(() => !("a" in roster(bus)), "it is forgotten");
    assert.deepEqual(other.recovered, []);
    assert.equal(tokensOf(bus, "a"), undefined);
  });
});

describe("a living replica", () => {
  it("is not taken for dead, however long it takes over one thing", async (t) => {
    const bus = dapr();
    const busy = process(t, bus, "a", { times: QUICK });
    await busy.journal.start();
    await busy.journal.begin("order:1");
    const other = process(t, bus, "b", { times: QUICK });
    await other.journal.start();
    const began = performance.now();
    await until(() => performance.now() - began > 2 * QUICK.takeover, "others had time to take it over");
    assert.deepEqual(other.recovered, []);
    assert.deepEqual(tokensOf(bus, "a"), ["order:1"]);
  });

  it("is not taken for dead because the store was away", async (t) => {
    const bus = dapr();
    const busy = process(t, bus, "a", { times: QUICK });
    await busy.journal.start();
    await busy.journal.begin("order:1");
    let looks = 0;
    const other = process(t, bus, "b", {
      times: QUICK,
      store: (store) => ({
        ...store,
        get: async (keys) => {
          const found = await store.get(keys);
          if (keys.includes("journal:a")) looks++;
          return found;
        },
      }),
    });
    await other.journal.start();
    await until(() => looks > 1, "it has been looked at");
    bus.down.add("things");
    const began = performance.now();
    await until(() => performance.now() - began > 2 * QUICK.takeover, "the store was away for long");
    // The other is the first to reach it again.
    const go = busy.pause();
    const before = looks;
    bus.down.clear();
    await until(() => looks > before, "it has been looked at again");
    go();
    const beat = beatOf(bus, "a");
    await until(() => beatOf(bus, "a") > beat + 3, "it beats again");
    assert.deepEqual(other.recovered, []);
  });

  it("that was paused and taken over joins again before it goes on", async (t) => {
    const bus = dapr();
    const paused = process(t, bus, "a", { times: QUICK });
    await paused.journal.start();
    await paused.journal.begin("order:1");
    const go = paused.pause();
    const other = process(t, bus, "b", { times: QUICK });
    await other.journal.start();
    await until(() => !("a" in roster(bus)), "it is taken for dead");
    assert.deepEqual(other.recovered, [{ tokens: ["order:1"], dead: "a" }]);
    go();
    await paused.journal.fresh();
    assert.deepEqual(tokensOf(bus, "a"), ["order:1"], "what it still has under way is on record again");
    assert.ok("a" in roster(bus));
    assert.equal(paused.said.length, 1);
    const beat = beatOf(bus, "a");
    await until(() => beatOf(bus, "a") > beat + 3, "it beats again");
    assert.equal(other.recovered.length, 1);
  });
});
