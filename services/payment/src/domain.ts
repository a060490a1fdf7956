import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type PaymentStatus =
  | "PaymentRequested"
  | "PaymentApproved"
  | "PaymentFailed"
  | "PaymentCancelled"
  | "PaymentVoided";

export type Method = OrderInfo["method"];

/** One thing that happened to a payment. */
export interface Step {
  /** ISO 8601 */
  at: string;
  what: string;
  /** integer minor units; negative where money went back */
  amount: number;
  method: Method;
  approvalCode: string | null;
  reason: string | null;
}

/** One payment per order; its id is the order's. */
export interface Payment extends OrderInfo {
  status: PaymentStatus;
  /** integer minor units */
  amount: number;
  approvalCode: string | null;
  reason: string | null;
  /** ISO 8601 */
  approveDate: string | null;
  cancelDate: string | null;
  /** oldest first */
  history: Step[];
}

/** What the payment gateway (PG) said. Cash needs none, and has no code. */
export type Verdict = { approved: true; approvalCode: string | null } | { approved: false; reason: string };

export type PaymentEvent =
  | Event<"PaymentApproved" | "PaymentFailed" | "PaymentCancelled">
  /** "Not Pay": it is known what is to be paid, and the customer will say when */
  | { type: "PaymentRequested"; data: Due & { at: string } }
  /** the customer tried to pay, and may try again */
  | { type: "PaymentDeclined"; data: { method: Method; reason: string; at: string } }
  /** a tombstone: the order was given up before its payment arrived here, so none may be approved any more */
  | { type: "PaymentVoided"; data: { about: OrderInfo; reason: string; at: string } };

/** What is to be paid for an order. */
export interface Due extends OrderInfo {
  amount: number;
}

/** Announces a payment that follows later. */
export function request(payment: Payment | undefined, due: Due, at: string): PaymentEvent[] {
  return isOpen(payment, due) && payment === undefined
    ? [{ type: "PaymentRequested", data: { ...due, at } }]
    : [];
}

/** Whether the PG has to be asked: what is known already decides first. @throws Problem 409 it takes no such payment */
export function isOpen(payment: Payment | undefined, { orderId, amount }: Due): boolean {
  switch (payment?.status) {
    case undefined:
      return true;
    case "PaymentRequested":
    case "PaymentApproved":
      if (payment.amount !== amount) {
        throw conflict("payment-differs", `Order ${orderId} is to be paid with another amount.`);
      }
      return payment.status === "PaymentRequested";
    case "PaymentFailed":
      return false;
    case "PaymentCancelled":
    case "PaymentVoided":
      throw conflict("payment-voided", `Order ${orderId} was given up; it takes no payment.`);
  }
}

/** With the order: a PG that declines has said its last word. */
export function settle(payment: Payment | undefined, due: Due, verdict: Verdict, at: string): PaymentEvent[] {
  if (!isOpen(payment, due)) return [];
  const common = { ...orderInfo(due), id: due.orderId, amount: due.amount, at };
  return verdict.approved
    ? [{ type: "PaymentApproved", data: { ...common, approvalCode: verdict.approvalCode } }]
    : [{ type: "PaymentFailed", data: { ...common, approvalCode: null, reason: verdict.reason } }];
}

/** What there is to pay, by a customer who says so now. @throws Problem 404, 409 it can't be paid any more */
export function payable(payment: Payment | undefined, id: number, method: Method | null): Due {
  if (payment === undefined) throw notFound("payment", id);
  switch (payment.status) {
    case "PaymentRequested":
    case "PaymentApproved":
      return { ...orderInfo(payment), amount: payment.amount, method: method ?? payment.method };
    case "PaymentFailed":
    case "PaymentCancelled":
    case "PaymentVoided":
      throw conflict("payment-closed", `Payment ${id} is ${payment.status} and cannot be paid.`);
  }
}

/** How often the PG has been asked once it is asked now; a verdict that was not recorded is asked for again. */
export const attempt = (payment: Payment | undefined): number =>
  1 + (payment?.history ?? []).filter(({ what }) => what === "PaymentDeclined").length;

/** By the customer, later: a PG that declines may be asked again, for another card perhaps. */
export function pay(payment: Payment | undefined, due: Due, verdict: Verdict, at: string): PaymentEvent[] {
  if (payment === undefined) throw notFound("payment", due.orderId);
  if (!isOpen(payment, due)) return [];
  return verdict.approved
    ? settle(payment, due, verdict, at)
    : [{ type: "PaymentDeclined", data: { method: due.method, reason: verdict.reason, at } }];
}

/** The order is cancelled or given up, perhaps before its payment arrived. */
export function cancel(
  payment: Payment | undefined,
  about: OrderInfo,
  reason: string,
  at: string,
): PaymentEvent[] {
  switch (payment?.status) {
    case undefined:
      return [{ type: "PaymentVoided", data: { about: orderInfo(about), reason, at } }];
    case "PaymentRequested":
    case "PaymentApproved": {
      const { amount, approvalCode } = payment;
      const refunded = payment.status === "PaymentApproved" ? amount : 0;
      const data = { ...orderInfo(payment), id: payment.orderId, amount, refunded, approvalCode, reason, at };
      return [{ type: "PaymentCancelled", data }];
    }
    case "PaymentFailed":
    case "PaymentCancelled":
    case "PaymentVoided":
      return [];
  }
}

export function evolve(payment: Payment | undefined, event: PaymentEvent): Payment {
  const { data } = event;
  switch (event.type) {
    case "PaymentRequested":
      return step(
        { ...blank(event.data), amount: event.data.amount, status: event.type },
        event.type,
        data.at,
      );
    case "PaymentApproved": {
      const { amount, approvalCode, method, at } = event.data;
      const was = payment ?? blank(event.data);
      const approved = { ...was, status: event.type, amount, approvalCode, method, reason: null };
      return step({ ...approved, approveDate: at }, event.type, at, amount);
    }
    case "PaymentFailed": {
      const { amount, reason, at } = event.data;
      return step({ ...(payment ?? blank(event.data)), status: event.type, amount, reason }, event.type, at);
    }
    case "PaymentDeclined": {
      if (payment === undefined) throw new Error("PaymentDeclined without a payment");
      const { method, reason, at } = event.data;
      return step({ ...payment, method, reason }, event.type, at);
    }
    case "PaymentCancelled": {
      if (payment === undefined) throw new Error("PaymentCancelled without a payment");
      const { reason, refunded, at } = event.data;
      const cancelled = { ...payment, status: event.type, reason, cancelDate: at };
      return step(cancelled, event.type, at, refunded === 0 ? 0 : -refunded);
    }
    case "PaymentVoided":
      return { ...blank(event.data.about), status: event.type, reason: event.data.reason };
  }
}

/** A tombstone is nobody's payment. */
export const isVisible = (payment: Payment): boolean => payment.status !== "PaymentVoided";

export const PAYMENT: Aggregate<Payment, PaymentEvent> = { name: "payment", listed: true, evolve };

function blank(info: OrderInfo): Omit<Payment, "status"> {
  return {
    ...orderInfo(info),
    ...{ amount: 0, approvalCode: null, reason: null, approveDate: null, cancelDate: null, history: [] },
  };
}

function step(payment: Payment, what: string, at: string, amount = 0): Payment {
  const { method, approvalCode, reason } = payment;
  return { ...payment, history: [...payment.history, { at, what, amount, method, approvalCode, reason }] };
}
