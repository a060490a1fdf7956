import { on, type Subscription } from "#kit/events.js";
import type { Shop } from "#kit/shop.js";
import type { Deliveries } from "./app.js";

export function subscriptions(deliveries: Deliveries, shop: Shop): Subscription[] {
  const cancelled = [
    on("StoreCancelled", ({ id, data }) => deliveries.cancel(id, data)),
    // A store that may still reject what it has accepted takes it back from the delivery too.
    ...(shop.cancel.shop === "acceptance"
      ? []
      : [on("StoreRejected", ({ id, data }) => deliveries.cancel(id, data))]),
  ];
  switch (shop.delivery) {
    case "acceptance":
      return [on("StoreAccepted", ({ id, data }) => deliveries.start(id, data)), ...cancelled];
    case "made":
      return [
        on("StoreAccepted", ({ id, data }) => deliveries.prepare(id, data)),
        on("MakeCompleted", ({ id, data }) => deliveries.start(id, data)),
        ...cancelled,
      ];
    case "none":
      return [];
  }
}
