/** Holds the real sidecar and its in-memory twin to the same suites (tests/suites.ts). */
import "reflect-metadata";
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "redis";
import { guard, unguard } from "#dapr/guard.js";
import { Supervised, until as within } from "#dapr/processes.js";
import { root } from "#dapr/runner.js";
import { serversFor } from "#dapr/servers.js";
import {
  type Instance,
  instances,
  type Rendered,
  readTopology,
  render,
  sidecarArgs,
} from "#dapr/topology.js";
import { daprSidecar } from "#kit/dapr.js";
import type { EventType } from "#kit/events.js";
import { MemoryDapr } from "#kit/memory.js";
import { type Composed, compose } from "#kit/service.js";
import { Conflict, type Sidecar, Unavailable } from "#kit/sidecar.js";
import { cloudEvent, hostInMemory, SHOP, settled, silent, until } from "#kit/testing.js";
import { busSuite, REPLICAS, type Replica, type Subscriber, storeSuite } from "./suites.js";

// --- the twin ------------------------------------------------------------------------------------------------------

storeSuite("the twin", async () => ({
  store: new MemoryDapr().sidecar("orders").store,
  close: async () => undefined,
}));

busSuite("the twin", async (subscriber) => {
  const dapr = new MemoryDapr();
  const names = Object.keys(REPLICAS) as Replica[];
  const hosts = new Map(
    await Promise.all(
      names.map(
        async (name) => [name as string, await hostInMemory(dapr, subscriber(name), { slot: name })] as const,
      ),
    ),
  );
  return {
    publisher: dapr.sidecar("none"),
    down: async (name) => hosts.get(name)?.leave(),
    up: async (name) => hosts.get(name)?.join(),
    deadLetters: async (app) => (dapr.deadLetters.get(app) ?? []).map(({ id }) => id),
    unacknowledged: async () => {
      await settled(dapr);
      return 0;
    },
    close: async () => {
      for (const host of hosts.values()) await host.stop();
    },
  };
});

// --- the real sidecar ----------------------------------------------------------------------------------------------

const PORTS = 15_000;
const BACKEND = "embedded";
/** State components of the services, by app-id: those that may lie on different kinds of store. */
const STORES = { order: "orders", delivery: "deliveries", orderview: "orderview" } as const;

/** Servers and sidecars of a backend, without the services: their place is taken by apps of the test. */
class Installation {
  private readonly processes: Supervised[] = [];
  private constructor(
    private readonly data: string,
    readonly list: Instance[],
    readonly rendered: Rendered,
  ) {}

  /** Starts the servers, and a sidecar for each replica named. */
  static async start(names: readonly string[]): Promise<Installation> {
    assert.ok(
      process.env.DAPRD,
      "DAPRD does not say where daprd is: run this with npm test, which finds or builds it",
    );
    const data = mkdtempSync(join(tmpdir(), "jangteo-conformance-"));
    const topology = readTopology(join(root, "dapr", "dapr.yaml"), join(root, "components", BACKEND));
    const list = instances(topology, { store: 2 }, PORTS).filter(({ name }) => names.includes(name));
    assert.deepEqual(list.map(({ name }) => name).sort(), [...names].sort());
    const started = new Installation(data, list, render(topology, join(data, "run"), PORTS));
    guard(started);
    try {
      await started.startAll();
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  }

  private async startAll(): Promise<void> {
    for (const server of serversFor(this.rendered.components, this.data)) {
      mkdirSync(server.directory, { recursive: true });
      this.run({ ...server, kind: "server", cwd: this.data, env: () => ({}) });
    }
    await this.ready();
    for (const instance of this.list) {
      const { name, ports } = instance;
      this.run({
        ...{
          name,
          kind: "sidecar",
          command: process.env.DAPRD ?? "",
          args: sidecarArgs(instance, this.rendered),
        },
        ...{ cwd: this.data, env: () => ({ DAPR_HOST_IP: "127.0.0.1" }), port: ports.http },
        ready: () =>
          fetch(`http://127.0.0.1:${ports.http}/v1.0/healthz/outbound`).then(
            ({ ok }) => ok,
            () => false,
          ),
      });
    }
    await this.ready();
  }

  private run(spec: Omit<Supervised["spec"], "log">): void {
    const process = new Supervised(
      { ...spec, log: join(this.data, `${spec.name}.log`) },
      () => undefined,
      () => undefined,
    );
    this.processes.push(process);
    process.start();
  }

  private async ready(): Promise<void> {
    for (const process of this.processes) {
      const ready = await within(() => process.failedStarts > 2 || process.ready(), 30_000);
      const ok = ready && process.failedStarts <= 2;
      assert.ok(ok, ok ? "" : `${process.spec.name} does not start:\n${process.lastLines()}`);
    }
  }

  instance(name: string): Instance {
    const found = this.list.find((instance) => instance.name === name);
    assert.ok(found, name);
    return found;
  }

  /** Port of the one server of this kind, to look at the backend directly. */
  serverPort(name: string): number {
    return this.processes.find(({ spec }) => spec.kind === "server" && spec.name === name)?.spec.port ?? 0;
  }

  pids(): number[] {
    return this.processes.flatMap(({ pid }) => pid ?? []);
  }

  async stop(): Promise<void> {
    for (const process of this.processes.reverse()) await process.stop(3_000);
    unguard(this);
    rmSync(this.data, { recursive: true, force: true });
  }
}

/** An app in this process, where the sidecar of a replica expects one. */
class App {
  private server: Server | undefined;
  private readonly composed: Composed;

  constructor(
    private readonly instance: Instance,
    subscriber: Subscriber,
  ) {
    const { name, app, ports } = instance;
    this.composed = compose(subscriber(name as Replica), {
      config: {
        ...{ app: app.appID, port: ports.app, host: "127.0.0.1", daprPort: ports.http, slot: name, shop: "" },
        ...{ logLevel: "fatal", drills: false },
      },
      shop: SHOP,
      log: silent,
      sidecar: daprSidecar({ port: ports.http, pubsub: "events" }),
      replica: name,
    });
  }

  async up(): Promise<void> {
    await this.composed.start();
    this.server = createServer(this.composed.koa.callback()).listen(this.instance.ports.app, "127.0.0.1");
    this.server.keepAliveTimeout = 120_000;
    await once(this.server, "listening");
  }

  async down(): Promise<void> {
    const closed = this.server && once(this.server, "close");
    this.server?.close();
    this.server?.closeAllConnections();
    await closed;
  }

  /** Resolves when the sidecar has asked what this app listens to. */
  async subscribed(): Promise<void> {
    const metadata = `http://127.0.0.1:${this.instance.ports.http}/v1.0/metadata`;
    await until(
      async () => {
        const { subscriptions } = (await (await fetch(metadata)).json()) as { subscriptions?: unknown[] };
        return subscriptions !== undefined && subscriptions.length > 0;
      },
      `the sidecar of ${this.instance.name} has subscribed`,
      30_000,
    );
  }

  async close(): Promise<void> {
    await this.down();
    await this.composed.stop();
  }
}

/** One app per kind of store that the backend has. */
function kindsOfStore(): Map<string, { app: string; store: string }> {
  const temporary = mkdtempSync(join(tmpdir(), "jangteo-conformance-"));
  const topology = readTopology(join(root, "dapr", "dapr.yaml"), join(root, "components", BACKEND));
  const { components } = render(topology, temporary, PORTS);
  rmSync(temporary, { recursive: true });
  const all = Object.entries(STORES).flatMap(([app, store]) =>
    components.filter(({ name }) => name === store).map(({ type }) => [type, { app, store }] as const),
  );
  assert.ok(all.length > 0, "the backend has stores");
  return new Map(all);
}

for (const [type, { app, store }] of kindsOfStore())
  storeSuite(`a real sidecar, ${type}`, async () => {
    const installation = await Installation.start([`${app}-0`]);
    const sidecar = daprSidecar({
      port: installation.instance(`${app}-0`).ports.http,
      store,
      pubsub: "events",
    });
    return {
      store: sidecar.store,
      close: async () => {
        await sidecar.close();
        await installation.stop();
      },
    };
  });

busSuite("a real sidecar", async (subscriber) => {
  const installation = await Installation.start(["order-0", ...Object.keys(REPLICAS)]);
  const apps = new Map(
    Object.keys(REPLICAS).map((name) => [name, new App(installation.instance(name), subscriber)] as const),
  );
  const publisher = daprSidecar({ port: installation.instance("order-0").ports.http, pubsub: "events" });
  const redis = createClient({ url: `redis://127.0.0.1:${installation.serverPort("redis")}` });
  const close = async () => {
    for (const app of apps.values()) await app.close();
    await publisher.close();
    if (redis.isOpen) redis.destroy();
    await installation.stop();
  };
  try {
    await redis.connect();
    for (const app of apps.values()) await app.up();
    for (const app of apps.values()) await app.subscribed();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    publisher,
    down: async (name) => apps.get(name)?.down(),
    up: async (name) => apps.get(name)?.up(),
    deadLetters: async (app) => {
      const entries = await redis.xRange(`dead-letters-${app}`, "-", "+");
      return (entries ?? []).map(({ message }) => (JSON.parse(message.data ?? "{}") as { id: string }).id);
    },
    unacknowledged: async (app, topic: EventType) => {
      const { pending } = await redis.xPending(topic, app);
      return pending;
    },
    close,
  };
});

// --- what only a real connection does ------------------------------------------------------------------------------

describe("a sidecar whose answers are lost", () => {
  let installation: Installation;
  let line: Server;
  let sidecar: Sidecar;
  let other: Sidecar;
  /** what happens to the next write that passes */
  let lose: "nothing" | "request" | "answer" = "nothing";
  let meanwhile: () => Promise<void> = async () => undefined;

  before(async () => {
    installation = await Installation.start(["order-0"]);
    const { http: port } = installation.instance("order-0").ports;
    line = createServer(async (asked, answer) => {
      const chunks: Buffer[] = [];
      for await (const chunk of asked) chunks.push(chunk as Buffer);
      const losing = asked.method === "POST" && !asked.url?.endsWith("/bulk") ? lose : "nothing";
      if (losing !== "nothing") lose = "nothing";
      if (losing === "request") {
        await meanwhile();
        return answer.destroy();
      }
      const { method, url: path, headers } = asked;
      const passed = request({ host: "127.0.0.1", port, method, path, headers });
      passed.end(Buffer.concat(chunks));
      const [got] = await once(passed, "response");
      if (losing === "nothing") return got.pipe(answer.writeHead(got.statusCode, got.headers));
      got.resume();
      await meanwhile();
      answer.destroy();
    }).listen(0, "127.0.0.1");
    await once(line, "listening");
    const options = { store: "orders", pubsub: "events" };
    sidecar = daprSidecar({ port: (line.address() as AddressInfo).port, ...options });
    other = daprSidecar({ port, ...options });
  });
  after(async () => {
    await sidecar?.close();
    await other?.close();
    line?.closeAllConnections();
    line?.close();
    await installation?.stop();
  });

  const key = (name: string) => `lost:${name}`;
  const value = async (name: string) => (await other.store.get([key(name)])).get(key(name))?.value;
  const etag = async (name: string) => (await other.store.get([key(name)])).get(key(name))?.etag ?? null;

  it("has written after all, and says so", async () => {
    lose = "answer";
    await sidecar.store.save(key("a"), { n: 1 }, null);
    assert.deepEqual(await value("a"), { n: 1 });
    lose = "answer";
    await sidecar.store.save(key("a"), { n: 2 }, await etag("a"));
    assert.deepEqual(await value("a"), { n: 2 });
    assert.equal(lose, "nothing", "an answer was lost");
  });

  it("has not written, and says that it does not know", async () => {
    lose = "request";
    await assert.rejects(sidecar.store.save(key("b"), { n: 1 }, null), Unavailable);
    assert.equal(await value("b"), undefined);
    await sidecar.store.save(key("b"), { n: 1 }, null);
    lose = "request";
    await assert.rejects(sidecar.store.save(key("b"), { n: 2 }, await etag("b")), Unavailable);
    assert.deepEqual(await value("b"), { n: 1 });
  });

  it("was overtaken, and says so", async () => {
    await sidecar.store.save(key("c"), { n: 1 }, null);
    for (const lost of ["request", "answer"] as const) {
      const before = await etag("c");
      lose = lost;
      meanwhile = async () => other.store.save(key("c"), { n: 3, lost }, await etag("c"));
      await assert.rejects(sidecar.store.save(key("c"), { n: 2 }, before), Conflict);
      assert.deepEqual(await value("c"), { n: 3, lost });
      meanwhile = async () => undefined;
    }
  });

  it("settles each write of a batch for itself", async () => {
    const names = Array.from({ length: 20 }, (_, n) => `batch-${n}`);
    // The first flies alone, and meanwhile the others gather.
    const first = sidecar.store.save(key("d"), { n: 1 }, null);
    lose = "answer";
    await Promise.all([first, ...names.map((name, n) => sidecar.store.save(key(name), { n }, null))]);
    for (const [n, name] of names.entries()) assert.deepEqual(await value(name), { n });
    assert.equal(lose, "nothing", "an answer was lost");
  });

  it("is not there: what is asked of it is unavailable", async () => {
    const gone = daprSidecar({ port: 1, store: "orders", pubsub: "events" });
    await assert.rejects(gone.store.get(["x"]), Unavailable);
    await assert.rejects(gone.store.save("x", {}, null), Unavailable);
    await assert.rejects(gone.store.delete("x", "1"), Unavailable);
    await assert.rejects(gone.publish("OrderPlaced", [cloudEvent("OrderPlaced", {})]), Unavailable);
    await assert.rejects(gone.ready(), Unavailable);
    await assert.rejects(gone.invoke("order", { method: "GET", path: "/orders" }), Unavailable);
    await gone.close();
  });
});
