/**
 * What "nothing lost, nothing twice" means: every rule that holds between the stores of a shop once it has come to rest,
 * and between them and what its people were told. Pure, over plain data: the simulation asks it about the twin, the tests
 * that kill things ask it about real stores.
 */
import { isDeepStrictEqual } from "node:util";
import type { Letter } from "#kit/dead-letters.js";
import type { EventType } from "#kit/events.js";
import type { Stored } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import type { Delivery, DeliveryStatus } from "../services/delivery/src/domain.js";
import type { Product, Reservation } from "../services/inventory/src/domain.js";
import type { Card, Grant } from "../services/loyalty/src/domain.js";
import { due, type Message, type Notice } from "../services/notification/src/domain.js";
import type { Order } from "../services/order/src/domain.js";
import { isVisible, type OrderStatus, rowOf } from "../services/orderview/src/domain.js";
import type { Payment } from "../services/payment/src/domain.js";
import type { Ticket, TicketStatus } from "../services/store/src/domain.js";

/** What every store holds once all is quiet: by name of the store's component, key → stored value (unpacked). */
export type Dump = ReadonlyMap<string, ReadonlyMap<string, unknown>>;

/** An order that a customer got a 201 for. */
export interface Promised {
  orderId: number;
  /** the request: its Idempotency-Key, or whatever tells one wish of a customer from the next */
  request: string;
  productId: number;
  qty: number;
}

/** What an owner or a courier was told has been done. */
export type Done = "accept" | "start" | "complete" | "reject" | "confirmcancel" | "deliver";

/** What people were told, and what is known of the world outside. What is left out is not looked at. */
export interface Facts {
  shop: Shop;
  promised: readonly Promised[];
  /** whether every customer has asked until there was an answer: then no order may stand that nobody was told of */
  everyoneAnswered?: boolean;
  /** orders whose cancellation was answered with success */
  cancelled?: Iterable<number>;
  /** orders whose payment (by a command of its own) was answered with success */
  paid?: Iterable<number>;
  /** commands on orders that were answered with success */
  done?: readonly { orderId: number; what: Done }[];
  /** stamps given by hand, each answered with success: by phone number, their sum */
  given?: ReadonlyMap<string, number>;
  /** message id → how often an output binding has taken it */
  sent?: ReadonlyMap<number, number>;
  /** orders that the payment gateway outside has charged and not given back */
  charged?: Iterable<number>;
  /** whether so much time has passed (half a minute) that no replica may have anything in its journal any more */
  rested?: boolean;
}

/** Every rule that does not hold, in sentences with the ids; [] when all is well. */
export function violations(dump: Dump, facts: Facts): string[] {
  const books = new Books(dump, facts);
  return [
    ...books.ids().flatMap((id) => ofOrder(books, id)),
    ...promises(books),
    ...stock(books),
    ...stamps(books),
    ...messages(books),
    ...gateway(books),
    ...letters(dump),
    ...(facts.rested === true ? journals(dump) : []),
  ];
}

/** The stores, opened. */
class Books {
  readonly orders: ReadonlyMap<number, Order>;
  readonly payments: ReadonlyMap<number, Payment>;
  readonly tickets: ReadonlyMap<number, Ticket>;
  readonly deliveries: ReadonlyMap<number, Delivery>;
  readonly reservations: ReadonlyMap<number, Reservation>;
  readonly rows: ReadonlyMap<number, OrderStatus>;
  readonly messages: ReadonlyMap<number, Message>;
  readonly notices: ReadonlyMap<number, Notice>;
  readonly products: ReadonlyMap<number, Product>;
  readonly cards: ReadonlyMap<string, Card>;
  readonly grants: ReadonlyMap<string, Grant>;

  constructor(
    dump: Dump,
    readonly facts: Facts,
  ) {
    this.orders = numbered(dump, "orders", "order");
    this.payments = numbered(dump, "payments", "payment");
    this.tickets = numbered(dump, "tickets", "ticket");
    this.deliveries = numbered(dump, "deliveries", "delivery");
    this.reservations = numbered(dump, "inventory", "reservation");
    this.rows = numbered(dump, "orderview", "row");
    this.messages = numbered(dump, "messages", "message");
    this.notices = numbered(dump, "messages", "notice");
    this.products = numbered(dump, "inventory", "product");
    this.cards = named(dump, "stamps", "card");
    this.grants = named(dump, "stamps", "grant");
  }

  get shop(): Shop {
    return this.facts.shop;
  }

  /** Every order that anybody knows something about. */
  ids(): number[] {
    const known = [this.orders, this.payments, this.tickets, this.deliveries, this.reservations, this.rows];
    return [...new Set(known.flatMap((some) => [...some.keys()]))].sort((a, b) => a - b);
  }

  stands(id: number): boolean {
    const status = this.orders.get(id)?.status;
    return status === "OrderPlaced" || status === "OrderDelivered";
  }

  /** The messages of an order that have been sent, as the view shows them. */
  told(orderId: number) {
    return [...this.messages]
      .filter(([, message]) => message.orderId === orderId && message.status === "Sent")
      .map(([messageId, { event, channel, textEn, textKo, sentDate }]) => {
        return {
          messageId,
          event,
          channel,
          text: this.shop.language === "en" ? textEn : textKo,
          at: sentDate ?? "",
        };
      });
  }
}

function named<S>(dump: Dump, store: string, kind: string): Map<string, S> {
  const rows = [...(dump.get(store) ?? [])].filter(([key]) => key.startsWith(`${kind}:`));
  return new Map(
    rows.flatMap(([key, value]) => {
      const { state } = value as Stored<S>;
      return state === null ? [] : [[key.slice(kind.length + 1), state] as const];
    }),
  );
}

const numbered = <S>(dump: Dump, store: string, kind: string): Map<number, S> =>
  new Map([...named<S>(dump, store, kind)].map(([id, state]) => [Number(id), state]));

/** Says `sentence` where a rule does not hold. */
const unless = (holds: boolean, sentence: string): string[] => (holds ? [] : [sentence]);

const isOneOf = (word: string | undefined, ...words: (string | undefined)[]): boolean => words.includes(word);

// --- one order, in every service -----------------------------------------------------------------------------------

function ofOrder(books: Books, id: number): string[] {
  const order = books.orders.get(id);
  switch (order?.status) {
    case undefined:
      return [`order ${id} is nowhere on record, but other services know of it`];
    case "Pending":
      return [`order ${id} is still Pending`];
    case "OrderAborted":
      return givenUp(books, id);
    case "OrderCancelled":
      return [...takenBack(books, id), ...shown(books, id, order)];
    case "OrderPlaced":
    case "OrderDelivered":
      return [...standing(books, id, order), ...shown(books, id, order)];
  }
}

/** Nothing is left of it: no stock, no money, and nobody sees it. */
function givenUp(books: Books, id: number): string[] {
  const payment = books.payments.get(id)?.status;
  const row = books.rows.get(id);
  return [
    ...unless(
      isOneOf(payment, undefined, "PaymentVoided", "PaymentCancelled", "PaymentFailed"),
      `order ${id} was given up, its payment is ${payment}`,
    ),
    ...unless(
      isOneOf(books.reservations.get(id)?.status, undefined, "Released"),
      `order ${id} was given up and still holds stock`,
    ),
    ...unless(!books.tickets.has(id), `order ${id} was given up, and the store knows of it`),
    ...unless(!books.deliveries.has(id), `order ${id} was given up, and the delivery knows of it`),
    ...unless(row === undefined || !isVisible(row), `order ${id} was given up, and the view shows it`),
  ];
}

/** Everybody has taken their part of it back. */
function takenBack(books: Books, id: number): string[] {
  const { shop } = books;
  const payment = books.payments.get(id)?.status;
  const ticket = books.tickets.get(id)?.status;
  const delivery = books.deliveries.get(id)?.status;
  const waits = ticket === "CancelRequested" && shop.store.confirmCancel === "owner";
  return [
    ...unless(
      isOneOf(payment, "PaymentCancelled", "PaymentFailed", "PaymentVoided"),
      `order ${id} is cancelled, its payment is ${payment}`,
    ),
    ...unless(
      books.reservations.get(id)?.status === "Released",
      `order ${id} is cancelled, its stock is ${books.reservations.get(id)?.status}`,
    ),
    ...unless(
      waits || isOneOf(ticket, "StoreCancelled", "StoreRejected"),
      `order ${id} is cancelled, its store order is ${ticket}`,
    ),
    ...unless(
      waits || deliveriesOfCancelled(shop, ticket).includes(delivery),
      `order ${id} is cancelled, its store order is ${ticket}, its delivery is ${delivery}`,
    ),
  ];
}

/** What is delivered before the cancellation reaches it stays delivered. */
function deliveriesOfCancelled(shop: Shop, ticket: TicketStatus | undefined): (DeliveryStatus | undefined)[] {
  if (shop.delivery === "none") return [undefined];
  const hears = ticket !== "StoreRejected" || shop.cancel.shop !== "acceptance";
  return hears ? ["DeliveryCancelled", "DeliveryCompleted"] : [undefined];
}

/** It is paid (or may be), holds its stock, is accepted and delivered as far as it can be. */
function standing(books: Books, id: number, order: Order): string[] {
  const { shop } = books;
  const payment = books.payments.get(id);
  const reservation = books.reservations.get(id);
  const unpaid = !order.paid && shop.payment.when === "later";
  return [
    ...unless(order.paid || unpaid, `order ${id} stands and is not paid`),
    ...unless(
      payment?.status === (order.paid ? "PaymentApproved" : "PaymentRequested"),
      `order ${id} stands, paid: ${order.paid}, and its payment is ${payment?.status}`,
    ),
    ...unless(
      payment?.amount === order.amount,
      `order ${id} costs ${order.amount}, its payment is of ${payment?.amount}`,
    ),
    ...unless(
      !order.paid || payment?.approvalCode === order.approvalCode,
      `order ${id} was approved with ${order.approvalCode}, its payment with ${payment?.approvalCode}`,
    ),
    ...unless(
      reservation?.status === (shop.stock === "reserve" ? "Reserved" : undefined),
      `order ${id} stands, its stock is ${reservation?.status}`,
    ),
    ...unless(
      reservation === undefined ||
        (reservation.qty === order.qty && reservation.productId === order.productId),
      `order ${id} is for ${order.qty} of ${order.productId}, it holds ${reservation?.qty} of ${reservation?.productId}`,
    ),
    ...beingMade(books, id, order),
  ];
}

function beingMade(books: Books, id: number, order: Order): string[] {
  const { shop } = books;
  const ticket = books.tickets.get(id)?.status;
  const delivery = books.deliveries.get(id)?.status;
  const legal = order.paid ? ticketsOf(shop, order) : [undefined];
  const following = ticket === undefined ? undefined : deliveryAfter(shop, ticket);
  const expected = order.status === "OrderDelivered" ? "DeliveryCompleted" : following;
  return [
    ...unless(
      legal.includes(ticket),
      `order ${id} is ${order.status}, paid: ${order.paid}, and its store order is ${ticket}`,
    ),
    ...unless(
      delivery === expected,
      `order ${id} is ${order.status}, its store order is ${ticket}, and its delivery is ${delivery}`,
    ),
  ];
}

function ticketsOf({ store, delivery }: Shop, { status }: Order): (TicketStatus | undefined)[] {
  const made = status === "OrderDelivered" && delivery === "made";
  if (made) return ["MakeCompleted"];
  const waiting: TicketStatus[] = store.accept === "owner" && status === "OrderPlaced" ? ["Received"] : [];
  switch (store.making) {
    case "none":
      return [...waiting, "StoreAccepted"];
    case "acceptance":
      return [...waiting, "MakeStarted", "MakeCompleted"];
    case "owner":
      return [...waiting, "StoreAccepted", "MakeStarted", "MakeCompleted"];
  }
}

function deliveryAfter(shop: Shop, ticket: TicketStatus): DeliveryStatus | undefined {
  if (shop.delivery === "none" || ticket === "Received") return undefined;
  if (shop.delivery === "acceptance" || ticket === "MakeCompleted") return "DeliveryStarted";
  return "DeliveryPrepared";
}

/** The view says what the services say. */
function shown(books: Books, id: number, order: Order): string[] {
  const row = books.rows.get(id);
  if (row === undefined) return [`order ${id} is ${order.status}, and the view has no row of it`];
  const payment = books.payments.get(id);
  const ticket = books.tickets.get(id);
  const delivery = books.deliveries.get(id);
  const on = {
    order: { ...order, state: order.status },
    // A tombstone is nobody's payment.
    payment: payment === undefined || payment.status === "PaymentVoided" ? null : { state: payment.status },
    ticket: ticket === undefined ? null : { state: ticket.status },
    delivery: delivery === undefined ? null : { state: delivery.status, startDate: delivery.startDate },
    messages: books.told(id),
  };
  const right: Record<string, unknown> = { ...rowOf(on, row, books.shop) };
  return Object.entries(row)
    .filter(([field, value]) => !isDeepStrictEqual(value, right[field]))
    .map(
      ([field, value]) =>
        `order ${id}: the view says ${field} is ${JSON.stringify(value)}, the services say ${JSON.stringify(right[field])}`,
    );
}

// --- what people were told -----------------------------------------------------------------------------------------

function promises(books: Books): string[] {
  const { facts, orders, payments, tickets, deliveries } = books;
  const byOrder = grouped(facts.promised, ({ orderId }) => orderId);
  const byRequest = grouped(facts.promised, ({ request }) => request);
  const twice = [...byOrder].flatMap(([id, those]) => {
    const requests = new Set(those.map(({ request }) => request));
    return unless(requests.size === 1, `order ${id} was given to ${requests.size} customers`);
  });
  const repeated = [...byRequest].flatMap(([request, those]) => {
    const given = new Set(those.map(({ orderId }) => orderId));
    return unless(given.size === 1, `request ${request} got several orders: ${[...given].join(", ")}`);
  });
  const kept = [...byOrder].flatMap(([id, [promised]]) => {
    const order = orders.get(id);
    if (order === undefined || order.status === "Pending" || order.status === "OrderAborted")
      return [`order ${id} was promised, and is ${order?.status ?? "not there"}`];
    return unless(
      order.productId === promised?.productId && order.qty === promised.qty,
      `order ${id} is for ${order.qty} of ${order.productId}, promised were ${promised?.qty} of ${promised?.productId}`,
    );
  });
  const untold = [...orders].flatMap(([id, { status }]) =>
    unless(
      facts.everyoneAnswered !== true || !isOneOf(status, "OrderPlaced", "OrderDelivered") || byOrder.has(id),
      `order ${id} stands, and nobody was told of it`,
    ),
  );
  const cancelled = [...new Set(facts.cancelled)].flatMap((id) =>
    unless(
      orders.get(id)?.status === "OrderCancelled",
      `order ${id} was cancelled, and is ${orders.get(id)?.status}`,
    ),
  );
  const paid = [...new Set(facts.paid)].flatMap((id) =>
    unless(
      isOneOf(payments.get(id)?.status, "PaymentApproved", "PaymentCancelled"),
      `order ${id} was paid, and its payment is ${payments.get(id)?.status}`,
    ),
  );
  const done = (facts.done ?? []).flatMap(({ orderId, what }) => {
    const status = what === "deliver" ? deliveries.get(orderId)?.status : tickets.get(orderId)?.status;
    return unless(
      AFTER[what].includes(status ?? ""),
      `${what} of order ${orderId} was done, and it is ${status}`,
    );
  });
  return [...twice, ...repeated, ...kept, ...untold, ...cancelled, ...paid, ...done, ...tooLate(books)];
}

/** What the shop lets its customer stop only until it begins has not both begun and been stopped. */
function tooLate({ facts, shop, tickets }: Books): string[] {
  const until = STAGES.indexOf(shop.cancel.customer);
  const cancelled = new Set(facts.cancelled);
  return (facts.done ?? []).flatMap(({ orderId, what }) => {
    // What the shop itself rejects is taken back whenever it may.
    const rejected = tickets.get(orderId)?.status === "StoreRejected";
    const begun = (BEGINS[what]?.(shop) ?? []).some((stage) => STAGES.indexOf(stage) >= until);
    return unless(
      !begun || rejected || !cancelled.has(orderId),
      `order ${orderId} was cancelled, and ${what} was done, which should have ended that`,
    );
  });
}

const STAGES: Shop["cancel"]["customer"][] = ["acceptance", "making", "delivery", "completion"];

/** What has begun for certain when a command has been done. */
const BEGINS: Partial<Record<Done, (shop: Shop) => Shop["cancel"]["customer"][]>> = {
  accept: ({ store }) => (store.making === "acceptance" ? ["acceptance", "making"] : ["acceptance"]),
  start: () => ["acceptance", "making"],
  complete: () => ["acceptance", "making"],
  deliver: () => ["delivery", "completion"],
};

function grouped<T, K>(list: readonly T[], keyOf: (one: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const one of list) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return groups;
}

/** What can be, once a command was answered with success. */
const AFTER: Record<Done, readonly string[]> = {
  accept: [
    ...["StoreAccepted", "MakeStarted", "MakeCompleted"],
    ...["StoreRejected", "CancelRequested", "StoreCancelled"],
  ],
  start: ["MakeStarted", "MakeCompleted", "StoreRejected", "CancelRequested", "StoreCancelled"],
  complete: ["MakeCompleted", "CancelRequested", "StoreCancelled"],
  reject: ["StoreRejected"],
  confirmcancel: ["StoreCancelled"],
  deliver: ["DeliveryCompleted"],
};

// --- what is counted -----------------------------------------------------------------------------------------------

/** Every piece is in the stock or with an order that stands. */
function stock({ facts: { shop }, products, reservations }: Books): string[] {
  return shop.catalogue.flatMap(({ id, stock: initial }) => {
    const product = products.get(id);
    if (product === undefined) return [`product ${id} is not there`];
    const held = [...reservations.values()].filter(
      (one) => one.productId === id && one.status === "Reserved",
    );
    const pieces = held.reduce((sum, { qty }) => sum + qty, 0);
    const unfinished = Object.entries(product.open).filter(
      ([orderId, { kind }]) =>
        reservations.get(Number(orderId))?.status !== (kind === "reserve" ? "Reserved" : "Released"),
    );
    return [
      ...unless(
        product.stock === initial - pieces,
        `product ${id} has ${product.stock} in stock; of ${initial}, orders hold ${pieces}`,
      ),
      ...unless(
        product.sold === held.length,
        `product ${id} was sold ${product.sold} times, ${held.length} orders hold some of it`,
      ),
      ...unfinished.map(
        ([orderId, { kind }]) => `product ${id}: the ${kind} of order ${orderId} was never finished`,
      ),
    ];
  });
}

/** Every paid item has its stamps on its card, nothing else has. */
function stamps({ facts: { shop, given = new Map() }, payments, cards, grants }: Books): string[] {
  const earned = new Map<string, number>(given);
  for (const { status, phoneNumber, qty } of payments.values()) {
    if (status !== "PaymentApproved" || phoneNumber === null) continue;
    earned.set(phoneNumber, (earned.get(phoneNumber) ?? 0) + qty * shop.loyalty.stampsPerItem);
  }
  const phones = new Set([...earned.keys(), ...[...cards.values()].map(({ phoneNumber }) => phoneNumber)]);
  const counted = [...phones].flatMap((phone) => {
    const card = cards.get(`tel:${phone}`);
    const due = earned.get(phone) ?? 0;
    return unless(
      (card?.stampQty ?? 0) === due,
      `${phone} has earned ${due} stamps, and its card has ${card?.stampQty ?? "never been opened"}`,
    );
  });
  const unfinished = [...grants].flatMap(([id, { status }]) =>
    unless(status === "Earned" || status === "Deducted", `the stamps of ${id} are still ${status}`),
  );
  return [...counted, ...unfinished];
}

// --- messages ------------------------------------------------------------------------------------------------------

/** What the shop wants said is said, each thing by one message, and nothing that has not happened. */
function messages(books: Books): string[] {
  const { facts, shop, notices, orders } = books;
  const perOrder = [...orders.keys()].flatMap((id) => {
    const told = notices.get(id)?.messages ?? {};
    return [...happened(books, id)].flatMap(([event, was]) =>
      due(event, shop).flatMap(({ key }) => {
        if (was) return unless(told[key] !== undefined, `order ${id}: nobody was told of ${key}`);
        return unless(told[key] === undefined, `order ${id}: ${key} was told, and has not happened`);
      }),
    );
  });
  const numbers = [...notices.values()].flatMap((notice) => Object.values(notice.messages));
  const numbersTwice = unless(new Set(numbers).size === numbers.length, "two messages have the same number");
  const each = numbers.flatMap((id) => {
    const status = books.messages.get(id)?.status;
    if (status !== "Sent") return [`message ${id} is ${status ?? "not there"}`];
    return unless(
      facts.sent === undefined || (facts.sent.get(id) ?? 0) > 0,
      `message ${id} is on record as sent, and its channel has never had it`,
    );
  });
  const strangers = [...books.messages.keys()].filter((id) => !numbers.includes(id));
  return [...perOrder, ...numbersTwice, ...each, ...strangers.map((id) => `message ${id} is of no order`)];
}

/** Events of an order of which its records tell for certain whether they happened. */
function happened(books: Books, id: number): Map<EventType, boolean> {
  const order = books.orders.get(id);
  const payment = books.payments.get(id);
  const ticket = books.tickets.get(id)?.status;
  const delivery = books.deliveries.get(id);
  const placed = books.stands(id) || order?.status === "OrderCancelled";
  return new Map<EventType, boolean>([
    ["OrderPlaced", placed],
    ["OrderPaid", placed && order?.paid === true],
    ["OrderCancelled", order?.status === "OrderCancelled"],
    ["PaymentApproved", payment?.history.some(({ what }) => what === "PaymentApproved") ?? false],
    ["PaymentCancelled", payment?.status === "PaymentCancelled"],
    ["StoreRejected", ticket === "StoreRejected"],
    ["StoreCancelled", ticket === "StoreCancelled"],
    ["DeliveryStarted", delivery !== undefined && delivery.startDate !== null],
    ["DeliveryCompleted", delivery?.status === "DeliveryCompleted"],
    ["DeliveryCancelled", delivery?.status === "DeliveryCancelled"],
  ]);
}

// --- outside, and behind -------------------------------------------------------------------------------------------

/** Who has paid by card is charged, and nobody else. */
function gateway({ facts, payments, orders }: Books): string[] {
  if (facts.charged === undefined) return [];
  const charged = new Set(facts.charged);
  return [...new Set([...payments.keys(), ...orders.keys(), ...charged])].flatMap((id) => {
    const payment = payments.get(id);
    const byCard = payment?.status === "PaymentApproved" && payment.method === "card";
    if (byCard === charged.has(id)) return [];
    return byCard
      ? [`order ${id} is paid by card, and nobody was charged`]
      : [`order ${id} is charged, and its payment is ${payment?.status} (${payment?.method})`];
  });
}

/** No message had to be set aside: nobody sends odd ones. */
function letters(dump: Dump): string[] {
  return [...dump].flatMap(([store, rows]) =>
    [...rows].flatMap(([key, value]) => {
      const letter = key.startsWith("deadletter:") ? (value as Stored<Letter>).state : null;
      return unless(
        letter === null,
        `${store}: a message of ${letter?.topic} was set aside: ${JSON.stringify(letter?.reason)}`,
      );
    }),
  );
}

/**
 * Nobody has anything left to do. (A journal of nobody on the roster may be left: its first write came later than the death
 * of its writer, and names nothing that was begun.)
 */
function journals(dump: Dump): string[] {
  return [...dump].flatMap(([store, rows]) => {
    const roster = (rows.get("replicas") as { slots?: Record<string, string> } | undefined)?.slots ?? {};
    return Object.keys(roster).flatMap((replica) => {
      const { tokens = [] } = (rows.get(`journal:${replica}`) ?? {}) as { tokens?: string[] };
      return unless(
        tokens.length === 0,
        `${store}: the journal of ${replica} still names ${tokens.join(", ")}`,
      );
    });
  });
}
