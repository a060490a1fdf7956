import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import { StoreOrders } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const STORE_ORDERS = Symbol("StoreOrders");

export const store: ServiceDefinition = {
  app: "store",
  store: "tickets",
  compose(c: DependencyContainer) {
    c.register(STORE_ORDERS, {
      useFactory: () => new StoreOrders(c.resolve(RECORDS), c.resolve(SIDECAR), c.resolve(SHOP)),
    });
    const storeOrders = c.resolve<StoreOrders>(STORE_ORDERS);
    return { routes: routes(storeOrders, c.resolve(DIALECTS)), subscriptions: subscriptions(storeOrders) };
  },
};

await main(store, import.meta.url);
