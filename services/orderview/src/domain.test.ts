import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { given, info, permutations } from "#kit/testing.js";
import { evolve, isVisible, ORDER_STATUS, type OrderStatus, see, type ViewedEvent } from "./domain.js";

const about = { ...info, id: 7 };
const priced = { ...about, price: 10_000, amount: 30_000 };
const reason = "changed my mind";

const placed: ViewedEvent = { type: "OrderPlaced", data: { ...priced, paymentId: 7, approvalCode: "1" } };
const cancelled: ViewedEvent = { type: "OrderCancelled", data: { ...priced, reason } };
const refunded: ViewedEvent = {
  type: "PaymentCancelled",
  data: { id: 7, orderId: 7, amount: 30_000, approvalCode: "1", reason },
};
const rejected: ViewedEvent = { type: "StoreRejected", data: { ...about, reason } };
const storeCancelled: ViewedEvent = { type: "StoreCancelled", data: { ...about, reason } };
const delivery = <T extends "DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled">(type: T) =>
  ({ type, data: { ...about, deliveryStatus: type } }) as ViewedEvent;
const started = delivery("DeliveryStarted");
const completed = delivery("DeliveryCompleted");
const deliveryCancelled = delivery("DeliveryCancelled");

type Statuses = Pick<OrderStatus, "orderStatus" | "paymentStatus" | "storeStatus" | "deliveryStatus">;

/** What can happen to an order, and what its row says in the end. */
const lives: Record<string, { events: ViewedEvent[]; statuses: Statuses }> = {
  "placed and on its way": {
    events: [placed, started],
    statuses: {
      orderStatus: "OrderPlaced",
      paymentStatus: "PaymentApproved",
      storeStatus: "StoreAccepted",
      deliveryStatus: "DeliveryStarted",
    },
  },
  delivered: {
    events: [placed, started, completed],
    statuses: {
      orderStatus: "OrderPlaced",
      paymentStatus: "PaymentApproved",
      storeStatus: "StoreAccepted",
      deliveryStatus: "DeliveryCompleted",
    },
  },
  "cancelled on its way": {
    events: [placed, started, cancelled, refunded, storeCancelled, deliveryCancelled],
    statuses: {
      orderStatus: "OrderCancelled",
      paymentStatus: "PaymentCancelled",
      storeStatus: "StoreCancelled",
      deliveryStatus: "DeliveryCancelled",
    },
  },
  "cancelled before the store had heard of it": {
    events: [placed, cancelled, refunded, storeCancelled, deliveryCancelled],
    statuses: {
      orderStatus: "OrderCancelled",
      paymentStatus: "PaymentCancelled",
      storeStatus: "StoreCancelled",
      deliveryStatus: "DeliveryCancelled",
    },
  },
  "rejected by the store": {
    events: [placed, rejected, cancelled, refunded],
    statuses: {
      orderStatus: "OrderCancelled",
      paymentStatus: "PaymentCancelled",
      storeStatus: "StoreRejected",
      deliveryStatus: null,
    },
  },
  "cancelled when it had been delivered": {
    events: [placed, started, completed, cancelled, refunded, storeCancelled],
    statuses: {
      orderStatus: "OrderCancelled",
      paymentStatus: "PaymentCancelled",
      storeStatus: "StoreCancelled",
      deliveryStatus: "DeliveryCompleted",
    },
  },
};

/** What the view makes of events as they arrive: it sees each, and keeps those that say something new. */
const rowAfter = (events: ViewedEvent[]) =>
  events.reduce<OrderStatus | undefined>((row, event) => see(row, event).reduce(evolve, row), undefined);

describe("the row of an order", () => {
  for (const [life, { events, statuses }] of Object.entries(lives)) {
    it(`is the same in whatever order the events of one ${life} arrive, each perhaps twice`, () => {
      const { id: _id, ...order } = about;
      const row = {
        ...order,
        amount: 30_000,
        deliveryId: statuses.deliveryStatus === null ? null : 7,
        ...statuses,
      };
      for (const order of permutations(events)) {
        const arrived = order.map(({ type }) => type).join(" ");
        assert.deepEqual(rowAfter(order), row, arrived);
        assert.deepEqual(rowAfter([...order, ...order]), row, `twice ${arrived}`);
      }
    });
  }

  it("changes with what is new, and only with that", () => {
    given(ORDER_STATUS)
      .when((row) => see(row, placed))
      .thenHappens(placed);
    given(ORDER_STATUS, placed)
      .when((row) => see(row, placed))
      .thenHappens();
    given(ORDER_STATUS, placed)
      .when((row) => see(row, started))
      .thenHappens(started);
    given(ORDER_STATUS, placed, started)
      .when((row) => see(row, storeCancelled))
      .thenHappens(storeCancelled);
    given(ORDER_STATUS, placed, cancelled)
      .when((row) => see(row, placed))
      .thenHappens();
    given(ORDER_STATUS, deliveryCancelled)
      .when((row) => see(row, started))
      .thenHappens();
  });

  it("is shown once the order service has spoken", () => {
    const visible = (...events: ViewedEvent[]) => {
      const { state } = given(ORDER_STATUS, ...events);
      return state !== undefined && isVisible(state);
    };
    assert.equal(visible(refunded), false, "a payment that was taken back for an order that never stood");
    assert.equal(visible(storeCancelled, started), false);
    assert.equal(visible(placed), true);
    assert.equal(visible(cancelled), true);
    assert.equal(visible(refunded, started, placed), true);
  });

  it("belongs to the order that the event names, not to the event's own id", () => {
    const { state } = given(ORDER_STATUS, { ...started, data: { ...started.data, id: 99 } } as ViewedEvent);
    assert.deepEqual([state?.orderId, state?.deliveryId], [7, 99]);
  });
});
