import { z } from "zod";
import { check, collection, idOf, ok, put, type Request, type Route } from "#kit/http.js";
import type { StoreOrders } from "./app.js";
import type { Ticket } from "./domain.js";

export function represent(id: number, ticket: Ticket): object {
  const { status, qty, reason, ...rest } = ticket;
  return { id, ...rest, qty, quantity: qty, storeStatus: status, ...(reason === null ? {} : { reason }) };
}

const links = (id: number) => ({
  accept: `/storeOrders/${id}/accept`,
  reject: `/storeOrders/${id}/reject`,
  confirmCancel: `/storeOrders/${id}/confirmcancel`,
});

const rejection = z.object({ reason: z.string().trim().min(1).max(500).default("rejected by the store") });

export function routes(store: StoreOrders): Route[] {
  const command = (name: string, run: (id: number, request: Request) => Promise<Ticket>) =>
    put(`/storeOrders/:id/${name}`, async (request) => {
      const id = idOf(request.params.id, "storeOrder");
      return ok(`/storeOrders/${id}`, represent(id, await run(id, request)), links(id));
    });
  return [
    command("accept", (id) => store.accept(id)),
    command("reject", (id, { body }) => store.reject(id, check(rejection, body).reason)),
    command("confirmcancel", (id) => store.confirmCancel(id)),
    ...collection<Ticket>("storeOrders", "storeOrder", {
      page: (request) => store.page(request),
      load: (id) => store.load(id),
      represent,
      links,
    }),
  ];
}
