import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { after, before, beforeEach, describe, it } from "node:test";
import inject from "light-my-request";
import { Pool } from "undici";
import { clients } from "#kit/clients.js";
import { readDialects } from "#kit/dialects.js";
import { createKoa } from "#kit/http.js";
import { MemoryDapr } from "#kit/memory.js";
import {
  type Answered,
  assertProblem,
  embedded,
  type Host,
  hostInMemory,
  type Json,
  shopWith,
  silent,
  until,
} from "#kit/testing.js";
import { openings, proxy, routes } from "./http.js";
import { gateway } from "./main.js";

interface Received {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: string;
}

/** What reached the sidecar, and how it answers; by default, with what it was sent. */
const received: Received[] = [];
type Answer = (request: Received, response: ServerResponse) => unknown;
const echo: Answer = (request, response) =>
  response.setHeader("content-type", "application/hal+json").end(JSON.stringify(request));
let answer = echo;

/** Every collection, and every other name of one, with the service that answers for it. */
const COLLECTIONS = {
  orders: "order",
  orderStatuses: "orderview",
  history: "orderview",
  products: "inventory",
  storeOrders: "store",
  deliveries: "delivery",
  payments: "payment",
  messages: "notification",
  stamps: "loyalty",
  topBooks: "inventory",
  productInfos: "inventory",
  orderHistories: "orderview",
  orderTraces: "orderview",
  cafeOrders: "store",
  menus: "inventory",
  orderLists: "orderview",
} as const;

let sidecar: Server;
let sidecarPort: number;
let front: Server;
let host: Host;

async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

before(async () => {
  sidecar = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method = "", url = "", headers } = request;
    const got = { method, url, headers, body: Buffer.concat(chunks).toString() };
    received.push(got);
    answer(got, response);
  });
  sidecarPort = await listening(sidecar);
  host = await hostInMemory(new MemoryDapr(), gateway, { daprPort: sidecarPort });
  front = createServer(host.composed.koa.callback());
  await listening(front);
});
beforeEach(() => {
  received.length = 0;
  answer = echo;
});
after(async () => {
  await host.stop();
  for (const server of [front, sidecar]) {
    server.closeAllConnections();
    server.close();
  }
});

/** A request as it goes over the wire: no path is tidied up on the way. */
async function http(
  method: string,
  path: string,
  body = "",
  headers: Record<string, string> = {},
): Promise<Answered> {
  const { port } = front.address() as AddressInfo;
  const sent = request({ host: "127.0.0.1", port, method, path, agent: false, headers });
  sent.end(body);
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  return {
    status: response.statusCode ?? 0,
    headers: response.headers as Record<string, string>,
    body: (text.startsWith("{") ? JSON.parse(text) : text) as Json,
  };
}

const json = { "content-type": "application/json" };

describe("the gateway", () => {
  it("sends each collection to the service that answers for it, through its sidecar", async () => {
    for (const [path, app] of [
      ...Object.entries(COLLECTIONS).flatMap(([name, app]) => [
        ...[`/${name}`, `/${name}/1`, `/profile/${name}`].map((path) => [path, app] as const),
      ]),
      ["/products/1/productOptions", "inventory"],
      ["/storeOrders/7/accept", "store"],
      ["/payments/1/history", "payment"],
      ["/history?customerId=cust1&status=Paid", "orderview"],
      ["/orders?page=1&size=2", "order"],
      ["/orders/search/findByOrderId?orderId=1", "order"],
    ] as const) {
      const { status, body } = await http("GET", path);
      assert.deepEqual([status, body.method, body.url], [200, "GET", `/v1.0/invoke/${app}/method${path}`]);
    }
    assert.equal(received.length, 3 * 16 + 6);
  });

  it("passes method, body and answer on as they are", async () => {
    answer = (_, response) => {
      response.writeHead(201, {
        "content-type": "application/hal+json",
        location: "/orders/1",
        "x-more": "a",
      });
      response.end('{"id":1}');
    };
    const placed = await http("POST", "/orders", '{"qty":1}', json);
    assert.deepEqual([placed.status, placed.body], [201, { id: 1 }]);
    assert.deepEqual(
      [placed.headers["content-type"], placed.headers.location, placed.headers["x-more"]],
      ["application/hal+json", "/orders/1", "a"],
    );
    assert.deepEqual(
      [received[0]?.body, received[0]?.headers["content-type"]],
      ['{"qty":1}', "application/json"],
    );
    answer = (_, response) => response.writeHead(204).end();
    for (const method of ["PUT", "PATCH", "DELETE"]) {
      const { status, body } = await http(method, "/products/1", method === "DELETE" ? "" : "{}", json);
      assert.deepEqual([status, body], [204, ""]);
      assert.equal(received.at(-1)?.method, method);
    }
  });

  it("passes on what a service refuses, in its words", async () => {
    const problem = { type: "urn:jangteo:problem:payment-unavailable", title: "t", status: 503, detail: "d" };
    answer = (_, response) => {
      response.writeHead(503, { "content-type": "application/problem+json", "retry-after": "2" });
      response.end(JSON.stringify(problem));
    };
    const refused = await http("POST", "/orders", "{}", json);
    assert.deepEqual([refused.status, refused.headers["retry-after"]], [503, "2"]);
    assert.deepEqual(refused.body, problem);
    assert.equal(refused.headers["content-type"], "application/problem+json");
  });

  it("is also where the seed's ingress was (S0-G1)", async () => {
    await http("GET", "/api/fashion-order/products");
    await http("POST", "/api/fashion-order/orders", "{}", json);
    assert.deepEqual(
      received.map(({ url }) => url),
      ["/v1.0/invoke/inventory/method/products", "/v1.0/invoke/order/method/orders"],
    );
    assert.ok(received[1]?.headers["idempotency-key"]);
    assertProblem(await http("GET", "/api/products"), 404, "no-such-route");
    assertProblem(await http("GET", "/api/fashion-order/x"), 404, "no-such-route");
  });

  it("gives a POST an Idempotency-Key where it has none", async () => {
    await http("POST", "/orders", "{}", json);
    await http("POST", "/orders", "{}", json);
    await http("POST", "/orders", "{}", { ...json, "Idempotency-Key": "mine" });
    await http("POST", "/products", "{}", json);
    await http("DELETE", "/orders/1");
    const [one, other, mine, product, none] = received.map(({ headers }) => headers["idempotency-key"]);
    for (const made of [one, other, product]) assert.match(String(made), /^[0-9a-f-]{36}$/);
    assert.equal(new Set([one, other, product]).size, 3);
    assert.deepEqual([mine, none], ["mine", undefined]);
  });

  it("keeps to itself what belongs to a connection or to its sidecar, both ways", async () => {
    answer = (request, response) => {
      response.setHeader("keep-alive", "timeout=99");
      response.setHeader("dapr-error-info", "x");
      response.setHeader("x-kept", "yes");
      echo(request, response);
    };
    const sent = {
      ...{ connection: "close", "keep-alive": "x", "proxy-connection": "x", te: "trailers", upgrade: "h2c" },
      ...{ "dapr-app-id": "payment", "dapr-api-token": "secret", host: "shop.example", "x-kept": "yes" },
    };
    const { headers } = await http("GET", "/orders", "", sent);
    assert.deepEqual(
      [headers["keep-alive"], headers["dapr-error-info"], headers["x-kept"]],
      [undefined, undefined, "yes"],
    );
    const got = received[0]?.headers ?? {};
    assert.equal(got["x-kept"], "yes");
    for (const name of ["keep-alive", "proxy-connection", "te", "upgrade", "dapr-app-id", "dapr-api-token"])
      assert.equal(got[name], undefined, name);
    assert.match(got.host ?? "", /^127\.0\.0\.1:/);
  });

  it("goes on with the client's trace, or begins one", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    await http("GET", "/orders", "", { traceparent });
    await http("GET", "/orders");
    assert.equal(received[0]?.headers.traceparent, traceparent);
    assert.match(String(received[1]?.headers.traceparent), /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  });

  it("lets payments that are announced be paid and taken back, and lets nobody announce one", async () => {
    for (const [method, path] of [
      ["GET", "/payments"],
      ["HEAD", "/payments/1"],
      ["PUT", "/payments/1"],
      ["PATCH", "/payments/1"],
      ["PUT", "/payments/1/pay"],
      ["DELETE", "/payments/1"],
    ] as const) {
      const body = method === "PUT" || method === "PATCH" ? '{"paymentStatus":"END"}' : "";
      assert.equal((await http(method, path, body, json)).status, 200, `${method} ${path}`);
      const { method: sent, url, body: got } = received.at(-1) ?? {};
      assert.deepEqual([sent, url, got], [method, `/v1.0/invoke/payment/method${path}`, body]);
    }
    received.length = 0;
    for (const path of ["/payments", "/payments/", "/payments/1", "/api/shop/payments"]) {
      const refused = await http("POST", path, "{}", json);
      assertProblem(refused, 405, "method-not-allowed");
      assert.equal(refused.headers.allow, "GET, HEAD, PUT, PATCH, DELETE");
    }
    assert.equal(received.length, 0);
  });

  it("keeps what only services ask of each other to them", async () => {
    for (const path of ["/closings/1", "/reservations/1", "/api/shop/closings/1", "/profile/closings"])
      for (const method of ["GET", "PUT", "POST"])
        assertProblem(await http(method, path, method === "GET" ? "" : "{}", json), 404, "no-such-route");
    assert.equal(received.length, 0);
  });

  it("lets nothing out of its collections: what is not there, and what only looks as if it were", async () => {
    for (const path of [
      ...["/nothing", "/reservations/1", "/closings/1", "/drill", "/events/OrderPlaced", "/v1.0/metadata"],
      ...["/profile", "/profile/nothing", "/Orders", "//orders", "/constructor", "/__proto__", "/toString"],
      ...["/orders/../../v1.0/metadata", "/orders/..%2f..%2fv1.0/metadata", "/orders/%2e%2e/%2e%2e/payments"],
      ...["/orders/..;/metadata", "/orders/..\\..\\metadata", "/orders/1%00", "/orders/%25", "/orders/1%3fx"],
      ...["/orders/1%2freservations", "/api/x/../orders/..", "/orders/..", "/orders/a/../b"],
    ])
      for (const method of ["GET", "POST"]) assertProblem(await http(method, path), 404, "no-such-route");
    assert.equal(received.length, 0);
  });

  it("takes no more than 1 MiB, whether or not it is told how much is coming", async () => {
    // Not over the wire, where the connection may break before its other end has read the answer.
    const body = "x".repeat(1024 * 1024 + 1);
    assertProblem(await host.http("POST", "/orders", body, json), 413, "body-too-large");
    const chunks = Readable.from([body.slice(1000), body.slice(0, 1000)].map((text) => Buffer.from(text)));
    const options = { method: "POST", url: "/orders", headers: json, payload: chunks } as const;
    const { statusCode, headers, payload } = await inject(host.composed.koa.callback(), options);
    assert.deepEqual([statusCode, headers.connection], [413, "close"], payload);
    assert.equal(received.length, 0);
    const most = "x".repeat(1024 * 1024);
    assert.equal((await http("POST", "/orders", most, json)).status, 200);
    assert.equal(received[0]?.body.length, most.length);
  });

  it("says to try later when its sidecar cannot reach the service", async () => {
    answer = (_, response) => {
      response.writeHead(500, { "content-type": "application/json" });
      response.end(
        '{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: order, err: secret detail"}',
      );
    };
    const refused = await http("GET", "/orders");
    const problem = assertProblem(refused, 503, "unavailable");
    assert.deepEqual([refused.headers["retry-after"], problem.service], ["2", "order"]);
    assert.doesNotMatch(JSON.stringify(problem), /secret/);
    // Not permitted, or a token that is not theirs: a mistake of ours, and none of the customer's.
    for (const [status, type, text] of [
      [
        403,
        "application/json",
        '{"errorCode":"ERR_DIRECT_INVOKE","message":"access control policy: secret"}',
      ],
      [401, "text/plain", "invalid api token"],
      [401, "application/problem+json", '{"type":"urn:jangteo:problem:not-through-the-sidecar"}'],
    ] as const) {
      answer = (_, response) => response.writeHead(status, { "content-type": type }).end(text);
      assertProblem(await http("GET", "/orders"), 503, "unavailable");
    }
    answer = (_, response) => {
      response.writeHead(500, { "content-type": "application/json" });
      response.end('{"oops":true}');
    };
    const own = await http("GET", "/orders");
    assert.deepEqual(
      [own.status, own.body],
      [500, { oops: true }],
      "an error of the service itself is passed on",
    );
  });

  it("says to try later when the connection breaks", async () => {
    answer = (_, response) => response.destroy();
    const refused = await http("GET", "/deliveries");
    assertProblem(refused, 503, "unavailable");
    assert.equal(refused.headers["retry-after"], "2");
    answer = (_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": "100" });
      response.write("{");
      setImmediate(() => response.destroy());
    };
    assertProblem(await http("GET", "/deliveries"), 503, "unavailable");
    answer = (_, response) => response.writeHead(200).end();
    assertProblem(await http("GET", "/deliveries"), 503, "unavailable");
    answer = echo;
    assert.equal((await http("GET", "/deliveries")).status, 200);
  });

  it("says to try later when its sidecar is not there", async () => {
    const alone = await hostInMemory(new MemoryDapr(), gateway, { daprPort: 1 });
    const refused = await alone.http("GET", "/orders");
    assertProblem(refused, 503, "unavailable");
    assert.equal(refused.headers["retry-after"], "2");
    await alone.stop();
  });

  it("shows the collections at its door, and how it is", async () => {
    const { body } = await http("GET", "/");
    assert.deepEqual(Object.keys(body._links ?? {}), ["self", ...Object.keys(COLLECTIONS)]);
    for (const name of Object.keys(COLLECTIONS)) assert.deepEqual(body._links?.[name], { href: `/${name}` });
    for (const path of ["/healthz", "/readyz", "/actuator/health", "/actuator/echo"])
      assert.equal((await http("GET", path)).status, 200, path);
    assert.equal(String((await http("GET", "/dapr/subscribe")).body), "[]", "it listens to nothing");
    assert.equal(received.length, 0);
  });
});

describe("more than can be done", () => {
  it("waits outside, not too many; the others are told at once, reads and other services are not", async (t) => {
    const held: (() => void)[] = [];
    let holding = true;
    const orders = () =>
      received.filter(({ method, url }) => method === "POST" && url.includes("/orders")).length;
    answer = (got, response) => {
      if (holding && got.method === "POST") held.push(() => echo(got, response));
      else echo(got, response);
    };
    const bounds = { atOnce: 4, waitingEach: 8, waiting: 32, patienceMs: 60_000, slowMs: 60_000 };
    const pool = new Pool(`http://127.0.0.1:${sidecarPort}`);
    t.after(() => pool.close());
    const open = openings(readDialects("shops/dialects.yaml", "fashion"));
    const koa = createKoa(routes(open), silent);
    koa.middleware.splice(1, 0, proxy(pool, open, clients([]), bounds));
    const ask = async (
      method: "GET" | "POST" | "PUT",
      url: string,
      remoteAddress = "127.0.0.1",
    ): Promise<Answered> => {
      const payload = method === "GET" ? {} : { payload: "{}" };
      const options = {
        method,
        url,
        remoteAddress,
        headers: { ...json, "x-from": remoteAddress },
        ...payload,
      };
      const { statusCode: status, headers, body } = await inject(koa.callback(), options);
      return { status, headers: headers as Record<string, string>, body: JSON.parse(body) };
    };
    const refused: Answered[] = [];
    const order = (count: number, from?: string) =>
      Array.from({ length: count }, async () => {
        const one = await ask("POST", "/orders", from);
        if (one.status !== 200) refused.push(one);
      });

    const mine = order(4);
    await until(() => held.length === 4, "as many are under way as may be");
    mine.push(...order(20));
    await until(() => refused.length === 12, "as many wait as may");
    for (const one of refused) {
      assertProblem(one, 503, "overloaded");
      assert.match(one.headers["retry-after"] ?? "", /^\d+$/);
    }
    for (const [method, path] of [
      ["GET", "/orders"],
      ["PUT", "/storeOrders/1/accept"],
    ] as const)
      assert.equal((await ask(method, path)).status, 200, path);
    assert.equal(held.length, 4);

    const others = order(9, "192.0.2.1");
    await until(() => refused.length === 13, "as many of another client wait");
    const letOut = () => held.shift()?.();
    letOut();
    await until(() => orders() === 5, "one of the first's has come in");
    letOut();
    await until(() => orders() === 6, "and then another one");
    assert.equal(received.at(-1)?.headers["x-from"], "192.0.2.1", "although seven have waited longer");
    holding = false;
    for (const end of held.splice(0)) end();
    await Promise.all([...mine, ...others]);
    assert.equal(refused.length, 13, "nobody else was refused");
    assert.equal(orders(), 4 + 8 + 8);
  });

  it("of one client is refused, and of another not; health is always told", async () => {
    const own = await hostInMemory(new MemoryDapr(), gateway, {
      ...{ daprPort: sidecarPort, rateLimit: 5, trustedProxies: ["127.0.0.1"] },
    });
    const from = (client: string) =>
      own.http("GET", "/orders", undefined, { "X-Forwarded-For": `1.2.3.4, ${client}` });
    const seen = await Promise.all(Array.from({ length: 30 }, () => from("203.0.113.9")));
    const refused = seen.filter(({ status }) => status !== 200);
    assert.ok(refused.length > 0 && refused.length <= 20, `${refused.length}`);
    for (const one of refused) {
      assertProblem(one, 429, "too-many-requests");
      assert.equal(one.headers["retry-after"], "1");
    }
    assert.equal((await from("203.0.113.10")).status, 200);
    for (let i = 0; i < 30; i++) assert.equal((await own.http("GET", "/readyz")).status, 200);
    await own.stop();
  });
});

describe("the dead letters of all services", () => {
  const reply = (response: ServerResponse, status: number, body: object) =>
    response
      .writeHead(status, { "content-type": status < 300 ? "application/json" : "application/problem+json" })
      .end(JSON.stringify(body));
  const appOf = ({ url }: Received) => /^\/v1\.0\/invoke\/(\w+)\/method/.exec(url)?.[1] ?? "";
  const letter = (id: string, second: number) => ({ id, since: `2026-11-21T00:00:0${second}.000Z` });
  /** order and store have some, payment is away */
  const has: Record<string, object[]> = {
    order: [letter("order-2", 4), letter("order-1", 1)],
    store: [letter("store-1", 3)],
  };
  beforeEach(() => {
    answer = (request, response) => {
      const app = appOf(request);
      if (app === "payment") return reply(response, 503, {});
      const deadLetters = has[app] ?? [];
      reply(response, 200, { _embedded: { deadLetters }, page: { totalElements: deadLetters.length } });
    };
  });
  const ids = (list: Answered) => embedded(list, "deadLetters").map(({ id }) => String(id));

  it("are one list, newest first, which says who is not in it", async () => {
    const list = await http("GET", "/deadLetters?topic=OrderPaid&size=2");
    assert.deepEqual(ids(list), ["order-2", "store-1"]);
    assert.deepEqual(list.body.unavailable, ["payment"]);
    assert.deepEqual(list.body.page, { size: 2, totalElements: 3, totalPages: 2, number: 0 });
    assert.deepEqual(list.body._links?.next, { href: "/deadLetters?topic=OrderPaid&page=1&size=2" });
    assert.deepEqual(ids(await http("GET", "/deadLetters?size=2&page=1")), ["order-1"]);
    assert.ok(received[0]?.url.endsWith("/method/deadLetters?topic=OrderPaid&page=0&size=2"));
  });

  it("of one service are asked of that alone", async () => {
    assert.deepEqual(ids(await http("GET", "/deadLetters?app=store&page=3&size=500")), ["store-1"]);
    assert.deepEqual(
      received.map(({ url }) => url),
      ["/v1.0/invoke/store/method/deadLetters?page=3&size=500"],
    );
  });

  it("are asked for in vain where the question is wrong", async () => {
    for (const query of ["?app=x", "?size=0", "?size=500&page=2"])
      assertProblem(await http("GET", `/deadLetters${query}`), 422, "invalid-field");
    for (const id of ["x-1", "order", "order-x", "gateway-1"])
      assertProblem(await http("GET", `/deadLetters/${id}`), 404, "not-found");
    assertProblem(await http("PUT", "/deadLetters", "{}", json), 405, "method-not-allowed");
    assert.equal(received.length, 0);
    answer = (_, response) =>
      reply(response, 422, {
        type: "urn:jangteo:problem:invalid-field",
        title: "t",
        status: 422,
        detail: "d",
      });
    assertProblem(await http("GET", "/deadLetters?topic=x"), 422, "invalid-field");
  });

  it("are each its service's to show, replay and discard", async () => {
    answer = (_, response) => reply(response, 409, { status: 409 });
    for (const [method, path] of [
      ["GET", "/deadLetters/order-3"],
      ["DELETE", "/deadLetters/order-3"],
      ["PUT", "/deadLetters/order-3/replay"],
      ["POST", "/deadLetters/order-3/replay"],
    ] as const) {
      const { status, headers } = await http(method, path);
      assert.deepEqual([status, headers["content-type"]], [409, "application/problem+json"]);
      const { method: sent, url } = received.at(-1) ?? {};
      assert.deepEqual([sent, url], [method, `/v1.0/invoke/order/method${path}`]);
    }
    answer = (_, response) => response.writeHead(204).end();
    assert.equal((await http("DELETE", "/deadLetters/order-3")).status, 204);
  });

  it("are replayed and discarded everywhere, and counted", async () => {
    answer = (request, response) => {
      const app = appOf(request);
      if (app === "payment") return reply(response, 503, {});
      reply(
        response,
        200,
        app === "order" ? { replayed: 2, returned: 1, left: 4 } : { replayed: 1, left: 0 },
      );
    };
    const { status, body } = await http("POST", "/deadLetters/replay");
    const { triedBefore, ...counts } = body;
    assert.equal(status, 200);
    assert.deepEqual(counts, { replayed: 8, returned: 1, left: 4, unavailable: ["payment"] });
    const asked = received.map(({ method, url }) => `${method} ${url.slice(url.indexOf("/method"))}`);
    const path = `/method/deadLetters/replay?${new URLSearchParams({ triedBefore: String(triedBefore) })}`;
    assert.deepEqual([...new Set(asked)], [`POST ${path}`], "all with the same time");
    received.length = 0;
    await http("POST", "/deadLetters/replay?app=order&topic=OrderPaid&triedBefore=2026-11-21T00:00:00Z");
    await http("DELETE", "/deadLetters?app=order");
    assert.deepEqual(
      received.map(({ method, url }) => [method, new URLSearchParams(url.split("?")[1]).toString()]),
      [
        ["POST", "triedBefore=2026-11-21T00%3A00%3A00Z&topic=OrderPaid"],
        ["DELETE", ""],
      ],
    );
  });
});

describe("a page of another origin (S3-G2)", () => {
  const origin = "https://shop.example";
  const preflight = {
    ...{ origin, "access-control-request-method": "POST" },
    "access-control-request-headers": "content-type,idempotency-key",
  };
  const granted = ({ headers }: Answered) => [
    headers["access-control-allow-origin"],
    headers["access-control-allow-credentials"],
  ];
  const gatewayWith = (cors: { origins?: "*" | string[]; credentials?: boolean }) =>
    hostInMemory(new MemoryDapr(), gateway, { daprPort: sidecarPort, shop: shopWith({ cors }) });

  it("may ask first, which goes no further than here", async () => {
    for (const path of ["/orders", "/payments/1", "/cafeOrders/1/orderapprove", "/nowhere"]) {
      const asked = await http("OPTIONS", path, "", preflight);
      assert.deepEqual([asked.status, asked.body, ...granted(asked)], [204, "", origin, "true"], path);
      for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        assert.match(asked.headers["access-control-allow-methods"] ?? "", new RegExp(`\\b${method}\\b`));
      assert.equal(asked.headers["access-control-allow-headers"], "content-type,idempotency-key");
      assert.equal(asked.headers["access-control-max-age"], "600");
      assert.match(asked.headers.vary ?? "", /origin/i, "or a cache would tell the next origin the same");
    }
    assert.equal(received.length, 0);
  });

  it("may then do it, and read where the order is and when to try again", async () => {
    const placed = await http("POST", "/orders", "{}", { ...json, origin });
    assert.deepEqual([placed.status, ...granted(placed)], [200, origin, "true"]);
    const exposed = placed.headers["access-control-expose-headers"] ?? "";
    assert.deepEqual(exposed.toLowerCase().split(/, ?/), ["location", "retry-after"]);
    assert.equal(received.length, 1);
  });

  it("is told of errors too, ours and the services'", async () => {
    const at = { ...json, origin };
    const cases: [Answered, number][] = [
      [await http("GET", "/nowhere", "", at), 404],
      [await http("POST", "/payments", "{}", at), 405],
      [await host.http("POST", "/orders", "x".repeat(1024 * 1024 + 1), at), 413],
    ];
    answer = (_, response) => response.destroy();
    cases.push([await http("GET", "/orders", "", at), 503]);
    answer = (_, response) => {
      response.writeHead(422, { "content-type": "application/problem+json" });
      response.end('{"status":422}');
    };
    cases.push([await http("POST", "/orders", "{}", at), 422]);
    for (const [refused, status] of cases)
      assert.deepEqual([refused.status, ...granted(refused)], [status, origin, "true"]);
  });

  it("is none that names no origin", async () => {
    const shown = await http("GET", "/orders");
    assert.deepEqual([shown.status, ...granted(shown)], [200, undefined, undefined]);
  });

  it("may be one of those that the shop names, and no other", async () => {
    const some = await gatewayWith({ origins: [origin, "http://localhost:3000"] });
    for (const [asking, allowed] of [
      [origin, origin],
      ["http://localhost:3000", "http://localhost:3000"],
      ["https://evil.example", undefined],
      ["https://shop.example.evil.example", undefined],
      ["null", undefined],
    ] as const) {
      for (const [method, headers] of [
        ["OPTIONS", { ...preflight, origin: asking }],
        ["GET", { origin: asking }],
      ] as const) {
        const [named, credentials] = granted(await some.http(method, "/orders", undefined, headers));
        assert.deepEqual([named, credentials], [allowed, allowed && "true"], `${method} from ${asking}`);
      }
    }
    await some.stop();
  });

  it("may be any, without credentials, where the shop wants none", async () => {
    const open = await gatewayWith({ credentials: false });
    for (const [method, headers] of [
      ["OPTIONS", preflight],
      ["GET", { origin }],
    ] as const)
      assert.deepEqual(granted(await open.http(method, "/orders", undefined, headers)), ["*", undefined]);
    await open.stop();
  });
});
