import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, NOW, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import { Orders } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const ORDERS = Symbol("Orders");

export const order: ServiceDefinition = {
  app: "order",
  store: "orders",
  compose(c: DependencyContainer) {
    c.register(ORDERS, {
      useFactory: () => new Orders(c.resolve(RECORDS), c.resolve(SIDECAR), c.resolve(SHOP), c.resolve(NOW)),
    });
    const orders = c.resolve<Orders>(ORDERS);
    return {
      routes: routes(orders, c.resolve(DIALECTS)),
      subscriptions: subscriptions(orders, c.resolve(SHOP)),
      onStart: () => orders.start(),
    };
  },
};

await main(order, import.meta.url);
