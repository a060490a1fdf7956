import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { get, put } from "#kit/http.js";
import { MemoryDapr } from "#kit/memory.js";
import type { ServiceDefinition } from "#kit/service.js";
import { assertProblem, hostInMemory } from "#kit/testing.js";
import { TOKEN_HEADER } from "#kit/token.js";

const answer = async () => ({ status: 200, body: {} });
const service = (front: boolean): ServiceDefinition => ({
  app: "order",
  ...(front ? { front: true as const } : {}),
  compose: () => ({ routes: [get("/orders", answer), put("/closings/:id", answer)] }),
});
const host = (front = false) => hostInMemory(new MemoryDapr(), service(front), { appToken: "right" });
const refused = (answered: Parameters<typeof assertProblem>[0]) => {
  assertProblem(answered, 401, "not-through-the-sidecar");
  assert.equal(answered.headers["www-authenticate"], TOKEN_HEADER);
};

describe("a service with a token", () => {
  it("answers who shows it, and nobody else", async () => {
    const { http, stop } = await host();
    assert.equal((await http("GET", "/orders", undefined, { [TOKEN_HEADER]: "right" })).status, 200);
    for (const token of ["wrong", "righ", "right!", "RIGHT", ""])
      refused(await http("GET", "/orders", undefined, { [TOKEN_HEADER]: token }));
    for (const [method, path] of [
      ["GET", "/orders"],
      ["PUT", "/closings/1"],
      ["GET", "/nothing"],
      ["GET", "/dapr/subscribe"],
      ["POST", "/events/OrderPlaced"],
      ["PUT", "/actuator/down"],
      ["PUT", "/actuator/echo"],
      ["POST", "/healthz"],
    ] as const)
      refused(await http(method, path));
    await stop();
  });

  it("tells everybody how it is", async () => {
    const { http, stop } = await host();
    for (const path of ["/healthz", "/readyz", "/actuator/health", "/actuator/echo"])
      for (const method of ["GET", "HEAD"]) assert.equal((await http(method, path)).status, 200, path);
    await stop();
  });

  it("lets strangers in by its front door, but not to what its sidecar asks", async () => {
    const { http, stop } = await host(true);
    assert.equal((await http("GET", "/orders")).status, 200);
    for (const path of ["/dapr/subscribe", "/DAPR/subscribe"]) refused(await http("GET", path));
    const shown = await http("GET", "/dapr/subscribe", undefined, { [TOKEN_HEADER]: "right" });
    assert.equal(shown.status, 200);
    await stop();
  });
});
