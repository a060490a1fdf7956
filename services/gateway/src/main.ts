import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import type { Config } from "#kit/config.js";
import { sidecarPool } from "#kit/dapr.js";
import { CONFIG, DIALECTS, main, type ServiceDefinition, SHOP } from "#kit/service.js";
import type { Shop } from "#kit/shop.js";
import { crossOrigin, openings, proxy, routes } from "./http.js";

const SIDECAR_POOL = Symbol("SidecarPool");

export const gateway: ServiceDefinition = {
  app: "gateway",
  front: true,
  compose(c: DependencyContainer) {
    c.register(SIDECAR_POOL, {
      useFactory: () => {
        const { daprPort, sidecarToken } = c.resolve<Config>(CONFIG);
        return sidecarPool({ port: daprPort, token: sidecarToken }, 256);
      },
    });
    const open = openings(c.resolve(DIALECTS));
    return {
      routes: routes(open),
      before: [crossOrigin(c.resolve<Shop>(SHOP).cors), proxy(c.resolve(SIDECAR_POOL), open)],
    };
  },
};

await main(gateway, import.meta.url);
