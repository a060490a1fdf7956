import { on, type Subscription } from "#kit/events.js";
import type { Payments } from "./app.js";

export function subscriptions(payments: Payments): Subscription[] {
  return [
    on("OrderCancelled", ({ id, data }) => payments.cancel(data.orderId, id, data.reason)),
    on("OrderAborted", ({ id, data }) => payments.cancel(data.orderId, id, data.reason)),
  ];
}
