/**
 * Replicas of a running shop come and go: nothing is lost, nothing is done twice, nobody is refused. Real sidecars, one shop for
 * all of it, so the tests build on each other.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "redis";
import { TestShop, until } from "./shop.js";

const ports = 1000;
/** Kills who has not answered for about six seconds. */
const liveness = "timeout=1,period=1.5,failures=4";
const stock = 1_000_000;

let shop: TestShop;
const said: string[] = [];
/** Ids of all orders that customers were told of. */
const promised: number[] = [];

before(async () => {
  shop = await TestShop.open(ports, {
    replicas: { order: 3, delivery: 3, store: 3, orderview: 3 },
    liveness,
    onEvent: (message) => said.push(message),
  });
});
after(() => shop?.close());

const order = () => shop.http("POST", "/orders", { productId: 1, qty: 1 });
const running = (app: string) =>
  shop.system.processes().filter(({ name }) => new RegExp(`^${app}-\\d+$`).test(name));
const audit = () => shop.audit(promised, stock);

/** Customers who order and look around until they are told to stop. */
class Customers {
  readonly failures: string[] = [];
  served = 0;
  longestMs = 0;
  private goesOn = true;
  private readonly all: Promise<unknown>;

  constructor() {
    const looks = ["/products", "/orders", "/orderStatuses", "/storeOrders", "/deliveries", "/payments"];
    let next = 0;
    const look = () => shop.http("GET", `${looks[next++ % looks.length]}?size=5`);
    this.all = Promise.all([this.visit("POST /orders", order), this.visit("a look", look)]);
  }

  async leave(): Promise<this> {
    this.goesOn = false;
    await this.all;
    return this;
  }

  private async visit(what: string, go: () => Promise<{ status: number; body: { id?: number } }>) {
    while (this.goesOn) {
      const began = performance.now();
      try {
        const { status, body } = await go();
        if (status === 201 && body.id !== undefined) promised.push(body.id);
        if (status < 300) this.served++;
        else this.failures.push(`${what}: ${status} ${JSON.stringify(body)}`);
      } catch (error) {
        this.failures.push(`${what}: ${error} ${(error as Error).cause}`);
      }
      this.longestMs = Math.max(this.longestMs, performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }
}

/** While `change` is made, everybody is served. */
async function servesAll(change: () => Promise<unknown>): Promise<Customers> {
  const customers = new Customers();
  try {
    await change();
  } finally {
    await customers.leave();
  }
  assert.deepEqual(customers.failures, []);
  assert.ok(customers.served > 0);
  return customers;
}

/** Lines of the services' logs that tell of work that a replica left to others. */
function takeovers(): string[] {
  const logs = join(shop.data, "logs");
  return readdirSync(logs).flatMap((file) =>
    readFileSync(join(logs, file), "utf8")
      .split("\n")
      .filter((line) => line.includes("taking over the journal")),
  );
}

/** By topic: how many different events there are, and how many different orders they speak of. */
async function published(...topics: string[]): Promise<{ events: number; orders: number }[]> {
  const redis = await createClient({ url: `redis://127.0.0.1:${ports + 6389}` }).connect();
  try {
    return await Promise.all(
      topics.map(async (topic) => {
        const entries = (await redis.xRange(topic, "-", "+")) ?? [];
        const messages = entries.map(
          (entry) => JSON.parse(String(entry?.message.data)) as { id: string; data: { orderId: number } },
        );
        return {
          events: new Set(messages.map(({ id }) => id)).size,
          orders: new Set(messages.map(({ data }) => data.orderId)).size,
        };
      }),
    );
  } finally {
    redis.destroy();
  }
}

describe("replicas", () => {
  it("share the work without doing any of it twice, also when one of each is killed (K23)", async () => {
    const place = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const { status, body } = await order();
        assert.equal(status, 201, JSON.stringify(body));
        promised.push(body.id);
      }
    };
    const customers = Promise.all(Array.from({ length: 6 }, () => place(15)));
    await until("orders are under way", 30_000, async () => promised.length > 20);
    await Promise.all(["delivery-1", "store-1", "orderview-1"].map((name) => shop.system.kill(name)));
    await customers;
    await audit(); // each id once, each order accepted, delivered and shown once
    const all = { events: promised.length, orders: promised.length };
    assert.deepEqual(await published("OrderPlaced", "StoreAccepted", "DeliveryStarted"), [all, all, all]);
  });

  it("that are away hear later of what they missed (K22)", async () => {
    await shop.system.scale("delivery", 0);
    assert.deepEqual(running("delivery"), []);
    const missed = await Promise.all(Array.from({ length: 10 }, () => shop.order()));
    promised.push(...missed);
    for (const id of missed) await shop.shows(`/storeOrders/${id}`, { state: "StoreAccepted" });
    assert.equal((await shop.http("GET", `/deliveries/${missed[0]}`)).status, 503);
    await shop.system.scale("delivery", 1);
    for (const id of missed) await shop.shows(`/deliveries/${id}`, { state: "DeliveryStarted" });
    await audit();
  });

  it("that are not needed any more finish what they have begun", async () => {
    const before = takeovers();
    await servesAll(async () => {
      await shop.system.scale("order", 1);
      await shop.system.scale("store", 1);
      await shop.system.scale("orderview", 1);
    });
    assert.deepEqual(
      ["order", "store", "orderview"].map((app) => running(app).length),
      [1, 1, 1],
    );
    await audit();
    assert.deepEqual(takeovers(), before);
  });
});

describe("a rolling restart", () => {
  const services = "order delivery inventory notification payment orderview store gateway loyalty".split(" ");

  it("of every service, one after another, refuses nobody (S0-O8, S1-O5)", async () => {
    const before = takeovers();
    const pids = new Set(shop.system.processes().map(({ pid }) => pid));
    await servesAll(async () => {
      for (const app of services) await shop.system.roll(app);
    });
    const kept = shop.system.processes().filter(({ pid }) => pids.has(pid));
    assert.deepEqual(
      kept.map(({ name }) => name),
      ["redis"],
    );
    assert.deepEqual(takeovers(), before);
    await audit();
  });

  /** The new process of a service is held up for longer than the sidecars try again. */
  const rollSlowly = async (app: string, readiness: boolean) => {
    const known = new Set(running(app).map(({ name }) => name));
    const rolled = shop.system.roll(app, { readiness });
    let fresh: string | undefined;
    await until(`a new ${app} has been started`, 10_000, async () => {
      fresh = running(app).find(({ name, pid }) => pid !== undefined && !known.has(name))?.name;
      return fresh !== undefined;
    });
    await shop.system.kill(fresh ?? "", "SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await shop.system.kill(fresh ?? "", "SIGCONT");
    await rolled;
    await shop.system.waitReady();
  };

  it("to a process that is slow to start refuses nobody either (S0-O8, S1-O5)", async () => {
    await servesAll(() => rollSlowly("inventory", true));
  });

  it("that does not wait for readiness refuses some, and loses nothing (S0-O7, S1-O4)", async () => {
    const customers = new Customers();
    await rollSlowly("inventory", false);
    const { failures } = await customers.leave();
    assert.ok(failures.length > 0, "or readiness would be of no use");
    assert.deepEqual(
      failures.filter((failure) => !/: 503 .*Try again a little later/.test(failure)),
      [],
    );
    await until("orders are taken again", 10_000, async () => {
      const { status, body } = await order();
      if (status === 201) promised.push(body.id);
      return status === 201;
    });
    await audit();
  });
});

describe("a gateway that is killed", () => {
  it("refuses nobody: who comes while it is away waits, and is served", async () => {
    const [gateway] = running("gateway");
    assert.ok(gateway);
    await shop.system.kill(gateway.name);
    const status = await new Promise((resolve, reject) => {
      const asked = get(`${shop.system.gateway}/products`, { agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      });
      asked.once("error", reject);
    });
    assert.equal(status, 200);
    assert.equal(running("gateway")[0]?.restarts, 1);
  });
});

describe("a process that hangs", () => {
  it("is killed and started again, and orders go on (S0-O6, S1-O3, S4-O4)", async () => {
    const [app] = running("order");
    assert.ok(app);
    const began = performance.now();
    await shop.system.kill(app.name, "SIGSTOP");
    await until("it was killed", 20_000, async () => running("order")[0]?.restarts === 1);
    const seconds = (performance.now() - began) / 1000;
    assert.ok(seconds > 3 * 1.5, `it was given ${seconds} s`);
    assert.ok(said.includes(`${app.name} runs but has not answered 4 times in a row, and is killed`));
    assert.match(said.at(-1) ?? "", new RegExp(`^${app.name} was ended by SIGKILL and is started again now`));
    await shop.system.waitReady();
    promised.push(await shop.order());
    await audit();
  });
});
