import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as macrotask } from "node:timers/promises";
import { Batcher, KeyedLock } from "#kit/batch.js";
import { Unavailable } from "#kit/sidecar.js";

/** Calls that end when the test says so. */
function calls<T>() {
  const asked: { items: string[]; answer: (outs: (T | Error)[]) => void; fail: (error: Error) => void }[] =
    [];
  const run = (items: string[]) =>
    new Promise<(T | Error)[]>((answer, fail) => asked.push({ items, answer, fail }));
  return { asked, run };
}

describe("a batcher", () => {
  it("refuses what comes when too much waits already, rather than to grow", async () => {
    const { asked, run } = calls<string>();
    const batcher = new Batcher(run, 4, 1, 10);
    const outcomes = Promise.allSettled([..."abcdefghijkl"].map((one) => batcher.add(one)));
    for (let calls = 1; calls <= 3; calls++) {
      await macrotask();
      asked[calls - 1]?.answer(asked[calls - 1]?.items ?? []);
    }
    const refused = (await outcomes).filter((one) => one.status === "rejected");
    assert.equal(refused.length, 2);
    for (const { reason } of refused) assert.ok(reason instanceof Unavailable);
  });

  it("sends together what is asked within a turn, and then what comes while that is under way", async () => {
    const { asked, run } = calls<string>();
    const batcher = new Batcher(run);
    const first = [batcher.add("a"), Promise.resolve().then(() => batcher.add("b"))];
    assert.equal(asked.length, 0);
    await macrotask();
    assert.deepEqual(asked[0]?.items, ["a", "b"]);
    const rest = [batcher.add("c")];
    await macrotask();
    rest.push(batcher.add("d"));
    await macrotask();
    assert.equal(asked.length, 1, "one call at a time");
    asked[0]?.answer(["A", "B"]);
    assert.deepEqual(await Promise.all(first), ["A", "B"]);
    await macrotask();
    assert.deepEqual(asked[1]?.items, ["c", "d"]);
    asked[1]?.answer(["C", "D"]);
    assert.deepEqual(await Promise.all(rest), ["C", "D"]);
    assert.equal(asked.length, 2);
  });

  it("sends at most so many items in so many calls at a time", async () => {
    const { asked, run } = calls<string>();
    const batcher = new Batcher(run, 2, 2);
    const items = ["a", "b", "c", "d", "e", "f", "g"];
    const all = items.map((item) => batcher.add(item));
    const seen: string[][] = [];
    let most = 0;
    while (seen.flat().length < items.length) {
      await macrotask();
      most = Math.max(most, asked.length);
      const call = asked.shift();
      if (call === undefined) continue;
      seen.push(call.items);
      call.answer(call.items.map((item) => item.toUpperCase()));
    }
    assert.deepEqual(await Promise.all(all), ["A", "B", "C", "D", "E", "F", "G"]);
    assert.deepEqual(seen.flat(), items, "in order");
    assert.ok(Math.max(...seen.map(({ length }) => length)) === 2, JSON.stringify(seen));
    assert.ok(most <= 2, `${most} calls at a time`);
  });

  it("has two calls under way where it may", async () => {
    const { asked, run } = calls<string>();
    const batcher = new Batcher(run, 64, 2);
    const all = [];
    for (const item of ["a", "b", "c"]) {
      all.push(batcher.add(item));
      await macrotask();
    }
    assert.deepEqual(
      asked.map(({ items }) => items),
      [["a"], ["b"]],
    );
    asked[1]?.answer(["B"]);
    await macrotask();
    assert.deepEqual(asked[2]?.items, ["c"]);
    asked[0]?.answer(["A"]);
    asked[2]?.answer(["C"]);
    assert.deepEqual(await Promise.all(all), ["A", "B", "C"]);
  });

  it("fails one item for itself, all of a call that fails, and goes on", async () => {
    const { asked, run } = calls<string>();
    const batcher = new Batcher(run);
    const a = batcher.add("a");
    await macrotask();
    const b = assert.rejects(batcher.add("b"), /b is bad/);
    const c = batcher.add("c");
    asked[0]?.answer(["A"]);
    await a;
    await macrotask();
    asked[1]?.answer([new Error("b is bad"), "C"]);
    await b;
    assert.equal(await c, "C");
    const lost = assert.rejects(batcher.add("d"), /line cut/);
    await macrotask();
    asked[2]?.fail(new Error("line cut"));
    await lost;
    await macrotask();
    const e = batcher.add("e");
    await macrotask();
    asked[3]?.answer(["E"]);
    assert.equal(await e, "E");
  });
});

describe("a keyed lock", () => {
  it("runs the tasks of one key one after another, those of others beside them", async () => {
    const lock = new KeyedLock();
    const steps: string[] = [];
    const task = (name: string, rounds: number) => async () => {
      steps.push(`${name} begins`);
      for (let i = 0; i < rounds; i++) await macrotask();
      steps.push(`${name} ends`);
      return name;
    };
    const answers = await Promise.all([
      lock.run("x", task("x1", 3)),
      lock.run("x", task("x2", 0)),
      lock.run("y", task("y1", 1)),
    ]);
    assert.deepEqual(answers, ["x1", "x2", "y1"]);
    assert.deepEqual(steps, ["x1 begins", "y1 begins", "y1 ends", "x1 ends", "x2 begins", "x2 ends"]);
  });

  it("is free again after a task that failed", async () => {
    const lock = new KeyedLock();
    const failed = assert.rejects(
      lock.run("x", async () => {
        throw new Error("failed");
      }),
      /failed/,
    );
    assert.equal(await lock.run("x", async () => "next"), "next");
    await failed;
  });
});
