import type { Message } from "#kit/events.js";
import type { Page, Records } from "#kit/records.js";
import { isVisible, ORDER_STATUS, type OrderStatus, see, type ViewedEvent } from "./domain.js";

/** The use cases of the view: it sees, and it shows. */
export class OrderStatuses {
  constructor(private readonly records: Records) {}

  async see<T extends ViewedEvent["type"]>({ id, type, data }: Message<T>): Promise<void> {
    const event = { type, data } as ViewedEvent;
    const decide = (row: OrderStatus | undefined) => see(row, event);
    // An order's first word makes its row; the others most likely find it.
    const isNew = type === "OrderPlaced";
    await this.records.handle(ORDER_STATUS, event.data.orderId, { event: id }, decide, { isNew });
  }

  async load(id: number): Promise<OrderStatus | undefined> {
    const row = await this.records.load(ORDER_STATUS, id);
    return row !== undefined && isVisible(row) ? row : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<OrderStatus>> {
    return this.records.page(ORDER_STATUS, { ...request, visible: isVisible });
  }
}
