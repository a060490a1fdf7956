import { collection, type Route } from "#kit/http.js";
import type { OrderStatuses } from "./app.js";
import type { OrderStatus } from "./domain.js";

export function routes(view: OrderStatuses): Route[] {
  return collection<OrderStatus>("orderStatuses", "orderStatus", {
    page: (request) => view.page(request),
    load: (id) => view.load(id),
    represent: (_id, row) => row,
    links: (id) => ({ order: `/orders/${id}` }),
  });
}
