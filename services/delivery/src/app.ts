import type { OrderInfo } from "#kit/events.js";
import { notFound } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import { cancel, complete, DELIVERY, type Delivery, start } from "./domain.js";

/** The use cases of delivery. */
export class Deliveries {
  constructor(private readonly records: Records) {}

  async start(messageId: string, order: OrderInfo): Promise<void> {
    const decide = (delivery: Delivery | undefined) => start(delivery, order);
    await this.records.handle(DELIVERY, order.orderId, { event: messageId }, decide, { isNew: true });
  }

  async cancel(messageId: string, order: OrderInfo): Promise<void> {
    await this.records.handle(DELIVERY, order.orderId, { event: messageId }, (delivery) =>
      cancel(delivery, order),
    );
  }

  /** The goods have arrived. @throws Problem 404, 409 when cancelled */
  async complete(id: number): Promise<Delivery> {
    const cause = { command: crypto.randomUUID() };
    const { state } = await this.records.handle(DELIVERY, id, cause, (delivery) => complete(delivery, id));
    if (state === undefined) throw notFound("delivery", id);
    return state;
  }

  load(id: number): Promise<Delivery | undefined> {
    return this.records.load(DELIVERY, id);
  }

  page(request: { page: number; size: number }): Promise<Page<Delivery>> {
    return this.records.page(DELIVERY, request);
  }
}
