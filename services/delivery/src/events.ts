import { on, type Subscription } from "#kit/events.js";
import type { Deliveries } from "./app.js";

export function subscriptions(deliveries: Deliveries): Subscription[] {
  return [
    on("StoreAccepted", ({ id, data }) => deliveries.start(id, data)),
    on("StoreCancelled", ({ id, data }) => deliveries.cancel(id, data)),
  ];
}
