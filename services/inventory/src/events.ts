import { on, type Subscription } from "#kit/events.js";
import type { Inventory } from "./app.js";

export function subscriptions(inventory: Inventory): Subscription[] {
  return [
    on("OrderCancelled", ({ id, data }) => inventory.release(data.orderId, data.productId, id)),
    on("OrderAborted", ({ id, data }) => inventory.release(data.orderId, data.productId, id)),
  ];
}
