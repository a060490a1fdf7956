import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
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
import { delivery } from "./main.js";

let host: Host;
afterEach(() => host.stop());

async function start() {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  host = await hostInMemory(dapr, delivery);
  const order = (orderId: number) => ({
    ...{ id: orderId, orderId, productId: 1, productName: `P${orderId}`, qty: 2 },
    ...{ customerId: "cust1", customerName: "jang", customerAddr: "seoul" },
  });
  return {
    accepted: (orderId: number, more = {}) =>
      dapr.accept("StoreAccepted", cloudEvent("StoreAccepted", { ...order(orderId), ...more })),
    cancelled: (orderId: number) =>
      dapr.accept(
        "StoreCancelled",
        cloudEvent("StoreCancelled", { ...order(orderId), reason: "changed my mind" }),
      ),
    complete: (orderId: number) => host.http("PUT", `/deliveries/${orderId}/complete`),
    told: async () => {
      await settled(dapr);
      return heard
        .filter(({ source }) => source === "delivery")
        .map(({ type, data }) => `${type} ${data.orderId} ${data.productName} ${data.deliveryStatus}`);
    },
  };
}

describe("delivery", () => {
  it("starts what the store has accepted, and shows it in both of the seed's shapes", async () => {
    const { accepted, told } = await start();
    accepted(7);
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    const { status, headers, body } = await host.http("GET", "/deliveries");
    assert.deepEqual([status, headers["content-type"]], [200, "application/hal+json"]);
    assert.deepEqual(body._embedded?.deliveries?.[0], {
      ...{ id: 7, deliveryId: 7, orderId: 7, productId: 1, productName: "P7", qty: 2, quantity: 2 },
      ...{ customerId: "cust1", customerName: "jang", customerAddr: "seoul", deliveryAddress: "seoul" },
      ...{ deliveryState: "DeliveryStarted", deliveryStatus: "DeliveryStarted" },
      _links: {
        self: { href: "/deliveries/7" },
        delivery: { href: "/deliveries/7" },
        complete: { href: "/deliveries/7/complete" },
      },
    });
    assert.deepEqual(Object.keys(body._links ?? {}).sort(), ["first", "last", "profile", "search", "self"]);
  });

  it("goes by the event's orderId, not by its id (S0-T4)", async () => {
    const { accepted, told } = await start();
    accepted(7, { id: 1 });
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    assertProblem(await host.http("GET", "/deliveries/1"), 404, "not-found");
  });

  it("starts once, also when it is told twice", async () => {
    const { accepted, told } = await start();
    accepted(7);
    accepted(7);
    assert.equal((await told()).length, 1);
  });

  it("cancels, before or after it has started", async () => {
    const { accepted, cancelled, told } = await start();
    accepted(7);
    await told();
    cancelled(7);
    cancelled(8);
    await told();
    accepted(8);
    assert.deepEqual((await told()).slice(1), [
      "DeliveryCancelled 7 P7 DeliveryCancelled",
      "DeliveryCancelled 8 P8 DeliveryCancelled",
    ]);
    const states = embedded(await host.http("GET", "/deliveries"), "deliveries");
    assert.deepEqual(
      states.map(({ deliveryState }) => deliveryState),
      ["DeliveryCancelled", "DeliveryCancelled"],
    );
    assertProblem(await host.http("PUT", "/deliveries/7/complete"), 409, "delivery-cancelled");
  });

  it("is completed once; what has been delivered stays delivered", async () => {
    const { accepted, cancelled, complete, told } = await start();
    accepted(7);
    await told();
    const completed = await complete(7);
    assert.deepEqual([completed.status, completed.body.deliveryState], [200, "DeliveryCompleted"]);
    assert.equal((await complete(7)).status, 200);
    cancelled(7);
    assert.deepEqual((await told()).slice(1), ["DeliveryCompleted 7 P7 DeliveryCompleted"]);
    assertProblem(await complete(8), 404, "not-found");
  });
});
