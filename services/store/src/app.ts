import { type EventData, orderInfo } from "#kit/events.js";
import { notFound } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import {
  accept,
  cancel,
  confirmCancel,
  receive,
  reject,
  TICKET,
  type Ticket,
  type TicketEvent,
} from "./domain.js";

/** The use cases of the store. */
export class StoreOrders {
  constructor(
    private readonly records: Records,
    private readonly shop: Shop,
  ) {}

  async orderPlaced(messageId: string, order: EventData<"OrderPlaced">): Promise<void> {
    await this.records.handle(
      TICKET,
      order.orderId,
      { event: messageId },
      (ticket) => receive(ticket, orderInfo(order), this.shop.store),
      { isNew: true },
    );
  }

  async orderCancelled(messageId: string, order: EventData<"OrderCancelled">): Promise<void> {
    await this.records.handle(TICKET, order.orderId, { event: messageId }, (ticket) =>
      cancel(ticket, orderInfo(order), order.reason, this.shop.store),
    );
  }

  accept = (id: number) => this.command(id, (ticket) => accept(ticket, id));
  reject = (id: number, reason: string) => this.command(id, (ticket) => reject(ticket, id, reason));
  confirmCancel = (id: number) => this.command(id, (ticket) => confirmCancel(ticket, id));

  load(id: number): Promise<Ticket | undefined> {
    return this.records.load(TICKET, id);
  }

  page(request: { page: number; size: number }): Promise<Page<Ticket>> {
    return this.records.page(TICKET, request);
  }

  private async command(id: number, decide: (ticket: Ticket | undefined) => TicketEvent[]): Promise<Ticket> {
    const { state } = await this.records.handle(TICKET, id, { command: crypto.randomUUID() }, decide);
    if (state === undefined) throw notFound("storeOrder", id);
    return state;
  }
}
