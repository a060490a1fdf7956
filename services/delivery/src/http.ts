import type { Dialects } from "#kit/dialects.js";
import { collection, commands, onRecord, type Route, type Source } from "#kit/http.js";
import type { Deliveries } from "./app.js";
import type { Delivery } from "./domain.js";

export function represent(id: number, delivery: Delivery): object {
  const { status, ...rest } = delivery;
  return { id, ...rest, state: status };
}

export function routes(deliveries: Deliveries, dialects: Dialects): Route[] {
  const ways = dialects.ways("deliveries", "delivery");
  const source: Source<Delivery> = {
    page: (request) => deliveries.page(request),
    load: (id) => deliveries.load(id),
    represent,
    links: (id) => ({ complete: `/deliveries/${id}/complete` }),
  };
  return [
    ...commands<Delivery>(ways, source, { complete: (id) => deliveries.complete(id) }),
    onRecord(async (ids) => ({
      records: (await deliveries.recorded(ids)).map(([id, delivery]) => represent(id, delivery)),
    })),
    ...collection<Delivery>(ways, source),
  ];
}
