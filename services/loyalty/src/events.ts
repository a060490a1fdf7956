import { on, type Subscription } from "#kit/events.js";
import type { Shop } from "#kit/shop.js";
import type { Loyalty } from "./app.js";

export function subscriptions(loyalty: Loyalty, shop: Shop): Subscription[] {
  if (shop.loyalty.stampsPerItem === 0) return [];
  return [
    on("PaymentApproved", ({ data }) => loyalty.paid(data)),
    on("PaymentCancelled", ({ data }) => loyalty.refunded(data)),
  ];
}
