import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info } from "#kit/testing.js";
import {
  abort,
  cancel,
  deliver,
  isVisible,
  ORDER,
  type OrderEvent,
  place,
  refuse,
  request,
  type Settlement,
} from "./domain.js";

const settled: Settlement = { productName: "TV", price: 10_000, amount: 30_000, approvalCode: "12345678" };
const paid = { ...info, ...settled, id: 7, paymentId: 7 };

const requested: OrderEvent = { type: "OrderRequested", data: info };
const placed: OrderEvent = { type: "OrderPlaced", data: paid };
const orderPaid: OrderEvent = { type: "OrderPaid", data: paid };
const cancelled: OrderEvent = {
  type: "OrderCancelled",
  data: { ...info, productName: "TV", id: 7, price: 10_000, amount: 30_000, reason: "changed my mind" },
};
const aborted: OrderEvent = { type: "OrderAborted", data: { ...info, id: 7, reason: "payment is down" } };
const refused: OrderEvent = { type: "OrderRefused", data: { reason: "out of stock" } };
const delivered: OrderEvent = { type: "OrderDelivered", data: {} };

const histories = {
  none: [],
  pending: [requested],
  placed: [requested, placed, orderPaid],
  cancelled: [requested, placed, orderPaid, cancelled],
  aborted: [requested, aborted],
  refused: [requested, refused],
  delivered: [requested, placed, orderPaid, delivered],
};

describe("an order", () => {
  decides(
    ORDER,
    histories,
    {
      request: (order) => request(order, info),
      place: (order) => place(order, 7, settled),
      abort: (order) => abort(order, 7, "payment is down"),
      refuse: (order) => refuse(order, "out of stock"),
      cancel: (order) => cancel(order, 7, "changed my mind"),
      deliver,
    },
    {
      request: {
        none: "OrderRequested",
        pending: "nothing",
        placed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        delivered: "nothing",
      },
      place: {
        none: "404 not-found",
        pending: "OrderPlaced OrderPaid",
        placed: "nothing",
        cancelled: "nothing",
        aborted: "503 order-given-up",
        refused: "503 order-given-up",
        delivered: "nothing",
      },
      abort: {
        none: "OrderVoided",
        pending: "OrderAborted",
        placed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        delivered: "nothing",
      },
      refuse: {
        none: "nothing",
        pending: "OrderRefused",
        placed: "nothing",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        delivered: "nothing",
      },
      cancel: {
        none: "404 not-found",
        pending: "409 order-pending",
        placed: "OrderCancelled",
        cancelled: "nothing",
        aborted: "404 not-found",
        refused: "404 not-found",
        delivered: "409 order-delivered",
      },
      deliver: {
        none: "nothing",
        pending: "nothing",
        placed: "OrderDelivered",
        cancelled: "nothing",
        aborted: "nothing",
        refused: "nothing",
        delivered: "nothing",
      },
    },
  );

  it("stands only once it is paid, and what it tells names the order, its price and its payment", () => {
    const decided = given(ORDER, requested).when((order) => place(order, 7, settled));
    decided.thenHappens(placed, orderPaid);
    const { id: _id, ...known } = paid;
    assert.deepEqual(decided.state, { ...known, status: "OrderPlaced", reason: null });
  });

  it("shows its customers nothing of a try that came to nothing", () => {
    const visible = Object.entries(histories)
      .filter(([, history]) => {
        const { state } = given(ORDER, ...history);
        return state !== undefined && isVisible(state);
      })
      .map(([name]) => name);
    assert.deepEqual(visible, ["placed", "cancelled", "delivered"]);
  });

  it("keeps what it cost and why it was cancelled", () => {
    const decided = given(ORDER, requested, placed).when((order) => cancel(order, 7, "changed my mind"));
    decided.thenHappens(cancelled);
    assert.equal(decided.state?.reason, "changed my mind");
    assert.equal(decided.state?.amount, 30_000);
  });

  it("says why it was given up", () => {
    given(ORDER, requested)
      .when((order) => abort(order, 7, "payment is down"))
      .thenHappens(aborted);
    assert.equal(given(ORDER, requested, refused).state?.reason, "out of stock");
  });

  it("cannot begin in the middle", () => {
    for (const event of [placed, orderPaid, cancelled, aborted, refused, delivered])
      assert.throws(() => given(ORDER, event), new RegExp(`${event.type} without an order`));
  });
});
