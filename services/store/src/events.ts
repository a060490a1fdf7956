import { on, type Subscription } from "#kit/events.js";
import type { StoreOrders } from "./app.js";

export function subscriptions(store: StoreOrders): Subscription[] {
  return [
    on("OrderPaid", ({ id, data }) => store.orderPaid(id, data)),
    on("OrderCancelled", ({ id, data }) => store.orderCancelled(id, data)),
  ];
}
