import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import type { Config } from "#kit/config.js";
import { CONFIG, DIALECTS, main, NOW, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import type { Shop } from "#kit/shop.js";
import { Payments } from "./app.js";
import { subscriptions } from "./events.js";
import { drillRoutes, routes } from "./http.js";
import { BindingPaymentGateway, DemoPaymentGateway } from "./pg.js";

const PG = Symbol("PaymentGateway");
const PAYMENTS = Symbol("Payments");

export const payment: ServiceDefinition = {
  app: "payment",
  store: "payments",
  compose(c: DependencyContainer) {
    const shop = c.resolve<Shop>(SHOP);
    const { gateway } = shop.payment;
    const demo = gateway === "demo" ? new DemoPaymentGateway() : undefined;
    c.register(PG, { useFactory: () => demo ?? new BindingPaymentGateway(c.resolve(SIDECAR), gateway) });
    c.register(PAYMENTS, {
      useFactory: () => new Payments(c.resolve(RECORDS), c.resolve(PG), c.resolve(SIDECAR), c.resolve(NOW)),
    });
    const payments = c.resolve<Payments>(PAYMENTS);
    const drills = c.resolve<Config>(CONFIG).drills && demo !== undefined ? drillRoutes(demo) : [];
    return {
      routes: [...routes(payments, c.resolve(DIALECTS)), ...drills],
      subscriptions: subscriptions(payments, shop),
    };
  },
};

await main(payment, import.meta.url);
