import type { Event } from "#kit/events.js";
import { conflict } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type PaymentStatus = "PaymentApproved" | "PaymentFailed" | "PaymentCancelled" | "PaymentVoided";

/** One payment per order; its id is the order's. */
export interface Payment {
  orderId: number;
  status: PaymentStatus;
  /** integer minor units */
  amount: number;
  method: string;
  approvalCode: string | null;
  reason: string | null;
}

/** What the payment gateway (PG) said. */
export type Verdict = { approved: true; approvalCode: string } | { approved: false; reason: string };

export type PaymentEvent =
  | Event<"PaymentApproved" | "PaymentFailed" | "PaymentCancelled">
  /** a tombstone: the order was given up before its payment arrived here, so none may be approved any more */
  | { type: "PaymentVoided"; data: { orderId: number; reason: string } };

export interface PayFor {
  orderId: number;
  amount: number;
  method: string;
}

/** What is known already decides before the PG is asked. Answers whether it has to be asked. */
export function mayAsk(payment: Payment | undefined, { orderId, amount }: PayFor): boolean {
  switch (payment?.status) {
    case undefined:
      return true;
    case "PaymentApproved":
      if (payment.amount !== amount) {
        throw conflict("payment-differs", `Order ${orderId} is already paid, with another amount.`);
      }
      return false;
    case "PaymentFailed":
      return false;
    case "PaymentCancelled":
    case "PaymentVoided":
      throw conflict("payment-voided", `Order ${orderId} was given up; it takes no payment.`);
  }
}

export function settle(payment: Payment | undefined, pay: PayFor, verdict: Verdict): PaymentEvent[] {
  if (!mayAsk(payment, pay)) return [];
  const { orderId, amount, method } = pay;
  const common = { id: orderId, orderId, amount };
  return verdict.approved
    ? [{ type: "PaymentApproved", data: { ...common, method, approvalCode: verdict.approvalCode } }]
    : [{ type: "PaymentFailed", data: { ...common, approvalCode: null, reason: verdict.reason } }];
}

/** The order is cancelled or given up, perhaps before its payment arrived. */
export function cancel(payment: Payment | undefined, orderId: number, reason: string): PaymentEvent[] {
  switch (payment?.status) {
    case undefined:
      return [{ type: "PaymentVoided", data: { orderId, reason } }];
    case "PaymentApproved": {
      const { amount, approvalCode } = payment;
      return [{ type: "PaymentCancelled", data: { id: orderId, orderId, amount, approvalCode, reason } }];
    }
    case "PaymentFailed":
    case "PaymentCancelled":
    case "PaymentVoided":
      return [];
  }
}

export function evolve(payment: Payment | undefined, event: PaymentEvent): Payment {
  switch (event.type) {
    case "PaymentApproved": {
      const { orderId, amount, method, approvalCode } = event.data;
      return { orderId, status: "PaymentApproved", amount, method, approvalCode, reason: null };
    }
    case "PaymentFailed": {
      const { orderId, amount, reason } = event.data;
      return { orderId, status: "PaymentFailed", amount, method: "card", approvalCode: null, reason };
    }
    case "PaymentCancelled":
      if (payment === undefined) throw new Error("PaymentCancelled without a payment");
      return { ...payment, status: "PaymentCancelled", reason: event.data.reason };
    case "PaymentVoided": {
      const { orderId, reason } = event.data;
      return { orderId, status: "PaymentVoided", amount: 0, method: "none", approvalCode: null, reason };
    }
  }
}

/** A tombstone is nobody's payment. */
export const isVisible = (payment: Payment): boolean => payment.status !== "PaymentVoided";

export const PAYMENT: Aggregate<Payment, PaymentEvent> = { name: "payment", listed: true, evolve };
