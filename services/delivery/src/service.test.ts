import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import type { EventType } from "#kit/events.js";
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
import { delivery } from "./main.js";

let host: Host;
afterEach(() => host.stop());

type Rules = Parameters<typeof shopWith>[0];

const first = "2026-11-21T00:00:01.000Z";
const second = "2026-11-21T00:00:02.000Z";
const made: Rules = { store: { making: "owner" }, delivery: "made" };

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
  const clock = { now: first };
  host = await hostInMemory(dapr, delivery, { shop: shopWith(rules), now: () => new Date(clock.now) });
  const about = (orderId: number) => ({
    ...{ ...info, id: orderId, orderId, productName: `P${orderId}`, qty: 2, reason: "changed my mind" },
  });
  const event = (type: EventType, orderId: number, more = {}) =>
    cloudEvent(type, { ...about(orderId), ...more });
  const hears =
    (type: EventType) =>
    (orderId: number, more = {}) =>
      dapr.accept(type, event(type, orderId, more));
  const get = async (orderId: number) => (await host.http("GET", `/deliveries/${orderId}`)).body;
  return {
    ...{ dapr, closings, order, clock, event, get },
    accepted: hears("StoreAccepted"),
    made: hears("MakeCompleted"),
    cancelled: hears("StoreCancelled"),
    rejected: hears("StoreRejected"),
    complete: (orderId: number) => host.http("PUT", `/deliveries/${orderId}/complete`),
    state: async (orderId: number) => (await get(orderId)).state,
    told: async () => {
      await settled(dapr);
      return heard
        .filter(({ source }) => source === "delivery")
        .map(({ type, data }) => `${type} ${data.orderId} ${data.productName} ${data.deliveryStatus}`);
    },
  };
}

describe("delivery", () => {
  it("starts what the store has accepted, and shows it in both of the seed's shapes (S0-H6)", async () => {
    const { accepted, told } = await start();
    accepted(7);
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    const { status, headers, body } = await host.http("GET", "/deliveries");
    assert.deepEqual([status, headers["content-type"]], [200, "application/hal+json"]);
    assert.deepEqual(body._embedded?.deliveries?.[0], {
      ...{ ...info, id: 7, deliveryId: 7, productName: "P7", qty: 2, quantity: 2 },
      ...{ deliveryAddress: "seoul", state: "DeliveryStarted" },
      ...{ deliveryState: "DeliveryStarted", deliveryStatus: "DeliveryStarted" },
      ...{ startDate: first, completeDate: null, cancelDate: null },
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

  it("cancels, before or after it has started (S1-F7)", async () => {
    const { accepted, cancelled, told, clock, get } = await start();
    accepted(7);
    await told();
    clock.now = second;
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
    const { startDate, cancelDate } = await get(7);
    assert.deepEqual([startDate, cancelDate], [first, second]);
    assertProblem(await host.http("PUT", "/deliveries/7/complete"), 409, "delivery-cancelled");
  });

  it("is completed once; what has been delivered stays delivered (S2-F4)", async () => {
    const { accepted, cancelled, complete, told, clock } = await start();
    accepted(7);
    await told();
    clock.now = second;
    const completed = await complete(7);
    assert.deepEqual([completed.status, completed.body.state], [200, "DeliveryCompleted"]);
    assert.deepEqual([completed.body.startDate, completed.body.completeDate], [first, second]);
    assert.equal((await complete(7)).status, 200);
    cancelled(7);
    assert.deepEqual((await told()).slice(1), ["DeliveryCompleted 7 P7 DeliveryCompleted"]);
    assertProblem(await complete(8), 404, "not-found");
  });
});

describe("a delivery of what is made first", () => {
  it("is prepared with the acceptance, and starts when it is made (S3-F6)", async () => {
    const { accepted, made: ready, told, state, complete } = await start(made);
    accepted(7);
    assert.deepEqual([await told(), await state(7)], [[], "DeliveryPrepared"]);
    assertProblem(await complete(7), 409, "delivery-not-started");
    ready(7);
    ready(7);
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    assert.equal((await complete(7)).body.state, "DeliveryCompleted");
  });

  it("starts also when it hears that first", async () => {
    const { accepted, made: ready, told, state } = await start(made);
    ready(7);
    await told();
    accepted(7);
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    assert.equal(await state(7), "DeliveryStarted");
  });

  it("is cancelled while it is made, and does not start then (S3-F7)", async () => {
    const { accepted, made: ready, cancelled, told } = await start(made);
    accepted(7);
    await told();
    cancelled(7);
    await told();
    ready(7);
    assert.deepEqual(await told(), ["DeliveryCancelled 7 P7 DeliveryCancelled"]);
  });

  it("is cancelled too when the store rejects after all what it had accepted", async () => {
    const { accepted, rejected, told, state } = await start({ ...made, cancel: { shop: "making" } });
    accepted(7);
    await told();
    rejected(7);
    rejected(8);
    await told();
    accepted(8);
    assert.deepEqual(await told(), [
      "DeliveryCancelled 7 P7 DeliveryCancelled",
      "DeliveryCancelled 8 P8 DeliveryCancelled",
    ]);
    assert.deepEqual([await state(7), await state(8)], ["DeliveryCancelled", "DeliveryCancelled"]);
  });

  it("hears of what its shop does, and of nothing else", async () => {
    const topics = async (rules: Rules) => {
      await start(rules);
      const listened = host.composed.subscriptions.map(({ topic }) => topic);
      await host.stop();
      return listened;
    };
    const accepted = ["StoreAccepted", "StoreCancelled"];
    assert.deepEqual(await topics({}), accepted);
    assert.deepEqual(await topics({ store: { making: "owner" } }), accepted);
    const making = ["StoreAccepted", "MakeCompleted", "StoreCancelled"];
    assert.deepEqual(await topics(made), making);
    assert.deepEqual(await topics({ ...made, cancel: { shop: "making" } }), [...making, "StoreRejected"]);
    assert.deepEqual(await topics({ delivery: "none" }), []);
    assert.deepEqual(embedded(await host.http("GET", "/deliveries"), "deliveries"), []);
  });
});

describe("a delivery that the customer may no longer stop once it begins", () => {
  const strict: Rules = { cancel: { customer: "delivery" } };
  const tooLate: Reply = {
    status: 409,
    headers: {},
    body: { type: "urn:jangteo:problem:order-cancelled", title: "No", detail: "Cancelled.", status: 409 },
  };

  it("asks the order first, which then is closed", async () => {
    for (const rules of [strict, { ...made, ...strict }]) {
      const { accepted, made: ready, told, closings } = await start(rules);
      accepted(7);
      if (rules.delivery === "made") {
        await told();
        assert.deepEqual(closings, [], "what is only prepared closes nothing");
        ready(7);
      }
      assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
      assert.deepEqual(closings, [{ method: "PUT", path: "/closings/7", body: { by: "delivery" } }]);
      await host.stop();
    }
  });

  it("asks nothing elsewhere", async () => {
    const { accepted, told, closings, complete } = await start({ cancel: { customer: "acceptance" } });
    accepted(7);
    await told();
    assert.equal((await complete(7)).status, 200);
    assert.deepEqual(closings, []);
  });

  it("or that may be stopped until it is completed: the order is asked then, and its word counts", async () => {
    const { accepted, told, closings, complete, order, state } = await start();
    accepted(7);
    await told();
    assert.deepEqual(closings, [], "its beginning closes nothing");
    order.answer = tooLate;
    assertProblem(await complete(7), 409, "order-cancelled");
    order.answer = { status: 503, headers: {}, body: undefined };
    assertProblem(await complete(7), 503, "unavailable");
    assert.equal(await state(7), "DeliveryStarted");
    order.answer = { status: 204, headers: {}, body: undefined };
    assert.equal((await complete(7)).status, 200);
    assert.equal((await complete(7)).status, 200);
    const closing = { method: "PUT", path: "/closings/7", body: { by: "completion" } };
    assert.deepEqual(closings, [closing, closing, closing], "what is completed asks no more");
  });

  it("does not start where the customer was first: no poison, and cancelled when the store says so", async () => {
    const { dapr, event, order, told, cancelled, state } = await start(strict);
    order.answer = tooLate;
    const accepted = event("StoreAccepted", 7);
    assert.equal(await host.composed.deliver(accepted), "SUCCESS");
    assert.deepEqual([await told(), await state(7)], [[], undefined]);
    cancelled(7);
    assert.deepEqual(await told(), ["DeliveryCancelled 7 P7 DeliveryCancelled"]);
    assert.equal(await host.composed.deliver(accepted), "SUCCESS");
    assert.equal((await told()).length, 1);
    assert.deepEqual(deadLetters(dapr), []);
  });

  it("waits until the order can be asked; one that never was is set aside", async () => {
    const { dapr, event, order, told } = await start(strict);
    const accepted = event("StoreAccepted", 7);
    dapr.down.add("order");
    assert.equal(await host.composed.deliver(accepted), "RETRY");
    dapr.down.delete("order");
    for (const status of [200, 500]) {
      order.answer = { status, headers: {}, body: undefined };
      assert.equal(await host.composed.deliver(accepted), "RETRY");
    }
    assert.deepEqual(await told(), []);
    order.answer = { status: 204, headers: {}, body: undefined };
    assert.equal(await host.composed.deliver(accepted), "SUCCESS");
    assert.deepEqual(await told(), ["DeliveryStarted 7 P7 DeliveryStarted"]);
    order.answer = {
      status: 404,
      headers: {},
      body: { type: "urn:jangteo:problem:not-found", title: "No", detail: "No order 8.", status: 404 },
    };
    assert.equal(await host.composed.deliver(event("StoreAccepted", 8)), "SUCCESS");
    assert.deepEqual(
      deadLetters(dapr, "deliveries").map(({ topic, reason }) => [topic, reason.detail]),
      [["StoreAccepted", "No order 8."]],
    );
  });
});

describe("a delivery in the words of", () => {
  /** prepared, started, completed; and another one, cancelled */
  const life = async (dialect: string) => {
    const {
      accepted,
      made: ready,
      cancelled,
      complete,
      clock,
      get,
      told,
    } = await start({
      ...{ ...made, dialect },
    });
    const seen = [];
    accepted(7);
    accepted(8);
    await told();
    seen.push(await get(7));
    ready(7);
    await told();
    seen.push(await get(7));
    clock.now = second;
    await complete(7);
    seen.push(await get(7));
    cancelled(8);
    await told();
    seen.push(await get(8));
    return seen;
  };

  it("coffee: Prepare Delivery..., START (S3-V4, S3-D3)", async () => {
    const seen = await life("coffee");
    assert.deepEqual(
      seen.map(({ deliveryStatus }) => deliveryStatus),
      ["Prepare Delivery...", "START", "END", "CANCEL"],
    );
    const { deliveryId, paymentId, destination, productId, qty, orderId, productName } = seen[1] ?? {};
    assert.deepEqual(
      [deliveryId, paymentId, destination, productId, qty, orderId, productName],
      [7, 7, "seoul", 1, 2, 7, "P7"],
    );
  });

  it("flower: null or CANCELLED, and when it was shipped and arrived (S2-V1, S2-D3)", async () => {
    const seen = await life("flower");
    assert.deepEqual(
      seen.map(({ status, startDate, shipcompletedate }) => [status, startDate, shipcompletedate]),
      [
        ["DeliveryPrepared", null, null],
        [null, first, null],
        ["COMPLETED", first, second],
        ["CANCELLED", null, null],
      ],
    );
    const { address, phoneNumber, productId, qty } = seen[2] ?? {};
    assert.deepEqual([address, phoneNumber, productId, qty], ["seoul", "01012341234", 1, 2], "S2-T4");
  });

  for (const dialect of ["fashion", "bookstore"])
    it(`${dialect}: DeliveryStarted, DeliveryCancelled, DeliveryCompleted (S0-V3)`, async () => {
      for (const { state, deliveryState, deliveryStatus } of await life(dialect))
        assert.deepEqual([deliveryState, deliveryStatus], [state, state]);
    });
});
