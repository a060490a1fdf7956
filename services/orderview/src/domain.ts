import type { Event, OrderInfo } from "#kit/events.js";
import type { Aggregate } from "#kit/records.js";

/** One row per order: what order, payment, store and delivery have said, in one query (CQRS). */
export interface OrderStatus {
  orderId: number;
  productId: number | null;
  productName: string | null;
  qty: number | null;
  customerId: string | null;
  customerName: string | null;
  customerAddr: string | null;
  amount: number | null;
  orderStatus: string | null;
  paymentStatus: string | null;
  storeStatus: string | null;
  deliveryId: number | null;
  deliveryStatus: string | null;
}

/** The view listens to the others' events, and its row evolves with them as they are. */
export type ViewedEvent = Event<
  | "OrderPlaced"
  | "OrderCancelled"
  | "PaymentCancelled"
  | "StoreRejected"
  | "StoreCancelled"
  | "DeliveryStarted"
  | "DeliveryCompleted"
  | "DeliveryCancelled"
>;

/**
 * Events of different services arrive in any order. Each column only moves forward in this list, so the row is the
 * same whatever the order.
 */
const RANK: Record<string, number> = {
  OrderPlaced: 1,
  OrderCancelled: 2,
  PaymentApproved: 1,
  PaymentCancelled: 2,
  StoreAccepted: 1,
  StoreRejected: 2,
  StoreCancelled: 2,
  DeliveryStarted: 1,
  DeliveryCompleted: 2,
  DeliveryCancelled: 2,
};

const later = (now: string | null, next: string): string =>
  now !== null && (RANK[now] ?? 0) >= (RANK[next] ?? 0) ? now : next;

export function see(row: OrderStatus | undefined, event: ViewedEvent): ViewedEvent[] {
  if (row === undefined) return [event];
  const next = evolve(row, event);
  const changed = (Object.keys(next) as (keyof OrderStatus)[]).some((key) => next[key] !== row[key]);
  return changed ? [event] : [];
}

export function evolve(row: OrderStatus | undefined, event: ViewedEvent): OrderStatus {
  const was = row ?? empty(event.data.orderId);
  switch (event.type) {
    case "OrderPlaced":
      return {
        ...was,
        ...about(event.data),
        amount: event.data.amount,
        orderStatus: later(was.orderStatus, event.type),
        paymentStatus: later(was.paymentStatus, "PaymentApproved"),
      };
    case "OrderCancelled":
      return {
        ...was,
        ...about(event.data),
        amount: event.data.amount,
        orderStatus: later(was.orderStatus, event.type),
      };
    case "PaymentCancelled":
      return { ...was, paymentStatus: later(was.paymentStatus, event.type) };
    case "StoreRejected":
    case "StoreCancelled":
      return { ...was, ...about(event.data), storeStatus: later(was.storeStatus, event.type) };
    case "DeliveryStarted":
    case "DeliveryCompleted":
    case "DeliveryCancelled":
      return {
        ...was,
        ...about(event.data),
        // What is under way has been accepted; the store's later words still count.
        storeStatus: later(was.storeStatus, "StoreAccepted"),
        deliveryId: event.data.id,
        deliveryStatus: later(was.deliveryStatus, event.type),
      };
  }
}

/** A row is shown once the order service has spoken; a payment that was taken back for an aborted order shows nothing. */
export const isVisible = (row: OrderStatus): boolean => row.orderStatus !== null;

export const ORDER_STATUS: Aggregate<OrderStatus, ViewedEvent> = {
  name: "row",
  listed: true,
  view: true,
  evolve,
};

function about({ productId, productName, qty, customerId, customerName, customerAddr }: OrderInfo) {
  return { productId, productName, qty, customerId, customerName, customerAddr };
}

function empty(orderId: number): OrderStatus {
  return {
    orderId,
    productId: null,
    productName: null,
    qty: null,
    customerId: null,
    customerName: null,
    customerAddr: null,
    amount: null,
    orderStatus: null,
    paymentStatus: null,
    storeStatus: null,
    deliveryId: null,
    deliveryStatus: null,
  };
}
