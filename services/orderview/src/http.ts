import type { Dialects } from "#kit/dialects.js";
import {
  check,
  collection,
  get,
  idsIn,
  itemOf,
  listing,
  optional,
  optionalText,
  paging,
  phone,
  post,
  type Route,
  type Source,
} from "#kit/http.js";
import { invalid } from "#kit/problem.js";
import type { OrderStatuses, Rebuild } from "./app.js";
import { type OrderStatus, progress } from "./domain.js";

const COLUMNS = ["orderStatus", "paymentStatus", "storeStatus", "deliveryStatus"] as const;

export function represent(_id: number, row: OrderStatus): object {
  const { messages: _messages, ...columns } = row;
  return { ...columns, status: progress(row) };
}

const asked = paging.extend({
  customerId: optionalText(),
  phoneNumber: optional(phone),
  status: optionalText(),
});

export function routes(view: OrderStatuses, rebuild: Rebuild, dialects: Dialects): Route[] {
  const ways = dialects.ways("orderStatuses", "orderStatus");
  const own = dialects.own("orderStatuses", "orderStatus");
  const source: Source<OrderStatus> = {
    page: (request) => view.page(request),
    load: (id) => view.load(id),
    represent,
    links: (id) => ({ order: `/orders/${id}` }),
  };
  /** Our words or those of any dialect, for how far an order has come or for one of its columns. */
  const wants = (word: string | null) => {
    if (word === null) return () => true;
    const meant = (field: string) => new Set(dialects.meant("orderStatuses", field, word));
    const stage = meant("status");
    const columns = COLUMNS.map((column) => [column, meant(column)] as const);
    return (row: OrderStatus) =>
      stage.has(progress(row) ?? "") || columns.some(([column, words]) => words.has(row[column] ?? ""));
  };
  return [
    // S4-F11: what one customer has ordered and paid, what was delivered and what was said about it, in one call.
    get("/history", async ({ query }) => {
      const { page, size, customerId, phoneNumber, status } = check(asked, query);
      if ((customerId === null) === (phoneNumber === null))
        throw invalid([{ field: "customerId", reason: "is required, or phoneNumber, and not both" }]);
      const whose = customerId !== null ? { customerId } : { phoneNumber: phoneNumber ?? "" };
      const found = await view.history(whose, { page, size }, wants(status));
      const named = Object.fromEntries(Object.entries({ ...whose, ...(status === null ? {} : { status }) }));
      return { status: 200, body: listing("history", found, ({ id, state }) => entry(id, state), named) };
    }),
    // Not for the outside: an operator has the view made anew, some orders at a time.
    post("/rebuilds", async ({ body }) => ({
      status: 200,
      body: await rebuild.rows(idsIn(body)),
      type: "application/json",
    })),
    ...collection<OrderStatus>(ways, source),
  ];

  function entry(id: number, row: OrderStatus): object {
    const { paymentStatus, deliveryId, deliveryStatus, amount, method } = row;
    return {
      ...itemOf(own, id, represent(id, row), {
        order: `/orders/${id}`,
        payment: `/payments/${id}`,
        ...(deliveryId === null ? {} : { delivery: `/deliveries/${id}` }),
      }),
      payment: { id, amount, method, paymentStatus },
      delivery: deliveryId === null ? null : { id: deliveryId, deliveryStatus },
      messages: row.messages,
    };
  }
}
