import "reflect-metadata";
import type { DependencyContainer } from "tsyringe";
import { Pool } from "undici";
import type { Config } from "#kit/config.js";
import { CONFIG, main, type ServiceDefinition } from "#kit/service.js";
import { proxy, routes } from "./http.js";

const SIDECAR_POOL = Symbol("SidecarPool");

export const gateway: ServiceDefinition = {
  app: "gateway",
  front: true,
  compose(c: DependencyContainer) {
    c.register(SIDECAR_POOL, {
      useFactory: () =>
        new Pool(`http://127.0.0.1:${c.resolve<Config>(CONFIG).daprPort}`, { connections: 256 }),
    });
    return { routes, before: proxy(c.resolve(SIDECAR_POOL)) };
  },
};

await main(gateway, import.meta.url);
