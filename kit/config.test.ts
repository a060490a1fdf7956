import assert from "node:assert/strict";
import { hostname } from "node:os";
import { describe, it } from "node:test";
import { readConfig } from "#kit/config.js";

describe("the environment of a service", () => {
  it("needs a port; all else has a default", () => {
    assert.deepEqual(readConfig("order", { APP_PORT: "8081" }), {
      app: "order",
      port: 8081,
      host: "127.0.0.1",
      fd: undefined,
      daprPort: 3500,
      sidecarToken: undefined,
      appToken: undefined,
      slot: hostname(),
      shop: "shops/fashion.yaml",
      dialects: "shops/dialects.yaml",
      logLevel: "info",
      logFile: undefined,
      profile: undefined,
      drills: false,
      rateLimit: 1_000,
      trustedProxies: [],
    });
  });

  it("is read as the sidecar and the runner set it", () => {
    const env = {
      ...{ APP_ID: "order2", APP_PORT: "1", APP_HOST: "0.0.0.0", DAPR_HTTP_PORT: "2", REPLICA: "order-1" },
      ...{ SHOP: "shops/x.yaml", DIALECTS: "/etc/words.yaml", LOG_LEVEL: "debug", DRILLS: "1" },
      ...{ DAPR_API_TOKEN: "theirs", APP_API_TOKEN: "ours" },
      ...{ RATE_LIMIT: "0", TRUSTED_PROXIES: "10.0.0.0/8, ::1", APP_FD: "3" },
      ...{ LOG_FILE: "/mnt/logs/order-1.log", PROFILE: "dev,k8s" },
    };
    assert.deepEqual(readConfig("order", env), {
      ...{ app: "order2", port: 1, host: "0.0.0.0", daprPort: 2, slot: "order-1" },
      ...{ shop: "shops/x.yaml", dialects: "/etc/words.yaml", logLevel: "debug", drills: true },
      ...{ sidecarToken: "theirs", appToken: "ours" },
      ...{ logFile: "/mnt/logs/order-1.log", profile: "dev,k8s" },
      ...{ fd: 3, rateLimit: 0, trustedProxies: ["10.0.0.0/8", "::1"] },
    });
  });

  it("takes an empty token for none", () => {
    const { sidecarToken, appToken } = readConfig("order", {
      ...{ APP_PORT: "1", DAPR_API_TOKEN: "", APP_API_TOKEN: "" },
    });
    assert.deepEqual([sidecarToken, appToken], [undefined, undefined]);
  });

  it("names every variable that is wrong", () => {
    const env = {
      APP_PORT: "http",
      DAPR_HTTP_PORT: "70000",
      LOG_LEVEL: "loud",
      DRILLS: "yes",
      RATE_LIMIT: "-1",
      TRUSTED_PROXIES: "me",
    };
    assert.throws(
      () => readConfig("order", env),
      ({ message }: Error) =>
        /^order cannot start/.test(message) &&
        Object.keys(env).every((name) => message.includes(`\n  ${name}: `)),
    );
    assert.throws(() => readConfig("order", {}), /APP_PORT/);
  });
});
