import { z } from "zod";

/**
 * Every event that services tell each other, declared once: its name is its CloudEvent type and its topic, its schema
 * is what producers may send (by type) and what consumers accept (at run time; anything else is poison).
 */

const orderId = z.number().int().positive();
const text = z.string().nullable();
/** Money is integer minor units. */
const money = z.number().int().nonnegative();
/** `timestamp` (yyyyMMddHHmmss, local time) and `eventType` are the seeds'; kit adds them. */
const stamp = { eventType: z.string().optional(), timestamp: z.string().optional() };

/** What an order is about; carried along so that no reader calls back. */
const order = {
  orderId,
  productId: z.number().int().positive(),
  productName: z.string(),
  qty: z.number().int().positive(),
  customerId: text,
  customerName: text,
  customerAddr: text,
};
const priced = { price: money, amount: money };
const payment = { orderId, id: orderId, amount: money, approvalCode: z.string().nullable() };
const stock = { orderId, productId: order.productId, qty: order.qty, stock: z.number().int() };
const product = {
  id: order.productId,
  name: z.string(),
  price: money,
  stock: z.number().int(),
  imageUrl: z.string(),
  options: z.array(z.object({ name: z.string(), description: z.string() })),
};
const delivery = { ...order, id: orderId, deliveryStatus: z.string() };

/** Declares one event with its fields. */
const event = <T extends z.ZodRawShape>(shape: T) => z.object({ ...shape, ...stamp });

export const catalogue = {
  // order
  OrderPlaced: event({
    ...order,
    ...priced,
    id: orderId,
    paymentId: orderId,
    approvalCode: z.string().nullable(),
  }),
  OrderPaid: event({
    ...order,
    ...priced,
    id: orderId,
    paymentId: orderId,
    approvalCode: z.string().nullable(),
  }),
  OrderCancelled: event({ ...order, ...priced, id: orderId, reason: z.string() }),
  OrderAborted: event({ ...order, id: orderId, reason: z.string() }),
  // payment
  PaymentApproved: event({ ...payment, method: z.string() }),
  PaymentFailed: event({ ...payment, reason: z.string() }),
  PaymentCancelled: event({ ...payment, reason: z.string() }),
  // inventory
  ProductRegistered: event(product),
  ProductChanged: event(product),
  ProductRemoved: event(product),
  StockDecreased: event(stock),
  StockRestored: event(stock),
  // store
  StoreAccepted: event({ ...order, id: orderId }),
  StoreRejected: event({ ...order, id: orderId, reason: z.string() }),
  StoreCancelled: event({ ...order, id: orderId, reason: z.string() }),
  // delivery
  DeliveryStarted: event(delivery),
  DeliveryCompleted: event(delivery),
  DeliveryCancelled: event(delivery),
} as const;

export type EventType = keyof typeof catalogue;

/** The data of an event, by its name. */
export type EventData<T extends EventType> = z.infer<(typeof catalogue)[T]>;

/** An event as the domain writes it, and as a handler reads it. */
export type Event<T extends EventType> = { [K in T]: { type: K; data: EventData<K> } }[T];

/** Whether an event is for others to know. Those that are not in the catalogue stay inside their record. */
export function isPublic(type: string): type is EventType {
  return Object.hasOwn(catalogue, type);
}

/** The part of an order that travels in every event about it. */
export type OrderInfo = Pick<
  EventData<"OrderPlaced">,
  "orderId" | "productId" | "productName" | "qty" | "customerId" | "customerName" | "customerAddr"
>;

/** Picks {@link OrderInfo} out of anything that carries it. */
export function orderInfo(from: OrderInfo): OrderInfo {
  const { orderId, productId, productName, qty, customerId, customerName, customerAddr } = from;
  return { orderId, productId, productName, qty, customerId, customerName, customerAddr };
}

/** A message as a handler gets it: validated, and with the id that makes a repeat recognisable. */
export interface Message<T extends EventType> {
  id: string;
  type: T;
  data: EventData<T>;
}

/** Which event leads to which use case. */
export interface Subscription {
  topic: EventType;
  handle(message: Message<EventType>): Promise<unknown>;
}

/** Subscribes to one event. */
export function on<T extends EventType>(
  topic: T,
  handle: (message: Message<T>) => Promise<unknown>,
): Subscription {
  return { topic, handle: handle as unknown as Subscription["handle"] };
}
