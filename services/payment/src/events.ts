import { on, type Subscription } from "#kit/events.js";
import type { Shop } from "#kit/shop.js";
import type { Payments } from "./app.js";

export function subscriptions(payments: Payments, shop: Shop): Subscription[] {
  const { when, unreachable } = shop.payment;
  return [
    on("OrderCancelled", ({ id, data }) => payments.cancel({ event: id }, data, data.reason)),
    on("OrderAborted", ({ id, data }) => payments.cancel({ event: id }, data, data.reason)),
    // Elsewhere an order does not stand unless its payment has been heard of here.
    ...(unreachable === "register"
      ? [
          on("OrderPlaced", async ({ id, data }) => {
            if (!data.paid) await payments.placedUnpaid(id, data, when);
          }),
        ]
      : []),
  ];
}
