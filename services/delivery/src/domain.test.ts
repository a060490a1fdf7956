import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info } from "#kit/testing.js";
import { cancel, complete, DELIVERY, type DeliveryEvent, prepare, start } from "./domain.js";

const first = "2026-11-21T00:00:01.000Z";
const second = "2026-11-21T00:00:02.000Z";
const event = (
  type: "DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled",
  at: string,
): DeliveryEvent => ({ type, data: { ...info, id: 7, deliveryStatus: type, at } });
const prepared: DeliveryEvent = { type: "DeliveryPrepared", data: info };
const started = event("DeliveryStarted", first);
const completed = event("DeliveryCompleted", second);
const cancelled = event("DeliveryCancelled", second);

describe("a delivery", () => {
  decides(
    DELIVERY,
    {
      none: [],
      prepared: [prepared],
      started: [started],
      "started when it was made": [prepared, started],
      completed: [started, completed],
      cancelled: [started, cancelled],
      "cancelled while it was made": [prepared, cancelled],
      "cancelled before it came": [cancelled],
    },
    {
      prepare: (delivery) => prepare(delivery, info),
      start: (delivery) => start(delivery, info, first),
      complete: (delivery) => complete(delivery, 7, second),
      cancel: (delivery) => cancel(delivery, info, second),
    },
    {
      prepare: {
        none: "DeliveryPrepared",
        prepared: "nothing",
        started: "nothing",
        "started when it was made": "nothing",
        completed: "nothing",
        cancelled: "nothing",
        "cancelled while it was made": "nothing",
        "cancelled before it came": "nothing",
      },
      start: {
        none: "DeliveryStarted",
        prepared: "DeliveryStarted",
        started: "nothing",
        "started when it was made": "nothing",
        completed: "nothing",
        cancelled: "nothing",
        "cancelled while it was made": "nothing",
        "cancelled before it came": "nothing",
      },
      complete: {
        none: "404 not-found",
        prepared: "409 delivery-not-started",
        started: "DeliveryCompleted",
        "started when it was made": "DeliveryCompleted",
        completed: "nothing",
        cancelled: "409 delivery-cancelled",
        "cancelled while it was made": "409 delivery-cancelled",
        "cancelled before it came": "409 delivery-cancelled",
      },
      cancel: {
        none: "DeliveryCancelled",
        prepared: "DeliveryCancelled",
        started: "DeliveryCancelled",
        "started when it was made": "DeliveryCancelled",
        completed: "nothing",
        cancelled: "nothing",
        "cancelled while it was made": "nothing",
        "cancelled before it came": "nothing",
      },
    },
  );

  it("carries what is delivered, and where to, through its whole life", () => {
    given(DELIVERY)
      .when((delivery) => prepare(delivery, info))
      .thenHappens(prepared);
    given(DELIVERY, prepared)
      .when((delivery) => start(delivery, info, first))
      .thenHappens(started);
    given(DELIVERY, started)
      .when((delivery) => complete(delivery, 7, second))
      .thenHappens(completed);
    given(DELIVERY, started)
      .when((delivery) => cancel(delivery, info, second))
      .thenHappens(cancelled);
  });

  it("keeps when it started and how it ended", () => {
    const dates = { startDate: null, completeDate: null, cancelDate: null };
    const state = (...history: DeliveryEvent[]) => given(DELIVERY, ...history).state;
    assert.deepEqual(state(prepared), { ...info, ...dates, status: "DeliveryPrepared" });
    const begun = { ...info, ...dates, startDate: first };
    assert.deepEqual(state(prepared, started), { ...begun, status: "DeliveryStarted" });
    assert.deepEqual(state(started, completed), {
      ...{ ...begun, completeDate: second, status: "DeliveryCompleted" },
    });
    assert.deepEqual(state(started, cancelled), {
      ...{ ...begun, cancelDate: second, status: "DeliveryCancelled" },
    });
    assert.deepEqual(state(cancelled)?.startDate, null);
  });
});
