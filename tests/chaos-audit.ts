/** Looks at a shop after a disaster: from outside, and, once it is stopped, into its stores. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { startServers } from "#dapr/runner.js";
import type { Resolved } from "#dapr/secrets.js";
import { connectRedis } from "#dapr/store-redis.js";
import { messagesOf, type Stream, streamsOf } from "#dapr/store-streams.js";
import { openStore } from "#dapr/stores.js";
import type { EventType } from "#kit/events.js";
import type { Stored } from "#kit/records.js";
import { unpacked } from "#kit/store.js";
import type { Product } from "../services/inventory/src/domain.js";
import type { Card } from "../services/loyalty/src/domain.js";
import type { Message } from "../services/notification/src/domain.js";
import type { Order } from "../services/order/src/domain.js";
import type { Payment } from "../services/payment/src/domain.js";
import type { Dump, Facts } from "./invariants.js";
import type { TestShop } from "./shop.js";

/** What the broker still holds for somebody; undefined where that can't be seen from here. */
export async function waiting(components: readonly Resolved[]): Promise<Stream[] | undefined> {
  const redis = await brokerOf(components);
  if (redis === undefined) return undefined;
  try {
    return (await streamsOf(redis)).filter(
      ({ name, waiting, messages }) => waiting > 0 || (messages > 0 && name.startsWith("dead-letters-")),
    );
  } finally {
    redis.destroy();
  }
}

async function brokerOf(components: readonly Resolved[]) {
  const events = components.find(({ name }) => name === "events");
  return events?.type === "pubsub.redis" ? connectRedis(events) : undefined;
}

/** An item of a list. */
type Item = Record<string, unknown> & { state: string; orderId: number };

/**
 * What the shop's lists say that does not agree, in sentences; [] when all is well. Asked through the gateway.
 * @param facts what people were told
 */
export async function disagreements(
  shop: TestShop,
  { shop: rules, promised, cancelled = [], given = new Map() }: Facts,
): Promise<string[]> {
  const list = (name: string) => shop.all(name) as Promise<Item[]>;
  const [orders, payments, tickets] = [
    await list("orders"),
    await list("payments"),
    await list("storeOrders"),
  ];
  const [rows, messages] = [await list("orderStatuses"), await list("messages")];
  const [products, cards] = [await list("products"), await list("stamps")];
  const unless = (holds: boolean, sentence: string) => (holds ? [] : [sentence]);
  const byId = (items: Item[]) => new Map(items.map((item) => [item.orderId, item]));
  const [paid, kept, viewed] = [byId(payments), byId(tickets), byId(rows)];
  const told = new Set(promised.map(({ orderId }) => orderId));
  const undone = new Set(cancelled);
  const stands = ({ state }: Item) => state !== "OrderCancelled";
  const perOrder = orders.flatMap((order) => {
    const { orderId: id, state } = order;
    const payment = paid.get(id)?.state;
    const view = viewed.get(id);
    return [
      ...unless(told.has(id), `/orders lists ${id}, of which nobody was told`),
      ...unless(!undone.has(id) || !stands(order), `/orders/${id} was cancelled, and is ${state}`),
      ...unless(
        payment === (stands(order) ? "PaymentApproved" : "PaymentCancelled"),
        `/orders/${id} is ${state}, /payments/${id} ${payment}`,
      ),
      ...unless(kept.has(id), `/storeOrders/${id} is not listed`),
      ...unless(
        view?.orderStatus === (stands(order) ? "OrderPlaced" : "OrderCancelled") &&
          view.paymentStatus === payment,
        `/orders/${id} is ${state}, /orderStatuses/${id} ${view?.orderStatus} and ${view?.paymentStatus}`,
      ),
    ];
  });
  const listed = byId(orders);
  const missing = [...told].filter((id) => !listed.has(id)).map((id) => `/orders does not list ${id}`);
  const twice = [orders, payments, tickets, rows].flatMap((items, i) =>
    unless(
      new Set(items.map(({ orderId }) => orderId)).size === items.length,
      `list ${i} has an order twice`,
    ),
  );
  const pieces = (of: Item[]) => of.reduce((sum, { qty }) => sum + Number(qty), 0);
  const shelves = rules.catalogue.flatMap(({ id, stock }) => {
    const sold = pieces(orders.filter((order) => order.productId === id && stands(order)));
    const left = products.find((product) => product.id === id)?.stock;
    return unless(left === stock - sold, `/products/${id} has ${left} left of ${stock}, ${sold} are sold`);
  });
  const stamps = (phone: unknown) =>
    (given.get(String(phone)) ?? 0) +
    pieces(orders.filter((order) => order.phoneNumber === phone && stands(order))) *
      rules.loyalty.stampsPerItem;
  const carded = cards.flatMap(({ phoneNumber, stampQty }) =>
    unless(
      stampQty === stamps(phoneNumber),
      `/stamps/${phoneNumber} has ${stampQty}, ${stamps(phoneNumber)} are due`,
    ),
  );
  const unsent = messages
    .filter(({ state }) => state !== "Sent")
    .map(({ id }) => `/messages/${id} still waits`);
  return [...perOrder, ...missing, ...twice, ...shelves, ...carded, ...unsent];
}

/** What the stores and the broker of a stopped shop hold. */
export interface Remains {
  dump: Dump;
  /** streams that somebody has yet to read, or that should not be there; undefined where the broker is none of Redis */
  left: Stream[] | undefined;
  /** each event that was ever published, once; undefined likewise */
  events: Published[] | undefined;
}

/** Opens everything. @throws StartError if a server does not start */
export async function remainsOf(backend: string, data: string, ports: number): Promise<Remains> {
  const servers = await startServers({ data, ports, backends: [backend] });
  try {
    const [components = []] = servers.backends;
    const dump = new Map<string, ReadonlyMap<string, unknown>>();
    for (const component of components.filter(({ type }) => type.startsWith("state.")))
      dump.set(component.name, await rowsOf(component, data));
    return { dump, left: await waiting(components), events: await eventsOf(components) };
  } finally {
    await servers.stop();
  }
}

async function rowsOf(component: Resolved, data: string): Promise<Map<string, unknown>> {
  const rows = new Map<string, unknown>();
  const store = await openStore(component, data);
  try {
    for await (const { records } of store.read())
      for (const { key, value } of records) {
        const entry = unpacked({ value: JSON.parse(value), etag: "" });
        if (entry !== undefined) rows.set(key, entry.value);
      }
    return rows;
  } finally {
    await store.close();
  }
}

/** An event as it was published. */
export interface Published {
  id: string;
  type: EventType;
  data: Record<string, unknown>;
}

async function eventsOf(components: readonly Resolved[]): Promise<Published[] | undefined> {
  const redis = await brokerOf(components);
  if (redis === undefined) return undefined;
  try {
    const events = new Map<string, Published>();
    for (const { name } of await streamsOf(redis))
      for await (const messages of messagesOf(redis, name))
        for (const { fields } of messages) {
          const event = JSON.parse(fields[fields.indexOf("data") + 1] ?? "") as Published;
          events.set(event.id, event);
        }
    return [...events.values()];
  } finally {
    redis.destroy();
  }
}

/**
 * What is on record as having happened and was never told, or was told and has not happened, in sentences. Events that
 * nobody listens to are among them: only so can their loss be seen.
 * @param events each once
 */
export function untold(dump: Dump, events: readonly Published[], { shop }: Facts): string[] {
  const states = <S>(store: string, kind: string) =>
    [...(dump.get(store) ?? [])].flatMap(([key, value]) => {
      const { state } = key.startsWith(`${kind}:`) ? (value as Stored<S>) : { state: null };
      return state === null ? [] : [[Number(key.slice(kind.length + 1)), state] as const];
    });
  const of = (type: EventType) => events.filter((event) => event.type === type);
  const differences = (type: EventType, field: string, ids: readonly number[]) => {
    const told = new Set(of(type).map(({ data }) => Number(data[field])));
    const happened = new Set(ids);
    return [
      ...ids.filter((id) => !told.has(id)).map((id) => `${type} of ${id} was never published`),
      ...[...told]
        .filter((id) => !happened.has(id))
        .map((id) => `${type} of ${id} was published, and is not so`),
    ];
  };
  const sum = (type: EventType, field: string, value: unknown) =>
    of(type).reduce((sum, { data }) => sum + (data[field] === value ? Number(data.qty) : 0), 0);
  const orders = states<Order>("orders", "order");
  const those = (...statuses: Order["status"][]) =>
    orders.flatMap(([id, { status }]) => (statuses.includes(status) ? [id] : []));
  const paid = states<Payment>("payments", "payment").flatMap(([id, { history }]) =>
    history.map(({ what }) => ({ id, what })),
  );
  const payments = (what: string) => paid.flatMap((one) => (one.what === what ? [one.id] : []));
  const sent = states<Message>("messages", "message").flatMap(([id, { status }]) =>
    status === "Sent" ? [id] : [],
  );
  const stock = states<Product>("inventory", "product").flatMap(([id, product]) => {
    const initial = shop.catalogue.find((one) => one.id === id)?.stock ?? 0;
    const gone = sum("StockDecreased", "productId", id) - sum("StockRestored", "productId", id);
    if (initial - gone === product.stock) return [];
    return [`product ${id} has ${product.stock} of ${initial}; its events tell of ${gone} less`];
  });
  const stamps = states<Card>("stamps", "card").flatMap(([, { phoneNumber, stampQty }]) => {
    const told =
      sum("StampsEarned", "phoneNumber", phoneNumber) - sum("StampsDeducted", "phoneNumber", phoneNumber);
    return told === stampQty ? [] : [`${phoneNumber} has ${stampQty} stamps; events tell of ${told}`];
  });
  return [
    ...differences("OrderPlaced", "orderId", those("OrderPlaced", "OrderDelivered", "OrderCancelled")),
    ...differences("OrderCancelled", "orderId", those("OrderCancelled")),
    ...differences("PaymentApproved", "orderId", payments("PaymentApproved")),
    ...differences("PaymentCancelled", "orderId", payments("PaymentCancelled")),
    ...differences("MessageSent", "messageId", sent),
    ...[...stock, ...stamps],
  ];
}

/** The messages that the channels of embedded and polyglot have taken, one file each: by id, how often they are there. */
export function takenByChannels(data: string, channels: Iterable<string>): Map<number, number> {
  const taken = new Map<number, number>();
  for (const channel of channels)
    for (const file of readdirSync(join(data, "outbox", channel))) {
      const id = Number(/^message-(\d+)\./.exec(file)?.[1]);
      taken.set(id, (taken.get(id) ?? 0) + 1);
    }
  return taken;
}
