import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import { OrderStatuses, Rebuild } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const VIEW = Symbol("OrderStatuses");
const REBUILD = Symbol("Rebuild");

export const orderview: ServiceDefinition = {
  app: "orderview",
  store: "orderview",
  compose(c: DependencyContainer) {
    c.register(VIEW, { useFactory: () => new OrderStatuses(c.resolve(RECORDS)) });
    const view = c.resolve<OrderStatuses>(VIEW);
    c.register(REBUILD, {
      useFactory: () => new Rebuild(c.resolve(RECORDS), view, c.resolve(SIDECAR), c.resolve(SHOP)),
    });
    return {
      routes: routes(view, c.resolve(REBUILD), c.resolve(DIALECTS)),
      subscriptions: subscriptions(view, c.resolve(SHOP)),
    };
  },
};

await main(orderview, import.meta.url);
