/** S0 and its failures on real sidecars, real Redis and SQLite files. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { TestShop, until } from "./shop.js";

const DELIVERED = {
  orderStatus: "OrderPlaced",
  paymentStatus: "PaymentApproved",
  storeStatus: "StoreAccepted",
  deliveryStatus: "DeliveryStarted",
};
const TAKEN_BACK = {
  orderStatus: "OrderCancelled",
  paymentStatus: "PaymentCancelled",
  storeStatus: "StoreCancelled",
  deliveryStatus: "DeliveryCancelled",
};

describe("the fashion shop on real sidecars", () => {
  let shop: TestShop;
  before(async () => {
    shop = await TestShop.open(16_000, { drills: true });
  });
  after(() => shop?.close());

  const drill = (settings: object) => shop.http("PUT", "/drill", settings, {}, shop.system.url("payment"));

  describe("ordering (S0-F2 … F6, H1 … H7)", () => {
    it("S0-H1, H3: an order is paid, accepted, shipped and shown", async () => {
      const { status, headers, body } = await shop.http("POST", "/orders", {
        productId: "1",
        productName: "Outwear-1",
        qty: "1",
      });
      assert.equal(status, 201);
      assert.equal(headers.get("location"), `/orders/${body.id}`);
      assert.equal(body.id, 1);
      const row = await shop.shows("/orderStatuses/1", DELIVERED);
      assert.deepEqual(
        { productId: row.productId, qty: row.qty, productName: row.productName, deliveryId: row.deliveryId },
        { productId: 1, qty: 1, productName: "Outwear-1", deliveryId: 1 },
      );
      assert.ok(row._links.self.href.endsWith("/orderStatuses/1"));
      assert.ok(row._links.orderStatus.href.endsWith("/orderStatuses/1"));
    });

    it("S0-H4, F7: cancelling takes everything back", async () => {
      const stock = await shop.stock();
      const id = await shop.order({ qty: 3 });
      await shop.shows(`/orderStatuses/${id}`, DELIVERED);
      assert.equal(await shop.stock(), stock - 3);
      const cancelled = await shop.http("DELETE", `/orders/${id}`);
      assert.equal(cancelled.status, 200);
      assert.equal(cancelled.body.orderStatus, "OrderCancelled");
      await shop.shows(`/orderStatuses/${id}`, TAKEN_BACK);
      await shop.shows(`/payments/${id}`, { paymentStatus: "PaymentCancelled" });
      await shop.shows("/products/1", { stock });
      assert.equal(
        (await shop.http("DELETE", `/orders/${id}`)).status,
        200,
        "cancelling again changes nothing",
      );
      assert.equal(await shop.stock(), stock);
    });

    it("S0-H5, H6: the req/res dialect, directly at the service's port", async () => {
      const sent = {
        productId: "1",
        quantity: "1",
        customerId: "cust1",
        customerName: "jang",
        customerAddr: "seoul",
      };
      const { status, body } = await shop.http("POST", "/orders", sent, {}, shop.system.url("order"));
      assert.equal(status, 201);
      await shop.shows(`/deliveries/${body.id}`, { deliveryState: "DeliveryStarted" });
      const list = await shop.http("GET", "/deliveries", undefined, {}, shop.system.url("delivery"));
      assert.match(list.headers.get("content-type") ?? "", /^application\/hal\+json/);
      const [delivery] = list.body._embedded.deliveries;
      const { customerId, customerName, deliveryAddress, deliveryId, orderId, productId, quantity } =
        delivery;
      assert.deepEqual(
        { customerId, customerName, deliveryAddress, deliveryId, orderId, productId, quantity },
        {
          customerId: "cust1",
          customerName: "jang",
          deliveryAddress: "seoul",
          deliveryId: body.id,
          orderId: body.id,
          productId: 1,
          quantity: 1,
        },
      );
      for (const link of ["profile", "search", "self"]) assert.ok(list.body._links[link].href, link);
    });

    it("S0-H7, G1: products behind the prefix, with options and stock", async () => {
      const { body } = await shop.http("GET", "/api/fashion-order/products");
      const [product] = body._embedded.products;
      assert.deepEqual(
        { "@id": product["@id"], name: product.name, price: product.price, imageUrl: product.imageUrl },
        { "@id": 1, name: "TV", price: 10_000, imageUrl: "/goods/img/TV.jpg" },
      );
      const options = await shop.http("GET", product._links.productOptions.href);
      assert.equal(options.body._embedded.productOptions.length, 2);
    });

    it("S0-F1: the owner registers, changes and removes a product", async () => {
      const made = await shop.http("POST", "/products", {
        name: "Coat",
        price: "3000",
        stock: "2",
        options: [{ name: "L" }],
      });
      assert.equal(made.status, 201);
      const path = `/products/${made.body.id}`;
      assert.equal((await shop.http("PATCH", path, { price: 2500 })).body.price, 2500);
      const id = await shop.order({ productId: made.body.id, productName: undefined, qty: 2 });
      const order = await shop.http("GET", `/orders/${id}`);
      assert.deepEqual([order.body.productName, order.body.amount], ["Coat", 5000]);
      const none = await shop.http("POST", "/orders", { productId: made.body.id, qty: 1 });
      assert.deepEqual([none.status, none.body.type], [409, "urn:jangteo:problem:out-of-stock"]);
      assert.equal((await shop.http("DELETE", path)).status, 204);
      assert.equal((await shop.http("GET", path)).status, 404);
      assert.equal((await shop.http("POST", "/orders", { productId: made.body.id, qty: 1 })).status, 404);
    });

    it("S0-H8, H9: echo, and a service set down by an operator", async () => {
      const delivery = shop.system.url("delivery");
      const set = (way: string) => shop.http("PUT", `/actuator/${way}`, undefined, {}, delivery);
      const echo = await fetch(`${delivery}/actuator/echo`);
      assert.match(await echo.text(), /^[\w.-]+\/[\d.]+$/);
      const down = await set("down");
      assert.deepEqual([down.status, down.body], [200, { status: "DOWN" }]);
      assert.equal((await fetch(`${delivery}/actuator/health`)).status, 503);
      assert.equal((await set("up")).status, 200);
      assert.deepEqual(await (await fetch(`${delivery}/actuator/health`)).json(), { status: "UP" });
    });

    it("T4: many orders at once, each delivery carries its own order's goods", async () => {
      const ids = await Promise.all(
        Array.from({ length: 24 }, (_, i) =>
          shop.order({ productId: 1 + (i % 5), productName: `Item-${i}`, qty: 1 + i }),
        ),
      );
      for (const [i, id] of ids.entries()) {
        await shop.shows(`/deliveries/${id}`, { orderId: id, productName: `Item-${i}`, qty: 1 + i });
        await shop.shows(`/orderStatuses/${id}`, { ...DELIVERED, deliveryId: id });
      }
    });
  });

  describe("an order is taken once, or not at all", () => {
    it("the same Idempotency-Key twice, one after the other and at once", async () => {
      const headers = { "idempotency-key": "once" };
      const first = await shop.order({}, headers);
      assert.equal(await shop.order({}, headers), first);
      const others = await Promise.all(
        Array.from({ length: 8 }, () => shop.order({}, { "idempotency-key": "eight" })),
      );
      assert.equal(new Set(others).size, 1);
      const reused = await shop.http("POST", "/orders", { productId: 1, qty: 2 }, headers);
      assert.deepEqual(
        [reused.status, reused.body.type],
        [422, "urn:jangteo:problem:idempotency-key-reused"],
      );
    });

    it("declined: nothing stands, the stock comes back", async () => {
      const stock = await shop.stock(2);
      await drill({ declineRate: 1 });
      const declined = await shop.http("POST", "/orders", { productId: 2, qty: 5 }).finally(() => drill({}));
      assert.deepEqual([declined.status, declined.body.type], [402, "urn:jangteo:problem:payment-declined"]);
      await shop.shows("/products/2", { stock });
    });

    it("the payment gateway is silent: 503, try later, nothing stands; then the same request succeeds", async () => {
      const stock = await shop.stock(2);
      const headers = { "idempotency-key": "patient" };
      await drill({ failureRate: 1 });
      const refused = await shop
        .http("POST", "/orders", { productId: 2, qty: 5 }, headers)
        .finally(() => drill({}));
      assert.equal(refused.status, 503);
      assert.ok(Number(refused.headers.get("retry-after")) > 0);
      await shop.shows("/products/2", { stock });
      const id = await shop.order({ productId: 2, productName: undefined, qty: 5 }, headers);
      await shop.shows(`/orderStatuses/${id}`, DELIVERED);
      await shop.shows("/products/2", { stock: stock - 5 });
    });

    it("S0-N3: payment fails again and again: the breaker refuses at once, and lets payment recover", async () => {
      const attempt = async () => {
        const started = performance.now();
        const reply = await shop.http("POST", "/orders", { productId: 2, qty: 1 });
        return { reply, ms: performance.now() - started };
      };
      await drill({ delayMs: 500, failureRate: 1 });
      for (const { reply, ms } of await Promise.all(Array.from({ length: 20 }, attempt))) {
        assert.equal(reply.status, 503);
        assert.ok(ms >= 500, "payment was asked");
      }
      const { reply, ms } = await attempt();
      assert.deepEqual([reply.status, reply.body.type], [503, "urn:jangteo:problem:payment-unavailable"]);
      assert.ok(Number(reply.headers.get("retry-after")) > 0);
      assert.ok(ms < 450, `refused at once, not after ${ms} ms`);
      await drill({});
      await until(
        "the breaker lets orders through again",
        15_000,
        async () => (await attempt()).reply.status === 201,
      );
      for (let i = 0; i < 8; i++) assert.equal((await shop.http("GET", "/payments?page=-1")).status, 422);
      assert.equal((await shop.http("GET", "/payments")).status, 200, "a stranger's mistakes trip nothing");
    });

    it("payment hangs (stopped): 503, nothing stands, and its late approval is void", async () => {
      const stock = await shop.stock(3);
      await shop.system.kill("payment-0", "SIGSTOP");
      const refused = await shop
        .http("POST", "/orders", { productId: 3, qty: 1 })
        .finally(() => shop.system.kill("payment-0", "SIGCONT"));
      assert.equal(refused.status, 503);
      assert.match(refused.body.type, /payment-unavailable$/);
      await shop.system.waitReady("payment-0");
      await shop.shows("/products/3", { stock });
      await until("no payment stands without its order", 20_000, async () => {
        const standing = (await shop.all("payments")).filter(
          (one) => one.paymentStatus === "PaymentApproved",
        );
        const orders = new Set((await shop.all("orders")).map((one) => one.id));
        return standing.every((payment) => orders.has(payment.orderId));
      });
    });

    it("the orders' store cannot be reached: 503, and nothing stands", async () => {
      const stock = await shop.stock(4);
      const before = await shop.all("orders");
      await shop.system.kill("order-0-sidecar", "SIGSTOP");
      const refused = await shop
        .http("POST", "/orders", { productId: 4, qty: 1 }, {}, shop.system.url("order"))
        .finally(() => shop.system.kill("order-0-sidecar", "SIGCONT"));
      assert.equal(refused.status, 503);
      assert.ok(Number(refused.headers.get("retry-after")) > 0);
      await shop.system.waitReady("order-0");
      await until(
        "nothing is pending",
        20_000,
        async () => ![...(await shop.recorded()).values()].includes("Pending"),
      );
      await shop.shows("/products/4", { stock });
      assert.equal((await shop.all("orders")).length, before.length);
    });

    it("inventory away: 503; store and delivery away: orders go on, and are caught up (S0-N2, K22)", async () => {
      await shop.system.kill("store-0", "SIGSTOP");
      await shop.system.kill("delivery-0", "SIGSTOP");
      const ids: number[] = [];
      for (let i = 0; i < 5; i++) ids.push(await shop.order());
      await shop.system.kill("delivery-0", "SIGCONT");
      await shop.system.kill("store-0", "SIGCONT");
      for (const id of ids) await shop.shows(`/orderStatuses/${id}`, DELIVERED, 30_000);
      await shop.system.kill("inventory-0", "SIGSTOP");
      const refused = await shop
        .http("POST", "/orders", { productId: 1, qty: 1 })
        .finally(() => shop.system.kill("inventory-0", "SIGCONT"));
      assert.equal(refused.status, 503);
      await shop.system.waitReady("inventory-0");
    });
  });

  describe("cancelling at every stage, and messages in any order", () => {
    it("cancelled at once, while everything is still under way", async () => {
      const stock = await shop.stock(5);
      const ids = await Promise.all(
        Array.from({ length: 10 }, async () => {
          const id = await shop.order({ productId: 5 });
          assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 200);
          return id;
        }),
      );
      for (const id of ids) await shop.shows(`/orderStatuses/${id}`, TAKEN_BACK);
      await shop.shows("/products/5", { stock });
    });

    it("completed deliveries stay: the order can no longer be cancelled", async () => {
      const id = await shop.order();
      await shop.shows(`/orderStatuses/${id}`, DELIVERED);
      assert.equal(
        (await shop.http("PUT", `/deliveries/${id}/complete`)).body.deliveryStatus,
        "DeliveryCompleted",
      );
      await shop.shows(`/orders/${id}`, { orderStatus: "OrderDelivered" });
      assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 409);
      await shop.shows(`/orderStatuses/${id}`, { ...DELIVERED, deliveryStatus: "DeliveryCompleted" });
    });

    it("a message that comes twice, or after the cancellation that it precedes, changes nothing", async () => {
      const publish = async (type: string, id: string, data: object) => {
        const event = {
          specversion: "1.0",
          id,
          source: "test",
          type,
          datacontenttype: "application/json",
          data,
        };
        const headers = { "content-type": "application/cloudevents+json" };
        const path = `/v1.0/publish/events/${type}`;
        const answer = await shop.http("POST", path, event, headers, shop.system.sidecarUrl("order"));
        assert.equal(answer.status, 204);
      };
      const data = {
        ...{ id: 9001, orderId: 9001, productId: 1, productName: "Reordered", qty: 1, price: 1, amount: 1 },
        ...{ customerId: null, customerName: null, customerAddr: null, paymentId: 9001, approvalCode: null },
        reason: "test",
      };
      await publish("OrderCancelled", "test/cancelled", data);
      await shop.shows("/orderStatuses/9001", {
        orderStatus: "OrderCancelled",
        deliveryStatus: "DeliveryCancelled",
      });
      await publish("OrderPlaced", "test/placed", data);
      await publish("OrderPlaced", "test/placed", data);
      await publish("OrderCancelled", "test/cancelled", data);
      // A later order has gone all the way, so what was sent before it has been dealt with.
      await shop.shows(`/orderStatuses/${await shop.order()}`, DELIVERED);
      await shop.shows("/storeOrders/9001", { storeStatus: "StoreCancelled" });
      await shop.shows("/deliveries/9001", { deliveryStatus: "DeliveryCancelled" });
      await shop.shows("/orderStatuses/9001", {
        orderStatus: "OrderCancelled",
        deliveryStatus: "DeliveryCancelled",
      });
    });
  });
});

describe("what keeps a service hearing (kit/hearing.ts)", () => {
  let shop: TestShop;
  before(async () => {
    shop = await TestShop.open(16_000);
  });
  after(() => shop?.close());

  it("sidecars say what they listen to, and one that is told to end is started anew and listens again", async () => {
    const listens = async (app: string) => {
      const { body } = await shop.http("GET", "/v1.0/metadata", undefined, {}, shop.system.sidecarUrl(app));
      return (body.subscriptions ?? []).map(({ topic }: { topic: string }) => topic).sort();
    };
    const { body } = await shop.http("GET", "/dapr/subscribe", undefined, {}, shop.system.url("delivery"));
    const wanted = body.map(({ topic }: { topic: string }) => topic).sort();
    assert.ok(wanted.length > 0);
    assert.deepEqual(await listens("delivery"), wanted);
    const restarts = () =>
      shop.system.processes().find(({ name }) => name === "delivery-0-sidecar")?.restarts ?? 0;
    await shop.http("POST", "/v1.0/shutdown", undefined, {}, shop.system.sidecarUrl("delivery"));
    await until("it is started anew", 10_000, async () => restarts() === 1);
    await until("it listens again", 20_000, async () => (await listens("delivery")).length === wanted.length);
    const id = await shop.order();
    await shop.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
  });
});

describe("a shop whose owner accepts and confirms", () => {
  it("S0-F5, F7: nothing is delivered before the owner accepts, nor taken back before the owner confirms", async () => {
    const shop = await TestShop.open(17_000, { shop: "tests/fixtures/owner.yaml" });
    try {
      const id = await shop.order();
      await shop.shows(`/storeOrders/${id}`, { storeStatus: "Received" });
      assert.equal((await shop.http("GET", `/deliveries/${id}`)).status, 404);
      assert.equal((await shop.http("PUT", `/storeOrders/${id}/accept`)).status, 200);
      await shop.shows(`/orderStatuses/${id}`, DELIVERED);
      await shop.http("DELETE", `/orders/${id}`);
      await shop.shows(`/storeOrders/${id}`, { storeStatus: "CancelRequested" });
      await shop.shows(`/orderStatuses/${id}`, {
        orderStatus: "OrderCancelled",
        deliveryStatus: "DeliveryStarted",
      });
      assert.equal((await shop.http("PUT", `/storeOrders/${id}/confirmcancel`)).status, 200);
      await shop.shows(`/orderStatuses/${id}`, TAKEN_BACK);

      const unwanted = await shop.order();
      await shop.shows(`/storeOrders/${unwanted}`, { storeStatus: "Received" });
      assert.equal(
        (await shop.http("PUT", `/storeOrders/${unwanted}/reject`, { reason: "sold out" })).status,
        200,
      );
      await shop.shows(`/orderStatuses/${unwanted}`, {
        orderStatus: "OrderCancelled",
        paymentStatus: "PaymentCancelled",
        storeStatus: "StoreRejected",
      });
      assert.equal((await shop.http("PUT", `/storeOrders/${unwanted}/accept`)).status, 409);
    } finally {
      await shop.close();
    }
  });
});

describe("restarting", () => {
  it("keeps the data, and goes on numbering where it stopped", async () => {
    const first = await TestShop.open(16_000);
    const id = await first.order();
    await first.shows(`/orderStatuses/${id}`, DELIVERED);
    await first.close(true);
    const again = await TestShop.open(16_000, { data: first.data });
    try {
      await again.shows(`/orderStatuses/${id}`, DELIVERED);
      assert.equal(await again.order(), id + 1);
      await again.audit([id, id + 1], 1_000_000);
    } finally {
      await again.close();
    }
  });
});
