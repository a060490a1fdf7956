import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { Pool } from "undici";
import { clients, RateLimit } from "#kit/clients.js";
import type { Config } from "#kit/config.js";
import { CONFIG, DIALECTS, LOG, main, type ServiceDefinition, SHOP } from "#kit/service.js";
import { shedding } from "#kit/shedding.js";
import type { Shop } from "#kit/shop.js";
import { crossOrigin, openings, proxy, routes } from "./http.js";

const SIDECAR_POOL = Symbol("SidecarPool");

export const gateway: ServiceDefinition = {
  app: "gateway",
  front: true,
  compose(c: DependencyContainer) {
    c.register(SIDECAR_POOL, {
      // More than the gates let through to all services together, so that no service waits for another's connections.
      useFactory: () =>
        new Pool(`http://127.0.0.1:${c.resolve<Config>(CONFIG).daprPort}`, { connections: 2_400 }),
    });
    const open = openings(c.resolve(DIALECTS));
    const { rateLimit, trustedProxies } = c.resolve<Config>(CONFIG);
    const clientOf = clients(trustedProxies);
    return {
      routes: routes(open),
      before: [
        crossOrigin(c.resolve<Shop>(SHOP).cors),
        shedding(new RateLimit(rateLimit), clientOf, c.resolve(LOG)),
        proxy(c.resolve(SIDECAR_POOL), open, clientOf),
      ],
    };
  },
};

await main(gateway, import.meta.url);
