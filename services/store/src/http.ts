import { z } from "zod";
import type { Dialects } from "#kit/dialects.js";
import { check, collection, commands, onRecord, type Route, type Source } from "#kit/http.js";
import type { StoreOrders } from "./app.js";
import type { Ticket } from "./domain.js";

export function represent(id: number, ticket: Ticket): object {
  const { status, reason, ...rest } = ticket;
  return { id, ...rest, state: status, ...(reason === null ? {} : { reason }) };
}

const links = (id: number) =>
  Object.fromEntries(
    ["accept", "reject", "start", "complete", "confirmcancel"].map((command) => [
      command === "confirmcancel" ? "confirmCancel" : command,
      `/storeOrders/${id}/${command}`,
    ]),
  );

const rejection = z.object({ reason: z.string().trim().min(1).max(500).default("rejected by the store") });

export function routes(store: StoreOrders, dialects: Dialects): Route[] {
  const ways = dialects.ways("storeOrders", "storeOrder");
  const source: Source<Ticket> = {
    page: (request) => store.page(request),
    load: (id) => store.load(id),
    represent,
    links,
  };
  return [
    ...commands<Ticket>(ways, source, {
      accept: (id) => store.accept(id),
      reject: (id, { body }) => store.reject(id, check(rejection, body).reason),
      start: (id) => store.startMaking(id),
      complete: (id) => store.completeMaking(id),
      confirmcancel: (id) => store.confirmCancel(id),
    }),
    onRecord(async (ids) => ({
      records: (await store.recorded(ids)).map(([id, ticket]) => represent(id, ticket)),
    })),
    ...collection<Ticket>(ways, source),
  ];
}
