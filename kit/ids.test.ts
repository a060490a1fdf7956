import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BLOCK, endOfBlock, Ids } from "#kit/ids.js";
import { MemoryDapr } from "#kit/memory.js";
import { Conflict, type Store, Unavailable } from "#kit/sidecar.js";

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const take = (ids: Ids, count: number) => Promise.all(numbers(1, count).map(() => ids.next()));

/** A store that counts its writes. */
function counted() {
  const store = new MemoryDapr().sidecar("numbers").store;
  const writes = { count: 0 };
  const save: Store["save"] = (...args) => {
    writes.count++;
    return store.save(...args);
  };
  return { store: { ...store, save }, writes };
}

describe("ids", () => {
  it("begin at 1, go on without gaps, and cost one write a block", async () => {
    const { store, writes } = counted();
    assert.deepEqual(await take(new Ids(store, "n"), 3 * BLOCK), numbers(1, 3 * BLOCK));
    assert.equal(writes.count, 3);
  });

  it("come in blocks: another replica's begin at the next one", async () => {
    const { store } = counted();
    const [one, other] = [new Ids(store, "n"), new Ids(store, "n")];
    assert.deepEqual([await one.next(), await other.next(), await one.next()], [1, BLOCK + 1, 2]);
    assert.equal(await one.last(), 2 * BLOCK);
    assert.equal(await new Ids(store, "another counter").next(), 1);
  });

  it("are never given out twice by replicas that number at the same time", async () => {
    const { store } = counted();
    const replicas = numbers(1, 4).map(() => new Ids(store, "n"));
    const all = (await Promise.all(replicas.map((ids) => take(ids, 5 * BLOCK + 3)))).flat();
    assert.equal(new Set(all).size, 4 * (5 * BLOCK + 3));
    assert.ok(Math.max(...all) <= 4 * 6 * BLOCK, "and no block is lost");
  });

  it("are not given out before their block is on record: another replica may get it", async () => {
    const { store } = counted();
    let arrive: () => void = () => {};
    const onItsWay = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    const save: Store["save"] = async (...args) => {
      await onItsWay;
      return store.save(...args);
    };
    const slow = new Ids({ ...store, save }, "n");
    const first = slow.next();
    await new Promise((resolve) => setImmediate(resolve));
    const second = slow.next(); // while the block is being taken
    assert.equal(await new Ids(store, "n").next(), 1, "somebody else is faster");
    arrive();
    assert.deepEqual(await Promise.all([first, second]), [BLOCK + 1, BLOCK + 2]);
  });

  it("go back when a process stops, unless others have gone on", async () => {
    const { store } = counted();
    const [first, second, third] = [new Ids(store, "n"), new Ids(store, "n"), new Ids(store, "n")];
    await take(first, 3);
    await first.giveBack();
    assert.deepEqual(await take(second, BLOCK - 3), numbers(4, BLOCK), "the rest of that block");
    assert.equal(await second.next(), BLOCK + 1);
    assert.equal(await third.next(), 2 * BLOCK + 1);
    await second.giveBack();
    assert.equal(await first.next(), 3 * BLOCK + 1, "a gap remains");
  });

  it("are given out no more once they are given back", async () => {
    const { store } = counted();
    const [first, second] = [new Ids(store, "n"), new Ids(store, "n")];
    await take(first, 3);
    await first.giveBack();
    assert.equal(await second.next(), 4);
    assert.equal(await first.next(), BLOCK + 1);
  });

  it("can be set aside, once", async () => {
    const { store, writes } = counted();
    const ids = new Ids(store, "n");
    await ids.setAside(5);
    await ids.setAside(3);
    assert.equal(writes.count, 1);
    assert.equal(await ids.next(), 6);
    await ids.setAside(5);
    assert.equal(await ids.last(), BLOCK);
  });

  it("reach as far as the ids of others", async () => {
    const { store, writes } = counted();
    const ids = new Ids(store, "n");
    await ids.cover(BLOCK + 1);
    assert.equal(await ids.last(), 2 * BLOCK);
    for (const id of numbers(1, 2 * BLOCK)) await ids.cover(id);
    assert.equal(writes.count, 1, "one write a block");
    assert.equal(await ids.next(), 2 * BLOCK + 1);
    await new Ids(store, "n").cover(1);
    assert.equal(await ids.last(), 3 * BLOCK, "never less far");
  });

  it("wait for the store, and give out nothing twice when the answer to a write is lost", async () => {
    const { store } = counted();
    let lose = true;
    const save: Store["save"] = async (...args) => {
      await store.save(...args);
      if (lose) throw new Unavailable("no answer");
    };
    const ids = new Ids({ ...store, save }, "n");
    await assert.rejects(ids.next(), Unavailable);
    lose = false;
    const other = new Ids(store, "n");
    assert.equal(new Set([await ids.next(), await ids.next(), await other.next()]).size, 3);
  });

  it("of a block that another replica gets first are given to nobody who asks meanwhile", async () => {
    const { store } = counted();
    const other = new Ids(store, "n");
    let asked: Promise<number> | undefined;
    const theirs: number[] = [];
    const save: Store["save"] = async (...args) => {
      if (theirs.length === 0) {
        theirs.push(await other.next());
        asked = ids.next(); // while the first write is under way, which is about to fail
        await new Promise((resolve) => setImmediate(resolve));
      }
      await store.save(...args);
    };
    const ids: Ids = new Ids({ ...store, save }, "n");
    const ours = [await ids.next(), await asked];
    assert.deepEqual([theirs, ours.toSorted()], [[1], [BLOCK + 1, BLOCK + 2]]);
  });

  it("give up on a counter that others change all the time", async () => {
    const { store } = counted();
    const save: Store["save"] = async () => {
      throw new Conflict("changed");
    };
    await assert.rejects(new Ids({ ...store, save }, "n").next(), Unavailable);
  });
});

describe("the end of a block", () => {
  it("is a multiple of its length", () => {
    assert.deepEqual([1, BLOCK, BLOCK + 1].map(endOfBlock), [BLOCK, BLOCK, 2 * BLOCK]);
  });
});
