import { on, type Subscription } from "#kit/events.js";
import type { OrderStatuses } from "./app.js";

export function subscriptions(view: OrderStatuses): Subscription[] {
  // Not StoreAccepted: DeliveryStarted follows it at once and says as much, for half the messages.
  return [
    on("OrderPlaced", (message) => view.see(message)),
    on("OrderCancelled", (message) => view.see(message)),
    on("PaymentCancelled", (message) => view.see(message)),
    on("StoreRejected", (message) => view.see(message)),
    on("StoreCancelled", (message) => view.see(message)),
    on("DeliveryStarted", (message) => view.see(message)),
    on("DeliveryCompleted", (message) => view.see(message)),
    on("DeliveryCancelled", (message) => view.see(message)),
  ];
}
