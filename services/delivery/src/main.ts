import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, NOW, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import { Deliveries } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const DELIVERIES = Symbol("Deliveries");

export const delivery: ServiceDefinition = {
  app: "delivery",
  store: "deliveries",
  compose(c: DependencyContainer) {
    c.register(DELIVERIES, {
      useFactory: () =>
        new Deliveries(c.resolve(RECORDS), c.resolve(SIDECAR), c.resolve(SHOP), c.resolve(NOW)),
    });
    const deliveries = c.resolve<Deliveries>(DELIVERIES);
    return {
      routes: routes(deliveries, c.resolve(DIALECTS)),
      subscriptions: subscriptions(deliveries, c.resolve(SHOP)),
    };
  },
};

await main(delivery, import.meta.url);
