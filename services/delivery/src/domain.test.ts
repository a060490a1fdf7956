import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info } from "#kit/testing.js";
import { cancel, complete, DELIVERY, type DeliveryEvent, type DeliveryStatus, start } from "./domain.js";

const event = (type: DeliveryStatus): DeliveryEvent => ({
  type,
  data: { ...info, id: 7, deliveryStatus: type },
});
const started = event("DeliveryStarted");
const completed = event("DeliveryCompleted");
const cancelled = event("DeliveryCancelled");

describe("a delivery", () => {
  decides(
    DELIVERY,
    {
      none: [],
      started: [started],
      completed: [started, completed],
      cancelled: [started, cancelled],
      "cancelled before it came": [cancelled],
    },
    {
      start: (delivery) => start(delivery, info),
      complete: (delivery) => complete(delivery, 7),
      cancel: (delivery) => cancel(delivery, info),
    },
    {
      start: {
        none: "DeliveryStarted",
        started: "nothing",
        completed: "nothing",
        cancelled: "nothing",
        "cancelled before it came": "nothing",
      },
      complete: {
        none: "404 not-found",
        started: "DeliveryCompleted",
        completed: "nothing",
        cancelled: "409 delivery-cancelled",
        "cancelled before it came": "409 delivery-cancelled",
      },
      cancel: {
        none: "DeliveryCancelled",
        started: "DeliveryCancelled",
        completed: "nothing",
        cancelled: "nothing",
        "cancelled before it came": "nothing",
      },
    },
  );

  it("carries what is delivered, and where to, through its whole life", () => {
    given(DELIVERY)
      .when((delivery) => start(delivery, info))
      .thenHappens(started);
    given(DELIVERY, started)
      .when((delivery) => complete(delivery, 7))
      .thenHappens(completed);
    const decided = given(DELIVERY, started).when((delivery) => cancel(delivery, info));
    decided.thenHappens(cancelled);
    assert.deepEqual(decided.state, { ...info, status: "DeliveryCancelled" });
  });
});
