import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { Pool } from "undici";
import type { Config } from "#kit/config.js";
import { CONFIG, DIALECTS, main, NOW, type ServiceDefinition, SHOP } from "#kit/service.js";
import type { Shop } from "#kit/shop.js";
import { crossOrigin, openings, proxy, routes } from "./http.js";
import { letterRoutes } from "./letters.js";

const SIDECAR_POOL = Symbol("SidecarPool");

export const gateway: ServiceDefinition = {
  app: "gateway",
  front: true,
  compose(c: DependencyContainer) {
    c.register(SIDECAR_POOL, {
      useFactory: () =>
        new Pool(`http://127.0.0.1:${c.resolve<Config>(CONFIG).daprPort}`, { connections: 256 }),
    });
    const open = openings(c.resolve(DIALECTS));
    return {
      routes: [...routes(open), ...letterRoutes(c.resolve(SIDECAR_POOL), c.resolve(NOW))],
      before: [crossOrigin(c.resolve<Shop>(SHOP).cors), proxy(c.resolve(SIDECAR_POOL), open)],
    };
  },
};

await main(gateway, import.meta.url);
