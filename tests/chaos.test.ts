/** Chaos: that it is what it says, and half a minute and a bit of it on each backend. `npm run chaos` goes on for longer. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { parseShop } from "#kit/shop.js";
import { type Published, untold } from "./chaos-audit.js";
import { Crowd } from "./chaos-load.js";
import { plan, randomOf } from "./chaos-plan.js";
import { chaos } from "./chaos-run.js";
import type { Dump } from "./invariants.js";

const PORTS = 7_020;

describe("a plan of disasters", () => {
  const apps = ["order", "payment", "gateway"];
  const processes = [
    ...["redis", "mysql"].map((name) => ({ name, kind: "server" as const })),
    ...apps.map((name) => ({ name: `${name}-0`, kind: "app" as const })),
    ...apps.map((name) => ({ name: `${name}-0-sidecar`, kind: "sidecar" as const })),
  ];
  const tenMinutes = (seed: number) => plan(seed, 600_000, processes);

  it("is the same for the same seed, and another one for another", () => {
    assert.deepEqual(tenMinutes(1), tenMinutes(1));
    assert.notDeepEqual(tenMinutes(1), tenMinutes(2));
  });

  it("hits everything in every way, several at once now and then", () => {
    const blows = tenMinutes(3);
    assert.deepEqual(new Set(blows.map(({ victim }) => victim)), new Set(processes.map(({ name }) => name)));
    assert.deepEqual(new Set(blows.map(({ how }) => how)), new Set(["kill", "stop", "restart"]));
    const times = blows.map(({ at }) => at);
    assert.ok(new Set(times).size < times.length, "some at once");
    assert.ok(blows.length > 100 && blows.every(({ at, forMs }) => at + forMs <= 600_000));
  });

  it("lets a victim come to itself before it is hit again", () => {
    for (const { name } of processes) {
      const own = tenMinutes(4).filter(({ victim }) => victim === name);
      for (const [i, { at, forMs }] of own.entries())
        assert.ok((own[i + 1]?.at ?? Number.POSITIVE_INFINITY) >= at + forMs, name);
    }
  });
});

describe("people in a shop in trouble", () => {
  const problem = (status: number, code: string, more: object = {}) => ({
    status,
    type: "application/problem+json",
    body: JSON.stringify({ type: `urn:jangteo:problem:${code}`, status, ...more }),
  });
  type Said = { status: number; type: string; body: string; headers?: Record<string, string> };
  const soon = { "retry-after": "1" };

  /** What the first one of them says of a gateway that always answers so, or that closes the connection. */
  const found = async (said: Said | undefined, isExcused = false): Promise<string[]> => {
    const answer: RequestListener = (request, response) => {
      crowd.stop();
      if (said === undefined) return request.socket.destroy();
      response.writeHead(said.status, { "content-type": said.type, ...said.headers }).end(said.body);
    };
    const server: Server = createServer((request, response) => {
      // The second answer is a good one, so that nobody insists for minutes.
      if (answered++ > 0) response.writeHead(201, { "content-type": "application/json" }).end('{"id":1}');
      else answer(request, response);
    });
    let answered = 0;
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const crowd = new Crowd(`http://127.0.0.1:${port}`, randomOf(1), () => isExcused);
    try {
      await crowd.run(1);
      assert.ok(answered > 0);
      return crowd.findings;
    } finally {
      server.closeAllConnections();
      server.close();
    }
  };

  it("are content with what is asked for, and with an honest 503", async () => {
    assert.deepEqual(await found({ status: 201, type: "application/hal+json", body: '{"id":1}' }), []);
    assert.deepEqual(await found({ ...problem(503, "unavailable"), headers: soon }), []);
  });

  it("complain of anything else: another 5xx, no problem of ours, no Retry-After, a refusal for no reason", async () => {
    const bad: [string, Said][] = [
      ["500", problem(500, "internal")],
      ["no problem of ours", { status: 502, type: "text/html", body: "<html>Bad Gateway" }],
      ["no problem of ours", { status: 503, type: "application/json", body: '{"errorCode":"ERR_X"}' }],
      ["503 without Retry-After", problem(503, "unavailable")],
      ["422", problem(422, "invalid-field")],
      ["an answer that is no JSON", { status: 200, type: "text/plain", body: "" }],
    ];
    await Promise.all(
      bad.map(async ([what, said]) => {
        const [first = "nothing"] = await found(said);
        assert.ok(first.includes(what), `${what}: ${first}`);
      }),
    );
  });

  it("excuse no answer only while the gateway itself is down", async () => {
    assert.match((await found(undefined))[0] ?? "", /no answer/);
    assert.deepEqual(await found(undefined, true), []);
  });
});

describe("the events on record", () => {
  const shop = parseShop(
    "name: x\ntitle: { en: x, ko: x }\ncatalogue: [{ id: 1, name: TV, price: 1, stock: 9 }]",
    "x.yaml",
  );
  const told: Published[] = [
    { id: "order/order:1/2/0", type: "OrderPlaced", data: { orderId: 1 } },
    { id: "payment/payment:1/1/0", type: "PaymentApproved", data: { orderId: 1 } },
    { id: "inventory/product:1/2/0", type: "StockDecreased", data: { orderId: 1, productId: 1, qty: 2 } },
    {
      id: "loyalty/card:tel:010/1/0",
      type: "StampsEarned",
      data: { orderId: 1, phoneNumber: "010", qty: 2 },
    },
  ];
  const store = (name: string, key: string, state: object) => [name, new Map([[key, { state }]])] as const;
  const dump: Dump = new Map([
    store("orders", "order:1", { status: "OrderPlaced" }),
    store("payments", "payment:1", { history: [{ what: "PaymentApproved" }] }),
    store("inventory", "product:1", { stock: 7 }),
    store("stamps", "card:tel:010", { phoneNumber: "010", stampQty: 2 }),
  ]);
  const wrong = (events: Published[]) => untold(dump, events, { shop, promised: [] });

  it("are all published, and nothing else is", () => {
    assert.deepEqual(wrong(told), []);
    for (const [i, { type }] of told.entries()) {
      const sentences = wrong(told.toSpliced(i, 1));
      assert.equal(sentences.length, 1, `${type} missing: ${sentences}`);
    }
    const cancelled: Published = { id: "order/order:1/3/0", type: "OrderCancelled", data: { orderId: 1 } };
    assert.deepEqual(wrong([...told, cancelled]), ["OrderCancelled of 1 was published, and is not so"]);
  });
});

describe("chaos", () => {
  /** The seeds hit every kind of process of their backend; the first test below says so if that changes. */
  const DISASTERS = [
    { backend: "embedded", seed: 7, servers: ["redis"] },
    { backend: "polyglot", seed: 4, servers: ["mysql", "mongodb", "redis-6390"] },
  ];
  for (const { backend, seed, servers } of DISASTERS)
    it(`${backend}: apps, sidecars and ${servers.join(", ")} are hit for 50 s; nothing is lost, nothing is there twice`, async () => {
      const report = await chaos({ backend, minutes: 50 / 60, seed, replicas: {}, ports: PORTS }, () => {});
      assert.deepEqual(report.wrong, [], `data and logs: ${report.kept}`);
      const hit = [...report.recoveries.keys()];
      for (const victim of ["apps", "sidecars", ...servers])
        assert.ok(hit.includes(victim), `${victim} was hit; seed ${seed} hits ${hit}`);
      assert.ok(report.crowd.promised.length > 50, `${report.crowd.promised.length} orders`);
      assert.ok((report.counted.order ?? 0) >= new Set(report.crowd.promised.map((one) => one.orderId)).size);
      for (const kind of ["payment", "ticket", "delivery", "message", "grant"])
        assert.ok((report.counted[kind] ?? 0) > 10, `${kind}: ${report.counted[kind]}`);
    });
});
