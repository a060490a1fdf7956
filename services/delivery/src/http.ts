import { collection, idOf, ok, put, type Route } from "#kit/http.js";
import type { Deliveries } from "./app.js";
import type { Delivery } from "./domain.js";

/** Both shapes of S0: its event-driven delivery and its req/res one (deliveryId, deliveryAddress, deliveryState). */
export function represent(id: number, delivery: Delivery): object {
  const { status, qty, ...rest } = delivery;
  return {
    id,
    deliveryId: id,
    ...rest,
    qty,
    quantity: qty,
    deliveryAddress: delivery.customerAddr,
    deliveryState: status,
    deliveryStatus: status,
  };
}

const links = (id: number) => ({ complete: `/deliveries/${id}/complete` });

export function routes(deliveries: Deliveries): Route[] {
  return [
    put("/deliveries/:id/complete", async ({ params }) => {
      const id = idOf(params.id, "delivery");
      return ok(`/deliveries/${id}`, represent(id, await deliveries.complete(id)), {
        delivery: `/deliveries/${id}`,
      });
    }),
    ...collection<Delivery>("deliveries", "delivery", {
      page: (request) => deliveries.page(request),
      load: (id) => deliveries.load(id),
      represent,
      links,
    }),
  ];
}
