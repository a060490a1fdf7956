import type { OrderInfo } from "#kit/events.js";
import { conflict, failureOf, notFound } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import type { Sidecar } from "#kit/sidecar.js";
import { cancel, complete, DELIVERY, type Delivery, prepare, start } from "./domain.js";

/** The use cases of delivery. */
export class Deliveries {
  constructor(
    private readonly records: Records,
    private readonly sidecar: Sidecar,
    private readonly shop: Shop,
    private readonly now: () => Date,
  ) {}

  /** What is ordered is being made; its delivery follows. */
  async prepare(messageId: string, order: OrderInfo): Promise<void> {
    const decide = (delivery: Delivery | undefined) => prepare(delivery, order);
    await this.records.handle(DELIVERY, order.orderId, { event: messageId }, decide, { isNew: true });
  }

  async start(messageId: string, order: OrderInfo): Promise<void> {
    const decide = async (delivery: Delivery | undefined) => {
      const events = start(delivery, order, this.at());
      // Where this is what the customer can no longer stop, the order is asked first, and its word counts.
      const closes = events.length > 0 && this.shop.cancel.customer === "delivery";
      return !closes || (await this.close(order.orderId, "delivery")) ? events : [];
    };
    const isNew = this.shop.delivery === "acceptance"; // else it has been prepared
    await this.records.handle(DELIVERY, order.orderId, { event: messageId }, decide, { isNew });
  }

  async cancel(messageId: string, order: OrderInfo): Promise<void> {
    await this.records.handle(DELIVERY, order.orderId, { event: messageId }, (delivery) =>
      cancel(delivery, order, this.at()),
    );
  }

  /** The goods have arrived. @throws Problem 404, 409 when cancelled or not started, 503 where the order cannot be asked */
  async complete(id: number): Promise<Delivery> {
    const cause = { command: crypto.randomUUID() };
    const { state } = await this.records.handle(DELIVERY, id, cause, async (delivery) => {
      const events = complete(delivery, id, this.at());
      // Or the customer would have goods and money, who cancels in the same moment.
      const closes = events.length > 0 && this.shop.cancel.customer === "completion";
      if (closes && !(await this.close(id, "completion")))
        throw conflict("order-cancelled", `Order ${id} was cancelled.`);
      return events;
    });
    if (state === undefined) throw notFound("delivery", id);
    return state;
  }

  load(id: number): Promise<Delivery | undefined> {
    return this.records.load(DELIVERY, id);
  }

  page(request: { page: number; size: number }): Promise<Page<Delivery>> {
    return this.records.page(DELIVERY, request);
  }

  async recorded(ids: readonly number[]): Promise<[id: number, Delivery][]> {
    return [...(await this.records.loadMany(DELIVERY, ids))].map(([id, delivery]) => [Number(id), delivery]);
  }

  /** Answers whether the delivery may begin, or be completed; it may not once the customer has cancelled. */
  private async close(id: number, by: "delivery" | "completion"): Promise<boolean> {
    const body = { by };
    const reply = await this.sidecar.invoke("order", { method: "PUT", path: `/closings/${id}`, body });
    if (reply.status === 204) return true;
    if (reply.status === 409) return false;
    throw failureOf(reply, `order ${id}`);
  }

  private at(): string {
    return this.now().toISOString();
  }
}
