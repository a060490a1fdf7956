import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { clients, RateLimit } from "#kit/clients.js";
import type { Config } from "#kit/config.js";
import { sidecarPool } from "#kit/dapr.js";
import { CONFIG, DIALECTS, LOG, main, NOW, type ServiceDefinition, SHOP } from "#kit/service.js";
import { shedding } from "#kit/shedding.js";
import type { Shop } from "#kit/shop.js";
import { crossOrigin, openings, proxy, routes } from "./http.js";
import { letterRoutes } from "./letters.js";

const SIDECAR_POOL = Symbol("SidecarPool");

export const gateway: ServiceDefinition = {
  app: "gateway",
  front: true,
  compose(c: DependencyContainer) {
    c.register(SIDECAR_POOL, {
      // More than the gates let through to all services together, so that no service waits for another's connections.
      useFactory: () => {
        const { daprPort, sidecarToken } = c.resolve<Config>(CONFIG);
        return sidecarPool({ port: daprPort, token: sidecarToken }, 2_400);
      },
    });
    const open = openings(c.resolve(DIALECTS));
    const { rateLimit, trustedProxies } = c.resolve<Config>(CONFIG);
    const clientOf = clients(trustedProxies);
    return {
      routes: [...routes(open), ...letterRoutes(c.resolve(SIDECAR_POOL), c.resolve(NOW))],
      before: [
        crossOrigin(c.resolve<Shop>(SHOP).cors),
        shedding(new RateLimit(rateLimit), clientOf, c.resolve(LOG)),
        proxy(c.resolve(SIDECAR_POOL), open, clientOf),
      ],
    };
  },
};

await main(gateway, import.meta.url);
