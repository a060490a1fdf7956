import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound, type Problem, tryLater } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type OrderStatus = "Pending" | "OrderPlaced" | "OrderCancelled" | "OrderAborted" | "OrderDelivered";

export interface Order extends OrderInfo {
  status: OrderStatus;
  /** integer minor units; 0 until the order is placed */
  price: number;
  amount: number;
  paymentId: number | null;
  approvalCode: string | null;
  reason: string | null;
}

/** What the synchronous steps answered. */
export interface Settlement {
  productName: string;
  price: number;
  amount: number;
  approvalCode: string | null;
}

export type OrderEvent =
  | Event<"OrderPlaced" | "OrderPaid" | "OrderCancelled" | "OrderAborted">
  /** on record before anything else is touched, so that a crash can be undone; nobody else's business */
  | { type: "OrderRequested"; data: OrderInfo }
  /** given up before anything was reserved or paid, so there is nothing to take back */
  | { type: "OrderRefused"; data: { reason: string } }
  /** a tombstone: the order was announced, and its first write may still be on its way; it must not succeed any more */
  | { type: "OrderVoided"; data: { orderId: number; reason: string } }
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
      const data = {
        ...orderInfo(order),
        productName: settled.productName,
        id,
        price: settled.price,
        amount: settled.amount,
        paymentId: id,
        approvalCode: settled.approvalCode,
      };
      return [
        { type: "OrderPlaced", data },
        { type: "OrderPaid", data },
      ];
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

export function cancel(order: Order | undefined, id: number, reason: string): OrderEvent[] {
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
          data: { ...orderInfo(order), id, price: order.price, amount: order.amount, reason },
        },
      ];
  }
}

export function deliver(order: Order | undefined): OrderEvent[] {
  return order?.status === "OrderPlaced" ? [{ type: "OrderDelivered", data: {} }] : [];
}

const NOTHING = {
  productId: 0,
  productName: "",
  qty: 0,
  customerId: null,
  customerName: null,
  customerAddr: null,
  price: 0,
  amount: 0,
  paymentId: null,
  approvalCode: null,
  reason: null,
};

export function evolve(order: Order | undefined, event: OrderEvent): Order {
  if (event.type === "OrderRequested") return { ...NOTHING, ...event.data, status: "Pending" };
  if (event.type === "OrderVoided") return { ...NOTHING, ...event.data, status: "OrderAborted" };
  if (order === undefined) throw new Error(`${event.type} without an order`);
  switch (event.type) {
    case "OrderPlaced": {
      const { productName, price, amount, paymentId, approvalCode } = event.data;
      return { ...order, status: "OrderPlaced", productName, price, amount, paymentId, approvalCode };
    }
    case "OrderPaid":
      return order;
    case "OrderCancelled":
      return { ...order, status: "OrderCancelled", reason: event.data.reason };
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
