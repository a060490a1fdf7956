import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import type { Call, Reply } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  deadLetters,
  embedded,
  type Host,
  hostInMemory,
  info,
  listen,
  settled,
  shopWith,
} from "#kit/testing.js";
import { store } from "./main.js";

let host: Host;
afterEach(() => host.stop());

type Rules = Parameters<typeof shopWith>[0];

/** What the order service answers when it was cancelled before. */
const TOO_LATE: Reply = {
  status: 409,
  headers: {},
  body: {
    ...{ type: "urn:jangteo:problem:order-cancelled", title: "No", status: 409 },
    detail: "Order 7 was cancelled.",
  },
};

async function start(rules: Rules = {}) {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  const closings: Call[] = [];
  const order = { answer: { status: 204, headers: {}, body: undefined } as Reply };
  dapr.join("order", {
    topics: [],
    call: async (call) => {
      closings.push(call);
      return order.answer;
    },
    deliver: async () => "SUCCESS",
  });
  host = await hostInMemory(dapr, store, { shop: shopWith(rules) });
  const about = (orderId: number) => ({
    ...{ ...info, id: orderId, orderId, productName: `P${orderId}`, qty: 2, price: 1, amount: 2 },
    storeId: "myeongdong",
  });
  const paid = (orderId: number) =>
    cloudEvent("OrderPaid", { ...about(orderId), paymentId: orderId, approvalCode: null });
  const get = async (path: string) => (await host.http("GET", path)).body;
  return {
    ...{ dapr, closings, order, get, paidEvent: paid },
    paid: (orderId: number) => dapr.accept("OrderPaid", paid(orderId)),
    cancelled: (orderId: number) =>
      dapr.accept(
        "OrderCancelled",
        cloudEvent("OrderCancelled", { ...about(orderId), reason: "changed my mind" }),
      ),
    put: (orderId: number, command: string, body?: unknown) =>
      host.http("PUT", `/storeOrders/${orderId}/${command}`, body),
    cafe: (command: string, body?: unknown, orderId = 7) =>
      host.http("PUT", `/cafeOrders/${orderId}/${command}`, body),
    state: async (orderId: number) => (await get(`/storeOrders/${orderId}`)).state,
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
    const { paid, told, get } = await start();
    paid(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assert.deepEqual(await get("/storeOrders/7"), {
      ...{ ...info, id: 7, productName: "P7", qty: 2, quantity: 2, storeId: "myeongdong" },
      ...{ state: "StoreAccepted", storeStatus: "StoreAccepted" },
      _links: {
        self: { href: "/storeOrders/7" },
        storeOrder: { href: "/storeOrders/7" },
        accept: { href: "/storeOrders/7/accept" },
        reject: { href: "/storeOrders/7/reject" },
        start: { href: "/storeOrders/7/start" },
        complete: { href: "/storeOrders/7/complete" },
        confirmCancel: { href: "/storeOrders/7/confirmcancel" },
      },
    });
  });

  it("hears of orders when they are paid, not when they are placed (S0-F4, S4-F3)", async () => {
    await start();
    assert.deepEqual(
      host.composed.subscriptions.map(({ topic }) => topic),
      ["OrderPaid", "OrderCancelled"],
    );
  });

  it("goes by orderId (S0-T4), whatever came in between, and lists the newest first", async () => {
    const { paid, cancelled, told, state } = await start();
    for (const id of [3, 9, 5]) paid(id);
    assert.deepEqual(await told(), ["StoreAccepted 3 P3", "StoreAccepted 9 P9", "StoreAccepted 5 P5"]);
    cancelled(9);
    assert.equal((await told()).at(-1), "StoreCancelled 9 P9");
    assert.deepEqual(
      [await state(3), await state(5), await state(9)],
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

  it("accepts once, also when it is told twice", async () => {
    const { paid, told } = await start({ store: { making: "acceptance" } });
    paid(7);
    paid(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "MakeStarted 7 P7"]);
  });

  it("accepts nothing that was cancelled before it came", async () => {
    const { paid, cancelled, told } = await start();
    cancelled(7);
    await told();
    paid(7);
    assert.deepEqual(await told(), ["StoreCancelled 7 P7"]);
  });

  it("waits for its owner to accept, where the shop says so", async () => {
    const { paid, told, put, state } = await start({ store: { accept: "owner" } });
    paid(7);
    assert.deepEqual(await told(), []);
    assert.equal(await state(7), "Received");
    const accepted = await put(7, "accept");
    assert.deepEqual([accepted.status, accepted.body.storeStatus], [200, "StoreAccepted"]);
    assert.equal((await put(7, "accept")).status, 200);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assertProblem(await put(7, "reject"), 409, "store-order-closed");
  });

  it("lets its owner reject, with a reason", async () => {
    const { paid, told, put } = await start({ store: { accept: "owner" } });
    paid(7);
    paid(8);
    await told();
    const rejected = await put(7, "reject", { reason: "sold out" });
    assert.deepEqual([rejected.body.storeStatus, rejected.body.reason], ["StoreRejected", "sold out"]);
    assert.equal((await put(8, "reject")).body.reason, "rejected by the store");
    assert.deepEqual(await told(), ["StoreRejected 7 P7", "StoreRejected 8 P8"]);
    assertProblem(await put(7, "reject", { reason: "" }), 422, "invalid-field");
    assertProblem(await put(7, "accept"), 409, "store-order-closed");
  });

  it("waits for its owner to confirm a cancellation, where the shop says so (S0-F7)", async () => {
    const { paid, cancelled, told, put, state } = await start({ store: { confirmCancel: "owner" } });
    paid(7);
    await told();
    assertProblem(await put(7, "confirmcancel"), 409, "no-cancel-requested");
    cancelled(7);
    cancelled(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assert.equal(await state(7), "CancelRequested");
    const confirmed = await put(7, "confirmcancel");
    assert.deepEqual(
      [confirmed.body.storeStatus, confirmed.body.reason],
      ["StoreCancelled", "changed my mind"],
    );
    assert.equal((await put(7, "confirmcancel")).status, 200);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "StoreCancelled 7 P7"]);
  });

  it("waits for that also in the making, and finishes nothing meanwhile", async () => {
    const { paid, cancelled, told, put, state } = await start({
      store: { making: "acceptance", confirmCancel: "owner" },
    });
    paid(7);
    await told();
    cancelled(7);
    await told();
    assert.equal(await state(7), "CancelRequested");
    assertProblem(await put(7, "complete"), 409, "store-order-closed");
    assert.equal((await put(7, "confirmcancel")).body.state, "StoreCancelled");
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "MakeStarted 7 P7", "StoreCancelled 7 P7"]);
  });

  it("knows no orders but those it was told of", async () => {
    const { put, cafe } = await start();
    for (const command of ["accept", "reject", "start", "complete", "confirmcancel"])
      assertProblem(await put(7, command), 404, "not-found");
    assertProblem(await cafe("orderapprove"), 404, "not-found");
    assertProblem(await host.http("GET", "/storeOrders/7"), 404, "not-found");
    assertProblem(await host.http("PUT", "/storeOrders/x/accept"), 404, "not-found");
    assertProblem(await host.http("POST", "/storeOrders", {}), 405, "method-not-allowed");
  });
});

describe("what is made", () => {
  it("is begun with the acceptance, and ready when the owner says so (S3-F4)", async () => {
    const { paid, told, put } = await start({ store: { making: "acceptance" } });
    paid(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "MakeStarted 7 P7"]);
    const ready = await put(7, "complete");
    assert.deepEqual([ready.status, ready.body.state], [200, "MakeCompleted"]);
    assert.equal((await put(7, "complete")).status, 200);
    assert.equal((await put(7, "start")).body.state, "MakeCompleted");
    assert.deepEqual((await told()).slice(2), ["MakeCompleted 7 P7"]);
  });

  it("is begun by the owner, where the shop says so", async () => {
    const { paid, told, put } = await start({ store: { making: "owner" } });
    paid(7);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    assertProblem(await put(7, "complete"), 409, "making-not-started");
    assert.equal((await put(7, "start")).body.state, "MakeStarted");
    assert.equal((await put(7, "start")).status, 200);
    assert.equal((await put(7, "complete")).body.state, "MakeCompleted");
    assert.deepEqual((await told()).slice(1), ["MakeStarted 7 P7", "MakeCompleted 7 P7"]);
  });

  it("is nothing where the shop sells what it has", async () => {
    const { paid, told, put } = await start();
    paid(7);
    await told();
    assertProblem(await put(7, "start"), 409, "nothing-made");
    assertProblem(await put(7, "complete"), 409, "making-not-started");
  });

  it("can be rejected until it is begun, where the shop says so (S4-F5; S4-T1)", async () => {
    const { paid, told, put } = await start({ store: { making: "owner" }, cancel: { shop: "making" } });
    paid(7);
    paid(8);
    await told();
    assert.equal((await put(7, "reject")).body.state, "StoreRejected");
    await put(8, "start");
    assertProblem(await put(8, "reject"), 409, "store-order-closed");
    assert.deepEqual((await told()).slice(2), ["StoreRejected 7 P7", "MakeStarted 8 P8"]);
  });
});

describe("before the store begins what the customer may not stop any more", () => {
  const byAcceptance: Rules = { store: { accept: "owner" }, cancel: { customer: "acceptance" } };
  const byMaking: Rules = {
    store: { accept: "owner", making: "acceptance" },
    cancel: { customer: "making" },
  };

  it("asks the order, which then is closed (S4-F4)", async () => {
    for (const [rules, by] of [
      [byAcceptance, "acceptance"],
      [byMaking, "making"],
    ] as const) {
      const { paid, told, put, closings } = await start(rules);
      paid(7);
      await told();
      assert.deepEqual(closings, [], "what waits for the owner closes nothing");
      assert.equal((await put(7, "accept")).status, 200);
      assert.deepEqual(closings, [{ method: "PUT", path: "/closings/7", body: { by } }]);
      assert.equal((await put(7, "accept")).status, 200);
      assert.equal(closings.length, 1, "a repeat changes nothing and asks nothing");
      await host.stop();
    }
  });

  it("asks when the owner begins the making, and not before", async () => {
    const { paid, told, put, closings } = await start({
      ...{ store: { making: "owner" }, cancel: { customer: "making" } },
    });
    paid(7);
    assert.deepEqual([await told(), closings], [["StoreAccepted 7 P7"], []]);
    await put(7, "start");
    assert.deepEqual(closings, [{ method: "PUT", path: "/closings/7", body: { by: "making" } }]);
    await put(7, "complete");
    assert.equal(closings.length, 1);
  });

  it("asks nothing where the customer may stop it all the same", async () => {
    const { paid, told, put, closings } = await start({
      ...{ store: { making: "acceptance" }, cancel: { customer: "completion" } },
    });
    paid(7);
    await told();
    await put(7, "complete");
    assert.deepEqual(closings, []);
  });

  it("is told that the customer was first, and begins nothing", async () => {
    for (const rules of [byAcceptance, byMaking]) {
      const { paid, told, put, order, state } = await start(rules);
      paid(7);
      await told();
      order.answer = TOO_LATE;
      const problem = assertProblem(await put(7, "accept"), 409, "order-cancelled");
      assert.equal(problem.detail, "Order 7 was cancelled.");
      assert.deepEqual([await state(7), await told()], ["Received", []]);
      await host.stop();
    }
  });

  it("begins nothing while the order service is away, or does not make sense", async () => {
    const { dapr, paid, told, put, order, state } = await start(byMaking);
    paid(7);
    await told();
    dapr.down.add("order");
    assertProblem(await put(7, "accept"), 503, "unavailable");
    dapr.down.delete("order");
    for (const status of [200, 500]) {
      order.answer = { status, headers: {}, body: undefined };
      assertProblem(await put(7, "accept"), 503, "unavailable");
    }
    assert.deepEqual([await state(7), await told()], ["Received", []]);
    order.answer = { status: 204, headers: {}, body: undefined };
    assert.equal((await put(7, "accept")).body.state, "MakeStarted");
  });

  it("lets a cancelled order be that it would have accepted by itself: no poison, but a tombstone", async () => {
    const rules: Rules = { store: { making: "acceptance" }, cancel: { customer: "making" } };
    const { dapr, paidEvent, cancelled, told, order, state } = await start(rules);
    order.answer = TOO_LATE;
    const event = paidEvent(7);
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.equal(await state(7), undefined);
    cancelled(7);
    assert.deepEqual(await told(), ["StoreCancelled 7 P7"]);
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.deepEqual([await state(7), await told()], ["StoreCancelled", ["StoreCancelled 7 P7"]]);
    assert.deepEqual(deadLetters(dapr), []);
  });

  it("waits with what it accepts by itself until the order can be asked; one that never was is set aside", async () => {
    const { dapr, paidEvent, told, order } = await start({ cancel: { customer: "acceptance" } });
    dapr.down.add("order");
    const event = paidEvent(7);
    assert.equal(await host.composed.deliver(event), "RETRY");
    dapr.down.delete("order");
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.deepEqual(await told(), ["StoreAccepted 7 P7"]);
    order.answer = {
      status: 404,
      headers: {},
      body: { type: "urn:jangteo:problem:not-found", title: "No", detail: "No order 8.", status: 404 },
    };
    assert.equal(await host.composed.deliver(paidEvent(8)), "SUCCESS");
    assert.deepEqual(
      deadLetters(dapr, "tickets").map(({ topic, reason }) => [topic, reason.detail]),
      [["OrderPaid", "No order 8."]],
    );
  });
});

describe("a store order in the words of S4's cafe", () => {
  const cafeShop: Rules = {
    dialect: "cafe",
    store: { accept: "owner", making: "owner" },
    cancel: { customer: "making", shop: "making" },
  };

  it("is approved and made under S4-H2's paths, in S4-D3's fields and S4-V1's words", async () => {
    const { paid, told, cafe, get } = await start(cafeShop);
    paid(7);
    await told();
    const cafeOrder = (status: string) => ({
      ...{ cafeOrderId: 7, orderId: 7, customerId: "cust1", cafeId: "myeongdong", menuId: 1, qty: 2 },
      ...{ orderDate: info.orderDate, status },
      _links: {
        self: { href: "/cafeOrders/7" },
        cafeOrder: { href: "/cafeOrders/7" },
        accept: { href: "/storeOrders/7/accept" },
        reject: { href: "/storeOrders/7/reject" },
        start: { href: "/storeOrders/7/start" },
        complete: { href: "/storeOrders/7/complete" },
        confirmCancel: { href: "/storeOrders/7/confirmcancel" },
      },
    });
    assert.deepEqual(await get("/cafeOrders/7"), cafeOrder("Paid"));
    for (const [command, status] of [
      ["orderapprove", "OrderApproved"],
      ["makestart", "MakeStarted"],
      ["makecomplete", "MakeCompleted"],
    ] as const) {
      const answer = await cafe(command);
      assert.deepEqual([answer.status, answer.body], [200, cafeOrder(status)]);
    }
    assert.deepEqual(embedded(await host.http("GET", "/cafeOrders"), "cafeOrders"), [
      cafeOrder("MakeCompleted"),
    ]);
    assert.deepEqual(await told(), ["StoreAccepted 7 P7", "MakeStarted 7 P7", "MakeCompleted 7 P7"]);
    const { cafeOrderId, menuId, status, state } = await get("/storeOrders/7");
    assert.deepEqual([cafeOrderId, menuId, status, state], [7, 1, "MakeCompleted", "MakeCompleted"]);
  });

  it("is cancelled by the cafe before it is made, and not after (S4-F5, S4-T1)", async () => {
    const { paid, told, cafe } = await start(cafeShop);
    paid(7);
    paid(8);
    await told();
    await cafe("orderapprove");
    assert.equal((await cafe("ordercancel", { reason: "no beans" })).body.status, "OrderCanceled");
    assert.equal((await cafe("ordercancel")).status, 200);
    assertProblem(await cafe("makestart"), 409, "store-order-closed");
    await cafe("orderapprove", {}, 8);
    await cafe("makestart", {}, 8);
    assertProblem(await cafe("ordercancel", {}, 8), 409, "store-order-closed");
    assert.deepEqual(await told(), [
      ...["StoreAccepted 7 P7", "StoreRejected 7 P7", "StoreAccepted 8 P8", "MakeStarted 8 P8"],
    ]);
  });

  it("says PaymentCanceled once its order is cancelled (S4-P2)", async () => {
    const { paid, cancelled, told, get } = await start(cafeShop);
    paid(7);
    await told();
    cancelled(7);
    await told();
    assert.equal((await get("/cafeOrders/7")).status, "PaymentCanceled");
  });

  it("is there in every shop; the others' own path says it in theirs", async () => {
    const { paid, told, get, cafe } = await start({ store: { accept: "owner" } });
    paid(7);
    await told();
    assert.equal((await cafe("orderapprove")).body.status, "OrderApproved");
    const { status, storeStatus, quantity } = await get("/storeOrders/7");
    assert.deepEqual([status, storeStatus, quantity], [undefined, "StoreAccepted", 2]);
    assertProblem(await cafe("accept"), 404, "no-such-route");
  });
});
