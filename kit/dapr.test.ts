/** What reaches a sidecar, and how it is understood: with a stand-in for it. The real one: tests/conformance.test.ts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, describe, it } from "node:test";
import { daprSidecar } from "#kit/dapr.js";
import { type CloudEvent, type Sidecar, Unavailable } from "#kit/sidecar.js";
import { TOKEN_HEADER } from "#kit/token.js";

describe("a sidecar that demands a token", () => {
  const received: IncomingMessage[] = [];
  let answer = (_: IncomingMessage, response: ServerResponse): unknown => response.end("[]");
  const server = createServer((request, response) => {
    received.push(request);
    request.resume().on("end", () => answer(request, response));
  });
  let port: number;
  let sidecar: Sidecar;
  before(async () => {
    await once(server.listen(0, "127.0.0.1"), "listening");
    ({ port } = server.address() as AddressInfo);
    sidecar = daprSidecar({ port, token: "right", store: "orders", pubsub: "events" });
  });
  beforeEach(() => {
    received.length = 0;
  });
  after(async () => {
    await sidecar.close();
    server.closeAllConnections();
    server.close();
  });

  it("is shown it with every kind of call", async () => {
    const event = (id: string): CloudEvent => ({
      ...{ specversion: "1.0", id, source: "test", type: "OrderPlaced", datacontenttype: "application/json" },
      ...{ data: {}, time: "2026-11-21T00:00:00.000Z", subject: "1" },
    });
    await sidecar.invoke("order", { method: "GET", path: "/orders", headers: { "x-own": "yes" } });
    assert.equal(received[0]?.headers["x-own"], "yes");
    // What comes of them does not matter here.
    for (const call of [
      () => sidecar.publish("OrderPlaced", [event("1")]),
      () => sidecar.publish("OrderPlaced", [event("2"), event("3")]),
      () => sidecar.bind("kakao", {}),
      () => sidecar.store.get(["order:1"]),
      () => sidecar.store.save("order:1", {}, null),
      () => sidecar.ready(),
      () => sidecar.heard(),
      () => sidecar.restart(),
    ])
      await call().catch(() => undefined);
    const paths = new Set(received.map(({ url }) => url?.replace(/\?.*/, "")));
    assert.ok(paths.size >= 8, [...paths].join());
    for (const { url, headers } of received) assert.equal(headers[TOKEN_HEADER], "right", url);
  });

  it("is shown none that there is not", async () => {
    const open = daprSidecar({ port, pubsub: "events" });
    await open.invoke("order", { method: "GET", path: "/orders" });
    await open.close();
    assert.equal(received[0]?.headers[TOKEN_HEADER], undefined);
  });

  it("refuses what is no fault of the caller's: it is unavailable, and asked again", async () => {
    for (const [status, text] of [
      [401, "invalid api token"],
      [401, '{"type":"urn:jangteo:problem:not-through-the-sidecar"}'],
      [403, '{"errorCode":"ERR_DIRECT_INVOKE","message":"access control policy has denied access"}'],
      [500, '{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke"}'],
    ] as const) {
      answer = (_, response) => response.writeHead(status).end(text);
      await assert.rejects(sidecar.invoke("order", { method: "GET", path: "/orders" }), Unavailable);
    }
    answer = (_, response) => response.writeHead(403).end('{"type":"urn:jangteo:problem:no"}');
    assert.equal((await sidecar.invoke("order", { method: "GET", path: "/orders" })).status, 403);
  });
});
