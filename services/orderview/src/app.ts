import type { Message } from "#kit/events.js";
import { digest } from "#kit/ids.js";
import type { Page, Records } from "#kit/records.js";
import {
  INDEX,
  INDEX_PAGE,
  type Index,
  index,
  isVisible,
  ORDER_STATUS,
  type OrderStatus,
  see,
  turnPage,
  type ViewedEvent,
} from "./domain.js";

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
      const { orderId, customerId, phoneNumber } = event.data;
      if (customerId !== null) await this.remember({ customerId }, orderId, message.id);
      if (phoneNumber !== null) await this.remember({ phoneNumber }, orderId, message.id);
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
    const ids = await this.orderIds(whose);
    const items: Page<OrderStatus>["items"] = [];
    let total = 0;
    for (let from = 0; from < ids.length; from += CHUNK) {
      const chunk = ids.slice(from, from + CHUNK);
      const rows = await this.records.loadMany(ORDER_STATUS, chunk);
      for (const id of chunk) {
        const state = rows.get(String(id));
        if (state === undefined || !isVisible(state) || !wanted(state)) continue;
        if (total >= page * size && items.length < size) items.push({ id, state });
        total++;
      }
    }
    return { items, size, number: page, totalElements: total };
  }

  /** Newest first. */
  private async orderIds(whose: Whose): Promise<number[]> {
    const key = keyOf(whose);
    const head = await this.records.load(INDEX, key);
    const older = Array.from({ length: head?.pages ?? 0 }, (_, page) => `${key}/${page}`);
    const pages = await this.records.loadMany(INDEX, older);
    const ids = [...pages.values(), ...(head === undefined ? [] : [head])].flatMap(
      ({ orderIds }) => orderIds,
    );
    return [...new Set(ids)].sort((a, b) => b - a);
  }

  /** Adding twice does no harm: what is read is a set. So a repeat that comes after its page was turned may add again. */
  private async remember(whose: Whose, orderId: number, messageId: string): Promise<void> {
    const key = keyOf(whose);
    const cause = { event: messageId };
    const { state } = await this.records.handle(INDEX, key, cause, (was) => index(was, orderId));
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

/** Whatever people call themselves, a key has only letters, and only so many, that every store takes. */
const keyOf = (whose: Whose): string =>
  "customerId" in whose ? `customer:${digest(whose.customerId)}` : `phone:${digest(whose.phoneNumber)}`;
