import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, RECORDS, type ServiceDefinition, SHOP } from "#kit/service.js";
import { OrderStatuses } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const VIEW = Symbol("OrderStatuses");

export const orderview: ServiceDefinition = {
  app: "orderview",
  store: "orderview",
  compose(c: DependencyContainer) {
    c.register(VIEW, { useFactory: () => new OrderStatuses(c.resolve(RECORDS)) });
    const view = c.resolve<OrderStatuses>(VIEW);
    return {
      routes: routes(view, c.resolve(DIALECTS)),
      subscriptions: subscriptions(view, c.resolve(SHOP)),
    };
  },
};

await main(orderview, import.meta.url);
