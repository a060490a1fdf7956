/**
 * `npm run rebuild-view`: the view made anew equals the one that the events have made. First in every kind of shop and
 * after every step, over the in-memory twin; then with real sidecars, while the shop is in use, and killed half-way.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";
import { digest } from "#kit/ids.js";
import { MemoryDapr } from "#kit/memory.js";
import { parseShop, readShop, type Shop } from "#kit/shop.js";
import { deadLetters, embedded, type Host, hostInMemory, settled } from "#kit/testing.js";
import { delivery } from "../services/delivery/src/main.js";
import { inventory } from "../services/inventory/src/main.js";
import { notification } from "../services/notification/src/main.js";
import { order } from "../services/order/src/main.js";
import { orderview } from "../services/orderview/src/main.js";
import { payment } from "../services/payment/src/main.js";
import { store } from "../services/store/src/main.js";
import { type Reply, TestShop, until } from "./shop.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

// --- every kind of shop, over the twin -----------------------------------------------------------------------------

const services = { order, payment, inventory, store, delivery, orderview, notification };
type Name = keyof typeof services;

const shops = readdirSync(join(root, "shops"))
  .filter((file) => file !== "dialects.yaml")
  .map((file) => readShop(join(root, "shops", file)));

/** Every combination of the rules that decide what the view hears, and in what order. */
function combinations(): Shop[] {
  const list: Shop[] = [];
  for (const [when, unreachable] of [
    ["order", "refuse"],
    ["order", "register"],
    ["later", "register"],
  ])
    for (const accept of ["automatic", "owner"])
      for (const making of ["none", "acceptance", "owner"])
        for (const confirmCancel of ["automatic", "owner"])
          for (const delivery of ["acceptance", "made", "none"])
            for (const customer of ["completion", delivery === "none" ? "acceptance" : "delivery"]) {
              if (delivery === "made" && making === "none") continue;
              const file = {
                name: "any",
                title: { en: "Any", ko: "아무" },
                payment: { when, unreachable },
                store: { accept, making, confirmCancel },
                delivery,
                cancel: { customer, shop: "delivery" },
                notifications: ["PaymentApproved", "OrderCancelled"].map((on) => {
                  return { on, channel: "sms", text: { en: "{orderId}", ko: "{orderId}" } };
                }),
                catalogue: [{ id: 1, name: "Thing", price: 1_000, stock: 100 }],
              };
              if (delivery === "none") file.cancel.shop = making === "none" ? "acceptance" : "making";
              list.push(parseShop(JSON.stringify(file), "any.yaml"));
            }
  return list;
}

const STEPS = ["pay", "accept", "start", "complete", "deliver", "confirm"] as const;
type Step = (typeof STEPS)[number] | "cash" | "cancel" | "reject";

interface Fate {
  /** how the payment gateway is while the order is placed */
  gateway?: "down";
  /** cancelled before the payment is heard of */
  early?: true;
  /** what the gateway says afterwards */
  declines?: true;
  steps: readonly Step[];
}

/** Somebody cancels before each step that there may be, the payment gateway is away, or the owner never answers. */
const fates: Fate[] = [
  { steps: STEPS },
  { steps: ["cash", ...STEPS.slice(1)] },
  ...[0, 1, 2, 3, 4, 5].map((after): Fate => {
    return { steps: [...STEPS.slice(0, after), "cancel", ...STEPS.slice(after)] };
  }),
  ...[0, 1, 2, 3].map((after): Fate => ({ steps: [...STEPS.slice(0, after), "reject", "deliver"] })),
  { steps: ["pay", "accept", "start", "complete", "cancel"] },
  { steps: ["pay", "accept", "start", "cancel"] },
  { gateway: "down", steps: STEPS },
  { gateway: "down", declines: true, steps: STEPS },
  { gateway: "down", early: true, steps: ["cancel", "confirm"] },
  { gateway: "down", early: true, declines: true, steps: ["pay"] },
];

async function take(hosts: Record<Name, Host>, id: number, step: Step): Promise<void> {
  const { http: paying } = hosts.payment;
  const { http: keeping } = hosts.store;
  const { status } = await {
    pay: () => paying("PUT", `/payments/${id}/pay`, {}),
    cash: () => paying("PUT", `/payments/${id}/pay`, { method: "cash" }),
    accept: () => keeping("PUT", `/storeOrders/${id}/accept`),
    start: () => keeping("PUT", `/storeOrders/${id}/start`),
    complete: () => keeping("PUT", `/storeOrders/${id}/complete`),
    deliver: () => hosts.delivery.http("PUT", `/deliveries/${id}/complete`),
    confirm: () => keeping("PUT", `/storeOrders/${id}/confirmcancel`),
    reject: () => keeping("PUT", `/storeOrders/${id}/reject`),
    cancel: () => hosts.order.http("DELETE", `/orders/${id}`),
  }[step]();
  assert.ok([200, 404, 409].includes(status), `${step}: ${status}`);
}

type Http = Host["http"];

/** Everything that the view shows of these customers. */
async function shown(http: Http): Promise<object[]> {
  const whose = ["customerId=c0", "customerId=c1", "phoneNumber=01000000000", "phoneNumber=01000000001"];
  const lists = ["/orderStatuses?size=1000", ...whose.map((one) => `/history?${one}&size=1000`)];
  const answers = await Promise.all(lists.map((path) => http("GET", path)));
  for (const { status, body } of answers) assert.equal(status, 200, JSON.stringify(body));
  return answers.map(({ body }) => body);
}

async function rebuild(http: Http): Promise<Record<string, number>> {
  const { status, body } = await http("POST", "/rebuilds", { from: 1, to: 128 });
  assert.equal(status, 200, JSON.stringify(body));
  return body as unknown as Record<string, number>;
}

/** What is shown without how far the store had come with these orders. */
const without = (orderIds: readonly number[], what: object[]): unknown =>
  JSON.parse(JSON.stringify(what), (_, value) => {
    if (!orderIds.includes(value?.orderId) || !("storeStatus" in value)) return value;
    const { storeStatus: _store, status: _status, ...rest } = value;
    return rest;
  });

/** Plays all fates in one shop; after each step, or after each fate, the view is made anew, as it is and from nothing. */
async function play(shop: Shop, often: "each step" | "each fate"): Promise<number> {
  const dapr = new MemoryDapr();
  const hosts = {} as Record<Name, Host>;
  for (const [name, definition] of Object.entries(services))
    hosts[name as Name] = await hostInMemory(dapr, definition, { shop, drills: true });
  const { http } = hosts.orderview;
  const raw = dapr.stores.get("orderview");
  assert.ok(raw);
  let compared = 0;
  const check = async (after: string) => {
    await settled(dapr);
    const seen = await shown(http);
    const found = await rebuild(http);
    const none = { missing: 0, differed: 0, removed: 0, unlisted: 0 };
    assert.deepEqual({ ...found, ...none }, found, after);
    assert.deepEqual(await shown(http), seen, after);
    // A ticket whose owner has yet to confirm its cancellation does not know how far it had come.
    const tickets = embedded(await hosts.store.http("GET", "/storeOrders?size=1000"), "storeOrders");
    const forgetful = tickets
      .filter(({ state }) => shop.store.making !== "none" && String(state) === "CancelRequested")
      .map(({ id }) => Number(id));
    const was = [...raw];
    raw.clear();
    const lost = await rebuild(http);
    assert.equal(lost.missing, lost.rows, after);
    assert.deepEqual(
      without(forgetful, await shown(http)),
      without(forgetful, seen),
      `from nothing, ${after}`,
    );
    raw.clear();
    for (const [key, entry] of was) raw.set(key, entry);
    compared++;
  };
  const gateway = (drill: object) => hosts.payment.http("PUT", "/drill", drill);
  try {
    for (const [i, { gateway: at, early, declines, steps }] of fates.entries()) {
      const who = { customerId: `c${i % 2}`, phoneNumber: `0100000000${i % 2}`, customerName: "jang" };
      await gateway(at === "down" ? { failureRate: 1 } : {});
      const placed = await hosts.order.http("POST", "/orders", {
        productId: 1,
        productName: "T",
        qty: 1,
        ...who,
      });
      assert.ok([201, 503].includes(placed.status), JSON.stringify(placed.body));
      const id = Number(placed.body.id);
      if (early && placed.status === 201) await take(hosts, id, "cancel");
      await gateway(declines ? { declineRate: 1 } : {});
      await settled(dapr);
      if (often === "each step") await check(`fate ${i}, placed`);
      await gateway({});
      if (placed.status !== 201) continue;
      for (const step of steps) {
        await take(hosts, id, step);
        await settled(dapr);
        if (often === "each step") await check(`fate ${i}, order ${id}, ${step} of ${steps}`);
      }
      if (often === "each fate") await check(`fate ${i}, order ${id}`);
    }
    assert.deepEqual(deadLetters(dapr), []);
    return compared;
  } finally {
    await Promise.all(Object.values(hosts).map((host) => host.stop()));
  }
}

describe("a view made anew from the records equals the one that the events have made", () => {
  for (const shop of shops)
    it(`${shop.name}: after every step`, async () => {
      assert.ok((await play(shop, "each step")) > 60);
    });

  it("and so in every kind of shop", async () => {
    const before = new Map<string, number>();
    const played: Shop[] = [];
    for (const shop of combinations()) {
      // The ways to pay, and to cancel: each of the others' combinations is played with one of them, in turn.
      const key = JSON.stringify([shop.store, shop.delivery]);
      const nth = before.get(key) ?? 0;
      before.set(key, nth + 1);
      if (nth === [...before.keys()].indexOf(key) % 6) played.push(shop);
    }
    assert.ok(played.length === before.size && played.length === 32, `${played.length} of ${before.size}`);
    for (const shop of played)
      await play(shop, "each fate").catch((error: Error) => {
        const { payment, store, delivery, cancel } = shop;
        throw new Error(`${JSON.stringify({ payment, store, delivery, cancel })}: ${error.message}`, {
          cause: error,
        });
      });
  });
});

// --- real sidecars and stores --------------------------------------------------------------------------------------

const PORTS = 12_000;

/** Runs the command to its end. */
async function command(...args: string[]): Promise<{ code: number | null; said: string }> {
  const child = spawn(process.execPath, [join(root, "dist", "dapr", "rebuild.js"), ...args]);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said += text));
  const [code] = await once(child, "close");
  return { code: code as number | null, said };
}

const LISTS = ["orderStatuses", "orderHistories", "orderTraces", "orderLists"];

/** A shop whose view is taken apart while it runs. */
class Patient {
  constructor(
    readonly shop: TestShop,
    /** query by query, whose orders /history shows */
    readonly customers: readonly string[],
  ) {}

  /** Everything that the view shows. */
  async shown(): Promise<object> {
    const lists = await Promise.all(LISTS.map(async (name) => [name, await this.shop.all(name)]));
    const histories = this.customers.map(async (whose) => {
      const { status, body } = await this.shop.http("GET", `/history?${whose}&size=1000`);
      assert.equal(status, 200, JSON.stringify(body));
      return [whose, body];
    });
    return Object.fromEntries([...lists, ...(await Promise.all(histories))]);
  }

  /** Waits until every message has been sent, and the rows say so. */
  async told(): Promise<void> {
    await until("the rows have the messages", 60_000, async () => {
      const messages = await this.shop.all("messages");
      const rows = new Set((await this.shop.all("orderStatuses")).map(({ orderId }) => orderId));
      const wanted = messages.filter(({ orderId }) => rows.has(orderId)).length;
      const histories = await Promise.all(
        this.customers.map((whose) => this.shop.http("GET", `/history?${whose}&size=1000`)),
      );
      const had = new Map<number, number>();
      for (const { body } of histories)
        for (const { orderId, messages: some } of body._embedded.history) had.set(orderId, some.length);
      const shown = [...had.values()].reduce((sum, count) => sum + count, 0);
      return messages.every(({ state }) => state === "Sent") && shown === wanted;
    });
  }

  private state(path: string, body: unknown): Promise<Reply> {
    const sidecar = this.shop.system.sidecarUrl("orderview");
    return this.shop.http("POST", `/v1.0/state/orderview${path}`, body, {}, sidecar);
  }

  /** What the view's store has under a key. */
  async stored(key: string): Promise<{ state: Record<string, unknown> } | undefined> {
    const [row] = (await this.state("/bulk", { keys: [key] })).body as { data?: never }[];
    return row?.data;
  }

  /** Writes a row that no event has made, from that of another order. */
  async forge(id: number, from: number, columns: object): Promise<void> {
    const model = await this.stored(`row:${from}`);
    assert.ok(model);
    const value = { ...model, state: { ...model.state, orderId: id, ...columns } };
    const { status } = await this.state("", [{ key: `row:${id}`, value }]);
    assert.equal(status, 204);
  }

  /** Deletes each key that the view has in its store, by way of its sidecar. */
  async wipe(): Promise<void> {
    const { next } = (await this.stored("ids:row")) as unknown as { next: number };
    const { slots } = (await this.stored("replicas")) as unknown as { slots: object };
    const heads = this.customers.map((whose) => {
      const [name = "", value = ""] = whose.split("=");
      return `index:${name === "customerId" ? "customer" : "phone"}:${digest(value)}`;
    });
    const keys = [
      ...Array.from({ length: next - 1 }, (_, i) => `row:${i + 1}`),
      ...["ids:row", "replicas"],
      ...Object.keys(slots).map((replica) => `journal:${replica}`),
      ...heads.flatMap((head) => [head, ...[0, 1, 2, 3].map((page) => `${head}/${page}`)]),
    ];
    const operations = keys.map((key) => ({ operation: "delete", request: { key } }));
    assert.equal((await this.state("/transaction", { operations })).status, 204);
  }

  /** What the view shows of nothing. */
  async isEmpty(): Promise<boolean> {
    const { body } = await this.shop.http("GET", "/orderStatuses");
    const histories = await Promise.all(
      this.customers.map((one) => this.shop.http("GET", `/history?${one}`)),
    );
    return [body, ...histories.map((reply) => reply.body)].every(({ page }) => page.totalElements === 0);
  }
}

describe("coffee: paid later, made, delivered; the view in Redis", () => {
  let shop: TestShop;
  let patient: Patient;
  before(async () => {
    const missing = await command("--ports", String(PORTS));
    assert.deepEqual(missing, {
      code: 1,
      said: `No shop runs with --ports ${PORTS}: its view would listen on port ${8086 + PORTS}.\n`,
    });
    shop = await TestShop.open(PORTS, {
      shop: "coffee",
      backend: `embedded,${join(root, "components", "redis", "orderview.yaml")}`,
    });
    patient = new Patient(shop, ["phoneNumber=01011112222", "phoneNumber=01033334444", "customerId=jang"]);
  });
  after(() => shop?.close());

  it("is what it was, after every key of it was lost while the shop ran", async () => {
    const put = async (path: string, body?: object) => {
      let reply = await shop.http("PUT", path, body);
      await until(path, 20_000, async () => {
        if (reply.status !== 200) reply = await shop.http("PUT", path, body);
        return reply.status === 200;
      });
    };
    const place = (phoneNumber = "01011112222", more: object = {}) =>
      shop.order({ productName: "Latte", qty: 2, cost: 7_000, phoneNumber, ...more });
    const paid = async (method: "card" | "cash", phoneNumber?: string) => {
      const id = await place(phoneNumber, { customerId: "jang" });
      await put(`/payments/${id}/pay`, { method });
      await shop.shows(`/orderStatuses/${id}`, { storeStatus: "MakeStarted" });
      return id;
    };
    const underWay = async (method: "card" | "cash") => {
      const id = await paid(method, "01033334444");
      await put(`/storeOrders/${id}/complete`);
      await shop.shows(`/orderStatuses/${id}`, {
        storeStatus: "MakeCompleted",
        deliveryStatus: "DeliveryStarted",
      });
      return id;
    };
    const row = (id: number, fields: object) => shop.shows(`/orderStatuses/${id}`, fields);
    const cancelled = async (id: number, fields: object) => {
      assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 200);
      const stopped = { storeStatus: "StoreCancelled", deliveryStatus: "DeliveryCancelled" };
      await row(id, {
        orderStatus: "OrderCancelled",
        paymentStatus: "PaymentCancelled",
        ...stopped,
        ...fields,
      });
    };

    await row(await place(), { paymentStatus: "PaymentRequested" });
    await row(await paid("cash"), { method: "cash", status: "MakeStarted" });
    await underWay("card");
    const delivered = await underWay("cash");
    await put(`/deliveries/${delivered}/complete`);
    await row(delivered, { deliveryStatus: "DeliveryCompleted", storeStatus: "MakeCompleted" });
    await cancelled(await place(), { deliveryId: null, storeStatus: "StoreCancelled" });
    await cancelled(await paid("cash"), { deliveryId: null });
    const late = await underWay("card");
    await cancelled(late, { deliveryId: late });

    const before = await patient.shown();
    const redis = shop.system.components.find(({ name }) => name === "orderview")?.metadata ?? {};
    assert.ok(redis.redisHost, "the view is in Redis");
    const client = createClient({
      url: `redis://${redis.redisHost}`,
      ...{ username: redis.redisUsername ?? "", password: redis.redisPassword ?? "" },
    });
    await client.connect();
    try {
      let keys = 0;
      for await (const some of client.scanIterator({ MATCH: "*" })) keys += await client.del(some);
      assert.ok(keys > 10, `${keys} keys`);
    } finally {
      client.destroy();
    }
    assert.ok(await patient.isEmpty());

    const { code, said } = await command("--data", shop.data);
    assert.match(
      said,
      /^rebuilt 7 rows in [\d.]+ s: 7 missing, 0 differed, 12 entries of customers' lists missing$/m,
    );
    assert.equal(code, 0);
    assert.deepEqual(await patient.shown(), before);
    // It goes on from there.
    const next = await place();
    await row(next, { paymentStatus: "PaymentRequested" });
    const { code: again, said: nothing } = await command("--data", shop.data, "--ports", String(PORTS));
    assert.match(nothing, /^rebuilt 8 rows in [\d.]+ s: 0 missing, 0 differed$/m);
    assert.equal(again, 0);
    // Its token is in its data directory.
    const refused = await command("--ports", String(PORTS));
    assert.match(refused.said, /demands the token of its data directory.*: add --data DIR\.$/m);
    assert.equal(refused.code, 1);
  });
});

describe("flower: paid when payment can be reached; the view in SQLite", () => {
  let shop: TestShop;
  let patient: Patient;
  const initialStock = 1000;
  const who = (n: number) => ({ customerId: `c${n % 3}`, phoneNumber: `0105555000${n % 3}` });
  const standing: number[] = [];
  before(async () => {
    // The first process of the view dies half-way through the orders from 129 on.
    shop = await TestShop.open(PORTS, { shop: "flower", drills: true, faults: { orderview: "rebuild:129" } });
    patient = new Patient(
      shop,
      [0, 1, 2].flatMap((n) => Object.entries(who(n)).map(([name, value]) => `${name}=${value}`)),
    );
  });
  after(() => shop?.close());

  it("is what it was, after every key of it was lost; and after rows were forged", async () => {
    const drill = async (settings: object) => {
      const url = shop.system.url("payment");
      assert.equal((await shop.http("PUT", "/drill", settings, {}, url)).status, 200);
    };
    const row = (id: number, fields: object) => shop.shows(`/orderStatuses/${id}`, fields, 60_000);
    const place = (n: number, productId = 1) => shop.order({ productId, productName: undefined, ...who(n) });
    const started = {
      paymentStatus: "PaymentApproved",
      storeStatus: "StoreAccepted",
      deliveryStatus: "DeliveryStarted",
    };
    const stopped = { storeStatus: "StoreCancelled", deliveryStatus: "DeliveryCancelled" };
    const cancel = async (id: number) =>
      assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 200);

    const first = await place(0);
    await row(first, started);
    const late = await place(1);
    await row(late, started);
    await cancel(late);
    await row(late, { paymentStatus: "PaymentCancelled", deliveryId: late, ...stopped });

    await drill({ failureRate: 1 });
    const [unpaid, declined, early] = [await place(0), await place(1), await place(2)];
    await row(unpaid, { orderStatus: "OrderPlaced", paymentStatus: "PaymentRequested" });
    await cancel(early);
    await row(early, { orderStatus: "OrderCancelled", deliveryId: null, ...stopped });
    await drill({ declineRate: 1 });
    const refused = await shop.http("POST", "/orders", { productId: 1, qty: 1, ...who(2) });
    assert.equal(refused.status, 402);
    await row(declined, { paymentStatus: "PaymentFailed", orderStatus: "OrderCancelled", ...stopped });
    await row(unpaid, { paymentStatus: "PaymentFailed", orderStatus: "OrderCancelled", ...stopped });
    await drill({ failureRate: 1 });
    const registered = await place(0);
    await drill({});
    await row(registered, started);
    await until("the payment of the early cancellation is settled", 60_000, async () => {
      const { status, body } = await shop.http("GET", `/payments/${early}`);
      const { paymentStatus } = (await shop.http("GET", `/orderStatuses/${early}`)).body;
      return status === 404 ? paymentStatus === "PaymentRequested" : paymentStatus === body.state;
    });
    standing.push(first, registered);
    await patient.told();

    const before = await patient.shown();
    await patient.wipe();
    assert.ok(await patient.isEmpty());
    const anew = await command("--data", shop.data);
    assert.match(
      anew.said,
      /^rebuilt 6 rows in [\d.]+ s: 6 missing, 0 differed, 12 entries of customers' lists missing$/m,
    );
    assert.equal(anew.code, 0);
    assert.deepEqual(await patient.shown(), before);

    await patient.forge(first, first, {
      qty: 99,
      orderStatus: "OrderCancelled",
      deliveryId: null,
      messages: [],
    });
    await patient.forge(late, late, { paymentStatus: "PaymentApproved", customerId: "c0" });
    const nobodys = 20; // between the orders and the end of their block of ids
    await patient.forge(nobodys, first, { customerName: "nobody" });
    assert.notDeepEqual(await patient.shown(), before);
    const righted = await command("--data", shop.data);
    assert.match(
      righted.said,
      /^rebuilt 6 rows in [\d.]+ s: 0 missing, 2 differed, 1 without an order removed$/m,
    );
    assert.deepEqual(await patient.shown(), before);
    assert.equal((await shop.http("GET", `/orderStatuses/${nobodys}`)).status, 404);
  });

  it("is not for strangers", async () => {
    const range = { from: 1, to: 2 };
    for (const [method, path] of [
      ["POST", "/rebuilds"],
      ["POST", "/api/flower/rebuilds"],
      ["GET", "/records?from=1&to=2"],
      ["GET", "/orders/../records?from=1&to=2"],
      ["GET", "/profile/records"],
    ] as const) {
      const { status, body } = await shop.http(method, path, method === "POST" ? range : undefined);
      assert.deepEqual([status, body.type], [404, "urn:jangteo:problem:no-such-route"], path);
    }
    const { status } = await shop.http("POST", "/rebuilds", range, {}, shop.system.url("orderview"));
    assert.equal(status, 200, "an operator's, at the service's own port");
  });

  it("is rebuilt twice while 200 orders and cancellations are under way and its process dies, and is right", async () => {
    const seen = new Set<number>();
    const vanished: string[] = [];
    let watching = true;
    const watch = async () => {
      while (watching) {
        for (const id of seen) {
          const { status, body } = await shop.http("GET", `/orderStatuses/${id}`);
          if (status !== 200 && status !== 503) vanished.push(`${id}: ${status} ${JSON.stringify(body)}`);
        }
        for (const { orderId } of await shop.all("orderStatuses").catch(() => [])) seen.add(orderId);
      }
    };
    let asked = 0;
    const cancelled: number[] = [];
    const client = async (upTo: number) => {
      while (asked < upTo) {
        const n = ++asked;
        const id = await shop.order({ productName: undefined, ...who(n) });
        if (n % 4 !== 0) standing.push(id);
        else {
          assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 200);
          cancelled.push(id);
        }
      }
    };
    const clients = (upTo: number) => Array.from({ length: 4 }, () => client(upTo));
    await Promise.all(clients(150)); // so that there are orders from 129 on
    const watcher = watch();
    const [twice] = await Promise.all([
      command("--data", shop.data).then(async (one) => [one, await command("--data", shop.data)]),
      ...clients(350),
    ]);
    watching = false;
    await watcher;
    const [interrupted, second] = twice;
    assert.equal(interrupted?.code, 0, interrupted?.said);
    assert.match(interrupted?.said ?? "", /^The orderview service does not answer at .*\. Trying again\.$/m);
    assert.match(interrupted?.said ?? "", /^rebuilt [\d,]+ rows in [\d.]+ s: /m);
    assert.equal(second?.code, 0, second?.said);
    const died = shop.system.processes().find(({ name }) => name === "orderview-0");
    assert.equal(died?.restarts, 1, "it died half-way");
    assert.deepEqual(vanished, []);
    assert.ok(seen.size > 150);

    await shop.system.waitReady();
    await shop.audit(standing, initialStock, 120_000);
    for (const id of cancelled)
      await shop.shows(
        `/orderStatuses/${id}`,
        {
          paymentStatus: "PaymentCancelled",
          storeStatus: "StoreCancelled",
          deliveryStatus: "DeliveryCancelled",
        },
        60_000,
      );
    await patient.told();
    const before = await patient.shown();
    const { said, code } = await command("--data", shop.data);
    assert.match(said, /^rebuilt 356 rows in [\d.]+ s: 0 missing, 0 differed$/m);
    assert.equal(code, 0);
    assert.deepEqual(await patient.shown(), before);
  });

  it("is given up where a service does not answer, and goes on when it does", async () => {
    const at = shop.system.url("delivery");
    const rebuilding = () =>
      shop.http("POST", "/rebuilds", { from: 1, to: 1 }, {}, shop.system.url("orderview"));
    assert.equal((await shop.http("PUT", "/actuator/down", undefined, {}, at)).status, 200);
    try {
      await until("the delivery is out of reach", 20_000, async () => (await rebuilding()).status === 503);
      const { code, said } = await command("--data", shop.data, "--wait", "1");
      assert.match(said, /^The delivery service does not say what it has on record/);
      assert.match(said, /^Nothing has been rebuilt/m);
      assert.equal(code, 1);
      const patientOne = command("--data", shop.data);
      await shop.http("PUT", "/actuator/up", undefined, {}, at);
      const later = await patientOne;
      assert.match(later.said, /^rebuilt 356 rows in [\d.]+ s: 0 missing, 0 differed$/m);
      assert.equal(later.code, 0);
    } finally {
      await shop.http("PUT", "/actuator/up", undefined, {}, at);
    }
  });

  it("says what it does not understand, and where no shop runs", async () => {
    const empty = await command("--data", join(shop.data, "run"));
    assert.deepEqual([empty.code, empty.said.startsWith("No shop runs on ")], [1, true], empty.said);
    for (const args of [["--wait", "x"], ["--ports", "-1"], ["--nonsense"], ["x"]]) {
      const { code, said } = await command(...args);
      assert.equal(code, 2, said);
      assert.match(said, /^Usage: npm run rebuild-view/m);
    }
  });
});
