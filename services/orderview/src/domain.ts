import { type Event, type EventData, type OrderInfo, orderInfo } from "#kit/events.js";
import type { Aggregate } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";

/** A message that the customer was sent about the order. */
export type SentMessage = Pick<EventData<"MessageSent">, "messageId" | "event" | "channel" | "text" | "at">;

type Maybe<T> = { [K in keyof T]: T[K] | null };

/** One row per order: what order, payment, store and delivery have said, in one query (CQRS). */
export interface OrderStatus extends Maybe<Omit<OrderInfo, "orderId">> {
  orderId: number;
  amount: number | null;
  orderStatus: string | null;
  paymentStatus: string | null;
  storeStatus: string | null;
  deliveryId: number | null;
  deliveryStatus: string | null;
  messages: SentMessage[];
}

/** The view listens to the others' events, and its row evolves with them as they are. */
export type ViewedEvent = Event<
  | "OrderPlaced"
  | "OrderPaid"
  | "OrderCancelled"
  | "PaymentFailed"
  | "PaymentCancelled"
  | "StoreAccepted"
  | "StoreRejected"
  | "MakeStarted"
  | "MakeCompleted"
  | "StoreCancelled"
  | "DeliveryStarted"
  | "DeliveryCompleted"
  | "DeliveryCancelled"
  | "MessageSent"
>;

export type RowEvent =
  | ViewedEvent
  /** its services have been asked, and this is what it has to be */
  | { type: "RowRebuilt"; data: OrderStatus };

/**
 * Events of different services arrive in any order. Each column only moves forward in this list, so the row is the
 * same whatever the order.
 */
const RANK: Record<string, number> = {
  OrderPlaced: 1,
  OrderCancelled: 2,
  PaymentRequested: 1,
  PaymentApproved: 2,
  PaymentFailed: 3,
  PaymentCancelled: 3,
  StoreAccepted: 1,
  MakeStarted: 2,
  MakeCompleted: 3,
  StoreRejected: 4,
  StoreCancelled: 4,
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

export function evolve(row: OrderStatus | undefined, event: RowEvent): OrderStatus {
  if (event.type === "RowRebuilt") return event.data;
  const was = row ?? empty(event.data.orderId);
  switch (event.type) {
    case "OrderPlaced":
      return {
        ...was,
        ...orderInfo(event.data),
        // It may have been paid in another way than was ordered; whoever has spoken before knows.
        method: was.method ?? event.data.method,
        amount: event.data.amount,
        orderStatus: later(was.orderStatus, event.type),
        paymentStatus: later(was.paymentStatus, event.data.paid ? "PaymentApproved" : "PaymentRequested"),
      };
    case "OrderPaid":
      return {
        ...was,
        ...orderInfo(event.data),
        amount: event.data.amount,
        paymentStatus: later(was.paymentStatus, "PaymentApproved"),
      };
    case "OrderCancelled":
      return {
        ...was,
        ...orderInfo(event.data),
        amount: event.data.amount,
        orderStatus: later(was.orderStatus, event.type),
      };
    case "PaymentFailed":
    case "PaymentCancelled":
      return { ...was, paymentStatus: later(was.paymentStatus, event.type) };
    case "StoreAccepted":
    case "StoreRejected":
    case "MakeStarted":
    case "MakeCompleted":
    case "StoreCancelled":
      return { ...was, ...orderInfo(event.data), storeStatus: later(was.storeStatus, event.type) };
    case "DeliveryStarted":
    case "DeliveryCompleted":
      return {
        ...was,
        ...orderInfo(event.data),
        // What is under way has been accepted; the store's later words still count.
        storeStatus: later(was.storeStatus, "StoreAccepted"),
        deliveryId: event.data.id,
        deliveryStatus: later(was.deliveryStatus, event.type),
      };
    case "DeliveryCancelled":
      // Cancelled before it began, it is no delivery that anybody has seen: it gets no deliveryId here.
      return {
        ...was,
        ...orderInfo(event.data),
        deliveryStatus: later(was.deliveryStatus, event.type),
      };
    case "MessageSent": {
      const { messageId, event: about, channel, text, at } = event.data;
      if (was.messages.some((one) => one.messageId === messageId)) return was;
      const messages = [...was.messages, { messageId, event: about, channel, text, at }];
      return { ...was, messages: messages.sort((a, b) => a.messageId - b.messageId) };
    }
  }
}

/** What the services have on record about one order, as far as its row shows it; null where they know nothing of it. */
export interface OnRecord {
  order: OrderInfo & { state: string; amount: number; paid: boolean };
  payment: { state: string } | null;
  ticket: { state: string } | null;
  delivery: { state: string; startDate: string | null } | null;
  /** those that were sent */
  messages: readonly SentMessage[];
}

/** What a shop file says about what the view hears. */
export type Policy = Pick<Shop, "store" | "delivery">;

/** Where the delivery starts with the acceptance, or the making does, that event says as much. */
export const hearsAcceptance = ({ store, delivery }: Policy): boolean =>
  delivery !== "acceptance" && store.making !== "acceptance";

/**
 * The row of an order from its records: the same as its events have made, once all of them have arrived.
 * @param was the row as it is. It is believed in one thing only, {@link beforeCancelling}.
 */
export function rowOf(on: OnRecord, was: OrderStatus | undefined, policy: Policy): OrderStatus {
  const { order, payment, ticket, delivery } = on;
  const hasStarted = delivery !== null && delivery.startDate !== null;
  const store = ticket === null ? null : storeStatusOf(ticket.state, hasStarted, was, policy);
  const messages = on.messages.map(({ messageId, event, channel, text, at }) => {
    return { messageId, event, channel, text, at };
  });
  return {
    ...orderInfo(order),
    amount: order.amount,
    orderStatus: order.state === "OrderCancelled" ? order.state : "OrderPlaced",
    paymentStatus: paymentStatusOf(order.paid, payment?.state),
    storeStatus: hasStarted ? later(store, "StoreAccepted") : store,
    deliveryId: hasStarted ? order.orderId : null,
    // What is only prepared is nobody else's business.
    deliveryStatus: delivery === null || delivery.state === "DeliveryPrepared" ? null : delivery.state,
    messages: messages.sort((a, b) => a.messageId - b.messageId),
  };
}

/** The order says whether it was paid; the payment, how it ended. */
function paymentStatusOf(paid: boolean, state: string | undefined): string {
  if (state === "PaymentFailed" || state === "PaymentCancelled") return state;
  return paid ? "PaymentApproved" : "PaymentRequested";
}

function storeStatusOf(
  state: string,
  hasStarted: boolean,
  was: OrderStatus | undefined,
  policy: Policy,
): string | null {
  switch (state) {
    case "Received":
      return null;
    case "StoreAccepted":
      return hearsAcceptance(policy) ? state : null;
    case "CancelRequested":
      return beforeCancelling(hasStarted, was?.storeStatus ?? null, policy);
    default:
      return state;
  }
}

/** How far the store had come when it was asked to cancel: its ticket has forgotten that until the owner confirms. */
function beforeCancelling(hasStarted: boolean, was: string | null, policy: Policy): string | null {
  const { making } = policy.store;
  if (making === "none") return hearsAcceptance(policy) ? "StoreAccepted" : null;
  // What is delivered once it is made has been made if it is under way.
  if (hasStarted && policy.delivery === "made") return "MakeCompleted";
  const least = making === "acceptance" ? "MakeStarted" : hearsAcceptance(policy) ? "StoreAccepted" : null;
  const mayBe = was === "StoreAccepted" || was === "MakeStarted" || was === "MakeCompleted";
  return mayBe ? (least === null ? was : later(least, was)) : least;
}

/** The last thing that has happened to an order, in one word. */
export function progress(row: OrderStatus): string | null {
  const { orderStatus, paymentStatus, storeStatus, deliveryStatus } = row;
  if (orderStatus === "OrderCancelled" || storeStatus === "StoreRejected") {
    if (deliveryStatus === "DeliveryCancelled" && row.deliveryId !== null) return deliveryStatus;
    if (paymentStatus === "PaymentCancelled" || paymentStatus === "PaymentFailed") return paymentStatus;
    return storeStatus === "StoreRejected" ? storeStatus : orderStatus;
  }
  if (deliveryStatus !== null) return deliveryStatus;
  if (storeStatus !== null) return storeStatus;
  return paymentStatus === "PaymentApproved" ? "OrderPaid" : orderStatus;
}

/** A row is shown once the order service has spoken; a payment that was taken back for an aborted order shows nothing. */
export const isVisible = (row: OrderStatus): boolean => row.orderStatus !== null;

export const ORDER_STATUS: Aggregate<OrderStatus, RowEvent> = {
  name: "row",
  listed: true,
  view: true,
  evolve,
};

/** How many orders one page of a customer's index holds. */
export const INDEX_PAGE = 200;

/** The orders of one customer, or of one phone number: the newest ones, and where the older ones are. */
export interface Index {
  orderIds: number[];
  /** full pages before this one, under keys of their own */
  pages: number;
}

export type IndexEvent =
  | { type: "OrderIndexed"; data: { orderId: number } }
  /** the page is on record under a key of its own, and a new one begins */
  | { type: "PageTurned"; data: { pages: number; kept: number[] } };

export const index = (was: Index | undefined, orderId: number): IndexEvent[] =>
  was?.orderIds.includes(orderId) ? [] : [{ type: "OrderIndexed", data: { orderId } }];

/** @param page what is on the page by now: others may have gone on writing on the head meanwhile */
export const turnPage = (was: Index | undefined, pages: number, page: readonly number[]): IndexEvent[] =>
  was !== undefined && was.pages === pages && was.orderIds.length >= INDEX_PAGE
    ? [
        {
          type: "PageTurned",
          data: { pages: pages + 1, kept: was.orderIds.filter((id) => !page.includes(id)) },
        },
      ]
    : [];

export function evolveIndex(was: Index | undefined, event: IndexEvent): Index {
  const index = was ?? { orderIds: [], pages: 0 };
  switch (event.type) {
    case "OrderIndexed":
      return { ...index, orderIds: [...index.orderIds, event.data.orderId] };
    case "PageTurned":
      return { orderIds: event.data.kept, pages: event.data.pages };
  }
}

export const INDEX: Aggregate<Index, IndexEvent> = {
  name: "index",
  listed: false,
  view: true,
  evolve: evolveIndex,
};

function empty(orderId: number): OrderStatus {
  return {
    ...{ orderId, productId: null, productName: null, qty: null },
    ...{ customerId: null, customerName: null, customerAddr: null, phoneNumber: null },
    ...{ storeId: null, note: null, method: null, orderDate: null, amount: null },
    ...{ orderStatus: null, paymentStatus: null, storeStatus: null, deliveryId: null, deliveryStatus: null },
    messages: [],
  };
}
