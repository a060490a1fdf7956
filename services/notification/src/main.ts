import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { DIALECTS, main, NOW, RECORDS, type ServiceDefinition, SHOP, SIDECAR } from "#kit/service.js";
import { Messages } from "./app.js";
import { subscriptions } from "./events.js";
import { routes } from "./http.js";

const MESSAGES = Symbol("Messages");

export const notification: ServiceDefinition = {
  app: "notification",
  store: "messages",
  compose(c: DependencyContainer) {
    const sender = crypto.randomUUID();
    c.register(MESSAGES, {
      useFactory: () =>
        new Messages(c.resolve(RECORDS), c.resolve(SIDECAR), c.resolve(SHOP), c.resolve(NOW), sender),
    });
    const messages = c.resolve<Messages>(MESSAGES);
    return {
      routes: routes(messages, c.resolve(DIALECTS), c.resolve(SHOP)),
      subscriptions: subscriptions(messages, c.resolve(SHOP)),
      onStart: () => messages.start(),
    };
  },
};

await main(notification, import.meta.url);
