import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given } from "#kit/testing.js";
import {
  cancel,
  isVisible,
  mayAsk,
  PAYMENT,
  type PayFor,
  type PaymentEvent,
  settle,
  type Verdict,
} from "./domain.js";

const pay: PayFor = { orderId: 7, amount: 30_000, method: "cash" };
const yes: Verdict = { approved: true, approvalCode: "12345678" };
const no: Verdict = { approved: false, reason: "no money" };
const about = { id: 7, orderId: 7, amount: 30_000 };

const approved: PaymentEvent = {
  type: "PaymentApproved",
  data: { ...about, method: "cash", approvalCode: "12345678" },
};
const failed: PaymentEvent = {
  type: "PaymentFailed",
  data: { ...about, approvalCode: null, reason: "no money" },
};
const cancelled: PaymentEvent = {
  type: "PaymentCancelled",
  data: { ...about, approvalCode: "12345678", reason: "changed my mind" },
};
const voided: PaymentEvent = { type: "PaymentVoided", data: { orderId: 7, reason: "changed my mind" } };

const histories = {
  none: [],
  approved: [approved],
  failed: [failed],
  cancelled: [approved, cancelled],
  voided: [voided],
};

describe("a payment", () => {
  decides(
    PAYMENT,
    histories,
    {
      "settle, approved": (payment) => settle(payment, pay, yes),
      "settle, declined": (payment) => settle(payment, pay, no),
      "settle another amount": (payment) => settle(payment, { ...pay, amount: 1 }, yes),
      cancel: (payment) => cancel(payment, 7, "changed my mind"),
    },
    {
      "settle, approved": {
        none: "PaymentApproved",
        approved: "nothing",
        failed: "nothing",
        cancelled: "409 payment-voided",
        voided: "409 payment-voided",
      },
      "settle, declined": {
        none: "PaymentFailed",
        approved: "nothing",
        failed: "nothing",
        cancelled: "409 payment-voided",
        voided: "409 payment-voided",
      },
      "settle another amount": {
        none: "PaymentApproved",
        approved: "409 payment-differs",
        failed: "nothing",
        cancelled: "409 payment-voided",
        voided: "409 payment-voided",
      },
      cancel: {
        none: "PaymentVoided",
        approved: "PaymentCancelled",
        failed: "nothing",
        cancelled: "nothing",
        voided: "nothing",
      },
    },
  );

  it("asks the payment gateway only where nothing is known yet", () => {
    assert.equal(mayAsk(undefined, pay), true);
    assert.equal(mayAsk(given(PAYMENT, approved).state, pay), false);
    assert.equal(mayAsk(given(PAYMENT, failed).state, pay), false, "who was declined is not asked twice");
    for (const history of [histories.cancelled, histories.voided])
      assert.throws(() => mayAsk(given(PAYMENT, ...history).state, pay));
  });

  it("keeps the verdict: method and approval code, or the reason", () => {
    const decided = given(PAYMENT).when((payment) => settle(payment, pay, yes));
    decided.thenHappens(approved);
    assert.deepEqual(decided.state, {
      ...{ orderId: 7, amount: 30_000, method: "cash" },
      ...{ status: "PaymentApproved", approvalCode: "12345678", reason: null },
    });
    const declined = given(PAYMENT).when((payment) => settle(payment, pay, no));
    declined.thenHappens(failed);
    assert.equal(declined.state?.reason, "no money");
  });

  it("gives back the whole amount, under its approval code", () => {
    const decided = given(PAYMENT, approved).when((payment) => cancel(payment, 7, "changed my mind"));
    decided.thenHappens(cancelled);
    assert.equal(decided.state?.approvalCode, "12345678");
  });

  it("leaves a tombstone, seen by nobody, when the cancellation comes first", () => {
    const decided = given(PAYMENT).when((payment) => cancel(payment, 7, "changed my mind"));
    decided.thenHappens(voided);
    assert.ok(decided.state && !isVisible(decided.state));
    for (const history of [histories.approved, histories.failed, histories.cancelled]) {
      const { state } = given(PAYMENT, ...history);
      assert.ok(state && isVisible(state));
    }
  });

  it("cannot be cancelled before it is", () => {
    assert.throws(() => given(PAYMENT, cancelled), /PaymentCancelled without a payment/);
  });
});
