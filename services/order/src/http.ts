import { z } from "zod";
import type { Dialects } from "#kit/dialects.js";
import {
  check,
  collection,
  commands,
  created,
  date,
  del,
  idempotencyKey,
  idOf,
  itemOf,
  onRecord,
  optional,
  optionalText,
  patch,
  phone,
  post,
  put,
  type Request,
  type Route,
  type Source,
  whole,
} from "#kit/http.js";
import type { Orders, PlaceOrder } from "./app.js";
import type { Order } from "./domain.js";

const MAX_ID = Number.MAX_SAFE_INTEGER;
/** Most pieces in one order. */
const MAX_QTY = 100_000;
/** Highest amount of one order, integer minor units. */
const MAX_AMOUNT = 1_000_000_000_000;

/** An order by our field names; shops/dialects.yaml has the others. */
const body = z.object({
  productId: whole(1, MAX_ID),
  qty: whole(1, MAX_QTY),
  productName: optionalText(),
  customerId: optionalText(),
  customerName: optionalText(),
  customerAddr: optionalText(500),
  phoneNumber: optional(phone),
  storeId: optionalText(),
  note: optionalText(1_000),
  method: z.enum(["card", "cash"], { error: 'must be "card" or "cash"' }).default("card"),
  orderDate: optional(date),
  amount: optional(whole(0, MAX_AMOUNT)),
});

export const parseOrder = (dialects: Dialects, sent: unknown): PlaceOrder =>
  dialects.check("orders", body, sent);

/** What a client may set an order's state to: it is all that can be changed. */
const change = (dialects: Dialects) =>
  z.object({
    state: z
      .string({ error: "must be a word for cancelled" })
      .refine(
        (word) => dialects.meant("orders", "state", word).includes("OrderCancelled"),
        "can only be set to a word for cancelled",
      ),
  });

export function represent(id: number, order: Order): object {
  const { status, reason, cancelDate, closedBy: _closedBy, ...rest } = order;
  return {
    id,
    ...rest,
    state: status,
    ...(reason === null ? {} : { reason, cancelDate }),
  };
}

const closing = z.object({ by: z.enum(["acceptance", "making", "delivery", "completion"]) });

export function routes(orders: Orders, dialects: Dialects): Route[] {
  const ways = dialects.ways("orders", "order");
  const own = dialects.own("orders", "order");
  const links = (id: number) => ({ orderStatus: `/orderStatuses/${id}` });
  const source: Source<Order> = {
    page: (request) => orders.page(request),
    load: (id) => orders.load(id),
    represent,
    links,
  };
  const changed = change(dialects);
  const said = (id: number, order: Order) => itemOf(own, id, represent(id, order), links(id));
  const cancel = (id: number, { headers }: Request) =>
    orders.cancel(id, headers["idempotency-key"] ?? crypto.randomUUID());
  const setState = async (request: Request) => {
    const id = idOf(request.params.id, "order");
    dialects.check("orders", changed, request.body);
    return { status: 200, body: said(id, await cancel(id, request)) };
  };
  return [
    post("/orders", async ({ body, headers }) => {
      const key = idempotencyKey(headers);
      const wanted = parseOrder(dialects, body);
      const order = await dialects.answering("orders", body, () => orders.place(wanted, key));
      return created(`/orders/${order.orderId}`, said(order.orderId, order));
    }),
    del("/orders/:id", async (request) => {
      const id = idOf(request.params.id, "order");
      return { status: 200, body: said(id, await cancel(id, request)) };
    }),
    ...commands<Order>(ways, source, { cancel }),
    put("/orders/:id", setState),
    patch("/orders/:id", setState),
    // Not for the outside: the store and the delivery say here that something begins.
    put("/closings/:id", async ({ params, body }) => {
      await orders.close(idOf(params.id, "order"), check(closing, body).by);
      return { status: 204 };
    }),
    onRecord(async (ids) => {
      const { orders: found, last } = await orders.recorded(ids);
      return { records: [...found].map(([id, order]) => represent(id, order)), last };
    }),
    ...collection<Order>(ways, source),
  ];
}
