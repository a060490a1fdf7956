import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info } from "#kit/testing.js";
import {
  attempt,
  cancel,
  type Due,
  isOpen,
  isVisible,
  PAYMENT,
  type Payment,
  type PaymentEvent,
  pay,
  payable,
  request,
  settle,
  type Verdict,
} from "./domain.js";

const due: Due = { ...info, method: "cash", amount: 30_000 };
const yes: Verdict = { approved: true, approvalCode: "12345678" };
const no: Verdict = { approved: false, reason: "no money" };
const about = { ...info, method: "cash" as const, id: 7, amount: 30_000 };
const then = "2026-11-21T00:00:01.000Z";
const now = "2026-11-21T00:00:02.000Z";
const reason = "changed my mind";

const requested: PaymentEvent = { type: "PaymentRequested", data: { ...due, at: then } };
const declined: PaymentEvent = {
  type: "PaymentDeclined",
  data: { method: "card", reason: "no money", at: then },
};
const approved: PaymentEvent = {
  type: "PaymentApproved",
  data: { ...about, approvalCode: "12345678", at: then },
};
const failed: PaymentEvent = {
  type: "PaymentFailed",
  data: { ...about, approvalCode: null, reason: "no money", at: then },
};
const refunded: PaymentEvent = {
  type: "PaymentCancelled",
  data: { ...about, refunded: 30_000, approvalCode: "12345678", reason, at: now },
};
const dropped: PaymentEvent = {
  type: "PaymentCancelled",
  data: { ...about, refunded: 0, approvalCode: null, reason, at: now },
};
const voided: PaymentEvent = { type: "PaymentVoided", data: { about: info, reason, at: then } };

const histories = {
  none: [],
  requested: [requested],
  "requested and declined": [requested, declined],
  approved: [approved],
  "approved later": [requested, approved],
  failed: [failed],
  "failed later": [requested, failed],
  cancelled: [approved, refunded],
  "cancelled unpaid": [requested, dropped],
  voided: [voided],
};
type State = keyof typeof histories;
/** The same in every state but those said. */
const all = (usual: string, but: Partial<Record<State, string>>) =>
  Object.fromEntries(Object.keys(histories).map((state) => [state, but[state as State] ?? usual])) as Record<
    State,
    string
  >;

const open = (summary: string) => ({ requested: summary, "requested and declined": summary });
const closed = (summary: string) => ({
  cancelled: summary,
  "cancelled unpaid": summary,
  voided: summary,
});
const differs = { approved: "409 payment-differs", "approved later": "409 payment-differs" };

/** A question that only a refusal answers, as a decision. */
const ask = (question: (payment: Payment | undefined) => unknown) => (payment: Payment | undefined) => {
  question(payment);
  return [];
};

describe("a payment", () => {
  decides(
    PAYMENT,
    histories,
    {
      request: (payment) => request(payment, due, now),
      "request another amount": (payment) => request(payment, { ...due, amount: 1 }, now),
      "settle, approved": (payment) => settle(payment, due, yes, now),
      "settle, declined": (payment) => settle(payment, due, no, now),
      "settle another amount": (payment) => settle(payment, { ...due, amount: 1 }, yes, now),
      payable: ask((payment) => payable(payment, 7, null)),
      "pay, approved": (payment) => pay(payment, due, yes, now),
      "pay, declined": (payment) => pay(payment, due, no, now),
      "pay another amount": (payment) => pay(payment, { ...due, amount: 1 }, yes, now),
      cancel: (payment) => cancel(payment, info, reason, now),
    },
    {
      request: all("nothing", { none: "PaymentRequested", ...closed("409 payment-voided") }),
      "request another amount": all("nothing", {
        none: "PaymentRequested",
        ...{ ...open("409 payment-differs"), ...differs, ...closed("409 payment-voided") },
      }),
      "settle, approved": all("nothing", {
        none: "PaymentApproved",
        ...{ ...open("PaymentApproved"), ...closed("409 payment-voided") },
      }),
      "settle, declined": all("nothing", {
        none: "PaymentFailed",
        ...{ ...open("PaymentFailed"), ...closed("409 payment-voided") },
      }),
      "settle another amount": all("nothing", {
        none: "PaymentApproved",
        ...{ ...open("409 payment-differs"), ...differs, ...closed("409 payment-voided") },
      }),
      payable: all("nothing", {
        none: "404 not-found",
        ...{ failed: "409 payment-closed", "failed later": "409 payment-closed" },
        ...closed("409 payment-closed"),
      }),
      "pay, approved": all("nothing", {
        none: "404 not-found",
        ...{ ...open("PaymentApproved"), ...closed("409 payment-voided") },
      }),
      "pay, declined": all("nothing", {
        none: "404 not-found",
        ...{ ...open("PaymentDeclined"), ...closed("409 payment-voided") },
      }),
      "pay another amount": all("nothing", {
        none: "404 not-found",
        ...{ ...open("409 payment-differs"), ...differs, ...closed("409 payment-voided") },
      }),
      cancel: all("nothing", {
        none: "PaymentVoided",
        ...open("PaymentCancelled"),
        ...{ approved: "PaymentCancelled", "approved later": "PaymentCancelled" },
      }),
    },
  );

  it("asks the payment gateway only while nothing is decided", () => {
    const opens = (...history: PaymentEvent[]) => isOpen(given(PAYMENT, ...history).state, due);
    for (const history of [histories.none, histories.requested, histories["requested and declined"]])
      assert.equal(opens(...history), true);
    assert.equal(opens(approved), false);
    assert.equal(opens(failed), false, "who was declined with the order is not asked twice");
    for (const history of [histories.cancelled, histories["cancelled unpaid"], histories.voided])
      assert.throws(() => opens(...history));
  });

  it("counts what the gateway declined, so that each try is a new one for it", () => {
    const nth = (...history: PaymentEvent[]) => attempt(given(PAYMENT, ...history).state);
    assert.deepEqual([nth(), nth(requested)], [1, 1]);
    assert.deepEqual([nth(requested, declined), nth(requested, declined, declined)], [2, 3]);
  });

  it("keeps the verdict: method and approval code, or the reason", () => {
    const decided = given(PAYMENT).when((payment) => settle(payment, due, yes, then));
    decided.thenHappens(approved);
    assert.deepEqual(decided.state, {
      ...{ ...due, status: "PaymentApproved", approvalCode: "12345678", reason: null },
      ...{ approveDate: then, cancelDate: null },
      history: [
        {
          ...{ at: then, what: "PaymentApproved", amount: 30_000, method: "cash" },
          ...{ approvalCode: "12345678", reason: null },
        },
      ],
    });
    const declined = given(PAYMENT).when((payment) => settle(payment, due, no, then));
    declined.thenHappens(failed);
    assert.deepEqual([declined.state?.reason, declined.state?.approveDate], ["no money", null]);
  });

  it("is announced first, and paid later with the method that the customer names then (S3-F2)", () => {
    const byCard: Due = { ...due, method: "card" };
    const { state } = given(PAYMENT).when((payment) => request(payment, byCard, then));
    assert.deepEqual([state?.status, state?.amount, state?.method], ["PaymentRequested", 30_000, "card"]);
    assert.equal(payable(state, 7, null).method, "card");
    assert.deepEqual(payable(state, 7, "cash"), due);
    const paid = given(PAYMENT, { type: "PaymentRequested", data: { ...byCard, at: then } }).when((payment) =>
      pay(payment, payable(payment, 7, "cash"), { approved: true, approvalCode: null }, now),
    );
    assert.deepEqual([paid.state?.method, paid.state?.approvalCode], ["cash", null]);
    assert.equal(paid.state?.approveDate, now);
  });

  it("stays open after a card that was declined, and tells nobody of it", () => {
    const decided = given(PAYMENT, requested).when((payment) =>
      pay(payment, { ...due, method: "card" }, no, then),
    );
    decided.thenHappens(declined);
    assert.deepEqual(
      [decided.state?.status, decided.state?.method, decided.state?.reason],
      ["PaymentRequested", "card", "no money"],
    );
  });

  it("gives back the whole amount, under its approval code", () => {
    const decided = given(PAYMENT, approved).when((payment) => cancel(payment, info, reason, now));
    decided.thenHappens(refunded);
    assert.deepEqual(
      [decided.state?.approvalCode, decided.state?.approveDate, decided.state?.cancelDate],
      ["12345678", then, now],
    );
  });

  it("gives back nothing where nothing had been paid", () => {
    const decided = given(PAYMENT, requested).when((payment) => cancel(payment, info, reason, now));
    decided.thenHappens(dropped);
    assert.equal(decided.state?.history.at(-1)?.amount, 0);
  });

  it("keeps its history, oldest first; what goes back counts negative (S4-F11)", () => {
    const steps = (...history: PaymentEvent[]) =>
      given(PAYMENT, ...history).state?.history.map(({ at, what, amount, method, approvalCode, reason }) =>
        [at, what, amount, method, approvalCode, reason].join(" "),
      );
    assert.deepEqual(steps(requested, declined, approved, refunded), [
      `${then} PaymentRequested 0 cash  `,
      `${then} PaymentDeclined 0 card  no money`,
      `${then} PaymentApproved 30000 cash 12345678 `,
      `${now} PaymentCancelled -30000 cash 12345678 ${reason}`,
    ]);
    assert.deepEqual(steps(failed), [`${then} PaymentFailed 0 cash  no money`]);
    assert.deepEqual(steps(requested, dropped)?.at(-1), `${now} PaymentCancelled 0 cash  ${reason}`);
    assert.deepEqual(steps(voided), []);
  });

  it("leaves a tombstone, seen by nobody, when the cancellation comes first", () => {
    const decided = given(PAYMENT).when((payment) => cancel(payment, info, reason, then));
    decided.thenHappens(voided);
    for (const [name, history] of Object.entries(histories)) {
      const { state } = given(PAYMENT, ...history);
      if (state !== undefined) assert.equal(isVisible(state), name !== "voided", name);
    }
  });

  it("cannot be cancelled or declined before it is", () => {
    assert.throws(() => given(PAYMENT, refunded), /PaymentCancelled without a payment/);
    assert.throws(() => given(PAYMENT, declined), /PaymentDeclined without a payment/);
  });
});
