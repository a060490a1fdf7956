import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, RECORDS, type ServiceDefinition, SHOP } from "#kit/service.js";
import type { Shop } from "#kit/shop.js";
import { Loyalty } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const LOYALTY = Symbol("Loyalty");

export const loyalty: ServiceDefinition = {
  app: "loyalty",
  store: "stamps",
  compose(c: DependencyContainer) {
    c.register(LOYALTY, { useFactory: () => new Loyalty(c.resolve(RECORDS), c.resolve(SHOP)) });
    const loyalty = c.resolve<Loyalty>(LOYALTY);
    return {
      routes: routes(loyalty, c.resolve(DIALECTS)),
      subscriptions: subscriptions(loyalty, c.resolve<Shop>(SHOP)),
    };
  },
};

await main(loyalty, import.meta.url);
