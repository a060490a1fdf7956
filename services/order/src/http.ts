import { z } from "zod";
import {
  check,
  collection,
  created,
  del,
  idOf,
  ok,
  optionalText,
  post,
  type Route,
  whole,
} from "#kit/http.js";
import { invalid } from "#kit/problem.js";
import type { Orders, PlaceOrder } from "./app.js";
import type { Order } from "./domain.js";

const MAX_ID = Number.MAX_SAFE_INTEGER;
/** Most pieces in one order. */
const MAX_QTY = 100_000;

/** Both dialects of S0: {productId, productName, qty} and {productId, quantity, customerId, customerName, customerAddr}. */
const body = z.looseObject({
  productId: whole(1, MAX_ID),
  qty: whole(1, MAX_QTY).optional(),
  quantity: whole(1, MAX_QTY).optional(),
  productName: optionalText(),
  customerId: optionalText(),
  customerName: optionalText(),
  customerAddr: optionalText(500),
});

export function parseOrder(sent: unknown): PlaceOrder {
  const { productId, qty, quantity, productName, customerId, customerName, customerAddr } = check(body, sent);
  const pieces = qty ?? quantity;
  if (pieces === undefined) throw invalid([{ field: "qty", reason: "is required" }]);
  if (qty !== undefined && quantity !== undefined && qty !== quantity) {
    throw invalid([{ field: "quantity", reason: "differs from qty" }]);
  }
  return { productId, qty: pieces, productName, customerId, customerName, customerAddr };
}

export function represent(id: number, order: Order): object {
  const { status, qty, reason, ...rest } = order;
  return {
    id,
    ...rest,
    qty,
    quantity: qty,
    orderStatus: status,
    state: status,
    ...(reason === null ? {} : { reason }),
  };
}

const keyed = z.object({ "Idempotency-Key": z.string().trim().min(1).max(200).optional() });

export function routes(orders: Orders): Route[] {
  return [
    post("/orders", async ({ body, headers }) => {
      const { "Idempotency-Key": key } = check(keyed, { "Idempotency-Key": headers["idempotency-key"] });
      const order = await orders.place(parseOrder(body), key);
      const self = `/orders/${order.orderId}`;
      return created(self, represent(order.orderId, order), {
        order: self,
        orderStatus: `/orderStatuses/${order.orderId}`,
      });
    }),
    del("/orders/:id", async ({ params, headers }) => {
      const id = idOf(params.id, "order");
      const order = await orders.cancel(id, headers["idempotency-key"] ?? crypto.randomUUID());
      return ok(`/orders/${id}`, represent(id, order), {
        order: `/orders/${id}`,
        orderStatus: `/orderStatuses/${id}`,
      });
    }),
    ...collection<Order>("orders", "order", {
      page: (request) => orders.page(request),
      load: (id) => orders.load(id),
      represent,
      links: (id) => ({ orderStatus: `/orderStatuses/${id}` }),
    }),
  ];
}
