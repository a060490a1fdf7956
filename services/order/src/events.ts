import { on, type Subscription } from "#kit/events.js";
import { maybePaidLater, type Shop } from "#kit/shop.js";
import type { Orders } from "./app.js";

export function subscriptions(orders: Orders, shop: Shop): Subscription[] {
  return [
    on("StoreRejected", ({ id, data }) => orders.rejected(data.orderId, id, data.reason)),
    on("DeliveryCompleted", ({ id, data }) => orders.delivered(data.orderId, id)),
    // Where every order is paid when it is placed, the answer to the call has said it all.
    ...(maybePaidLater(shop)
      ? [
          on("PaymentApproved", ({ id, data }) => orders.paymentApproved(data.orderId, id, data)),
          on("PaymentFailed", ({ id, data }) => orders.paymentFailed(data.orderId, id, data.reason)),
        ]
      : []),
  ];
}
