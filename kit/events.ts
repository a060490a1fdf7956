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
  phoneNumber: text.default(null),
  /** the branch that it was ordered at */
  storeId: text.default(null),
  /** a wish of the customer's */
  note: text.default(null),
  /** how it is paid */
  method: z.enum(["card", "cash"]).default("card"),
  /** ISO 8601 */
  orderDate: z.string().default(""),
};
/** When it happened, ISO 8601. */
const at = z.string().default("");
const priced = { price: money, amount: money };
const payment = { ...order, id: orderId, amount: money, approvalCode: z.string().nullable(), at };
const stock = { orderId, productId: order.productId, qty: order.qty, stock: z.number().int() };
const product = {
  id: order.productId,
  name: z.string(),
  spec: z.string().default(""),
  price: money,
  stock: z.number().int(),
  imageUrl: z.string(),
  options: z.array(z.object({ name: z.string(), description: z.string() })),
};
const delivery = { ...order, id: orderId, deliveryStatus: z.string(), at };
const placed = {
  ...order,
  ...priced,
  id: orderId,
  paymentId: orderId,
  approvalCode: z.string().nullable(),
};
const stamps = {
  /** null where they were given by hand */
  orderId: orderId.nullable(),
  phoneNumber: z.string(),
  qty: z.number().int().positive(),
  /** on the card afterwards */
  stampQty: z.number().int(),
};

/** Declares one event with its fields. */
const event = <T extends z.ZodRawShape>(shape: T) => z.object({ ...shape, ...stamp });

export const catalogue = {
  // order
  /** `paid`: whether its payment is approved already; else OrderPaid follows when it is */
  OrderPlaced: event({ ...placed, paid: z.boolean().default(true) }),
  OrderPaid: event(placed),
  OrderCancelled: event({ ...order, ...priced, id: orderId, reason: z.string(), at }),
  OrderAborted: event({ ...order, id: orderId, reason: z.string() }),
  // payment
  PaymentApproved: event(payment),
  PaymentFailed: event({ ...payment, reason: z.string() }),
  /** `refunded`: 0 where nothing had been paid yet */
  PaymentCancelled: event({ ...payment, refunded: money.default(0), reason: z.string() }),
  // inventory
  ProductRegistered: event(product),
  ProductChanged: event(product),
  ProductRemoved: event(product),
  StockDecreased: event(stock),
  StockRestored: event(stock),
  // store
  StoreAccepted: event({ ...order, id: orderId }),
  StoreRejected: event({ ...order, id: orderId, reason: z.string() }),
  MakeStarted: event({ ...order, id: orderId }),
  MakeCompleted: event({ ...order, id: orderId }),
  StoreCancelled: event({ ...order, id: orderId, reason: z.string() }),
  // delivery
  DeliveryStarted: event(delivery),
  DeliveryCompleted: event(delivery),
  DeliveryCancelled: event(delivery),
  // loyalty
  StampsEarned: event(stamps),
  StampsDeducted: event(stamps),
  // notification
  MessageSent: event({
    orderId,
    messageId: orderId,
    /** the event that it tells of */
    event: z.string(),
    channel: z.string(),
    text: z.string(),
    at,
  }),
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
export const orderData = z.object(order);
export type OrderInfo = z.infer<typeof orderData>;

/** Picks {@link OrderInfo} out of anything that carries it. */
export function orderInfo(from: OrderInfo): OrderInfo {
  const { orderId, productId, productName, qty, customerId, customerName, customerAddr } = from;
  const { phoneNumber, storeId, note, method, orderDate } = from;
  return {
    ...{ orderId, productId, productName, qty, customerId, customerName, customerAddr },
    ...{ phoneNumber, storeId, note, method, orderDate },
  };
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
