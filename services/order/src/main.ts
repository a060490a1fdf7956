import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { main, RECORDS, type ServiceDefinition, SIDECAR } from "#kit/service.js";
import { Orders } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const ORDERS = Symbol("Orders");

export const order: ServiceDefinition = {
  app: "order",
  store: "orders",
  compose(c: DependencyContainer) {
    c.register(ORDERS, { useFactory: () => new Orders(c.resolve(RECORDS), c.resolve(SIDECAR)) });
    const orders = c.resolve<Orders>(ORDERS);
    return { routes: routes(orders), subscriptions: subscriptions(orders), onStart: () => orders.start() };
  },
};

await main(order, import.meta.url);
