import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { main, RECORDS, type ServiceDefinition } from "#kit/service.js";
import { Deliveries } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const DELIVERIES = Symbol("Deliveries");

export const delivery: ServiceDefinition = {
  app: "delivery",
  store: "deliveries",
  compose(c: DependencyContainer) {
    c.register(DELIVERIES, { useFactory: () => new Deliveries(c.resolve(RECORDS)) });
    const deliveries = c.resolve<Deliveries>(DELIVERIES);
    return { routes: routes(deliveries), subscriptions: subscriptions(deliveries) };
  },
};

await main(delivery, import.meta.url);
