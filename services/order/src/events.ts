import { on, type Subscription } from "#kit/events.js";
import type { Orders } from "./app.js";

export function subscriptions(orders: Orders): Subscription[] {
  return [
    on("StoreRejected", ({ id, data }) => orders.rejectedByStore(data.orderId, id, data.reason)),
    on("DeliveryCompleted", ({ id, data }) => orders.delivered(data.orderId, id)),
  ];
}
