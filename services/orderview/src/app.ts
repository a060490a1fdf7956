import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { type Message, orderData } from "#kit/events.js";
import { fault } from "#kit/faults.js";
import { digest, endOfBlock } from "#kit/ids.js";
import { tryLater } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import { type Entry, type Reply, type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  hearsAcceptance,
  INDEX,
  INDEX_PAGE,
  type Index,
  index,
  isVisible,
  type OnRecord,
  ORDER_STATUS,
  type OrderStatus,
  type Policy,
  type RowEvent,
  rowOf,
  see,
  turnPage,
  type ViewedEvent,
} from "./domain.js";

export { hearsAcceptance };

/** Whose orders: one customer's, or those of a phone number. */
export type Whose = { customerId: string } | { phoneNumber: string };

/** How many rows a search through a customer's orders reads at once. */
const CHUNK = 128;

/** The use cases of the view: it sees, and it shows. */
export class OrderStatuses {
  constructor(private readonly records: Records) {}

  async see<T extends ViewedEvent["type"]>(message: Message<T>): Promise<void> {
    const event = { type: message.type, data: message.data } as ViewedEvent;
    const decide = (row: OrderStatus | undefined) => see(row, event);
    // An order's first word makes its row; the others most likely find it.
    const isNew = event.type === "OrderPlaced";
    if (event.type === "OrderPlaced") {
      for (const key of keysOf(event.data)) await this.remember(key, [event.data.orderId], message.id);
    }
    await this.records.handle(ORDER_STATUS, event.data.orderId, { event: message.id }, decide, { isNew });
  }

  async load(id: number): Promise<OrderStatus | undefined> {
    const row = await this.records.load(ORDER_STATUS, id);
    return row !== undefined && isVisible(row) ? row : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<OrderStatus>> {
    return this.records.page(ORDER_STATUS, { ...request, visible: isVisible });
  }

  /** One page of somebody's orders, newest first, of those that `wanted` wants. */
  async history(
    whose: Whose,
    { page, size }: { page: number; size: number },
    wanted: (row: OrderStatus) => boolean,
  ): Promise<Page<OrderStatus>> {
    const ids = await this.orderIds(keyOf(whose));
    const items: Page<OrderStatus>["items"] = [];
    let total = 0;
    for (let from = 0; from < ids.length; from += CHUNK) {
      const chunk = ids.slice(from, from + CHUNK);
      const rows = await this.records.loadMany(ORDER_STATUS, chunk);
      for (const id of chunk) {
        const state = rows.get(String(id));
        if (state === undefined || !isVisible(state) || !isOf(state, whose) || !wanted(state)) continue;
        if (total >= page * size && items.length < size) items.push({ id, state });
        total++;
      }
    }
    return { items, size, number: page, totalElements: total };
  }

  /** Puts orders on the lists of their customers where they are missing. @returns how many entries were */
  async reindex(orders: readonly Pick<OrderStatus, "orderId" | "customerId" | "phoneNumber">[]) {
    const wanted = new Map<string, number[]>();
    for (const order of orders)
      for (const key of keysOf(order)) wanted.set(key, [...(wanted.get(key) ?? []), order.orderId]);
    const added = [...wanted].map(async ([key, orderIds]) => {
      const known = new Set(await this.orderIds(key));
      const missing = orderIds.filter((id) => !known.has(id));
      if (missing.length > 0) await this.remember(key, missing, `reindex:${crypto.randomUUID()}`);
      return missing.length;
    });
    return (await Promise.all(added)).reduce((sum, count) => sum + count, 0);
  }

  /** Newest first. */
  private async orderIds(key: string): Promise<number[]> {
    const head = await this.records.load(INDEX, key);
    const older = Array.from({ length: head?.pages ?? 0 }, (_, page) => `${key}/${page}`);
    const pages = await this.records.loadMany(INDEX, older);
    const ids = [...pages.values(), ...(head === undefined ? [] : [head])].flatMap(
      ({ orderIds }) => orderIds,
    );
    return [...new Set(ids)].sort((a, b) => b - a);
  }

  /** Adding twice does no harm: what is read is a set. So a repeat that comes after its page was turned may add again. */
  private async remember(key: string, orderIds: readonly number[], cause: string): Promise<void> {
    const { state } = await this.records.handle(INDEX, key, { event: cause }, (was) =>
      orderIds.flatMap((id) => index(was, id)),
    );
    if (state !== undefined && state.orderIds.length >= INDEX_PAGE) await this.turnPage(key, state);
  }

  /** A full page is copied to a key of its own before the head begins a new one. */
  private async turnPage(key: string, { orderIds, pages }: Index): Promise<void> {
    const full = { event: `page:${key}/${pages}` };
    const { state } = await this.records.handle(INDEX, `${key}/${pages}`, full, (was) =>
      was === undefined ? orderIds.flatMap((id) => index(undefined, id)) : [],
    );
    const page = state?.orderIds ?? [];
    await this.records.handle(INDEX, key, { event: `turn:${key}/${pages}` }, (was) =>
      turnPage(was, pages, page),
    );
  }
}

/** What a part of a rebuild has found, and put right. */
export interface Rebuilt {
  /** rows that there have to be */
  rows: number;
  /** of these, those that nobody could see */
  missing: number;
  /** of these, those that said something else than the services; some of them were only late */
  differed: number;
  /** rows that stood for no order; they are gone */
  removed: number;
  /** entries that were missing on the lists of customers and phone numbers */
  unlisted: number;
  /** the highest order id that there may be, so that whoever asks knows where to end */
  last: number;
}

/**
 * Makes the view anew from the services' records, while it is in use. It goes order by order through the protocol: read
 * the row, then ask the services, compute, save with the row's ETag. Since a service speaks of what it has on record
 * already, all that had reached the row is in its answer; what reaches the row meanwhile makes the save fail, and then all
 * is asked again; and what comes later finds a row that is at least as far. So no event is undone, and a row that is
 * right is not touched. All of it may be repeated, from anywhere, by anyone.
 */
export class Rebuild {
  constructor(
    private readonly records: Records,
    private readonly view: OrderStatuses,
    private readonly sidecar: Sidecar,
    private readonly policy: Policy,
  ) {}

  /**
   * @param ids some order ids, ascending and without gaps
   * @throws Problem 503 a service does not answer
   */
  async rows(ids: readonly number[]): Promise<Rebuilt> {
    const [from, to] = [ids.at(0) ?? 1, ids.at(-1) ?? 0];
    // First the rows, then the services; see above.
    const read = await Promise.all(
      ids.map(async (id) => ({ id, entry: await this.records.read(ORDER_STATUS, id) })),
    );
    const { last, records } = await this.ask(from, to);
    const counter = this.records.ids(ORDER_STATUS);
    // The counter may have gone with the store, and whoever has made sure of it before does not look again.
    if (last > 0) await counter.setAside(endOfBlock(last));
    await fault("rebuild", String(from));
    const unlisted = await this.view.reindex([...records.values()].map(({ order }) => order));
    const found = await Promise.all(
      read.map(({ id, entry }) => this.row(id, Promise.resolve(entry), records.get(id))),
    );
    // Another replica may have removed rows that this one has counted.
    this.records.recount(ORDER_STATUS, from, to);
    const count = (what: Found) => found.filter((one) => one === what).length;
    return {
      ...{ rows: records.size, missing: count("missing"), differed: count("differed") },
      ...{ removed: count("removed"), unlisted, last: Math.max(last, await counter.last()) },
    };
  }

  private async row(
    id: number,
    known: Promise<Entry | undefined>,
    asked: OnRecord | undefined,
  ): Promise<Found> {
    let first = true;
    /** What has been asked already counts for the row that was read before; for any other one it is asked again. */
    const onRecord = async () => {
      const on = first ? asked : (await this.ask(id, id)).records.get(id);
      first = false;
      return on;
    };
    if (asked === undefined) {
      const isWrong = async (row: OrderStatus) => isVisible(row) && (await onRecord()) === undefined;
      return (await this.records.remove(ORDER_STATUS, id, isWrong, { known })) ? "removed" : "right";
    }
    let found: Found = "right";
    const decide = async (row: OrderStatus | undefined): Promise<RowEvent[]> => {
      const on = await onRecord();
      const right = on && rowOf(on, row, this.policy);
      if (right === undefined || isDeepStrictEqual(row, right)) return [];
      if (found === "right") found = row === undefined || !isVisible(row) ? "missing" : "differed";
      return [{ type: "RowRebuilt", data: right }];
    };
    const cause = { event: `rebuild:${crypto.randomUUID()}` };
    await this.records.handle(ORDER_STATUS, id, cause, decide, { known });
    return found;
  }

  /** What all services have on record of the orders from one id to another. */
  private async ask(
    from: number,
    to: number,
  ): Promise<{ records: ReadonlyMap<number, OnRecord>; last: number }> {
    const get = async <T extends z.ZodType>(app: string, schema: T): Promise<z.output<T>> => {
      const reply = await this.sidecar
        .invoke(app, { method: "GET", path: `/records?from=${from}&to=${to}` })
        .catch((error): Reply => {
          if (!(error instanceof Unavailable)) throw error;
          return { status: 503, headers: {}, body: undefined };
        });
      // Looked at before it is believed: a sidecar whose other end is cut off half-way may answer 200 with no body.
      const answer = schema.safeParse(reply.body);
      if (reply.status === 200 && answer.success) return answer.data;
      const detail = `The ${app} service does not say what it has on record, so the view cannot be rebuilt now.`;
      throw tryLater("unavailable", detail, 2, { service: app });
    };
    const [ordered, paid, kept, delivered, told] = await Promise.all([
      get("order", orders),
      get("payment", some(state)),
      get("store", some(state)),
      get("delivery", some(state.extend({ startDate: z.string().nullable() }))),
      get("notification", some(message)),
    ]);
    const byId = <T extends { id: number }>(list: readonly T[]) => new Map(list.map((one) => [one.id, one]));
    const [payments, tickets, deliveries] = [byId(paid.records), byId(kept.records), byId(delivered.records)];
    const records = ordered.records.map((order): [number, OnRecord] => [
      order.orderId,
      {
        order,
        payment: payments.get(order.orderId) ?? null,
        ticket: tickets.get(order.orderId) ?? null,
        delivery: deliveries.get(order.orderId) ?? null,
        messages: told.records.filter(({ orderId }) => orderId === order.orderId),
      },
    ]);
    return { records: new Map(records), last: ordered.last };
  }
}

type Found = "right" | "missing" | "differed" | "removed";

const state = z.object({ id: z.number(), state: z.string() });
const some = <T extends z.ZodType>(one: T) => z.object({ records: z.array(one) });
const orders = some(orderData.extend({ state: z.string(), amount: z.number(), paid: z.boolean() })).extend({
  last: z.number(),
});
const message = z.object({
  ...{ orderId: z.number(), messageId: z.number() },
  ...{ event: z.string(), channel: z.string(), text: z.string(), at: z.string() },
});

/** The lists that an order is on. */
const keysOf = ({ customerId, phoneNumber }: Pick<OrderStatus, "customerId" | "phoneNumber">): string[] => [
  ...(customerId === null ? [] : [keyOf({ customerId })]),
  ...(phoneNumber === null ? [] : [keyOf({ phoneNumber })]),
];

/** Whatever people call themselves, a key has only letters, and only so many, that every store takes. */
const keyOf = (whose: Whose): string =>
  "customerId" in whose ? `customer:${digest(whose.customerId)}` : `phone:${digest(whose.phoneNumber)}`;

/** A list may hold more than it should; what the row says counts. */
const isOf = (row: OrderStatus, whose: Whose): boolean =>
  "customerId" in whose ? row.customerId === whose.customerId : row.phoneNumber === whose.phoneNumber;
