import type { EventData, OrderInfo } from "#kit/events.js";
import { failureOf, notFound, Problem } from "#kit/problem.js";
import type { Cause, Hint, Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import type { Sidecar } from "#kit/sidecar.js";
import {
  accept,
  cancel,
  closes,
  completeMaking,
  confirmCancel,
  receive,
  reject,
  startMaking,
  TICKET,
  type Ticket,
  type TicketEvent,
} from "./domain.js";

type Decide = (ticket: Ticket | undefined) => TicketEvent[];

/** The use cases of the store. */
export class StoreOrders {
  constructor(
    private readonly records: Records,
    private readonly sidecar: Sidecar,
    private readonly shop: Shop,
  ) {}

  async orderPaid(messageId: string, order: OrderInfo): Promise<void> {
    const decide: Decide = (ticket) => receive(ticket, order, this.shop);
    try {
      await this.change(order.orderId, { event: messageId }, decide, { isNew: true });
    } catch (error) {
      // Cancelled before it could be accepted: that message leaves the tombstone.
      if (!(error instanceof Problem && error.code === "order-cancelled")) throw error;
    }
  }

  async orderCancelled(messageId: string, order: EventData<"OrderCancelled">): Promise<void> {
    await this.change(order.orderId, { event: messageId }, (ticket) =>
      cancel(ticket, order, order.reason, this.shop),
    );
  }

  accept = (id: number) => this.command(id, (ticket) => accept(ticket, id, this.shop));
  reject = (id: number, reason: string) =>
    this.command(id, (ticket) => reject(ticket, id, reason, this.shop));
  startMaking = (id: number) => this.command(id, (ticket) => startMaking(ticket, id, this.shop));
  completeMaking = (id: number) => this.command(id, (ticket) => completeMaking(ticket, id));
  confirmCancel = (id: number) => this.command(id, (ticket) => confirmCancel(ticket, id));

  load(id: number): Promise<Ticket | undefined> {
    return this.records.load(TICKET, id);
  }

  page(request: { page: number; size: number }): Promise<Page<Ticket>> {
    return this.records.page(TICKET, request);
  }

  async recorded(ids: readonly number[]): Promise<[id: number, Ticket][]> {
    return [...(await this.records.loadMany(TICKET, ids))].map(([id, ticket]) => [Number(id), ticket]);
  }

  private async command(id: number, decide: Decide): Promise<Ticket> {
    const state = await this.change(id, { command: crypto.randomUUID() }, decide);
    if (state === undefined) throw notFound("storeOrder", id);
    return state;
  }

  /** Where a decision closes the order for its customer, the order is asked first, and its word counts. */
  private async change(
    id: number,
    cause: Cause,
    decide: Decide,
    hint: Hint = {},
  ): Promise<Ticket | undefined> {
    const { state } = await this.records.handle(
      TICKET,
      id,
      cause,
      async (ticket) => {
        const events = decide(ticket);
        const stage = closes(events, this.shop);
        if (stage !== undefined) await this.close(id, stage);
        return events;
      },
      hint,
    );
    return state;
  }

  private async close(id: number, by: "acceptance" | "making"): Promise<void> {
    const reply = await this.sidecar.invoke("order", {
      method: "PUT",
      path: `/closings/${id}`,
      body: { by },
    });
    if (reply.status !== 204) throw failureOf(reply, `order ${id}`);
  }
}
