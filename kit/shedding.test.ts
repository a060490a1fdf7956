import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { describe, it, mock } from "node:test";
import { setImmediate as macrotask } from "node:timers/promises";
import type Koa from "koa";
import type { Problem } from "#kit/problem.js";
import { bounded, Gate, type GateOptions } from "#kit/shedding.js";

/** A gate with a clock of its own, and clients that note when they were let in. */
class Scene {
  now = 0;
  readonly gate: Gate;
  readonly inside: { name: string; leave: (overloaded?: boolean) => void }[] = [];
  readonly refused: string[] = [];

  constructor(options: Partial<GateOptions> = {}) {
    const usual = { atOnce: 2, waitingEach: 4, waiting: 6, patienceMs: 1_000, slowMs: 500 };
    this.gate = new Gate({ ...usual, ...options }, () => this.now);
  }

  async come(client: string, name = client): Promise<EventEmitter> {
    const leaving = new EventEmitter();
    void this.gate.enter(client, leaving).then(
      (leave) => this.inside.push({ name, leave }),
      (error: Problem) => {
        assert.deepEqual([error.status, error.code], [503, "overloaded"]);
        assert.match(error.headers["retry-after"] ?? "", /^([1-9]|10)$/);
        this.refused.push(name);
      },
    );
    await macrotask();
    return leaving;
  }

  async all(client: string, count: number): Promise<void> {
    for (let i = 1; i <= count; i++) await this.come(client, `${client}${i}`);
  }

  /** The one that is inside for longest leaves after so many ms. */
  async leave(ms = 0, overloaded = false): Promise<void> {
    this.now += ms;
    this.inside.shift()?.leave(overloaded);
    await macrotask();
  }

  get names(): string {
    return this.inside.map(({ name }) => name).join(" ");
  }
}

describe("a gate", () => {
  it("lets a bounded number in, makes a bounded number wait, and refuses the others at once", async () => {
    const scene = new Scene();
    await scene.all("a", 8);
    assert.equal(scene.names, "a1 a2");
    assert.deepEqual(scene.refused, ["a7", "a8"]);
    await scene.leave();
    assert.equal(scene.names, "a2 a3");
    await scene.all("b", 4);
    assert.deepEqual(scene.refused, ["a7", "a8", "b4"], "six wait in all, three of each");
    await scene.come("c");
    await scene.come("d");
    assert.deepEqual(scene.refused.slice(3), ["a6", "b3"], "who brings many makes room for who brings few");
    for (let i = 0; i < 8; i++) await scene.leave();
    assert.deepEqual(scene.gate.load, { inside: 0, waiting: 0, open: 2 });
  });

  it("lets in client by client, so that one who sends many keeps nobody else waiting", async () => {
    const scene = new Scene({ atOnce: 1 });
    await scene.all("a", 4);
    await scene.all("b", 2);
    await scene.all("c", 1);
    const order: string[] = [];
    while (scene.inside.length > 0) {
      order.push(scene.names);
      await scene.leave();
    }
    assert.equal(order.join(" "), "a1 a2 b1 c1 a3 b2 a4");
  });

  it("refuses who would have to wait too long at the pace of late", async () => {
    const scene = new Scene({ atOnce: 1, waitingEach: 100, waiting: 100 });
    await scene.all("a", 36);
    for (let i = 0; i < 34; i++) await scene.leave(300);
    await scene.all("b", 6);
    assert.deepEqual(scene.refused, ["b4", "b5", "b6"], "one of a and three of b are ahead: 1.2 s");
    await scene.come("c");
    assert.equal(scene.refused.length, 3, "somebody else's turn comes earlier");
  });

  it("does not wait for ever, and does nothing for who has gone", async () => {
    mock.timers.enable({ apis: ["setTimeout"] });
    try {
      const scene = new Scene({ atOnce: 1 });
      await scene.come("a");
      const gone = await scene.come("b");
      await scene.come("c");
      gone.emit("close");
      await macrotask();
      assert.deepEqual(scene.refused, ["b"]);
      mock.timers.tick(1_500);
      await macrotask();
      assert.deepEqual(scene.refused, ["b", "c"]);
      await scene.leave();
      assert.deepEqual(scene.gate.load, { inside: 0, waiting: 0, open: 1 });
    } finally {
      mock.timers.reset();
    }
  });

  it("closes step by step while those inside are slow, and opens again", async () => {
    const scene = new Scene({ atOnce: 64 });
    for (let i = 0; i < 40; i++) {
      await scene.come("a");
      await scene.leave(501);
    }
    assert.equal(scene.gate.load.open, 8);
    await scene.come("a");
    await scene.leave(250, true);
    assert.equal(scene.gate.load.open, 8, "no further");
    for (let i = 0; i < 300; i++) {
      await scene.come("a");
      await scene.leave(10);
    }
    assert.equal(scene.gate.load.open, 64);
    await scene.come("a");
    await scene.leave(300, true);
    assert.equal(scene.gate.load.open, 57, "a service that says it has too much is believed");
  });

  it("counts one who leaves twice once", async () => {
    const scene = new Scene();
    await scene.all("a", 2);
    const [first] = scene.inside;
    first?.leave();
    first?.leave();
    assert.equal(scene.gate.load.inside, 1);
  });
});

describe("a service", () => {
  it("works on a bounded number of requests at once; health and messages are not counted", async () => {
    const middleware = bounded(2);
    const ends: (() => void)[] = [];
    const request = (path: string) =>
      middleware({ path } as Koa.Context, () => new Promise<void>((resolve) => ends.push(resolve)));
    const running = [
      request("/orders"),
      request("/orders/1"),
      request("/readyz"),
      request("/events/OrderPaid"),
    ];
    assert.equal(ends.length, 4);
    await assert.rejects(request("/orders/2"), { status: 503, code: "overloaded" });
    assert.equal(ends.length, 4);
    ends[0]?.();
    await running[0];
    running.push(request("/orders/2"));
    assert.equal(ends.length, 5);
    for (const end of ends) end();
    await Promise.all(running);
  });
});
