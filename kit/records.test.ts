import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setImmediate as macrotask } from "node:timers/promises";
import { BLOCK } from "#kit/ids.js";
import { inTrace } from "#kit/log.js";
import { MemoryDapr } from "#kit/memory.js";
import { Problem } from "#kit/problem.js";
import { type Aggregate, compactTime, Records, type Stored } from "#kit/records.js";
import { type CloudEvent, Conflict, type Sidecar, type Store, Unavailable } from "#kit/sidecar.js";
import { settled, silent, until } from "#kit/testing.js";

interface Box {
  sum: number;
  names: string[];
}
type BoxEvent = { type: "Added" | "Noted"; data: { n: number; name: string } };

const BOX: Aggregate<Box, BoxEvent> = {
  name: "box",
  listed: true,
  evolve: (box, { data }) => ({ sum: (box?.sum ?? 0) + data.n, names: [...(box?.names ?? []), data.name] }),
};
const add =
  (name: string, n = 1) =>
  (): BoxEvent[] => [{ type: "Added", data: { n, name } }];
const note = (name: string) => (): BoxEvent[] => [{ type: "Noted", data: { n: 0, name } }];

const QUICK = { beat: 20, linger: 0, idleBeat: 20, watch: 20, takeover: 400, forget: 400 };

interface ReplicaOptions {
  slot?: string;
  times?: object;
  /** puts something between the records and their store */
  store?: (store: Store) => Store;
  now?: () => Date;
  mostBehind?: number;
}

/** One dapr with a listener to "Added", and replicas on it that a test can kill, pause and cut off. */
function world(t: TestContext) {
  const dapr = new MemoryDapr();
  const heard: CloudEvent[] = [];
  dapr.join("listener", {
    topics: ["Added"],
    call: async () => ({ status: 404, headers: {}, body: undefined }),
    deliver: async (event) => {
      heard.push(event);
      return "SUCCESS";
    },
  });
  const real = dapr.sidecar("boxes");
  let count = 0;

  const replica = (options: ReplicaOptions = {}) => {
    const name = `r${++count}`;
    let running = Promise.resolve();
    let broker = Promise.resolve();
    const never = () => new Promise<never>(() => undefined);
    const stoppable: Store = {
      get: async (keys) => running.then(() => real.store.get(keys)),
      save: async (...args) => running.then(() => real.store.save(...args)),
      delete: async (...args) => running.then(() => real.store.delete(...args)),
    };
    const sidecar: Sidecar = {
      ...real,
      store: options.store?.(stoppable) ?? stoppable,
      publish: async (topic, events) => {
        await running;
        await broker;
        await real.publish(topic, events);
      },
    };
    const records = new Records({
      app: "boxes",
      replica: name,
      slot: options.slot ?? name,
      sidecar,
      isPublic: (type) => type === "Added",
      log: silent,
      now: options.now ?? (() => new Date()),
      times: options.times,
      mostBehind: options.mostBehind,
    });
    const resumed: string[] = [];
    records.onResume(BOX, async (id, box) => {
      if (box === undefined) return;
      const { names } = box;
      resumed.push(`${id}: ${names.join(" ")}`);
    });
    const die = () => {
      running = never();
      void records.journal.stop();
    };
    t.after(die);
    return {
      name,
      records,
      resumed,
      die,
      /** stops it as SIGSTOP does; answers how to let it go on */
      pause: () => {
        let go = () => {};
        running = new Promise((resolve) => {
          go = resolve;
        });
        return go;
      },
      /** what it publishes from now on gets no further than this */
      cutOff: () => {
        broker = never();
      },
      command: (id: number, name: string, decide = add(name)) =>
        records.handle(BOX, id, { command: name }, decide),
      event: (id: number, name: string, decide = add(name)) =>
        records.handle(BOX, id, { event: name }, decide),
    };
  };
  const rows = dapr.stores.get("boxes") ?? new Map();
  return {
    dapr,
    heard,
    replica,
    rows,
    stored: (id: number) => rows.get(`box:${id}`)?.value as Stored<Box> | undefined,
    outbox: (id: number) =>
      ((rows.get(`box:${id}`)?.value as Stored<Box> | undefined)?.outbox ?? []).map((one) => one.id),
    names: () => heard.map((event) => event.data.name),
    ids: () => heard.map((event) => event.id),
  };
}

describe("a command", () => {
  it("changes its record and tells so, in an event that carries what the seeds' carry", async (t) => {
    const { dapr, heard, replica, stored } = world(t);
    const at = new Date(2024, 1, 3, 4, 5, 6);
    const one = replica({ now: () => at });
    await one.records.start();
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const outcome = await inTrace(traceparent, () => one.command(1, "a"));
    assert.deepEqual(outcome, {
      state: { sum: 1, names: ["a"] },
      events: [{ type: "Added", data: { n: 1, name: "a" } }],
    });
    await settled(dapr);
    assert.deepEqual(heard, [
      {
        specversion: "1.0",
        id: "boxes/box:1/1/0",
        source: "boxes",
        type: "Added",
        time: at.toISOString(),
        subject: "box:1",
        datacontenttype: "application/json",
        data: { n: 1, name: "a", eventType: "Added", timestamp: "20240203040506" },
        traceparent,
        traceid: traceparent,
      },
    ]);
    assert.deepEqual([stored(1)?.version, stored(1)?.seen, stored(1)?.by], [1, ["a"], "r1"]);
  });

  it("keeps to itself what is not for others", async (t) => {
    const { dapr, heard, replica, stored } = world(t);
    const one = replica();
    await one.records.start();
    await one.command(1, "a", note("a"));
    await settled(dapr);
    assert.deepEqual(heard, []);
    assert.deepEqual(stored(1)?.outbox, []);
  });

  it("that decides nothing writes nothing", async (t) => {
    const { replica, rows } = world(t);
    const one = replica();
    await one.records.start();
    const { state, events } = await one.command(1, "a", () => []);
    assert.deepEqual([state, events, rows.has("box:1")], [undefined, [], false]);
  });

  it("that is refused changes nothing and leaves nothing in the journal", async (t) => {
    const { replica, rows } = world(t);
    const one = replica();
    await one.records.start();
    const refusal = new Problem(409, "full", "full", "The box is full.");
    const refused = one.command(1, "a", () => {
      throw refusal;
    });
    await assert.rejects(refused, (error) => error === refusal);
    await one.records.stop();
    assert.equal(rows.has("box:1"), false);
    assert.deepEqual([...rows.keys()], ["replicas"], "a clean stop leaves just the roster");
  });

  it("happens once, however often it is repeated", async (t) => {
    const { dapr, replica, ids } = world(t);
    const one = replica();
    await one.records.start();
    await one.command(1, "a");
    const { state, events } = await one.command(1, "a");
    assert.deepEqual([state?.sum, events], [1, []]);
    const repeats = await Promise.all([one.command(1, "b"), one.command(1, "b"), one.command(1, "b")]);
    assert.deepEqual(
      repeats.map(({ state }) => state?.sum),
      [2, 2, 2],
    );
    await settled(dapr);
    assert.deepEqual(ids(), ["boxes/box:1/1/0", "boxes/box:1/2/0"]);
  });

  it("is decided again when another replica was faster, so that no change is lost", async (t) => {
    const { dapr, replica, stored, ids } = world(t);
    const [one, other] = [replica(), replica()];
    await one.records.start();
    await other.records.start();
    const commands = Array.from({ length: 20 }, (_, i) => [
      one.command(1, `a${i}`),
      other.command(1, `b${i}`),
    ]);
    await Promise.all(commands.flat());
    await settled(dapr);
    assert.equal(stored(1)?.state?.sum, 40);
    assert.equal(new Set(stored(1)?.state?.names).size, 40);
    assert.equal(stored(1)?.version, 40);
    assert.equal(new Set(ids()).size, 40);
    assert.equal(ids().length, 40, "and each is told once");
  });

  it("succeeds while the broker is away; its event leaves when it is back, and only then its token", async (t) => {
    const { dapr, replica, names, rows } = world(t);
    const one = replica({ times: { ...QUICK, takeover: 60_000 } });
    await one.records.start();
    dapr.down.add("events");
    await one.command(1, "a");
    await one.command(1, "b");
    const journal = () =>
      (rows.get("journal:r1")?.value as { beat: number; tokens: string[] }) ?? { beat: 0 };
    const { beat } = journal();
    await until(() => journal().beat > beat + 3, "it has beaten on");
    assert.deepEqual(journal().tokens, [`box#${BLOCK}`]);
    assert.deepEqual(names(), []);
    dapr.down.clear();
    await until(() => names().length === 2, "the events have left");
    assert.deepEqual(names().sort(), ["a", "b"]);
    await until(() => journal().tokens.length === 0, "the token has faded");
  });

  it("is refused while too many others wait for the broker, before anything of it is on record", async (t) => {
    const { dapr, replica, names, stored } = world(t);
    const one = replica({ mostBehind: 20 });
    await one.records.start();
    dapr.down.add("events");
    for (let id = 1; id <= 20; id++) await one.command(id, `a${id}`);
    await assert.rejects(one.command(21, "too much"), Unavailable);
    assert.equal(stored(21), undefined);
    dapr.down.clear();
    await until(() => names().length === 20, "the events have left");
    await one.command(21, "again");
    await until(() => names().includes("again"), "it takes commands again");
  });

  it("whose answer is lost happens once: its event leaves, and a repeat finds it done", async (t) => {
    let lose = true;
    const { dapr, replica, stored, names } = world(t);
    const one = replica({
      store: (store) => ({
        ...store,
        save: async (key, ...rest) => {
          await store.save(key, ...rest);
          if (key === "box:1" && lose) {
            lose = false;
            throw new Unavailable("no answer");
          }
        },
      }),
    });
    await one.records.start();
    await assert.rejects(one.command(1, "a"), Unavailable);
    await until(() => names().length === 1, "what was changed is told");
    assert.deepEqual(one.resumed, ["1: a"], "and the service may go on with it");
    const { state, events } = await one.command(1, "a");
    assert.deepEqual([state?.sum, events], [1, []]);
    await settled(dapr);
    assert.equal(stored(1)?.state?.sum, 1);
    assert.deepEqual(names(), ["a"]);
  });

  it("that cannot read its record leaves nothing in the journal for good", async (t) => {
    let fail = true;
    const { replica, rows, stored } = world(t);
    const one = replica({
      times: { ...QUICK, takeover: 60_000 },
      store: (store) => ({
        ...store,
        get: async (keys) => {
          if (fail && keys.includes("box:1")) throw new Unavailable("no answer");
          return store.get(keys);
        },
      }),
    });
    await one.records.start();
    await assert.rejects(one.command(1, "a"), Unavailable);
    const tokens = () => (rows.get("journal:r1")?.value as { tokens: string[] } | undefined)?.tokens ?? [];
    assert.deepEqual(tokens(), [`box#${BLOCK}`], "the record may have been changed, for all that is known");
    fail = false;
    await until(() => tokens().length === 0, "that has been looked into");
    assert.deepEqual([stored(1)?.state, await one.records.load(BOX, 1)], [null, undefined]);
  });

  it("whose first write is late does not succeed once it has been looked for: nobody would publish what it says", async (t) => {
    let late: (() => Promise<void>) | undefined;
    const { replica, names, stored } = world(t);
    const one = replica({
      times: { ...QUICK, takeover: 60_000 },
      store: (store) => ({
        ...store,
        save: async (key, value, ...rest) => {
          if (key !== "box:1" || late !== undefined) return store.save(key, value, ...rest);
          late = () => store.save(key, value, ...rest);
          throw new Unavailable("no answer in time");
        },
      }),
    });
    await one.records.start();
    await assert.rejects(one.command(1, "a"), Unavailable);
    await until(() => stored(1) !== undefined, "it has been looked for");
    await assert.rejects(late?.() ?? Promise.resolve(), Conflict);
    await one.command(1, "a");
    await until(() => names().length > 0, "it is told");
    assert.deepEqual(names(), ["a"]);
  });

  it("waits for the journal: with the store away it is not done", async (t) => {
    const { dapr, replica, rows } = world(t);
    const one = replica();
    await one.records.start();
    dapr.down.add("boxes");
    await assert.rejects(one.command(1, "a"), Unavailable);
    dapr.down.clear();
    assert.equal(rows.has("box:1"), false);
    await one.command(1, "a");
    assert.equal(rows.has("box:1"), true);
  });
});

describe("what follows from a command", () => {
  const tokens = (rows: ReadonlyMap<string, { value: unknown }>, replica = "r1") =>
    (rows.get(`journal:${replica}`)?.value as { tokens: string[] } | undefined)?.tokens ?? [];

  it("is done once that is committed and told, with the state that it led to; the answer does not wait", async (t) => {
    const { dapr, replica, stored } = world(t);
    const one = replica();
    await one.records.start();
    dapr.down.add("events");
    const told = t.mock.method(dapr, "accept");
    const followed: unknown[] = [];
    const then = async (box: Box | undefined) => {
      followed.push({ names: box?.names, version: stored(1)?.version, told: told.mock.callCount() });
    };
    const { state } = await one.records.handle(BOX, 1, { command: "a" }, add("a"), { then });
    assert.deepEqual([state?.names, followed], [["a"], []]);
    dapr.down.clear();
    await until(() => followed.length > 0, "it has followed");
    assert.deepEqual(followed, [{ names: ["a"], version: 1, told: 1 }]);
    await settled(dapr);
    assert.equal(followed.length, 1, "once");
  });

  it("is tried until it succeeds; the journal names the record meanwhile, and not longer", async (t) => {
    const { replica, rows } = world(t);
    const one = replica({ times: { ...QUICK, takeover: 60_000 } });
    await one.records.start();
    let tries = 0;
    let refuse = true;
    const then = async () => {
      tries++;
      if (refuse) throw new Unavailable("not now");
    };
    await one.records.handle(BOX, 1, { command: "a" }, add("a"), { then });
    const beat = () => (rows.get("journal:r1")?.value as { beat: number } | undefined)?.beat ?? 0;
    const before = beat();
    await until(
      () => tries > 2 && beat() > before + 3,
      "it has been tried again, and the journal has beaten on",
    );
    assert.deepEqual(tokens(rows), [`box#${BLOCK}`]);
    refuse = false;
    const failed = tries;
    await until(() => tokens(rows).length === 0, "the token has faded");
    assert.equal(tries, failed + 1, "the first success is the last try");
  });

  it("does not hold up the next command on the same record", async (t) => {
    const { replica, stored } = world(t);
    const one = replica();
    await one.records.start();
    const then = () => new Promise<void>(() => undefined);
    await one.records.handle(BOX, 1, { command: "a" }, add("a"), { then });
    await one.command(1, "b");
    assert.equal(stored(1)?.state?.sum, 2);
  });

  it("is done also where nothing was to be changed, and for a repeat: the first may not have got so far", async (t) => {
    const { replica } = world(t);
    const one = replica();
    await one.records.start();
    await one.command(1, "a");
    const followed: unknown[] = [];
    const then = async (box: Box | undefined) => {
      followed.push(box?.sum);
    };
    await one.records.handle(BOX, 1, { command: "b" }, () => [], { then });
    await until(() => followed.length === 1, "it follows on nothing");
    await one.records.handle(BOX, 1, { command: "a" }, add("a"), { then });
    await until(() => followed.length === 2, "it follows on a repeat");
    await one.records.handle(BOX, 2, { command: "c" }, () => [], { then });
    await until(() => followed.length === 3, "it follows where there is no record");
    assert.deepEqual(followed, [1, 1, undefined]);
  });

  it("does not follow on a refusal", async (t) => {
    const { dapr, replica, rows } = world(t);
    const one = replica();
    await one.records.start();
    let followed = false;
    const then = async () => {
      followed = true;
    };
    const refuse = () => {
      throw new Problem(409, "full", "full", "The box is full.");
    };
    await assert.rejects(one.records.handle(BOX, 1, { command: "a" }, refuse, { then }), Problem);
    await settled(dapr);
    await one.records.stop();
    assert.deepEqual([followed, tokens(rows)], [false, []]);
  });

  it("is the service's to resume where the answer of the store was lost", async (t) => {
    let lose = true;
    const { replica } = world(t);
    const one = replica({
      store: (store) => ({
        ...store,
        save: async (key, ...rest) => {
          await store.save(key, ...rest);
          if (key === "box:1" && lose) {
            lose = false;
            throw new Unavailable("no answer");
          }
        },
      }),
    });
    await one.records.start();
    const then = async () => undefined;
    await assert.rejects(one.records.handle(BOX, 1, { command: "a" }, add("a"), { then }), Unavailable);
    await until(() => one.resumed.length > 0, "it is resumed");
    assert.deepEqual(one.resumed, ["1: a"]);
  });

  it("is the service's to resume as well where somebody says so, once the store answers again", async (t) => {
    let away = false;
    const { replica } = world(t);
    const one = replica({
      store: (store) => ({
        ...store,
        get: async (keys) => {
          if (away) throw new Unavailable("away");
          return store.get(keys);
        },
      }),
    });
    await one.records.start();
    await one.command(1, "a");
    away = true;
    one.records.resumeLater(BOX, 1);
    assert.equal(await one.command(1, "b").catch((error) => error instanceof Unavailable), true);
    assert.deepEqual(one.resumed, []);
    away = false;
    await until(() => one.resumed.length > 0, "it is resumed");
    assert.equal(one.resumed[0], "1: a");
  });

  /** Replicas that send what their records say, until it is taken; `away` while nobody takes anything. */
  function senders(t: TestContext) {
    const shared = world(t);
    const taken: string[] = [];
    const takes = { away: true };
    const sender = (options: ReplicaOptions) => {
      const one = shared.replica(options);
      let alive = true;
      const then = async (box: Box | undefined) => {
        if (!alive) await new Promise(() => undefined);
        if (takes.away) throw new Unavailable("nobody is there");
        taken.push(`${box?.names} by ${one.name}`);
      };
      one.records.onResume(BOX, async (id, box) => {
        if (box !== undefined)
          await one.records.handle(BOX, id, { command: `again:${id}` }, () => [], { then });
      });
      const send = (id: number, name: string) =>
        one.records.handle(BOX, id, { command: name }, note(name), { then });
      const die = () => {
        alive = false;
        one.die();
      };
      return { ...one, send, die };
    };
    return { ...shared, taken, takes, sender };
  }

  it("of a replica that died is done by the next process in its slot, and stays in that one's journal until it is", async (t) => {
    const { sender, taken, takes, rows } = senders(t);
    const dead = sender({ slot: "boxes-0" });
    await dead.records.start();
    await dead.send(1, "a");
    dead.die();
    const next = sender({ slot: "boxes-0", times: { ...QUICK, takeover: 60_000 } });
    await next.records.start();
    assert.equal(rows.has("journal:r1"), false, "it has been taken over");
    assert.deepEqual([taken, tokens(rows, "r2")], [[], [`box#${BLOCK}`]]);
    takes.away = false;
    await until(() => taken.length > 0, "it is taken");
    await until(() => tokens(rows, "r2").length === 0, "the token has faded");
    assert.deepEqual(taken, ["a by r2"]);
  });

  it("of a replica that died is done by another that sees its beat stand still", async (t) => {
    const { sender, taken, takes } = senders(t);
    const other = sender({ times: QUICK });
    await other.records.start();
    const dead = sender({ times: QUICK });
    await dead.records.start();
    await dead.send(1, "a");
    dead.die();
    takes.away = false;
    await until(() => taken.length > 0, "it is taken");
    assert.deepEqual(taken, ["a by r1"]);
  });

  it("that waits at a clean stop is left in the journal, and done by the next start", async (t) => {
    const { sender, taken, takes, rows } = senders(t);
    const first = sender({ slot: "boxes-0" });
    await first.records.start();
    await first.send(1, "a");
    await first.records.stop();
    assert.deepEqual(tokens(rows), [`box#${BLOCK}`], "the stop does not wait for ever, and forgets nothing");
    takes.away = false;
    assert.deepEqual(taken, []);
    const next = sender({ slot: "boxes-0" });
    await next.records.start();
    await until(() => taken.length > 0, "it is taken");
    assert.deepEqual(taken, ["a by r2"]);
  });
});

describe("an event", () => {
  it("is done when what follows from it is published, and keeps no journal", async (t) => {
    const { dapr, replica, names, rows } = world(t);
    const one = replica();
    await one.records.start();
    await one.event(1, "a");
    await macrotask();
    assert.deepEqual(names(), ["a"]);
    assert.deepEqual(
      [...rows.keys()].filter((key) => key.startsWith("journal")),
      [],
    );
    await settled(dapr);
  });

  it("redelivered after a failed publication publishes what it left, and only that", async (t) => {
    const { dapr, replica, names, stored } = world(t);
    const one = replica();
    await one.records.start();
    dapr.down.add("events");
    await assert.rejects(one.event(1, "a"), Unavailable);
    await assert.rejects(one.event(1, "b"), Unavailable);
    dapr.down.clear();
    const { events } = await one.event(1, "a");
    await settled(dapr);
    assert.deepEqual(events, []);
    assert.deepEqual(names(), ["a"]);
    await one.event(1, "a");
    await one.event(1, "b");
    await one.event(1, "b");
    await settled(dapr);
    assert.deepEqual(names(), ["a", "b"], "and not again what it knows to be published");
    assert.equal(stored(1)?.state?.sum, 2);
  });

  it("redelivered to another replica is recognised, and published there", async (t) => {
    const { dapr, replica, ids, stored } = world(t);
    const [one, other] = [replica(), replica()];
    await one.records.start();
    await other.records.start();
    dapr.down.add("events");
    await assert.rejects(one.event(1, "a"), Unavailable);
    one.die();
    dapr.down.clear();
    await other.event(1, "a");
    await settled(dapr);
    assert.deepEqual([stored(1)?.state?.sum, ids()], [1, ["boxes/box:1/1/0"]]);
  });

  it("makes a record that lists reach, though another service has numbered it", async (t) => {
    const { replica } = world(t);
    const one = replica();
    await one.records.start();
    await one.event(70, "a");
    const page = await one.records.page(BOX, { page: 0, size: 20 });
    assert.deepEqual(
      page.items.map(({ id }) => id),
      [70],
    );
  });

  it("in a view tells nobody", async (t) => {
    const { dapr, replica, names, stored } = world(t);
    const one = replica();
    await one.records.start();
    await one.records.handle({ ...BOX, view: true }, 1, { event: "a" }, add("a"));
    await settled(dapr);
    assert.deepEqual([names(), stored(1)?.state?.sum, stored(1)?.outbox], [[], 1, []]);
  });
});

describe("a record of a view", () => {
  const VIEW = { ...BOX, view: true };
  const isBig = ({ sum }: Box) => sum > 1;

  it("can be removed, if it is wrong", async (t) => {
    const { replica, stored } = world(t);
    const one = replica();
    await one.event(1, "a", add("a", 1));
    await one.event(2, "b", add("b", 2));
    assert.equal(await one.records.remove(VIEW, 1, isBig), false);
    assert.equal(await one.records.remove(VIEW, 2, isBig), true);
    assert.equal(await one.records.remove(VIEW, 3, isBig), false);
    assert.deepEqual([stored(1)?.state?.sum, stored(2)], [1, undefined]);
  });

  it("stays if it is right by the time that it would go", async (t) => {
    const { replica, stored } = world(t);
    const [one, other] = [replica(), replica()];
    await one.event(1, "a", add("a", 2));
    const known = one.records.read(BOX, 1);
    await known;
    await other.event(1, "b", add("b", -1));
    const asked: number[] = [];
    const isWrong = (box: Box) => {
      asked.push(box.sum);
      return isBig(box);
    };
    assert.equal(await one.records.remove(VIEW, 1, isWrong, { known }), false);
    assert.deepEqual(
      [asked, stored(1)?.state?.names],
      [
        [2, 1],
        ["a", "b"],
      ],
    );
  });

  it("waits for what is under way with it here", async (t) => {
    const { replica, stored } = world(t);
    const one = replica();
    await one.event(1, "a", add("a", 2));
    const changing = one.event(1, "b", add("b", -1));
    assert.equal(await one.records.remove(VIEW, 1, isBig), false);
    await changing;
    assert.equal(stored(1)?.state?.sum, 1);
  });

  it("is the only kind: others have something to tell", async (t) => {
    const { replica, stored } = world(t);
    const one = replica();
    await one.event(1, "a", add("a", 2));
    await assert.rejects(one.records.remove(BOX, 1, isBig), /a box is no view's/);
    assert.ok(stored(1));
  });
});

describe("an outbox", () => {
  it("drops what its own replica has published with the next commit", async (t) => {
    const { dapr, replica, outbox } = world(t);
    const one = replica();
    await one.records.start();
    await one.command(1, "a");
    await settled(dapr);
    assert.deepEqual(outbox(1), ["boxes/box:1/1/0"]);
    await one.command(1, "b");
    assert.deepEqual(outbox(1), ["boxes/box:1/2/0"]);
  });

  it("keeps what is not published yet", async (t) => {
    const { dapr, replica, outbox, names } = world(t);
    const one = replica();
    await one.records.start();
    dapr.down.add("events");
    await one.command(1, "a");
    await one.command(1, "b");
    assert.deepEqual(outbox(1), ["boxes/box:1/1/0", "boxes/box:1/2/0"]);
    dapr.down.clear();
    await until(() => names().length === 2, "both have left");
    await one.command(1, "c");
    assert.deepEqual(outbox(1), ["boxes/box:1/3/0"]);
  });

  it("publishes again what others left for too long, then drops it", async (t) => {
    let minutes = 0;
    const now = () => new Date(Date.UTC(2024, 0, 1, 0, minutes));
    const { dapr, replica, outbox, names } = world(t);
    const [one, other] = [replica({ now }), replica({ now })];
    await one.records.start();
    await other.records.start();
    one.cutOff();
    await one.command(1, "a");
    await other.command(1, "b");
    await settled(dapr);
    assert.deepEqual(names(), ["b"], "it may be on its way");
    minutes = 2;
    await other.command(1, "c");
    await settled(dapr);
    assert.deepEqual(names(), ["b", "a", "c"]);
    await other.command(1, "d");
    assert.deepEqual(outbox(1), ["boxes/box:1/4/0"]);
  });
});

describe("what a dead replica left", () => {
  it("is published by the next process in its slot, which may go on with it", async (t) => {
    const { dapr, replica, ids, outbox, rows } = world(t);
    const dead = replica({ slot: "boxes-0" });
    await dead.records.start();
    await dead.command(1, "a");
    await settled(dapr);
    dead.cutOff();
    await dead.command(1, "b");
    await dead.command(40, "c");
    dead.die();
    await settled(dapr);
    assert.deepEqual(ids(), ["boxes/box:1/1/0"]);
    const next = replica({ slot: "boxes-0" });
    await next.records.start();
    await settled(dapr);
    assert.deepEqual(ids().slice(1).sort(), ["boxes/box:1/2/0", "boxes/box:40/1/0"]);
    assert.deepEqual(next.resumed.sort(), ["1: a b", "40: c"]);
    assert.deepEqual([outbox(1), outbox(40)], [[], []]);
    assert.equal(rows.has("journal:r1"), false);
  });

  it("is published by another replica that sees its beat stand still", async (t) => {
    const { replica, ids } = world(t);
    const other = replica({ times: QUICK });
    await other.records.start();
    const dead = replica({ times: QUICK });
    await dead.records.start();
    dead.cutOff();
    await dead.command(1, "a");
    dead.die();
    await until(() => ids().length > 0, "its event is heard");
    await until(() => other.resumed.length > 0, "its record is resumed");
    assert.deepEqual([ids(), other.resumed], [["boxes/box:1/1/0"], ["1: a"]]);
  });

  it("is resumed even where nothing was to be published: it may be half-way", async (t) => {
    const { replica } = world(t);
    const dead = replica({ slot: "boxes-0" });
    await dead.records.start();
    await dead.command(1, "a", note("a"));
    dead.die();
    const next = replica({ slot: "boxes-0" });
    await next.records.start();
    assert.deepEqual(next.resumed, ["1: a"]);
  });

  /** A replica dies before it has published what it wrote, and another one writes the same record. */
  const writtenAfterADeath = async (replica: ReturnType<typeof world>["replica"]) => {
    const dead = replica({ slot: "boxes-0" });
    await dead.records.start();
    dead.cutOff();
    await dead.command(1, "a");
    dead.die();
    const other = replica();
    await other.records.start();
    await other.command(1, "b");
  };

  it("is not resumed where somebody else has written since, but published all the same", async (t) => {
    const { dapr, replica, ids } = world(t);
    await writtenAfterADeath(replica);
    const next = replica({ slot: "boxes-0" });
    await next.records.start();
    await settled(dapr);
    assert.deepEqual(next.resumed, []);
    assert.deepEqual(ids().sort(), ["boxes/box:1/1/0", "boxes/box:1/2/0", "boxes/box:1/2/0"]);
  });

  it("is resumed whoever has written since, where many changes share a record", async (t) => {
    const { replica } = world(t);
    await writtenAfterADeath(replica);
    const next = replica({ slot: "boxes-0" });
    const resumed: string[] = [];
    next.records.onResume(
      BOX,
      async (id, box) => void (box && resumed.push(`${id}: ${box.names.join(" ")}`)),
      {
        shared: true,
      },
    );
    await next.records.start();
    assert.deepEqual(resumed, ["1: a b"]);
  });

  it("is nothing when it died before its first write", async (t) => {
    const { dapr, replica, rows, names } = world(t);
    const dead = replica({ slot: "boxes-0" });
    await dead.records.start();
    await dead.records.journal.begin(`box#${BLOCK}`);
    dead.die();
    const next = replica({ slot: "boxes-0" });
    await next.records.start();
    await settled(dapr);
    assert.deepEqual([names(), next.resumed, rows.has("journal:r1")], [[], [], false]);
  });

  it("is found by a sweep, should the journal not have said so", async (t) => {
    const { replica, rows } = world(t);
    const dead = replica();
    await dead.records.start();
    await dead.records.ids(BOX).cover(2);
    await dead.command(1, "a", note("a"));
    dead.die();
    const other = replica();
    await other.records.start();
    await other.command(2, "b", note("b"));
    await other.records.sweep(BOX);
    assert.deepEqual(other.resumed, [], "its writer is on the roster");
    rows.set("replicas", { value: { slots: { r2: "r2" } }, etag: "x" });
    await other.records.sweep(BOX);
    assert.deepEqual(other.resumed, ["1: a"]);
  });
});

describe("a replica that was paused and taken for dead", () => {
  it("decides again on what is true now, and does no harm", async (t) => {
    const { dapr, replica, stored, names, rows } = world(t);
    const paused = replica({ times: QUICK });
    await paused.records.start();
    await paused.command(1, "a");
    await settled(dapr);

    // It stops when it has decided, before it saves.
    let go = () => {};
    const decided: (number | undefined)[] = [];
    const command = paused.command(1, "b", ((box: Box | undefined) => {
      decided.push(box?.sum);
      if (decided.length === 1) go = paused.pause();
      return add("b")();
    }) as () => BoxEvent[]);
    await until(() => decided.length, "it has decided");
    const other = replica({ times: QUICK });
    await other.records.start();
    await until(() => !rows.has("journal:r1"), "it is taken over");
    await other.command(1, "c");

    go();
    const { state } = await command;
    assert.deepEqual(decided, [1, 2], "it had to look again");
    assert.deepEqual(state?.names, ["a", "c", "b"]);
    assert.deepEqual(stored(1)?.state?.sum, 3);
    await settled(dapr);
    assert.deepEqual(new Set(names()), new Set(["a", "b", "c"]));
    assert.deepEqual(await other.records.journal.alive(), new Set(["r1", "r2"]), "it is on the roster again");
  });

  it("is on record again before it says that a new record stands", async (t) => {
    const { replica, stored, rows, ids } = world(t);
    // Without a beat of its own meanwhile.
    const paused = replica({ times: { ...QUICK, beat: 60_000, idleBeat: 60_000 } });
    await paused.records.start();
    paused.cutOff();
    let go: (() => void) | undefined;
    const command = paused.command(1, "a", () => {
      go ??= paused.pause();
      return add("a")();
    });
    await until(() => go, "it has decided");
    const other = replica({ times: QUICK });
    await other.records.start();
    await until(() => !rows.has("journal:r1"), "it is taken over, with nothing to be found yet");
    go?.();
    await command;
    assert.equal(stored(1)?.state?.sum, 1);
    assert.deepEqual((rows.get("journal:r1")?.value as { tokens: string[] } | undefined)?.tokens, [
      `box#${BLOCK}`,
    ]);
    paused.die();
    await until(() => ids().length > 0, "the other has heard of it all the same");
    assert.deepEqual(ids(), ["boxes/box:1/2/0"], "of the second try: an empty record had taken its place");
  });
});

describe("a page", () => {
  const fill = async (t: TestContext, count: number) => {
    const { replica, rows } = world(t);
    const one = replica();
    await one.records.start();
    for (let id = 1; id <= count; id++) {
      const state = { sum: id, names: [] };
      rows.set(`box:${id}`, { value: { state, version: 1, seen: [], outbox: [], by: "r1" }, etag: `${id}` });
    }
    if (count > 0) await one.records.ids(BOX).setAside(count);
    return { ...one, rows };
  };
  const list = async (records: Records, request: Parameters<Records["page"]>[1]) => {
    const { items, ...counts } = await records.page(
      BOX,
      request as Parameters<typeof records.page<Box, BoxEvent>>[1],
    );
    return { ids: items.map(({ id }) => id), ...counts };
  };

  it("of nothing is empty", async (t) => {
    const { records } = await fill(t, 0);
    assert.deepEqual(await list(records, { page: 0, size: 20 }), {
      ...{ ids: [], size: 20, number: 0, totalElements: 0 },
    });
  });

  it("has the newest first, or the oldest, and the right ones on every page", async (t) => {
    const count = 300;
    const { records } = await fill(t, count);
    for (const order of ["newest", "oldest"] as const) {
      const all = Array.from({ length: count }, (_, i) => (order === "newest" ? count - i : i + 1));
      // Twice: the second time counts are known.
      for (const size of [7, 128, 1000])
        for (const _round of [1, 2])
          for (let page = 0; page * size < count + size; page++)
            assert.deepEqual(
              await list(records, { page, size, order }),
              {
                ids: all.slice(page * size, (page + 1) * size),
                ...{ size, number: page, totalElements: count },
              },
              `${order}, page ${page} of ${size}`,
            );
    }
  });

  it("leaves out, and does not count, what is not to be seen, and gaps", async (t) => {
    const { records, rows } = await fill(t, 300);
    rows.delete("box:299");
    rows.delete("box:5");
    const visible = (box: unknown) => (box as Box).sum % 2 === 1;
    const odd = Array.from({ length: 150 }, (_, i) => 299 - 2 * i).filter((id) => id !== 299 && id !== 5);
    const shown = [0, 1, 2].map((page) => list(records, { page, size: 60, visible } as never));
    assert.deepEqual(
      (await Promise.all(shown)).flatMap(({ ids }) => ids),
      odd,
    );
    assert.equal((await shown[0])?.totalElements, 148);
  });

  it("of a view no longer has, nor counts, what was removed, here or elsewhere", async (t) => {
    const VIEW = { ...BOX, view: true };
    const { records, rows } = await fill(t, 300);
    const total = async () => (await list(records, { page: 0, size: 1 })).totalElements;
    assert.equal(await total(), 300);
    await records.remove(VIEW, 5, () => true);
    assert.equal(await total(), 299);
    rows.delete("box:130");
    rows.delete("box:260");
    assert.equal(await total(), 298, "130 is in a full chunk, whose count is believed");
    records.recount(BOX, 129, 256);
    assert.equal(await total(), 297);
    const { ids } = await list(records, { page: 0, size: 1000 });
    assert.deepEqual(
      [5, 130, 260].filter((id) => ids.includes(id)),
      [],
    );
  });

  it("shows what has been added since", async (t) => {
    const one = await fill(t, 130);
    await list(one.records, { page: 0, size: 2 });
    const id = await one.records.ids(BOX).next();
    await one.command(id, "new");
    assert.deepEqual(await list(one.records, { page: 0, size: 2 }), {
      ...{ ids: [131, 130], size: 2, number: 0, totalElements: 131 },
    });
  });
});

describe("the seeds' timestamp", () => {
  it("is yyyyMMddHHmmss in local time", () => {
    assert.equal(compactTime(new Date(2022, 3, 8, 1, 2, 3)), "20220408010203");
    assert.equal(compactTime(new Date(2022, 11, 31, 23, 59, 59)), "20221231235959");
  });

  it("has the year of its day, not of its week: S3-E6's YYYY is wrong around New Year", () => {
    // The weeks of these days belong to another year, by ISO 8601 or by Java's default.
    for (const [day, text] of [
      [new Date(2021, 11, 27), "20211227000000"],
      [new Date(2022, 11, 31), "20221231000000"],
      [new Date(2024, 11, 29), "20241229000000"],
      [new Date(2024, 11, 30, 12), "20241230120000"],
      [new Date(2023, 0, 1), "20230101000000"],
      [new Date(2027, 0, 3, 23, 59, 59), "20270103235959"],
    ] as const)
      assert.equal(compactTime(day), text);
  });
});
