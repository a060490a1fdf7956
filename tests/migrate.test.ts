/** `npm run migrate`: records between all kinds of stores, and a whole shop from one backend to another and back. */
import "reflect-metadata";
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "redis";
import { root, type Servers, startServers } from "#dapr/runner.js";
import type { Resolved } from "#dapr/secrets.js";
import { copy, differences, sumOf } from "#dapr/store-move.js";
import { startSidecar } from "#dapr/store-sidecar.js";
import { openStore, type StateStore } from "#dapr/stores.js";
import { daprSidecar } from "#kit/dapr.js";
import { Conflict, type Store } from "#kit/sidecar.js";
import { customerOf, multiply } from "./multiply.js";
import { type Reply, TestShop, until } from "./shop.js";

const PORTS = 3_000;
const program = join(root, "dist", "dapr", "migrate.js");

/** One component of each kind of store. */
const FIVE = {
  sqlite: "embedded/deliveries.yaml",
  mysql: "mysql/orders.yaml",
  mongodb: "mongodb/tickets.yaml",
  redis: "redis/stamps.yaml",
  postgresql: "postgresql/payments.yaml",
};
type Kind = keyof typeof FIVE;
const KINDS = Object.keys(FIVE) as Kind[];

/** What a record may hold, as far as the source keeps it. */
const ODD: Record<string, unknown> = {
  "order:1": { state: { id: 1 }, outbox: [], seen: ["request:1"], version: 1 },
  "card:tel:010-1234-1234": { "phone number": "010 1234 1234", "": "no name", "a.b": 1, $set: { $in: [1] } },
  "index:customer:Ab-_=": [1, "two", [3, { four: 4 }]],
  "odd|key with spaces/slashes: and \"quotes\" 'single'": { text: "a\\b\"c'd\n\te\u0000f\u2028 <&> $name" },
  "한글:열쇠": { 꽃: "장미 🌹 \u{1F469}\u200D\u{1F680}", 값: null },
  "long:1": { text: "가나다🌹".repeat(30_000) },
  "deep:1": Array.from({ length: 60 }).reduce<unknown>((inner, _, i) => (i % 2 ? [inner] : { inner }), "🌊"),
  "deep:2": Array.from({ length: 150 }).reduce<unknown>((inner) => ({ inner }), 1),
  "numbers:1": [1e21, 0.1, 1e-7, -1.5e300, 2 ** 53, -1, 0, 1700000000000],
  "numbers:2": { 10: "ten", 9: "nine", a: 1e21, b: 5, c: 1 / 3, d: 1e-9, e: -0.1 },
  "nothing:1": { none: null, empty: {}, list: [], text: "", no: false, zero: 0 },
  "text:1": 'just a text with 한글 and "quotes"',
  "number:1": 42.5,
  "no:1": false,
};
const TTL = 3_600;

describe("records of every kind of store in every other", () => {
  let data: string;
  let servers: Servers;
  const components = {} as Record<Kind, Resolved>;

  before(async () => {
    data = mkdtempSync(join(tmpdir(), "jangteo-migrate-"));
    const backend = join(data, "five");
    mkdirSync(backend);
    for (const file of [...Object.values(FIVE), "embedded/secrets.yaml"])
      cpSync(join(root, "components", file), join(backend, file.replace(/.*\//, "")));
    servers = await startServers({ backends: [backend], data, ports: PORTS });
    const [all = []] = servers.backends;
    for (const kind of KINDS) {
      const component = all.find(({ type }) => type === `state.${kind}`);
      assert.ok(component, kind);
      components[kind] = component;
    }
  });

  after(async () => {
    await servers?.stop();
    rmSync(data, { recursive: true, force: true });
  });

  /** Through a sidecar, which opens all five; nobody else may have SQLite's file open meanwhile. */
  async function throughSidecar<T>(use: (stores: Record<Kind, Store>) => Promise<T>): Promise<T> {
    const sidecar = await startSidecar(Object.values(components), data, PORTS);
    const clients = KINDS.map((kind) =>
      daprSidecar({
        ...{ port: sidecar.port, token: sidecar.token },
        ...{ store: components[kind].name, pubsub: "none" },
      }),
    );
    const stores = Object.fromEntries(KINDS.map((kind, i) => [kind, clients[i]?.store])) as Record<
      Kind,
      Store
    >;
    try {
      return await use(stores);
    } finally {
      for (const client of clients) await client.close();
      await sidecar.stop();
    }
  }

  /** Behind the sidecar's back. */
  async function directly<T>(use: (stores: Record<Kind, StateStore>) => Promise<T>): Promise<T> {
    const stores = {} as Record<Kind, StateStore>;
    try {
      for (const kind of KINDS) stores[kind] = await openStore(components[kind], data);
      return await use(stores);
    } finally {
      for (const store of Object.values(stores)) await store.close();
    }
  }

  const read = async (store: Store) => {
    const entries = await store.get([...Object.keys(ODD), "ttl:1", "gone:1"]);
    return Object.fromEntries([...entries].map(([key, { value }]) => [key, value]));
  };

  for (const from of KINDS)
    it(`from ${from}: what a sidecar reads, changes and refuses is the same`, async () => {
      const others = KINDS.filter((kind) => kind !== from);
      const there = await throughSidecar(async ({ [from]: store }) => {
        for (const [key, value] of Object.entries(ODD)) {
          // MongoDB and MariaDB refuse what is very deep.
          const saving = store.save(key, value, null);
          await (/^m/.test(from) && key.startsWith("deep:") ? saving.catch(() => undefined) : saving);
        }
        await store.save("ttl:1", { soon: true }, null, TTL);
        await store.save("gone:1", { over: true }, null, 1);
        await until("a record has expired", 5_000, async () => !(await store.get(["gone:1"])).has("gone:1"));
        return read(store);
      });
      assert.ok(
        Object.keys(there).length >= 10 && "ttl:1" in there,
        `${Object.keys(there)} are kept by ${from}`,
      );

      await directly(async (stores) => {
        const horizon = Date.now() + 60_000;
        const { [from]: source } = stores;
        const sum = await sumOf(source, horizon, () => undefined);
        assert.equal(sum.records, Object.keys(there).length);
        for (const to of others) {
          const target = stores[to];
          assert.notEqual(source.place, target.place);
          await copy(source, target, undefined, () => undefined);
          assert.equal(await target.count(), sum.records, `${from} → ${to}: what has expired stays behind`);
          assert.deepEqual(await differences(source, target, horizon), [], `${from} → ${to}`);
          assert.deepEqual(await sumOf(target, horizon, () => undefined), sum, `${from} → ${to}`);
          const left = ((await target.get(["ttl:1"])).get("ttl:1")?.expires ?? 0) - Date.now();
          assert.ok(
            left > (TTL - 60) * 1000 && left <= (TTL + 1) * 1000,
            `${from} → ${to}: ${left} ms are left`,
          );
        }
      });

      await throughSidecar(async (stores) => {
        for (const to of others) {
          assert.deepEqual(await read(stores[to]), there, `${from} → ${to}`);
          await usable(stores[to], `${from} → ${to}`);
        }
      });

      await directly(async (stores) => {
        for (const kind of KINDS) {
          await stores[kind].clear();
          assert.equal(await stores[kind].count(), 0, kind);
        }
      });
    });

  /** What a service does with a record that was moved. */
  async function usable(store: Store, where: string): Promise<void> {
    const key = "order:1";
    const entry = (await store.get([key])).get(key);
    assert.ok(entry, where);
    await assert.rejects(store.save(key, { made: "again" }, null), Conflict, `${where}: created twice`);
    const next = { ...(entry.value as object), version: 2 };
    await store.save(key, next, entry.etag);
    await assert.rejects(
      store.save(key, { ...next, version: 3 }, entry.etag),
      Conflict,
      `${where}: an old ETag`,
    );
    const changed = (await store.get([key])).get(key);
    assert.deepEqual(changed?.value, next, where);
    await assert.rejects(store.delete(key, entry.etag), Conflict, where);
    await store.delete(key, changed?.etag ?? "");
    assert.equal((await store.get([key])).size, 0, where);
    await store.save(key, next, null);
  }

  it("reads page by page, goes on behind any page, and writes again what is there", async () => {
    const many = Array.from({ length: 1234 }, (_, i) => ({
      key: `row:${i}`,
      value: JSON.stringify({ i }),
      expires: undefined,
    }));
    await directly(async (stores) => {
      for (const [kind, store] of Object.entries(stores)) {
        await store.write(many);
        await store.write(many.slice(100, 200));
        assert.equal(await store.count(), many.length, kind);
        const cursors: string[] = [];
        const keys: string[] = [];
        for await (const { records, next } of store.read()) {
          cursors.push(next);
          keys.push(...records.map(({ key }) => key));
        }
        assert.deepEqual(keys.sort(), many.map(({ key }) => key).sort(), kind);
        assert.ok(cursors.length >= 3, `${kind}: ${cursors.length} pages`);
        const rest: string[] = [];
        for await (const { records } of store.read(cursors[0])) rest.push(...records.map(({ key }) => key));
        // Redis has no order: there a whole part is read again.
        assert.equal(rest.length, kind === "redis" ? many.length : many.length - 500, kind);
        await store.clear();
      }
    });
  });

  it("names the records that differ", async () => {
    await directly(async ({ sqlite: source, postgresql: target }) => {
      const record = (key: string, value: unknown, expires?: number) => {
        return { key, value: JSON.stringify(value), expires };
      };
      const later = Date.now() + 3_600_000;
      await source.write([
        ...[record("a", { x: 1, y: 2 }), record("b", 1), record("c", 1)],
        ...[record("d", 1, later), record("e", 1, later), record("soon", 1, Date.now() + 5_000)],
      ]);
      await target.write([
        ...[record("a", { y: 2, x: 1 }), record("b", 2), record("extra", 1)],
        ...[record("d", 1, later + 200), record("e", 1)],
      ]);
      const horizon = Date.now() + 60_000;
      assert.deepEqual(await differences(source, target, horizon), [
        { key: "b", how: "differs in the target" },
        { key: "c", how: "is missing in the target" },
        ...(Math.ceil(later / 1000) === Math.ceil((later + 200) / 1000)
          ? []
          : [{ key: "d", how: "differs in the target" }]),
        { key: "e", how: "differs in the target" },
        { key: "extra", how: "is in the target only" },
      ]);
      const sums = await Promise.all([source, target].map((store) => sumOf(store, horizon, () => undefined)));
      assert.notEqual(sums[0]?.checksum, sums[1]?.checksum);
    });
  });
});

// --- the command ---------------------------------------------------------------------------------------------------

interface Ended {
  code: number | null;
  text: string;
}

function start(args: string[]): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [program, ...args, "--ports", String(PORTS)]);
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk) => {
      text += chunk;
    });
  return { child, ended: new Promise((resolve) => child.once("close", (code) => resolve({ code, text }))) };
}

const migrate = (...args: string[]) => start(args).ended;

/** All services are busy in this shop, though not with each order. */
const SHOP = readFileSync(join(root, "shops", "flower.yaml"), "utf8")
  .replace("name: flower", "name: busy")
  .replace("stampsPerItem: 0", "stampsPerItem: 1")
  .replaceAll("stock: 1000", "stock: 1000000")
  .replace(/notifications:[\s\S]*(?= {2}- on: PaymentCancelled)/, "notifications:\n");

const COLLECTIONS = [
  "orders",
  "payments",
  "storeOrders",
  "deliveries",
  "orderStatuses",
  "messages",
  "stamps",
  "products",
];
const ORDERS = 10_000;

describe("a shop with ten thousand orders", () => {
  let data: string;
  let shop: string;
  /** What each collection has shown before the first move. */
  const shown = new Map<string, Reply["body"][]>();
  let waiting: number;
  let unpublished: number;
  let later: number;

  const open = (backend: string) => TestShop.open(PORTS, { data, shop, backend });
  const place = (running: TestShop, id: number) => running.order({ productName: "Rose", ...customerOf(id) });
  const move = (from: string, to: string, ...more: string[]) =>
    migrate("--from", from, "--to", to, "--data", data, ...more);

  /** Each collection, without the orders that came after the fixture. */
  async function look(running: TestShop): Promise<Map<string, Reply["body"][]>> {
    const seen = new Map<string, Reply["body"][]>();
    for (const name of COLLECTIONS) {
      const all = await running.all(name);
      const old = all.filter(({ orderId, id, phoneNumber }) => {
        const order = orderId ?? (name === "stamps" ? Number(phoneNumber?.slice(3)) : id);
        return name === "products" || order <= ORDERS;
      });
      seen.set(name, old);
    }
    for (const id of [1, 2, 78, ORDERS])
      seen.set(`history ${id}`, [(await running.http("GET", `/payments/${id}/history`)).body]);
    const { customerId, phoneNumber } = customerOf(78);
    for (const query of [`customerId=${customerId}`, `phoneNumber=${phoneNumber}`])
      seen.set(query, [(await running.http("GET", `/history?${query}`)).body]);
    return seen;
  }

  function assertSame(seen: Map<string, Reply["body"][]>): void {
    for (const [name, items] of shown) {
      if (name === "products") continue; // they have been bought meanwhile
      // Item by item: a deep difference of ten thousand takes minutes to print.
      assert.equal(seen.get(name)?.length, items.length, name);
      items.forEach((item, i) => {
        assert.deepEqual(seen.get(name)?.[i], item, name);
      });
    }
  }

  before(async () => {
    data = mkdtempSync(join(tmpdir(), "jangteo-migrate-"));
    shop = join(data, "busy.yaml");
    writeFileSync(shop, SHOP);
    const small = await open("embedded");
    try {
      for (let id = 1; id <= 5; id++) assert.equal(await place(small, id), id);
      assert.equal((await small.http("DELETE", "/orders/2")).status, 200);
      await small.shows("/orderStatuses/2", { deliveryStatus: "DeliveryCancelled" });
      await until("all messages are sent", 20_000, async () => {
        const messages = await small.all("messages");
        return messages.length === 2 && messages.every(({ state }) => state === "Sent");
      });
      for (let id = 1; id <= 5; id++)
        if (id !== 2) await small.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
    } finally {
      await small.close(true);
    }
    assert.ok(multiply(data, ORDERS) > 9 * ORDERS);
  });

  after(() => rmSync(data, { recursive: true, force: true }));

  it("shows them on embedded, and is killed with a message waiting and an event unpublished", async () => {
    const running = await open("embedded");
    try {
      for (const [name, items] of await look(running)) shown.set(name, items);
      assert.equal(shown.get("orders")?.length, ORDERS);

      // A consumer is away, so that its message waits in the bus …
      const refused = await migrate("--from", "embedded", "--to", "polyglot", "--data", data);
      assert.equal(refused.code, 1);
      assert.match(refused.text, /already running/);
      await running.http("PUT", "/actuator/down", undefined, {}, running.system.url("delivery"));
      await until("the sidecar hears that delivery is away", 20_000, async () => {
        const { status } = await running.http("GET", "/deliveries/1");
        return status === 503;
      });
      waiting = await place(running, ORDERS + 1);
      await running.shows(`/storeOrders/${waiting}`, { state: "StoreAccepted" });
      const bus = createClient({ socket: { port: 6389 + PORTS } });
      await bus.connect();
      const acceptedInBus = async () => {
        const last = await bus.xRevRange("StoreAccepted", "+", "-", { COUNT: 1 });
        return JSON.stringify(last).includes(`ticket:${waiting}`);
      };
      await until("its message is in the bus", 10_000, acceptedInBus);
      bus.destroy();

      // … and another order is committed while the bus takes nothing.
      await running.system.kill("redis", "SIGSTOP");
      unpublished = await place(running, ORDERS + 2);
      await running.system.stop({ now: true });
    } finally {
      await running.close(true);
    }
  });

  it("moves to polyglot", async () => {
    const { code, text } = await move("embedded", "polyglot");
    assert.equal(code, 0, text);
    assert.match(text, /orders: 20,\d+ records moved.*equal on both sides.*checksum [0-9a-f]{32}/);
    assert.match(text, /events: .* waiting for somebody.*equal on both sides/);
    assert.doesNotMatch(text, / 0 of them waiting/);
    assert.match(text, /embedded still holds the old records/);
    assert.ok(!existsSync(join(data, "run", "migration.json")));
  });

  it("goes on there where it stopped", async () => {
    const running = await open("polyglot");
    try {
      assertSame(await look(running));
      await running.shows(`/deliveries/${waiting}`, { state: "DeliveryStarted" });
      await running.shows(`/deliveries/${unpublished}`, { state: "DeliveryStarted" });
      await running.shows(`/orderStatuses/${unpublished}`, { deliveryStatus: "DeliveryStarted" });
      const id = await place(running, ORDERS + 3);
      assert.ok(id > unpublished, `${id} follows ${unpublished}`);
      await running.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
      assert.equal((await running.http("DELETE", `/orders/${id}`)).status, 200);
      await running.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryCancelled" });
      later = id;
    } finally {
      await running.close(true);
    }
  });

  it("is not moved back over what embedded still holds, unless that is asked for", async () => {
    const refused = await move("polyglot", "embedded");
    assert.equal(refused.code, 1);
    assert.match(
      refused.text,
      /embedded holds something already:[\s\S]* orders: 20,\d{3} records[\s\S]*--overwrite/,
    );
    assert.ok(!existsSync(join(data, "run", "migration.json")));

    const { code, text } = await move("polyglot", "embedded", "--overwrite");
    assert.equal(code, 0, text);
    const running = await open("embedded");
    try {
      assertSame(await look(running));
      await running.shows(`/orders/${later}`, { state: "OrderCancelled" });
      await running.shows(`/deliveries/${waiting}`, { state: "DeliveryStarted" });
    } finally {
      await running.close(true);
    }
  });

  describe("from SQLite to PostgreSQL", () => {
    const to = "embedded,postgresql";
    const args = () => ["--from", "embedded", "--to", to, "--component", "orders,messages", "--data", data];
    const journal = () => join(data, "run", "migration.json");
    const moved = (): number => {
      const { components } = JSON.parse(readFileSync(journal(), "utf8"));
      return (components.messages?.moved ?? 0) + (components.orders?.moved ?? 0);
    };

    /** The servers and a store of the target, to look into or to change. */
    async function inTarget<T>(component: string, use: (store: StateStore) => Promise<T>): Promise<T> {
      const servers = await startServers({ backends: [to], data, ports: PORTS });
      try {
        const found = servers.backends[0]?.find(({ name }) => name === component);
        assert.ok(found);
        const store = await openStore(found, data);
        try {
          return await use(store);
        } finally {
          await store.close();
        }
      } finally {
        await servers.stop();
      }
    }

    it("goes on after Ctrl-C and after a kill -9, and only with the same arguments", async () => {
      for (const signal of ["SIGINT", "SIGKILL"] as const) {
        const before = existsSync(journal()) ? moved() : 0;
        const { child, ended } = start(args());
        await until("a part is moved", 30_000, async () => moved() > before + 3_000);
        child.kill(signal);
        const { code, text } = await ended;
        assert.equal(code, signal === "SIGINT" ? 130 : null, text);
        if (signal === "SIGINT") assert.match(text, /stopping; the same command goes on from here\s*$/);
        assert.ok(moved() > before + 3_000 && moved() < 20_000, `${moved()} are moved`);
      }
      const other = await migrate("--from", "embedded", "--to", "polyglot", "--data", data);
      assert.equal(other.code, 1);
      assert.match(
        other.text,
        /is not finished[\s\S]*npm run migrate -- --from embedded --to embedded,postgresql --component orders,messages/,
      );
      const { code, text } = await migrate(...args());
      assert.equal(code, 0, text);
      assert.match(text, /Going on moving/);
      assert.ok(!existsSync(journal()));
      const held = await inTarget("messages", (store) => store.count());
      assert.ok(held > 5_000, `${held} messages`);
    });

    it("says which records differ, and exits with 1", async () => {
      await inTarget("orders", async (store) => {
        const key = "order:77";
        const record = (await store.get([key])).get(key);
        assert.ok(record);
        await store.write([{ ...record, value: record.value.replace('"qty":1', '"qty":2') }]);
      });
      // As if the move had been interrupted before it compared.
      const isDone = { moved: 1, isDone: true };
      const components = { orders: isDone, messages: isDone };
      writeFileSync(
        journal(),
        JSON.stringify({ from: "embedded", to, chosen: ["orders", "messages"], components }),
      );
      const { code, text } = await migrate(...args());
      assert.equal(code, 1, text);
      assert.match(text, /orders: .*DIFFERENT[\s\S]*order:77 differs in the target/);
      assert.match(text, /messages: .*equal on both sides/);
      assert.match(text, /Do not start the shop on it/);
      assert.equal((await migrate(...args())).code, 1, "what differs is not taken for an unfinished move");
    });
  });

  it("refuses to leave waiting messages behind", async () => {
    const memory = join(data, "events.yaml");
    const text = readFileSync(join(root, "components", "embedded", "events.yaml"), "utf8");
    writeFileSync(memory, text.replace("pubsub.redis", "pubsub.in-memory"));
    const leave = () => move("embedded", `embedded,${memory}`, "--component", "events");
    const nothing = await leave();
    assert.equal(nothing.code, 0, nothing.text);
    assert.match(nothing.text, /no message waits for anybody/);

    const servers = await startServers({ backends: ["embedded"], data, ports: PORTS });
    const bus = createClient({ socket: { port: 6389 + PORTS } });
    await bus.connect();
    await bus.xAdd("StoreAccepted", "*", { data: "{}" });
    bus.destroy();
    await servers.stop();
    const refused = await leave();
    assert.equal(refused.code, 1);
    assert.match(
      refused.text,
      /messages wait for somebody in StoreAccepted \(1\)[\s\S]*npm start -- --backend embedded/,
    );
  });

  it("says what it can't do", async () => {
    const none = await move("embedded", "embedded");
    assert.equal(none.code, 0, none.text);
    assert.match(none.text, /orders: the same place in both[\s\S]*nothing to move/);
    const unknown = await move("embedded", "polyglot", "--component", "nothing");
    assert.equal(unknown.code, 1);
    assert.match(unknown.text, /no component "nothing".* orders/);
    assert.equal((await migrate("--from", "embedded")).code, 2);
    assert.equal((await migrate("--from", "embedded", "--to", "nowhere", "--data", data)).code, 1);
    const empty = await migrate("--from", "embedded", "--to", "polyglot", "--data", join(data, "nothing"));
    assert.equal(empty.code, 1);
    assert.match(empty.text, /No system has run on/);
    assert.equal((await migrate("--help")).code, 0);
  });
});
