import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { catalogue } from "#kit/events.js";
import { MemoryDapr } from "#kit/memory.js";
import {
  assertProblem,
  cloudEvent,
  embedded,
  type Host,
  hostInMemory,
  listen,
  settled,
} from "#kit/testing.js";
import { orderview } from "./main.js";

let host: Host;
afterEach(() => host.stop());

type Type = Parameters<typeof cloudEvent>[0];

async function start() {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  host = await hostInMemory(dapr, orderview);
  const about = (orderId: number) => ({
    ...{ id: orderId, orderId, productId: 1, productName: `P${orderId}`, qty: 2, price: 5, amount: 10 },
    ...{ customerId: null, customerName: null, customerAddr: null, paymentId: orderId, approvalCode: null },
    ...{ reason: "", deliveryStatus: "" },
  });
  const hear = async (orderId: number, ...types: Type[]) => {
    for (const type of types) dapr.accept(type, cloudEvent(type, about(orderId)));
    await settled(dapr);
  };
  return {
    dapr,
    heard,
    hear,
    row: async (id: number) => (await host.http("GET", `/orderStatuses/${id}`)).body,
  };
}

describe("the view", () => {
  it("shows an order and its delivery in one query (S0-R1)", async () => {
    const { hear, row } = await start();
    await hear(1, "OrderPlaced", "DeliveryStarted");
    const { body } = await host.http("GET", "/orderStatuses");
    assert.deepEqual(body._embedded?.orderStatuses?.[0], {
      ...{ orderId: 1, productId: 1, productName: "P1", qty: 2, amount: 10 },
      ...{ customerId: null, customerName: null, customerAddr: null },
      ...{ orderStatus: "OrderPlaced", paymentStatus: "PaymentApproved", storeStatus: "StoreAccepted" },
      ...{ deliveryId: 1, deliveryStatus: "DeliveryStarted" },
      _links: {
        self: { href: "/orderStatuses/1" },
        orderStatus: { href: "/orderStatuses/1" },
        order: { href: "/orders/1" },
      },
    });
    assert.deepEqual(await row(1), body._embedded?.orderStatuses?.[0]);
  });

  it("shows what is known so far, and nothing before the order has been placed", async () => {
    const { hear, row } = await start();
    await hear(1, "DeliveryStarted");
    assertProblem(await host.http("GET", "/orderStatuses/1"), 404, "not-found");
    assert.deepEqual(embedded(await host.http("GET", "/orderStatuses"), "orderStatuses"), []);
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
    const { hear } = await start();
    for (const id of [2, 40, 1]) await hear(id, "OrderPlaced");
    await hear(2, "DeliveryStarted");
    const rows = embedded(await host.http("GET", "/orderStatuses?size=2"), "orderStatuses");
    assert.deepEqual(
      rows.map(({ orderId, productName, deliveryStatus }) => [orderId, productName, deliveryStatus]),
      [
        [40, "P40", null],
        [2, "P2", "DeliveryStarted"],
      ],
    );
  });

  it("listens, and says nothing itself", async () => {
    const { heard, hear } = await start();
    const listened = host.composed.subscriptions.map(({ topic }) => topic);
    for (const topic of listened) assert.ok(topic in catalogue, topic);
    await hear(1, ...listened);
    assert.deepEqual(
      heard.filter(({ source }) => source === "orderview"),
      [],
    );
    assertProblem(await host.http("POST", "/orderStatuses", {}), 405, "method-not-allowed");
  });

  it("catches up with what it missed while its store was away", async () => {
    const { dapr, row } = await start();
    dapr.down.add("orderview");
    const data = { id: 1, orderId: 1, productId: 1, productName: "TV", qty: 1, price: 1, amount: 1 };
    const customer = { customerId: null, customerName: null, customerAddr: null };
    const placed = { ...data, ...customer, paymentId: 1, approvalCode: null };
    const failing = cloudEvent("OrderPlaced", placed);
    assert.equal(await host.composed.deliver(failing), "RETRY");
    dapr.accept("OrderPlaced", failing);
    dapr.down.delete("orderview");
    await settled(dapr);
    assert.equal((await row(1)).orderStatus, "OrderPlaced");
  });
});
