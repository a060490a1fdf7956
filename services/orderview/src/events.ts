import { on, type Subscription } from "#kit/events.js";
import { maybePaidLater, type Shop } from "#kit/shop.js";
import { hearsAcceptance, type OrderStatuses } from "./app.js";

/** Only what can happen in this shop, and tells something that no other event tells as well: each costs a message per order. */
export function subscriptions(view: OrderStatuses, shop: Shop): Subscription[] {
  const { store, delivery, notifications } = shop;
  const some = (when: boolean, ...those: Subscription[]) => (when ? those : []);
  return [
    on("OrderPlaced", (message) => view.see(message)),
    on("OrderCancelled", (message) => view.see(message)),
    on("PaymentCancelled", (message) => view.see(message)),
    on("StoreRejected", (message) => view.see(message)),
    on("StoreCancelled", (message) => view.see(message)),
    ...some(
      maybePaidLater(shop),
      on("OrderPaid", (message) => view.see(message)),
      on("PaymentFailed", (message) => view.see(message)),
    ),
    ...some(
      hearsAcceptance(shop),
      on("StoreAccepted", (message) => view.see(message)),
    ),
    ...some(
      store.making !== "none",
      on("MakeStarted", (message) => view.see(message)),
      on("MakeCompleted", (message) => view.see(message)),
    ),
    ...some(
      delivery !== "none",
      on("DeliveryStarted", (message) => view.see(message)),
      on("DeliveryCompleted", (message) => view.see(message)),
      on("DeliveryCancelled", (message) => view.see(message)),
    ),
    ...some(
      notifications.length > 0,
      on("MessageSent", (message) => view.see(message)),
    ),
  ];
}
