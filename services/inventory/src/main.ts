import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, NOW, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import type { Sidecar } from "#kit/sidecar.js";
import { Inventory } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const INVENTORY = Symbol("Inventory");

export const inventory: ServiceDefinition = {
  app: "inventory",
  store: "inventory",
  compose(c: DependencyContainer) {
    c.register(INVENTORY, {
      useFactory: () =>
        new Inventory(c.resolve(RECORDS), c.resolve<Sidecar>(SIDECAR).store, c.resolve(SHOP), c.resolve(NOW)),
    });
    const inventory = c.resolve<Inventory>(INVENTORY);
    return {
      routes: routes(inventory, c.resolve(DIALECTS)),
      subscriptions: subscriptions(inventory),
      onStart: () => inventory.start(),
    };
  },
};

await main(inventory, import.meta.url);
