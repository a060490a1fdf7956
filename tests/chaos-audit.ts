/** Looks at a shop after a disaster: from outside, and, once it is stopped, into its stores. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { startServers } from "#dapr/runner.js";
import type { Resolved } from "#dapr/secrets.js";
import { connectRedis } from "#dapr/store-redis.js";
import { type Stream, streamsOf } from "#dapr/store-streams.js";
import { openStore } from "#dapr/stores.js";
import { unpacked } from "#kit/store.js";
import type { Dump, Facts } from "./invariants.js";
import type { TestShop } from "./shop.js";

/** What the broker still holds for somebody; undefined where that can't be seen from here. */
export async function waiting(components: readonly Resolved[]): Promise<Stream[] | undefined> {
  const events = components.find(({ name }) => name === "events");
  if (events?.type !== "pubsub.redis") return undefined;
  const redis = await connectRedis(events);
  try {
    return (await streamsOf(redis)).filter((one) => one.waiting > 0 || one.name.startsWith("dead-letters-"));
  } finally {
    redis.destroy();
  }
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

/** Reads all that the stores of a stopped shop hold, and what its broker has left. */
export async function dumpOf(
  backend: string,
  data: string,
  ports: number,
): Promise<{ dump: Dump; left: Stream[] | undefined }> {
  const servers = await startServers({ data, ports, backends: [backend] });
  try {
    const [components = []] = servers.backends;
    const dump = new Map<string, ReadonlyMap<string, unknown>>();
    for (const component of components.filter(({ type }) => type.startsWith("state."))) {
      const store = await openStore(component, data);
      const rows = new Map<string, unknown>();
      try {
        for await (const { records } of store.read())
          for (const { key, value } of records) {
            const entry = unpacked({ value: JSON.parse(value), etag: "" });
            if (entry !== undefined) rows.set(key, entry.value);
          }
      } finally {
        await store.close();
      }
      dump.set(component.name, rows);
    }
    return { dump, left: await waiting(components) };
  } finally {
    await servers.stop();
  }
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
