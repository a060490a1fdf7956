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
  ownerShop,
  settled,
} from "#kit/testing.js";
import { store } from "./main.js";

let host: Host;
afterEach(() => host.stop());

async function start(policy: Parameters<typeof ownerShop>[0] = {}) {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  host = await hostInMemory(dapr, store, { shop: ownerShop(policy) });
  const customer = { customerId: null, customerName: null, customerAddr: "seoul" };
  const order = (orderId: number) => ({
    ...{ id: orderId, orderId, productId: 1, productName: `P${orderId}`, qty: 2, price: 1, amount: 2 },
    ...customer,
  });
  return {
    placed: (orderId: number) => {
      const data = { ...order(orderId), paymentId: orderId, approvalCode: null };
      dapr.accept("OrderPlaced", cloudEvent("OrderPlaced", data));
    },
    cancelled: (orderId: number) =>
      dapr.accept(
        "OrderCancelled",
        cloudEvent("OrderCancelled", { ...order(orderId), reason: "changed my mind" }),
      ),
    put: (orderId: number, command: string, body?: unknown) =>
      host.http("PUT", `/storeOrders/${orderId}/${command}`, body),
    status: async (orderId: number) => (await host.http("GET", `/storeOrders/${orderId}`)).body.storeStatus,
    told: async () => {
      await settled(dapr);
      return heard
        .filter(({ source }) => source === "store")
        .map(({ type, data }) => `${type} ${data.orderId} ${data.productName}`);
    },
  };
}

describe("the store", () => {
  it("accepts paid orders by itself, and shows them", async () => {
    const { placed, told } = await start();
    placed(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assert.deepEqual((await host.http("GET", "/storeOrders/7")).body, {
      ...{ id: 7, orderId: 7, productId: 1, productName: "P7", qty: 2, quantity: 2 },
      ...{ customerId: null, customerName: null, customerAddr: "seoul", storeStatus: "StoreAccepted" },
      _links: {
        self: { href: "/storeOrders/7" },
        storeOrder: { href: "/storeOrders/7" },
        accept: { href: "/storeOrders/7/accept" },
        reject: { href: "/storeOrders/7/reject" },
        confirmCancel: { href: "/storeOrders/7/confirmcancel" },
      },
    });
  });

  it("goes by orderId (S0-T4), whatever came in between, and lists the newest first", async () => {
    const { placed, cancelled, told, status } = await start();
    for (const id of [3, 9, 5]) placed(id);
    assert.deepEqual(await told(), ["StoreAccepted 3 P3", "StoreAccepted 9 P9", "StoreAccepted 5 P5"]);
    cancelled(9);
    assert.equal((await told()).at(-1), "StoreCancelled 9 P9");
    assert.deepEqual(
      [await status(3), await status(5), await status(9)],
      ["StoreAccepted", "StoreAccepted", "StoreCancelled"],
    );
    const listed = embedded(await host.http("GET", "/storeOrders"), "storeOrders");
    assert.deepEqual(
      listed.map(({ orderId }) => orderId),
      [9, 5, 3],
    );
    const found = await host.http("GET", "/storeOrders/search/findByOrderId?orderId=5");
    assert.equal(embedded(found, "storeOrders")[0]?.productName, "P5");
  });

  it("accepts nothing that was cancelled before it came", async () => {
    const { placed, cancelled, told } = await start();
    cancelled(7);
    await told();
    placed(7);
    assert.deepEqual(await told(), ["StoreCancelled 7 P7"]);
  });

  it("waits for its owner to accept, where the shop says so", async () => {
    const { placed, told, put, status } = await start({ accept: "owner" });
    placed(7);
    assert.deepEqual(await told(), []);
    assert.equal(await status(7), "Received");
    const accepted = await put(7, "accept");
    assert.deepEqual([accepted.status, accepted.body.storeStatus], [200, "StoreAccepted"]);
    assert.equal((await put(7, "accept")).status, 200);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assertProblem(await put(7, "reject"), 409, "store-order-closed");
  });

  it("lets its owner reject, with a reason", async () => {
    const { placed, told, put } = await start({ accept: "owner" });
    placed(7);
    placed(8);
    await told();
    const rejected = await put(7, "reject", { reason: "sold out" });
    assert.deepEqual([rejected.body.storeStatus, rejected.body.reason], ["StoreRejected", "sold out"]);
    assert.equal((await put(8, "reject")).body.reason, "rejected by the store");
    assert.deepEqual(await told(), ["StoreRejected 7 P7", "StoreRejected 8 P8"]);
    assertProblem(await put(7, "reject", { reason: "" }), 422, "invalid-field");
    assertProblem(await put(7, "accept"), 409, "store-order-closed");
  });

  it("waits for its owner to confirm a cancellation, where the shop says so (S0-F7)", async () => {
    const { placed, cancelled, told, put, status } = await start({ confirmCancel: "owner" });
    placed(7);
    await told();
    assertProblem(await put(7, "confirmcancel"), 409, "no-cancel-requested");
    cancelled(7);
    cancelled(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assert.equal(await status(7), "CancelRequested");
    const confirmed = await put(7, "confirmcancel");
    assert.deepEqual(
      [confirmed.body.storeStatus, confirmed.body.reason],
      ["StoreCancelled", "changed my mind"],
    );
    assert.equal((await put(7, "confirmcancel")).status, 200);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "StoreCancelled 7 P7"]);
  });

  it("knows no orders but those it was told of", async () => {
    const { put } = await start();
    for (const command of ["accept", "reject", "confirmcancel"])
      assertProblem(await put(7, command), 404, "not-found");
    assertProblem(await host.http("GET", "/storeOrders/7"), 404, "not-found");
    assertProblem(await host.http("PUT", "/storeOrders/x/accept"), 404, "not-found");
    assertProblem(await host.http("POST", "/storeOrders", {}), 405, "method-not-allowed");
  });
});
