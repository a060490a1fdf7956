import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound, type Problem, tryLater } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type OrderStatus = "Pending" | "OrderPlaced" | "OrderCancelled" | "OrderAborted" | "OrderDelivered";

/** What begins with an order once it stands. A shop says with which of them it closes for cancelling. */
export type Stage = "acceptance" | "making" | "delivery" | "completion";

export interface Order extends OrderInfo {
  status: OrderStatus;
  paid: boolean;
  /** what has begun, so that the customer may no longer cancel */
  closedBy: Stage | null;
  /** integer minor units; 0 until the order is placed */
  price: number;
  amount: number;
  paymentId: number | null;
  approvalCode: string | null;
  reason: string | null;
  /** ISO 8601 */
  cancelDate: string | null;
}

/** What the synchronous steps answered. */
export interface Settlement {
  productName: string;
  price: number;
  amount: number;
  approvalCode: string | null;
  /** false where the shop lets the order stand and be paid later */
  paid: boolean;
}

/** How it was paid in the end; by another method than was ordered, perhaps. */
export type Approval = Pick<Order, "approvalCode" | "method">;

export type OrderEvent =
  | Event<"OrderPlaced" | "OrderPaid" | "OrderCancelled" | "OrderAborted">
  /** on record before anything else is touched, so that a crash can be undone; nobody else's business */
  | { type: "OrderRequested"; data: OrderInfo }
  /** given up before anything was reserved or paid, so there is nothing to take back */
  | { type: "OrderRefused"; data: { reason: string } }
  /** a tombstone: the order was announced, and its first write may still be on its way; it must not succeed any more */
  | { type: "OrderVoided"; data: { orderId: number; reason: string } }
  /** its payment was approved before the order itself stood: on record, for when it does */
  | { type: "PaymentNoted"; data: Approval }
  /** something has begun that the customer can no longer stop; nobody else's business */
  | { type: "OrderClosed"; data: { by: Stage } }
  | { type: "OrderDelivered"; data: object };

/** Pending until stock is reserved and the payment is approved: an order that is not paid never stands. */
export function request(order: Order | undefined, info: OrderInfo): OrderEvent[] {
  return order === undefined ? [{ type: "OrderRequested", data: info }] : [];
}

/** Somebody took this process for dead, or its first write came too late. */
export const givenUp = (): Problem =>
  tryLater("order-given-up", "The order took too long and was given up; nothing was charged.", 1);

export function place(order: Order | undefined, id: number, settled: Settlement): OrderEvent[] {
  if (order === undefined) throw notFound("order", id);
  switch (order.status) {
    case "Pending": {
      const paid = settled.paid || order.paid;
      const data = {
        ...orderInfo(order),
        productName: settled.productName,
        id,
        price: settled.price,
        amount: settled.amount,
        paymentId: id,
        approvalCode: settled.approvalCode ?? order.approvalCode,
      };
      const placed: OrderEvent = { type: "OrderPlaced", data: { ...data, paid } };
      return paid ? [placed, { type: "OrderPaid", data }] : [placed];
    }
    case "OrderAborted":
      throw givenUp();
    case "OrderPlaced":
    case "OrderCancelled":
    case "OrderDelivered":
      return [];
  }
}

/** Gives an order up that is pending, or about to be; whatever was reserved or paid is taken back by those who did it. */
export function abort(order: Order | undefined, id: number, reason: string): OrderEvent[] {
  if (order === undefined) return [{ type: "OrderVoided", data: { orderId: id, reason } }];
  if (order.status !== "Pending") return [];
  return [{ type: "OrderAborted", data: { ...orderInfo(order), id, reason } }];
}

/** Gives a pending order up of which nothing was reserved or paid. */
export function refuse(order: Order | undefined, reason: string): OrderEvent[] {
  return order?.status === "Pending" ? [{ type: "OrderRefused", data: { reason } }] : [];
}

/** The payment of an order was approved: with the order, or later. */
export function notePayment(order: Order | undefined, payment: Approval): OrderEvent[] {
  if (order === undefined || order.paid) return [];
  switch (order.status) {
    case "Pending":
      return [{ type: "PaymentNoted", data: payment }];
    case "OrderPlaced": {
      const { orderId, price, amount } = order;
      const { approvalCode, method } = payment;
      const info = { ...orderInfo(order), method };
      const data = { ...info, id: orderId, price, amount, paymentId: orderId, approvalCode };
      return [{ type: "OrderPaid", data }];
    }
    case "OrderCancelled":
    case "OrderAborted":
    case "OrderDelivered":
      return [];
  }
}

/** The payment was declined for good, perhaps before the step that asked for it has heard so. */
export function noteDecline(order: Order | undefined, id: number, reason: string, at: string): OrderEvent[] {
  switch (order?.status) {
    case "Pending":
      return abort(order, id, reason);
    case "OrderPlaced":
      return takeBack(order, id, reason, at);
    case undefined:
    case "OrderCancelled":
    case "OrderAborted":
    case "OrderDelivered":
      return [];
  }
}

/** By the customer. */
export function cancel(order: Order | undefined, id: number, reason: string, at: string): OrderEvent[] {
  if (order?.status === "OrderPlaced" && order.closedBy !== null) {
    throw conflict(
      "order-closed",
      `${BEGUN[order.closedBy]} of order ${id} has begun, so it can no longer be cancelled.`,
      { begun: order.closedBy },
    );
  }
  return takeBack(order, id, reason, at);
}

const BEGUN: Record<Stage, string> = {
  acceptance: "The work of the store",
  making: "The making",
  delivery: "The delivery",
  completion: "The handing over",
};

/** By those who cannot or will not go through with it: they know what has begun. */
export function takeBack(order: Order | undefined, id: number, reason: string, at: string): OrderEvent[] {
  if (order === undefined) throw notFound("order", id);
  switch (order.status) {
    case "Pending":
      throw conflict("order-pending", `Order ${id} is still being placed.`);
    case "OrderAborted":
      throw notFound("order", id);
    case "OrderDelivered":
      throw conflict("order-delivered", `Order ${id} has been delivered and can no longer be cancelled.`);
    case "OrderCancelled":
      return [];
    case "OrderPlaced":
      return [
        {
          type: "OrderCancelled",
          data: { ...orderInfo(order), id, price: order.price, amount: order.amount, reason, at },
        },
      ];
  }
}

/** Something begins that the customer may not stop any more: refused if the customer was first. */
export function close(order: Order | undefined, id: number, by: Stage): OrderEvent[] {
  if (order === undefined) throw notFound("order", id);
  switch (order.status) {
    case "OrderPlaced":
      return order.closedBy === null ? [{ type: "OrderClosed", data: { by } }] : [];
    case "OrderDelivered":
      return [];
    case "Pending":
    case "OrderAborted":
    case "OrderCancelled":
      throw conflict("order-cancelled", `Order ${id} was cancelled.`);
  }
}

export function deliver(order: Order | undefined): OrderEvent[] {
  return order?.status === "OrderPlaced" ? [{ type: "OrderDelivered", data: {} }] : [];
}

const NOBODY = {
  ...{ productId: 0, productName: "", qty: 0, customerId: null, customerName: null, customerAddr: null },
  ...{ phoneNumber: null, storeId: null, note: null, method: "card" as const, orderDate: "" },
};
const NOTHING = {
  ...{ paid: false, closedBy: null, price: 0, amount: 0, paymentId: null, approvalCode: null },
  ...{ reason: null, cancelDate: null },
};

export function evolve(order: Order | undefined, event: OrderEvent): Order {
  if (event.type === "OrderRequested") return { ...NOTHING, ...event.data, status: "Pending" };
  if (event.type === "OrderVoided") return { ...NOBODY, ...NOTHING, ...event.data, status: "OrderAborted" };
  if (order === undefined) throw new Error(`${event.type} without an order`);
  switch (event.type) {
    case "OrderPlaced": {
      const { productName, price, amount, paymentId, approvalCode, paid } = event.data;
      return { ...order, status: "OrderPlaced", paid, productName, price, amount, paymentId, approvalCode };
    }
    case "OrderPaid":
    case "PaymentNoted":
      return { ...order, paid: true, approvalCode: event.data.approvalCode, method: event.data.method };
    case "OrderClosed":
      return { ...order, closedBy: event.data.by };
    case "OrderCancelled":
      return { ...order, status: "OrderCancelled", reason: event.data.reason, cancelDate: event.data.at };
    case "OrderAborted":
    case "OrderRefused":
      return { ...order, status: "OrderAborted", reason: event.data.reason };
    case "OrderDelivered":
      return { ...order, status: "OrderDelivered" };
  }
}

/** An order exists for its customers once it is placed. */
export const isVisible = (order: Order): boolean =>
  order.status !== "Pending" && order.status !== "OrderAborted";

export const ORDER: Aggregate<Order, OrderEvent> = { name: "order", listed: true, evolve };
