import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { catalogue, type EventType } from "#kit/events.js";
import { MemoryDapr } from "#kit/memory.js";
import { readShop, type Shop } from "#kit/shop.js";
import { type CloudEvent, type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  deadLetters,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  info,
  listen,
  settled,
  shopWith,
} from "#kit/testing.js";
import { orderview } from "./main.js";

const hosts: Host[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
});

/** One of the five shops, as its file has it. */
const shopNamed = (name: string): Shop =>
  readShop(fileURLToPath(new URL(`../../../../shops/${name}.yaml`, import.meta.url)));

const about = (orderId: number) => ({
  ...{ ...info, id: orderId, orderId, productName: `P${orderId}`, qty: 2, price: 5, amount: 10 },
  ...{
    paymentId: orderId,
    approvalCode: "4711",
    refunded: 10,
    reason: "changed my mind",
    deliveryStatus: "",
  },
});

const placed = (orderId: number, more: object = {}, id?: string): CloudEvent =>
  cloudEvent("OrderPlaced", { ...about(orderId), ...more }, id);

async function start(options: HostOptions = {}) {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  const replica = async (slot: string) => {
    const one = await hostInMemory(dapr, orderview, { ...options, slot });
    hosts.push(one);
    return one;
  };
  const host = await replica("orderview-0");
  const hear = async (orderId: number, ...types: (EventType | [EventType, object])[]) => {
    for (const one of types) {
      const [type, more] = typeof one === "string" ? [one, {}] : one;
      dapr.accept(type, cloudEvent(type, { ...about(orderId), ...more }));
    }
    await settled(dapr);
  };
  return {
    ...{ dapr, heard, host, replica, hear },
    http: host.http,
    row: async (id: number) => (await host.http("GET", `/orderStatuses/${id}`)).body,
    /** the ids of a page of somebody's orders, and how many there are */
    found: async (query: string) => {
      const answer = await host.http("GET", `/history?${query}`);
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return {
        ids: embedded(answer, "history").map(({ orderId }) => orderId),
        total: answer.body.page?.totalElements,
      };
    },
  };
}

/** A look at what is about to be saved, which may throw. */
const saving =
  (look: (key: string, value: { state: Record<string, unknown> }) => void) =>
  (sidecar: Sidecar): Sidecar => ({
    ...sidecar,
    store: {
      ...sidecar.store,
      save: async (key, value, etag, ttl) => {
        if (key.startsWith("row:") || key.startsWith("index:"))
          look(key, value as { state: Record<string, unknown> });
        await sidecar.store.save(key, value, etag, ttl);
      },
    },
  });

const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

describe("the view", () => {
  it("shows an order and its delivery in one query (S0-R1)", async () => {
    const { hear, row, http } = await start();
    await hear(1, "OrderPlaced", "DeliveryStarted");
    const { body } = await http("GET", "/orderStatuses");
    assert.deepEqual(body._embedded?.orderStatuses?.[0], {
      ...{ ...info, orderId: 1, productName: "P1", qty: 2, amount: 10 },
      ...{ orderStatus: "OrderPlaced", paymentStatus: "PaymentApproved", storeStatus: "StoreAccepted" },
      ...{ deliveryId: 1, deliveryStatus: "DeliveryStarted", status: "DeliveryStarted" },
      _links: {
        self: { href: "/orderStatuses/1" },
        orderStatus: { href: "/orderStatuses/1" },
        order: { href: "/orders/1" },
      },
    });
    assert.deepEqual(await row(1), body._embedded?.orderStatuses?.[0]);
  });

  it("shows what is known so far, and nothing before the order has been placed", async () => {
    const { hear, row, http } = await start();
    await hear(1, "DeliveryStarted");
    assertProblem(await http("GET", "/orderStatuses/1"), 404, "not-found");
    assert.deepEqual(embedded(await http("GET", "/orderStatuses"), "orderStatuses"), []);
    await hear(1, "OrderPlaced");
    const { orderStatus, storeStatus, deliveryStatus } = await row(1);
    assert.deepEqual(
      [orderStatus, storeStatus, deliveryStatus],
      ["OrderPlaced", "StoreAccepted", "DeliveryStarted"],
    );
  });

  it("moves only forward, whatever the order of what it hears", async () => {
    const { hear, row } = await start();
    await hear(1, "DeliveryCancelled", "PaymentCancelled", "StoreCancelled", "OrderCancelled");
    await hear(1, "DeliveryStarted", "OrderPlaced");
    const { orderStatus, paymentStatus, storeStatus, deliveryStatus } = await row(1);
    assert.deepEqual(
      [orderStatus, paymentStatus, storeStatus, deliveryStatus],
      ["OrderCancelled", "PaymentCancelled", "StoreCancelled", "DeliveryCancelled"],
    );
  });

  it("keeps orders apart and lists the newest first", async () => {
    const { hear, http } = await start();
    for (const id of [2, 40, 1]) await hear(id, "OrderPlaced");
    await hear(2, "DeliveryStarted");
    const rows = embedded(await http("GET", "/orderStatuses?size=2"), "orderStatuses");
    assert.deepEqual(
      rows.map(({ orderId, productName, deliveryStatus }) => [orderId, productName, deliveryStatus]),
      [
        [40, "P40", null],
        [2, "P2", "DeliveryStarted"],
      ],
    );
  });

  it("listens, and says nothing itself", async () => {
    const { heard, hear, host, http } = await start();
    const listened = host.composed.subscriptions.map(({ topic }) => topic);
    for (const topic of listened) assert.ok(topic in catalogue, topic);
    await hear(1, ...listened);
    assert.deepEqual(
      heard.filter(({ source }) => source === "orderview"),
      [],
    );
    assertProblem(await http("POST", "/orderStatuses", {}), 405, "method-not-allowed");
    assertProblem(await http("POST", "/history", {}), 405, "method-not-allowed");
  });

  it("catches up with what it missed while its store was away", async () => {
    const { dapr, host, row, found } = await start();
    dapr.down.add("orderview");
    const failing = placed(1);
    assert.equal(await host.composed.deliver(failing), "RETRY");
    dapr.accept("OrderPlaced", failing);
    dapr.down.delete("orderview");
    await settled(dapr);
    assert.equal((await row(1)).orderStatus, "OrderPlaced");
    assert.deepEqual(await found("customerId=cust1"), { ids: [1], total: 1 });
  });

  it("hears of what can happen in its shop, and only of what tells it something", async () => {
    const topics = async (shop: Shop) =>
      (await start({ shop })).host.composed.subscriptions.map(({ topic }) => topic);
    const always = ["OrderPlaced", "OrderCancelled", "PaymentCancelled", "StoreRejected", "StoreCancelled"];
    const later = ["OrderPaid", "PaymentFailed"];
    const made = ["MakeStarted", "MakeCompleted"];
    const delivered = ["DeliveryStarted", "DeliveryCompleted", "DeliveryCancelled"];
    assert.deepEqual(await topics(shopNamed("fashion")), [...always, ...delivered]);
    assert.deepEqual(await topics(shopNamed("bookstore")), [...always, ...delivered, "MessageSent"]);
    assert.deepEqual(await topics(shopNamed("flower")), [
      ...[...always, ...later, ...delivered, "MessageSent"],
    ]);
    assert.deepEqual(await topics(shopNamed("coffee")), [...always, ...later, ...made, ...delivered]);
    assert.deepEqual(await topics(shopNamed("cafe")), [...always, ...made, "MessageSent"]);
    const bakery = shopWith({ payment: { when: "later" }, store: { making: "owner" }, delivery: "none" });
    assert.deepEqual(await topics(bakery), [...always, ...later, "StoreAccepted", ...made]);
  });
});

describe("the view in the ancestors' words", () => {
  it("flower: /orderHistories (S2-R1, S2-V1)", async () => {
    const { hear, http } = await start({ shop: shopNamed("flower") });
    const histories = async () => embedded(await http("GET", "/orderHistories"), "orderHistories");
    const history = (orderStatus: string, approveStatus: string, shippedStatus: string | null) => ({
      ...{ orderId: 1, qty: 2, orderStatus, approveStatus, shippedStatus },
      _links: {
        self: { href: "/orderHistories/1" },
        orderHistory: { href: "/orderHistories/1" },
        order: { href: "/orders/1" },
      },
    });
    await hear(1, ["OrderPlaced", { paid: false }]);
    assert.deepEqual(await histories(), [history("Ordered", "PaymentRequested", null)]);
    await hear(1, "OrderPaid");
    assert.deepEqual(await histories(), [history("Ordered", "PaymentApproved", null)]);
    await hear(1, "DeliveryStarted");
    assert.deepEqual(await histories(), [history("Ordered", "PaymentApproved", "Shipped")]);
    await hear(1, "OrderCancelled", "PaymentCancelled", "StoreCancelled", "DeliveryCancelled");
    assert.deepEqual(await histories(), [history("OrderCanceled", "PaymentCanceled", "ShippingCanceled")]);
    assert.deepEqual((await http("GET", "/orderHistories/1")).body, (await histories())[0]);
    await hear(2, "OrderPlaced", "DeliveryStarted", "DeliveryCompleted");
    assert.equal((await http("GET", "/orderHistories/2")).body.shippedStatus, "Delivered");
  });

  it("coffee: /orderTraces (S3-R1, S3-V1), which reach the delivery and its end (S3-T3)", async () => {
    const { hear, http } = await start({ shop: shopNamed("coffee") });
    const trace = async (id: number) => (await http("GET", `/orderTraces/${id}`)).body;
    await hear(1, ["OrderPlaced", { paid: false }]);
    assert.deepEqual(await trace(1), {
      ...{ id: 1, productId: 1, qty: 2, cost: 10, productName: "P1", orderId: 1, status: "Order END" },
      _links: {
        self: { href: "/orderTraces/1" },
        orderTrace: { href: "/orderTraces/1" },
        order: { href: "/orders/1" },
      },
    });
    const words: unknown[] = [];
    for (const event of ["OrderPaid", "MakeStarted", "MakeCompleted", "DeliveryStarted"] as const) {
      await hear(1, event);
      words.push((await trace(1)).status);
    }
    assert.deepEqual(words, ["PAY END", "PAY END", "PAY END", "DELEVERY START"]);
    await hear(1, "OrderCancelled", "PaymentCancelled", "StoreCancelled");
    assert.equal((await trace(1)).status, "ORDER CANCEL");
    await hear(1, "DeliveryCancelled");
    assert.equal((await trace(1)).status, "DELIVERY CANCEL");
    await hear(2, ["OrderPlaced", { paid: false }], "OrderCancelled");
    assert.equal((await trace(2)).status, "ORDER CANCEL");
    assert.deepEqual(
      embedded(await http("GET", "/orderTraces"), "orderTraces").map(({ id, status }) => [id, status]),
      [
        [2, "ORDER CANCEL"],
        [1, "DELIVERY CANCEL"],
      ],
    );
  });

  it("cafe: /orderLists (S4-R1, S4-V1)", async () => {
    const { hear, http } = await start({ shop: shopNamed("cafe") });
    const list = async (id: number) => (await http("GET", `/orderLists/${id}`)).body;
    await hear(1, ["OrderPlaced", { customerId: "3", storeId: "5" }]);
    assert.deepEqual(await list(1), {
      ...{ orderId: 1, customerId: 3, custumerId: 3, cafeId: 5, menuId: 1, qty: 2, totalPrice: 10 },
      ...{ orderDate: info.orderDate, status: "Paid" },
      _links: {
        self: { href: "/orderLists/1" },
        orderList: { href: "/orderLists/1" },
        order: { href: "/orders/1" },
      },
    });
    const words = async (id: number, ...events: (EventType | [EventType, object])[]) => {
      const said: unknown[] = [];
      for (const event of events) {
        await hear(id, event);
        said.push((await list(id)).status);
      }
      return said;
    };
    assert.deepEqual(await words(1, "MakeStarted", "MakeCompleted"), ["MakeStarted", "MakeCompleted"]);
    assert.deepEqual(await words(2, "OrderPlaced", "StoreRejected", "OrderCancelled", "PaymentCancelled"), [
      ...["Paid", "OrderCanceled", "OrderCanceled", "PaymentCanceled"],
    ]);
    assert.deepEqual(await words(3, "OrderPlaced", "OrderCancelled", "PaymentCancelled"), [
      ...["Paid", "CustomerOrderCanceled", "PaymentCanceled"],
    ]);
    assert.equal((await http("GET", "/orderLists")).body.page?.totalElements, 3);
  });

  it("cafe: OrderApproved, where approving and making are two commands (S4-H2)", async () => {
    const shop = shopWith({ dialect: "cafe", store: { accept: "owner", making: "owner" }, delivery: "none" });
    const { hear, http } = await start({ shop });
    await hear(1, "OrderPlaced", "StoreAccepted");
    assert.equal((await http("GET", "/orderLists/1")).body.status, "OrderApproved");
  });

  it("bookstore: our rows, with the book in them (S1-D1)", async () => {
    const { hear, row } = await start({ shop: shopNamed("bookstore") });
    await hear(1, "OrderPlaced", "DeliveryStarted");
    const { orderId, bookId, qty, bookName, orderStatus, deliveryId, deliveryStatus } = await row(1);
    assert.deepEqual(
      [orderId, bookId, qty, bookName, orderStatus, deliveryId, deliveryStatus],
      [1, 1, 2, "P1", "OrderPlaced", 1, "DeliveryStarted"],
    );
  });

  it("is there in every shop, in those words", async () => {
    const { hear, http } = await start();
    await hear(1, "OrderPlaced", "DeliveryStarted");
    const word = async (path: string, field: string) => (await http("GET", `${path}/1`)).body[field];
    assert.equal(await word("/orderHistories", "shippedStatus"), "Shipped");
    assert.equal(await word("/orderTraces", "status"), "DELEVERY START");
    assert.equal(await word("/orderLists", "status"), "DeliveryStarted");
  });
});

describe("the history of a customer (S4-F11)", () => {
  it("has orders, payments, deliveries and messages in one call", async () => {
    const { hear, http } = await start({ shop: shopNamed("bookstore") });
    const message = {
      ...{ messageId: 12, event: "DeliveryStarted", channel: "kakao", text: "on its way" },
      at: info.orderDate,
    };
    await hear(1, "OrderPlaced", "DeliveryStarted", ["MessageSent", message], ["MessageSent", message]);
    await hear(2, ["OrderPlaced", { method: "cash" }]);
    const { body } = await http("GET", "/history?customerId=cust1");
    const [second, first] = embedded({ body, status: 200, headers: {} }, "history");
    const { _links: shown, ...row } = (await http("GET", "/orderStatuses/1")).body;
    assert.equal(shown?.self?.href, "/orderStatuses/1");
    assert.deepEqual(first, {
      ...row,
      payment: { id: 1, amount: 10, method: "card", paymentStatus: "PaymentApproved" },
      delivery: { id: 1, deliveryStatus: "DeliveryStarted" },
      messages: [message],
      _links: {
        self: { href: "/orderStatuses/1" },
        orderStatus: { href: "/orderStatuses/1" },
        order: { href: "/orders/1" },
        payment: { href: "/payments/1" },
        delivery: { href: "/deliveries/1" },
      },
    });
    assert.deepEqual(
      [second?.orderId, second?.delivery, second?.messages, second?._links?.delivery],
      [2, null, [], undefined],
    );
    assert.deepEqual(second?.payment, {
      ...{ id: 2, amount: 10, method: "cash", paymentStatus: "PaymentApproved" },
    });
  });

  it("is one customer's, or that of a phone number, however it is written", async () => {
    const { hear, found } = await start();
    await hear(1, "OrderPlaced");
    await hear(2, ["OrderPlaced", { customerId: "cust2" }]);
    await hear(3, ["OrderPlaced", { phoneNumber: null }]);
    await hear(4, ["OrderPlaced", { customerId: null, phoneNumber: "+82101" }]);
    assert.deepEqual((await found("customerId=cust1")).ids, [3, 1]);
    assert.deepEqual((await found("customerId=cust2")).ids, [2]);
    assert.deepEqual(await found("customerId=nobody"), { ids: [], total: 0 });
    for (const phone of ["01012341234", "010-1234-1234", "010%201234%201234"])
      assert.deepEqual((await found(`phoneNumber=${phone}`)).ids, [2, 1], phone);
    assert.deepEqual((await found("phoneNumber=%2B82101&customerId=")).ids, [4]);
  });

  it("asks for one of the two", async () => {
    const { http } = await start();
    for (const query of ["", "customerId=", "customerId=&phoneNumber=", "customerId=a&phoneNumber=010"]) {
      const problem = assertProblem(await http("GET", `/history?${query}`), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, "customerId", query);
    }
    for (const [query, field] of [
      ["phoneNumber=hello", "phoneNumber"],
      ["customerId=a&page=-1", "page"],
      ["customerId=a&size=0", "size"],
    ]) {
      const problem = assertProblem(await http("GET", `/history?${query}`), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, field);
    }
  });

  it("shows an order once the order service's word is on record", async () => {
    let failures = 1;
    const { host, hear, found } = await start({
      through: saving((key, { state }) => {
        if (key === "row:1" && state.orderStatus === "OrderPlaced" && failures-- > 0)
          throw new Unavailable("the store has gone");
      }),
    });
    await hear(1, "StoreCancelled", "DeliveryStarted");
    const event = placed(1);
    assert.equal(await host.composed.deliver(event), "RETRY");
    assert.deepEqual(await found("customerId=cust1"), { ids: [], total: 0 });
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.deepEqual(await found("customerId=cust1"), { ids: [1], total: 1 });
  });

  it("can be asked for a state, in our words or in those of any dialect", async () => {
    const { hear, found } = await start({ shop: shopNamed("coffee") });
    await hear(1, ["OrderPlaced", { paid: false }]);
    await hear(2, ["OrderPlaced", { paid: false }], "OrderPaid");
    await hear(3, ["OrderPlaced", { paid: false }], "OrderPaid", "MakeStarted");
    await hear(4, ["OrderPlaced", { paid: false }], "OrderPaid", "DeliveryStarted");
    await hear(5, ["OrderPlaced", { paid: false }], "OrderCancelled", "PaymentCancelled");
    const expected: Record<string, number[]> = {
      OrderPlaced: [4, 3, 2, 1],
      OrderPaid: [2],
      PaymentRequested: [1],
      PaymentApproved: [4, 3, 2],
      MakeStarted: [3],
      OrderCancelled: [5],
      PaymentCancelled: [5],
      Ordered: [4, 3, 2, 1], // S2-V1
      OrderCanceled: [5],
      PaymentCanceled: [5],
      Shipped: [4],
      "Order END": [1], // S3-V1
      "PAY END": [3, 2],
      "DELEVERY START": [4],
      "ORDER CANCEL": [5],
      Paid: [2], // S4-V1
      Nonsense: [],
    };
    for (const [status, ids] of Object.entries(expected)) {
      const query = `customerId=cust1&status=${encodeURIComponent(status)}`;
      assert.deepEqual(await found(query), { ids, total: ids.length }, status);
    }
    assert.equal((await found("customerId=cust1&status=")).total, 5);
  });

  it("has pages that lead on, with all that was asked", async () => {
    const { hear, http, found } = await start();
    for (const id of numbers(1, 5)) await hear(id, "OrderPlaced");
    await hear(3, "OrderCancelled");
    const query = "customerId=cust1&status=OrderPlaced&size=2";
    const { body } = await http("GET", `/history?${query}&page=1`);
    assert.deepEqual(body.page, { size: 2, totalElements: 4, totalPages: 2, number: 1 });
    assert.equal(body._links?.prev?.href, "/history?customerId=cust1&status=OrderPlaced&page=0&size=2");
    assert.deepEqual((await found(query)).ids, [5, 4]);
    assert.deepEqual((await found(`${query}&page=1`)).ids, [2, 1]);
    assert.deepEqual(await found(`${query}&page=2`), { ids: [], total: 4 });
  });

  it("goes on over several hundred orders, newest first, each once however often it was told", async () => {
    const { dapr, hear, found } = await start();
    for (const id of numbers(1, 450)) dapr.accept("OrderPlaced", placed(id));
    await settled(dapr);
    // Long after their pages were turned.
    for (const id of [1, 200, 201]) await hear(id, "OrderPlaced");
    for (const who of ["customerId=cust1", "phoneNumber=01012341234"]) {
      assert.deepEqual(await found(`${who}&size=1000`), { ids: numbers(1, 450).reverse(), total: 450 });
      assert.deepEqual((await found(`${who}&size=100&page=4`)).ids, numbers(1, 50).reverse());
    }
    const index = [...(dapr.stores.get("orderview") ?? [])].filter(([key]) => key.startsWith("index:"));
    assert.equal(index.length, 6, "two full pages and a head each");
  });

  it("loses no order that comes while a page is turned, by whatever replica", async () => {
    const { replica, host, found } = await start();
    const other = await replica("orderview-1");
    for (const id of numbers(1, 199)) await host.composed.deliver(placed(id));
    const verdicts = await Promise.all(
      numbers(200, 215).map((id) => (id % 2 === 0 ? host : other).composed.deliver(placed(id))),
    );
    assert.deepEqual(new Set(verdicts), new Set(["SUCCESS"]));
    assert.deepEqual((await found("customerId=cust1&size=1000")).ids, numbers(1, 215).reverse());
  });

  it("loses no order when it fails between writing a page and turning it", async () => {
    let failures = 1;
    const { host, found } = await start({
      through: saving((key, { state }) => {
        if (key.startsWith("index:") && state.pages === 1 && failures-- > 0)
          throw new Unavailable("the store has gone");
      }),
    });
    for (const id of numbers(1, 199)) await host.composed.deliver(placed(id));
    const event = placed(200);
    assert.equal(await host.composed.deliver(event), "RETRY");
    for (const id of [201, 202]) await host.composed.deliver(placed(id));
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.deepEqual((await found("customerId=cust1&size=1000")).ids, numbers(1, 202).reverse());
  });

  it("takes whatever people call themselves: the keys suit every store, and stay apart", async () => {
    const { dapr, hear, found } = await start();
    const names = ["a", "a/0", "가".repeat(200), "a||b", "a b&c=d", "😀"];
    for (const [i, customerId] of names.entries()) await hear(i + 1, ["OrderPlaced", { customerId }]);
    for (const [i, name] of names.entries())
      assert.deepEqual((await found(`customerId=${encodeURIComponent(name)}`)).ids, [i + 1], name);
    for (const key of dapr.stores.get("orderview")?.keys() ?? []) {
      if (!key.startsWith("index:")) continue;
      assert.match(key, /^index:(customer|phone):[\w-]+(\/\d+)?$/);
      assert.ok(key.length < 100, "MySQL has 255 for it, its prefixes included");
    }
    assert.deepEqual(deadLetters(dapr), []);
  });
});

/** What the services that a rebuild asks have on record, as a test has it. */
interface Books {
  orders: Map<number, object>;
  deliveries: Map<number, object>;
  messages: object[];
  last?: number;
}

describe("a rebuild", () => {
  const asking = ["order", "payment", "store", "delivery", "notification"];

  async function shop(options: HostOptions = {}) {
    const one = await start(options);
    const { dapr, host, http } = one;
    const books: Books = { orders: new Map(), deliveries: new Map(), messages: [] };
    /** comes between the reading of the rows and the answer of the order service, once */
    const meanwhile: (() => Promise<void>)[] = [];
    const calls: string[] = [];
    const within = (rows: Map<number, object>, { from, to }: { from: number; to: number }) =>
      [...rows].filter(([id]) => id >= from && id <= to).map(([id, row]) => ({ id, ...row }));
    for (const app of asking)
      dapr.join(app, {
        topics: [],
        call: async ({ method, path }) => {
          calls.push(`${app} ${method} ${path}`);
          const [, from, to] = /^\/records\?from=(\d+)&to=(\d+)$/.exec(path) ?? [];
          const range = { from: Number(from), to: Number(to) };
          const body = {
            order: {
              records: within(books.orders, range),
              last: books.last ?? Math.max(0, ...books.orders.keys()),
            },
            delivery: { records: within(books.deliveries, range) },
            notification: { records: books.messages },
          }[app] ?? { records: [] };
          if (app === "order") await meanwhile.shift()?.();
          return { status: 200, headers: {}, body };
        },
        deliver: async () => "SUCCESS",
      });
    const deliver = async (event: CloudEvent) =>
      assert.equal(await host.composed.deliver(event), "SUCCESS", event.type);
    const order = (id: number, more: object = {}) =>
      books.orders.set(id, { ...about(id), state: "OrderPlaced", amount: 10, paid: true, ...more });
    const delivery = (id: number, state: string) =>
      books.deliveries.set(id, { state, startDate: info.orderDate });
    const rebuild = async (from = 1, to = 128) => {
      const { status, body } = await http("POST", "/rebuilds", { from, to });
      assert.equal(status, 200, JSON.stringify(body));
      return body as unknown as Record<string, number>;
    };
    const raw = dapr.stores.get("orderview") ?? new Map();
    return { ...one, books, meanwhile, calls, deliver, order, delivery, rebuild, raw };
  }
  const nothing = { missing: 0, differed: 0, removed: 0, unlisted: 0 };

  it("of a view that is right changes nothing, and asks each service once", async () => {
    const { hear, order, delivery, rebuild, raw, calls } = await shop();
    for (const id of [1, 2]) {
      await hear(id, "OrderPlaced", "DeliveryStarted");
      order(id);
      delivery(id, "DeliveryStarted");
    }
    const before = structuredClone(raw);
    assert.deepEqual(await rebuild(), { ...nothing, rows: 2, last: 32 });
    assert.deepEqual(raw, before);
    assert.deepEqual(
      calls,
      asking.map((app) => `${app} GET /records?from=1&to=128`),
    );
  });

  it("makes what is missing, rights what is wrong, removes what stands for no order, and lists all of it again", async () => {
    const { dapr, hear, order, delivery, rebuild, raw, row, found, http } = await shop();
    const listed = async () => ({
      rows: (await http("GET", "/orderStatuses?size=1000")).body,
      histories: [await found("customerId=cust1"), await found("phoneNumber=01012341234")],
    });
    for (const id of numbers(1, 300)) {
      dapr.accept("OrderPlaced", placed(id));
      order(id);
      delivery(id, "DeliveryStarted");
    }
    await settled(dapr);
    for (const id of numbers(1, 300)) await hear(id, "DeliveryStarted");
    const before = await listed();
    assert.equal(before.histories[0]?.total, 300);

    raw.clear();
    assert.equal((await listed()).histories[0]?.total, 0);
    assert.deepEqual(await rebuild(), { ...nothing, rows: 128, missing: 128, unlisted: 256, last: 320 });
    await rebuild(129, 256);
    assert.deepEqual(await rebuild(257, 384), { ...nothing, rows: 44, missing: 44, unlisted: 88, last: 320 });
    assert.deepEqual(await listed(), before);

    const spoil = (id: number, columns: object) => {
      const { value } = raw.get(`row:${id}`) as { value: { state: object } };
      raw.set(`row:${id}`, { value: { ...value, state: { ...value.state, ...columns } }, etag: "spoilt" });
    };
    spoil(7, { qty: 99, orderStatus: "OrderCancelled", deliveryId: null });
    spoil(8, { orderStatus: null });
    raw.delete("row:9");
    const { value } = structuredClone(raw.get("row:1")) as { value: { state: { orderId: number } } };
    value.state.orderId = 310;
    raw.set("row:310", { value, etag: "new" });
    assert.equal((await row(310)).orderId, 310);
    assert.deepEqual(await rebuild(), { ...nothing, rows: 128, missing: 2, differed: 1, last: 320 });
    assert.deepEqual(await rebuild(257, 384), { ...nothing, rows: 44, removed: 1, last: 320 });
    assert.deepEqual(await listed(), before);
    assertProblem(await http("GET", "/orderStatuses/310"), 404, "not-found");
  });

  it("undoes no event that arrives while it looks: it asks again", async () => {
    const { deliver, hear, order, delivery, rebuild, meanwhile, row, raw, calls } = await shop();
    await hear(1, "OrderPlaced", "DeliveryStarted");
    order(1, { qty: 5 }); // so that there is something to be written
    delivery(1, "DeliveryStarted");
    meanwhile.push(async () => {
      // On record first, then told of, as every service does it.
      delivery(1, "DeliveryCompleted");
      await deliver(cloudEvent("DeliveryCompleted", about(1)));
    });
    assert.deepEqual(await rebuild(), { ...nothing, rows: 1, differed: 1, last: 32 });
    const { qty, deliveryStatus } = await row(1);
    assert.deepEqual([qty, deliveryStatus], [5, "DeliveryCompleted"]);
    assert.ok(calls.includes("delivery GET /records?from=1&to=1"), "asked again, for this order only");
    // The same while the row is made.
    raw.delete("row:1");
    delivery(1, "DeliveryStarted");
    meanwhile.push(async () => {
      delivery(1, "DeliveryCompleted");
      await deliver(cloudEvent("DeliveryCompleted", about(1)));
    });
    await rebuild();
    assert.equal((await row(1)).deliveryStatus, "DeliveryCompleted");
  });

  it("removes no row whose order is placed while it looks", async () => {
    const { deliver, order, rebuild, meanwhile, row } = await shop();
    meanwhile.push(async () => {
      order(1);
      await deliver(placed(1));
    });
    assert.equal((await rebuild()).removed, 0);
    assert.equal((await row(1)).orderStatus, "OrderPlaced");
  });

  it("leaves a row that nobody sees, of a payment that was taken back", async () => {
    const { hear, rebuild, raw } = await shop();
    await hear(1, "PaymentCancelled");
    assert.deepEqual(await rebuild(), { ...nothing, rows: 0, last: 32 });
    assert.ok(raw.has("row:1"));
  });

  it("shows a row all the while", async () => {
    const seen: (string | null)[] = [];
    let look = async () => {};
    const { hear, order, delivery, rebuild, http } = await shop({
      through: (sidecar) => ({
        ...sidecar,
        store: {
          ...sidecar.store,
          save: async (...args) => {
            await look();
            await sidecar.store.save(...args);
            await look();
          },
          delete: async (...args) => {
            await sidecar.store.delete(...args);
            await look();
          },
        },
      }),
    });
    await hear(1, "OrderPlaced");
    order(1);
    delivery(1, "DeliveryStarted");
    look = async () => {
      const { status, body } = await http("GET", "/orderStatuses/1");
      seen.push(status === 200 ? String(body.deliveryStatus) : null);
    };
    await rebuild();
    assert.deepEqual([...new Set(seen)], ["null", "DeliveryStarted"]);
  });

  it("does nothing while a service does not answer, and says which", async () => {
    for (const app of asking) {
      const { dapr, hear, order, http, raw } = await shop();
      await hear(1, "OrderPlaced");
      order(1, { qty: 5 });
      const before = structuredClone(raw);
      dapr.down.add(app);
      const answer = await http("POST", "/rebuilds", { from: 1, to: 128 });
      const problem = assertProblem(answer, 503, "unavailable");
      assert.equal(String(problem.service), app);
      assert.equal(answer.headers["retry-after"], "2");
      assert.deepEqual(raw, before);
    }
  });

  it("believes no answer that says nothing", async () => {
    for (const [status, body] of [
      ...[undefined, {}, { records: [{ orderId: 1 }] }].map((body) => [200, body] as const),
      [500, { records: [], last: 0 }] as const,
    ]) {
      const { dapr, http } = await start();
      for (const app of asking)
        dapr.join(app, {
          topics: [],
          call: async () => ({ status, headers: {}, body }),
          deliver: async () => "SUCCESS",
        });
      assertProblem(await http("POST", "/rebuilds", { from: 1, to: 1 }), 503, "unavailable");
    }
  });

  it("adds no order to a list that it is on, however far back", async () => {
    const { hear, order, rebuild, found, raw } = await shop();
    for (const id of numbers(1, 450)) {
      await hear(id, "OrderPlaced");
      order(id);
    }
    const index = () => structuredClone([...raw].filter(([key]) => String(key).startsWith("index:")));
    const before = index();
    for (const from of [1, 129, 257, 385]) assert.equal((await rebuild(from, from + 127)).unlisted, 0);
    assert.deepEqual(index(), before);
    // One page of one of the two lists is gone.
    const page = [...raw.keys()].find((key) => /^index:customer:.*\/0$/.test(String(key)));
    raw.delete(String(page));
    assert.equal((await found("customerId=cust1")).total, 250);
    let unlisted = 0;
    for (const from of [1, 129, 257, 385]) unlisted += (await rebuild(from, from + 127)).unlisted ?? 0;
    assert.equal(unlisted, 200);
    assert.deepEqual((await found("customerId=cust1&size=1000")).ids, numbers(1, 450).reverse());
  });

  it("leaves on no list what its row says is somebody else's", async () => {
    const { hear, order, rebuild, found, raw } = await shop();
    await hear(1, "OrderPlaced");
    await hear(2, ["OrderPlaced", { customerId: "cust2" }]);
    order(1);
    order(2, { customerId: "cust2" });
    const lists = [...raw].filter(([key]) => String(key).startsWith("index:customer:"));
    for (const [key, { value }] of lists as [string, { value: { state: object } }][])
      raw.set(key, { value: { ...value, state: { orderIds: [1, 2], pages: 0 } }, etag: "spoilt" });
    await rebuild();
    assert.deepEqual((await found("customerId=cust1")).ids, [1]);
    assert.deepEqual(await found("customerId=cust2"), { ids: [2], total: 1 });
  });

  it("takes a range of orders, and nothing else", async () => {
    const { http } = await shop();
    const wrong: [unknown, string[]][] = [
      [{}, ["from", "to"]],
      [{ from: 1 }, ["to"]],
      [{ from: 0, to: 5 }, ["from"]],
      [{ from: "x", to: 5 }, ["from"]],
      [{ from: 5, to: 4 }, ["to"]],
      [{ from: 1, to: 129 }, ["to"]],
      [{ from: 1, to: 1e300 }, ["to"]],
    ];
    for (const [body, fields] of wrong) {
      const problem = assertProblem(await http("POST", "/rebuilds", body), 422, "invalid-field");
      const errors = problem.errors as unknown as { field: string }[];
      assert.deepEqual([...new Set(errors.map(({ field }) => field))], fields, JSON.stringify(body));
    }
    assertProblem(await http("POST", "/rebuilds", "{"), 415, "unsupported-media-type");
    const headers = { "content-type": "application/json" };
    assertProblem(await http("POST", "/rebuilds", "{", headers), 400, "malformed-json");
    assertProblem(await http("GET", "/rebuilds"), 405, "method-not-allowed");
  });
});
