import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info } from "#kit/testing.js";
import {
  type Approval,
  abort,
  cancel,
  close,
  deliver,
  isVisible,
  noteDecline,
  notePayment,
  ORDER,
  type OrderEvent,
  place,
  refuse,
  request,
  type Settlement,
  takeBack,
} from "./domain.js";

const at = "2026-11-21T01:00:00.000Z";
const quote = { productName: "TV", price: 10_000, amount: 30_000 };
const settled: Settlement = { ...quote, approvalCode: "12345678", paid: true };
const unsettled: Settlement = { ...quote, approvalCode: null, paid: false };
const approval: Approval = { approvalCode: "12345678", method: "card" };
const about = { ...info, ...quote, id: 7, paymentId: 7 };
const paid = { ...about, approvalCode: "12345678" };

const requested: OrderEvent = { type: "OrderRequested", data: info };
const noted: OrderEvent = { type: "PaymentNoted", data: approval };
const placed: OrderEvent = { type: "OrderPlaced", data: { ...paid, paid: true } };
const placedUnpaid: OrderEvent = { type: "OrderPlaced", data: { ...about, approvalCode: null, paid: false } };
const orderPaid: OrderEvent = { type: "OrderPaid", data: paid };
const closed: OrderEvent = { type: "OrderClosed", data: { by: "making" } };
const cancelled: OrderEvent = {
  type: "OrderCancelled",
  data: { ...info, ...quote, id: 7, reason: "changed my mind", at },
};
const aborted: OrderEvent = { type: "OrderAborted", data: { ...info, id: 7, reason: "payment is down" } };
const refused: OrderEvent = { type: "OrderRefused", data: { reason: "out of stock" } };
const voided: OrderEvent = { type: "OrderVoided", data: { orderId: 7, reason: "interrupted" } };
const delivered: OrderEvent = { type: "OrderDelivered", data: {} };

const histories = {
  none: [],
  pending: [requested],
  "pending, payment noted": [requested, noted],
  "placed, unpaid": [requested, placedUnpaid],
  placed: [requested, placed, orderPaid],
  "paid later": [requested, placedUnpaid, orderPaid],
  closed: [requested, placed, orderPaid, closed],
  cancelled: [requested, placed, orderPaid, cancelled],
  aborted: [requested, aborted],
  refused: [requested, refused],
  voided: [voided],
  delivered: [requested, placed, orderPaid, delivered],
};

describe("an order", () => {
  decides(
    ORDER,
    histories,
    {
      request: (order) => request(order, info),
      place: (order) => place(order, 7, settled),
      "place unpaid": (order) => place(order, 7, unsettled),
      abort: (order) => abort(order, 7, "payment is down"),
      refuse: (order) => refuse(order, "out of stock"),
      "note a payment": (order) => notePayment(order, approval),
      "note a decline": (order) => noteDecline(order, 7, "declined", at),
      close: (order) => close(order, 7, "making"),
      cancel: (order) => cancel(order, 7, "changed my mind", at),
      "take back": (order) => takeBack(order, 7, "sold out", at),
      deliver,
    },
    {
      request: {
        none: "OrderRequested",
        pending: "nothing",
        "pending, payment noted": "nothing",
        "placed, unpaid": "nothing",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
      place: {
        none: "404 not-found",
        pending: "OrderPlaced OrderPaid",
        "pending, payment noted": "OrderPlaced OrderPaid",
        "placed, unpaid": "nothing",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "503 order-given-up",
        refused: "503 order-given-up",
        voided: "503 order-given-up",
        delivered: "nothing",
      },
      "place unpaid": {
        none: "404 not-found",
        pending: "OrderPlaced",
        // Its payment was told before the answer to the step that took it had come.
        "pending, payment noted": "OrderPlaced OrderPaid",
        "placed, unpaid": "nothing",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "503 order-given-up",
        refused: "503 order-given-up",
        voided: "503 order-given-up",
        delivered: "nothing",
      },
      abort: {
        none: "OrderVoided",
        pending: "OrderAborted",
        "pending, payment noted": "OrderAborted",
        "placed, unpaid": "nothing",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
      refuse: {
        none: "nothing",
        pending: "OrderRefused",
        "pending, payment noted": "OrderRefused",
        "placed, unpaid": "nothing",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
      "note a payment": {
        none: "nothing",
        pending: "PaymentNoted",
        "pending, payment noted": "nothing",
        "placed, unpaid": "OrderPaid",
        placed: "nothing",
        "paid later": "nothing",
        closed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
      "note a decline": {
        none: "nothing",
        pending: "OrderAborted",
        "pending, payment noted": "OrderAborted",
        "placed, unpaid": "OrderCancelled",
        placed: "OrderCancelled",
        "paid later": "OrderCancelled",
        closed: "OrderCancelled",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
      close: {
        none: "404 not-found",
        pending: "409 order-cancelled",
        "pending, payment noted": "409 order-cancelled",
        "placed, unpaid": "OrderClosed",
        placed: "OrderClosed",
        "paid later": "OrderClosed",
        closed: "nothing",
        cancelled: "409 order-cancelled",
        aborted: "409 order-cancelled",
        refused: "409 order-cancelled",
        voided: "409 order-cancelled",
        delivered: "nothing",
      },
      cancel: {
        none: "404 not-found",
        pending: "409 order-pending",
        "pending, payment noted": "409 order-pending",
        "placed, unpaid": "OrderCancelled",
        placed: "OrderCancelled",
        "paid later": "OrderCancelled",
        closed: "409 order-closed",
        cancelled: "nothing",
        aborted: "404 not-found",
        refused: "404 not-found",
        voided: "404 not-found",
        delivered: "409 order-delivered",
      },
      // Whoever cannot go through with it is not bound by what has begun.
      "take back": {
        none: "404 not-found",
        pending: "409 order-pending",
        "pending, payment noted": "409 order-pending",
        "placed, unpaid": "OrderCancelled",
        placed: "OrderCancelled",
        "paid later": "OrderCancelled",
        closed: "OrderCancelled",
        cancelled: "nothing",
        aborted: "404 not-found",
        refused: "404 not-found",
        voided: "404 not-found",
        delivered: "409 order-delivered",
      },
      deliver: {
        none: "nothing",
        pending: "nothing",
        "pending, payment noted": "nothing",
        "placed, unpaid": "OrderDelivered",
        placed: "OrderDelivered",
        "paid later": "OrderDelivered",
        closed: "OrderDelivered",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        voided: "nothing",
        delivered: "nothing",
      },
    },
  );

  it("that is paid when it is placed tells so at once, and names itself, its price and its payment", () => {
    const decided = given(ORDER, requested).when((order) => place(order, 7, settled));
    decided.thenHappens(placed, orderPaid);
    const { id: _id, ...known } = paid;
    assert.deepEqual(decided.state, {
      ...known,
      ...{ paid: true, status: "OrderPlaced", closedBy: null, reason: null, cancelDate: null },
    });
  });

  it("that is not paid yet says so, and later that it is, with the approval (S3-F2, F3)", () => {
    const decided = given(ORDER, requested).when((order) => place(order, 7, unsettled));
    decided.thenHappens(placedUnpaid);
    assert.deepEqual([decided.state?.paid, decided.state?.approvalCode], [false, null]);
    const later = given(ORDER, requested, placedUnpaid).when((order) => notePayment(order, approval));
    later.thenHappens(orderPaid);
    assert.deepEqual([later.state?.paid, later.state?.approvalCode], [true, "12345678"]);
  });

  it("whose payment was told before it stood is paid when it stands", () => {
    given(ORDER, requested, noted)
      .when((order) => place(order, 7, unsettled))
      .thenHappens(placed, orderPaid);
  });

  it("may be paid by another method than was ordered; cash has no approval code", () => {
    const later = given(ORDER, requested, placedUnpaid).when((order) =>
      notePayment(order, { approvalCode: null, method: "cash" }),
    );
    later.thenHappens({ type: "OrderPaid", data: { ...about, approvalCode: null, method: "cash" } });
    const { paid, approvalCode, method } = later.state ?? {};
    assert.deepEqual([paid, approvalCode, method], [true, null, "cash"]);
  });

  it("shows its customers nothing of a try that came to nothing", () => {
    const visible = Object.entries(histories)
      .filter(([, history]) => {
        const { state } = given(ORDER, ...history);
        return state !== undefined && isVisible(state);
      })
      .map(([name]) => name);
    assert.deepEqual(visible, ["placed, unpaid", "placed", "paid later", "closed", "cancelled", "delivered"]);
  });

  it("keeps what it cost, and why and when it was cancelled", () => {
    const decided = given(ORDER, requested, placed).when((order) => cancel(order, 7, "changed my mind", at));
    decided.thenHappens(cancelled);
    const { reason, amount, cancelDate } = decided.state ?? {};
    assert.deepEqual([reason, amount, cancelDate], ["changed my mind", 30_000, at]);
  });

  it("says what has begun to a customer who comes too late to cancel (S4-F4)", () => {
    for (const by of ["acceptance", "making", "delivery"] as const) {
      const { state } = given(ORDER, requested, placed).when((order) => close(order, 7, by));
      assert.throws(() => cancel(state, 7, "changed my mind", at), { status: 409, extra: { begun: by } });
    }
  });

  it("remembers the first thing that has begun", () => {
    const decided = given(ORDER, requested, placed, closed).when((order) => close(order, 7, "delivery"));
    assert.deepEqual([decided.summary, decided.state?.closedBy], ["nothing", "making"]);
  });

  it("says why it was given up", () => {
    given(ORDER, requested)
      .when((order) => abort(order, 7, "payment is down"))
      .thenHappens(aborted);
    assert.equal(given(ORDER, requested, refused).state?.reason, "out of stock");
  });

  it("cannot begin in the middle", () => {
    for (const event of [noted, placed, orderPaid, closed, cancelled, aborted, refused, delivered])
      assert.throws(() => given(ORDER, event), new RegExp(`${event.type} without an order`));
  });
});
