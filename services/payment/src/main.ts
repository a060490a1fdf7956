import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import type { Config } from "#kit/config.js";
import { CONFIG, main, RECORDS, type ServiceDefinition } from "#kit/service.js";
import { Payments } from "./app.js";
import { subscriptions } from "./events.js";
import { drillRoutes, routes } from "./http.js";
import { DemoPaymentGateway } from "./pg.js";

const PG = Symbol("PaymentGateway");
const PAYMENTS = Symbol("Payments");

export const payment: ServiceDefinition = {
  app: "payment",
  store: "payments",
  compose(c: DependencyContainer) {
    c.register(PG, { useValue: new DemoPaymentGateway() });
    c.register(PAYMENTS, { useFactory: () => new Payments(c.resolve(RECORDS), c.resolve(PG)) });
    const payments = c.resolve<Payments>(PAYMENTS);
    const drills = c.resolve<Config>(CONFIG).drills ? drillRoutes(c.resolve(PG)) : [];
    return { routes: [...routes(payments), ...drills], subscriptions: subscriptions(payments) };
  },
};

await main(payment, import.meta.url);
