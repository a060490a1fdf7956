/** Any backend by YAML alone: what components/ holds, mixed file by file, and looked at from the other side. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import mongoose from "mongoose";
import mysql from "mysql2/promise";
import { createClient } from "redis";
import { parse } from "yaml";
import { root } from "#dapr/runner.js";
import type { Resolved } from "#dapr/secrets.js";
import { asComponent } from "#dapr/topology.js";
import { unpacked } from "#kit/store.js";
import { brokerFeatures, brokerRows, type StoreFolder, storeFeatures, storeRows } from "./features.js";
import { TestShop, until } from "./shop.js";

const PORTS = 14_000;

const components = (...path: string[]) => join(root, "components", ...path);
const page = readFileSync(join(root, "docs", "backends.md"), "utf8");
const folders = readdirSync(components()).sort();
const filesOf = (folder: string) => readdirSync(components(folder)).filter((file) => file.endsWith(".yaml"));
const read = (folder: string, file: string) => {
  const component = asComponent(parse(readFileSync(components(folder, file), "utf8")));
  assert.ok(component, `components/${folder}/${file} is a component`);
  return component;
};

/** The folders with a file for every store, and the components that lie in stores. */
const STORES = Object.keys(storeFeatures) as StoreFolder[];
const STATE = filesOf("postgresql");

/** What a shop needs to keep all nine services busy. */
const busyShop = readFileSync(join(root, "shops", "fashion.yaml"), "utf8")
  .replace("name: fashion", "name: busy")
  .replace("stampsPerItem: 0", "stampsPerItem: 1")
  .replace(
    "notifications: []",
    "notifications: [{ on: DeliveryStarted, channel: kakao, text: { en: on its way, ko: 배송 시작 } }]",
  );

describe("components/", () => {
  it("holds every store for every component, and every broker for the events", () => {
    assert.equal(STATE.length, 8);
    for (const folder of folders) {
      const state = filesOf(folder).filter((file) => read(folder, file).type.startsWith("state."));
      if (STORES.includes(folder as StoreFolder) || folder === "polyglot")
        assert.deepEqual(state, STATE, folder);
      else assert.deepEqual(filesOf(folder), ["events.yaml"], folder);
    }
    assert.deepEqual([...STORES, "kafka", "polyglot", "rabbitmq"].sort(), folders);
  });

  it("means the same by the same name, whatever is behind it", () => {
    const known = new Map<string, { name: string; scopes: string[]; kind: string | undefined }>();
    for (const folder of folders)
      for (const file of filesOf(folder)) {
        const { name, scopes, type } = read(folder, file);
        assert.equal(`${name}.yaml`, file, folder);
        const here = { name, scopes: [...scopes].sort(), kind: type.split(".")[0] };
        assert.deepEqual(here, known.get(file) ?? here, `${folder}/${file}`);
        known.set(file, here);
      }
  });

  it("has in polyglot/ the very files of the folders that they come from", () => {
    const of = new Map(STORES.map((folder) => [read(folder, "orders.yaml").type, folder]));
    for (const file of STATE) {
      const folder = of.get(read("polyglot", file).type);
      assert.ok(folder, file);
      const text = (from: string) => readFileSync(components(from, file), "utf8");
      assert.equal(text("polyglot"), text(folder), file);
    }
    const used = new Set(STATE.map((file) => of.get(read("polyglot", file).type)));
    assert.deepEqual([...used].sort(), ["mongodb", "mysql", "redis"]);
  });

  it("leaves every secret to the environment", () => {
    for (const folder of folders)
      for (const file of filesOf(folder)) {
        const { metadata } = read(folder, file);
        const told = Object.keys(metadata).filter((item) => /password|secret|token/i.test(item));
        assert.deepEqual(told, [], `${folder}/${file}`);
        assert.ok(
          !/:\/\/[^/\s]*:[^/\s]*@/.test(readFileSync(components(folder, file), "utf8")),
          `${folder}/${file}`,
        );
      }
  });

  /** What daprd says of a component when it starts with nothing else, until it gives up. */
  const failure = async (file: string): Promise<string> => {
    const folder = mkdtempSync(join(tmpdir(), "jangteo-component-"));
    writeFileSync(join(folder, "events.yaml"), file);
    const ports = ["http", "grpc", "internal-grpc"].flatMap((of, n) => [
      `--dapr-${of}-port`,
      `${PORTS + 3_700 + n}`,
    ]);
    const daprd = spawn(
      process.env.DAPRD ?? "daprd",
      [
        ...["--app-id", "order", "--resources-path", folder, ...ports, "--metrics-port", `${PORTS + 3_710}`],
        ...["--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1"],
        ...["--metrics-listen-address", "127.0.0.1"],
      ],
      { cwd: folder, stdio: ["ignore", "pipe", "ignore"], timeout: 30_000 },
    );
    let said = "";
    daprd.stdout.on("data", (chunk) => {
      said += chunk;
    });
    await once(daprd, "close");
    rmSync(folder, { recursive: true });
    return /level=fatal msg="(.*?)"/.exec(said)?.[1] ?? said;
  };

  it("kafka/ is understood: it gets as far as dialling the brokers", async () => {
    const file = readFileSync(components("kafka", "events.yaml"), "utf8");
    const { metadata } = read("kafka", "events.yaml");
    const nobody = file.replace(metadata.brokers ?? "?", `127.0.0.1:${PORTS + 3_720}`);
    assert.match(
      await failure(nobody),
      /out of available brokers.*dial tcp 127\.0\.0\.1:\d+: connect: connection refused/,
    );
    assert.match(
      await failure(nobody.replace(/value: "?3\.0\.0"?/, "value: nonsense")),
      /invalid kafka version/,
    );
    assert.match(await failure(nobody.replace("name: authType", "name: authTypo")), /authType/);
  });
});

describe("the tables of docs/backends.md", () => {
  /** The cells of the row with this title, by column. */
  const rowOf = (title: string): Record<string, string> => {
    const lines = page.split("\n");
    const at = lines.findIndex((line) => line.startsWith(`| ${title} |`));
    assert.ok(at > 0, `there is a row "${title}"`);
    let head = at;
    while (!/^\|[-| ]+\|$/.test(lines[head] ?? "")) head--;
    const cells = (line = "") =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim());
    const names = cells(lines[head - 1]);
    return Object.fromEntries(cells(lines[at]).map((cell, n) => [names[n] ?? "", cell]));
  };
  const column = {
    embedded: "SQLite",
    mysql: "MySQL",
    mongodb: "MongoDB",
    redis: "Redis",
    postgresql: "PostgreSQL",
  };

  it("say of the stores what the conformance suite sees", () => {
    for (const [feature, title] of Object.entries(storeRows)) {
      const row = rowOf(title);
      for (const folder of STORES) {
        const said = /^(yes|no)\b/.exec(row[column[folder]] ?? "")?.[1];
        const isSo = storeFeatures[folder][feature as keyof typeof storeRows];
        assert.equal(said, isSo ? "yes" : "no", `${title}: ${column[folder]}`);
      }
    }
  });

  it("say of the brokers what the conformance suite sees", () => {
    for (const [feature, title] of Object.entries(brokerRows)) {
      const row = rowOf(title);
      for (const [folder, name] of [
        ["embedded", "Redis Streams"],
        ["rabbitmq", "RabbitMQ"],
      ] as const) {
        const said = /^(yes|no)\b/.exec(row[name] ?? "")?.[1];
        const isSo = brokerFeatures[folder][feature as keyof typeof brokerRows];
        assert.equal(said, isSo ? "yes" : "no", `${title}: ${name}`);
      }
    }
  });
});

/** A temporary folder with the busy shop in it. */
class Place {
  readonly folder = mkdtempSync(join(tmpdir(), "jangteo-backends-"));
  readonly shop = join(this.folder, "busy.yaml");

  constructor() {
    writeFileSync(this.shop, busyShop);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Orders by three customers, one of them cancelled; resolves when all nine services have done their part. */
async function doBusiness(shop: TestShop): Promise<number[]> {
  const stock = await shop.stock();
  const phones = ["01011112222", "01033334444", "01055556666"];
  const ids: number[] = [];
  for (const phoneNumber of phones)
    ids.push(await shop.order({ phoneNumber, customerId: phoneNumber, customerName: "장 $name.x" }));
  const [first = 0, second = 0, third = 0] = ids;
  for (const id of ids) await shop.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
  assert.equal((await shop.http("DELETE", `/orders/${third}`)).status, 200);
  await shop.shows(`/orderStatuses/${third}`, { deliveryStatus: "DeliveryCancelled" });
  await shop.shows(`/payments/${third}`, { state: "PaymentCancelled" });
  await shop.audit([first, second], stock);
  for (const [n, phone] of phones.entries())
    await shop.shows(`/stamps/${phone}`, { stampQty: n < 2 ? 1 : 0 });
  await until("each customer has been told", 20_000, async () => (await shop.all("messages")).length === 3);
  const names = new Set((await shop.all("orders")).map((order) => order.customerName));
  assert.deepEqual([...names], ["장 $name.x"]);
  return ids;
}

describe("a backend mixed file by file", () => {
  const place = new Place();
  after(() => place.remove());

  /** The exercise of the page: its commands, and the last one's --backend. */
  const [exercise = "", inOneLine = ""] = [...page.matchAll(/^```console\n([\s\S]*?)^```/gm)].map(
    ([, text]) => text,
  );
  const backendOf = (text: string) => /npm start -- .*--backend (\S+)/.exec(text)?.[1] ?? "";

  /** Does what the exercise says, to each component with the store that it is to have; answers what it says to start. */
  function copied(choice: [file: string, folder: string][], name: string): string {
    const mine = join(place.folder, name);
    const commands = exercise
      .split("\n")
      .filter((line) => line.startsWith("$ cp "))
      .map((line) => line.slice(2).split(/\s+/));
    const [whole, one] = commands;
    assert.ok(whole && one && commands.length === 2, exercise);
    const [, from = "", to = ""] = one;
    assert.deepEqual(
      [from, to],
      ["components/postgresql/deliveries.yaml", `components/${backendOf(exercise)}/`],
    );
    const run = (words: string[]) => execFileSync(words[0] ?? "", words.slice(1), { cwd: root });
    const here = (word: string) => word.replace(`components/${backendOf(exercise)}`, mine);
    run(whole.map(here));
    for (const [file, folder] of choice)
      run(one.map((word) => here(word.replace("postgresql/deliveries.yaml", `${folder}/${file}`))));
    return mine;
  }

  /** The same in one line, as the page says it. */
  function layered(choice: [file: string, folder: string][]): string {
    const [base = "", layer = ""] = backendOf(inOneLine).split(",");
    assert.deepEqual([base, layer], ["polyglot", "postgresql/deliveries.yaml"]);
    return [
      base,
      ...choice.map(([file, folder]) => layer.replace("postgresql/deliveries.yaml", `${folder}/${file}`)),
    ].join(",");
  }

  for (const k of STORES.keys()) {
    const choice = STATE.map((file, i): [string, string] => [file, STORES[(i + k) % STORES.length] ?? ""]);
    const told = choice.map(([file, folder]) => `${basename(file, ".yaml")} → ${folder}`).join(", ");
    it(`${k === 0 ? "in one line: " : ""}${told}`, async () => {
      const backend = k === 0 ? layered(choice) : copied(choice, `mine-${k}`);
      const shop = await TestShop.open(PORTS, { backend, shop: place.shop });
      try {
        const { components } = shop.system;
        for (const [file, folder] of choice) {
          const running = components.find(({ name }) => `${name}.yaml` === file);
          assert.equal(running?.type, read(folder, file).type, file);
        }
        await doBusiness(shop);
      } finally {
        await shop.close();
      }
    });
  }
});

describe("polyglot from the other side", () => {
  const place = new Place();
  let shop: TestShop;
  let ids: number[];
  const closing: (() => Promise<unknown>)[] = [];
  before(async () => {
    shop = await TestShop.open(PORTS, { backend: "polyglot", shop: place.shop });
    ids = await doBusiness(shop);
  });
  after(async () => {
    for (const close of closing) await close();
    await shop?.close();
    place.remove();
  });

  const component = (name: string): Resolved => {
    const found = shop.system.components.find((one) => one.name === name);
    assert.ok(found, name);
    return found;
  };
  const namesOf = (type: string) =>
    shop.system.components.filter((one) => one.type === type).map(({ name }) => name);

  /** As the component itself logs in; `more` changes that. */
  async function openMysql(name: string, more: { database?: string; password?: string } = {}) {
    const [, user = "", password = "", host = "", port] =
      /^(.+?):(.+)@tcp\((.+):(\d+)\)/.exec(component(name).metadata.connectionString ?? "") ?? [];
    const connection = await mysql.createConnection({
      host,
      port: Number(port),
      user,
      password,
      database: name,
      ...more,
    });
    closing.push(() => connection.end());
    return connection;
  }
  async function openMongo(name: string, more: { password?: string } = {}) {
    const { host, username, password, databaseName } = component(name).metadata;
    const url = `mongodb://${username}:${more.password ?? password}@${host}/${databaseName}`;
    const connection = mongoose.createConnection(url, { serverSelectionTimeoutMS: 5_000 });
    closing.push(() => connection.close());
    return connection.asPromise();
  }
  async function openRedis(name: string, more: { password?: string } = {}) {
    const { redisHost, redisUsername, redisPassword } = component(name).metadata;
    const client = createClient({
      url: `redis://${redisHost}`,
      ...{ username: redisUsername ?? "", password: more.password ?? redisPassword ?? "" },
      socket: { reconnectStrategy: false },
    });
    client.on("error", () => undefined);
    closing.push(async () => client.isOpen && client.destroy());
    return client.connect();
  }

  /** What lies in a component's own place: values by key. */
  const contents: Record<string, (name: string) => Promise<Map<string, unknown>>> = {
    "state.mysql": async (name) => {
      const [rows] = await (await openMysql(name)).query("SELECT id, value FROM state");
      return new Map((rows as { id: string; value: unknown }[]).map(({ id, value }) => [id, value]));
    },
    "state.mongodb": async (name) => {
      interface Row {
        _id: string;
        value: unknown;
      }
      const rows = await (await openMongo(name)).collection<Row>("state").find().toArray();
      return new Map(rows.map(({ _id, value }) => [_id, value]));
    },
    "state.redis": async (name) => {
      const client = await openRedis(name);
      const values = new Map<string, unknown>();
      for await (const keys of client.scanIterator({ MATCH: `${name}||*`, COUNT: 1_000 }))
        for (const key of keys) values.set(key, await client.hGet(key, "data"));
      return values;
    },
  };
  const json = (value: unknown) => (typeof value === "string" ? (JSON.parse(value) as unknown) : value);
  /** A record as the services see it. */
  const record = (values: Map<string, unknown>, key: string) => {
    assert.ok(values.has(key), `${key} is among ${[...values.keys()]}`);
    const entry = unpacked({ value: json(values.get(key)), etag: "" });
    assert.ok(entry, key);
    return (entry.value as { state: Record<string, unknown> }).state;
  };

  it("the order is in MySQL, the delivery in MongoDB, the row of the view in Redis", async () => {
    const [id] = ids;
    const stored = async (name: string, type: string, key: string) => {
      assert.equal(component(name).type, type);
      return record((await contents[type]?.(name)) ?? new Map(), `${name}||${key}`);
    };
    const order = await stored("orders", "state.mysql", `order:${id}`);
    assert.deepEqual([order.status, order.customerName], ["OrderPlaced", "장 $name.x"]);
    assert.equal((await stored("payments", "state.mysql", `payment:${id}`)).status, "PaymentApproved");
    await stored("inventory", "state.mysql", `reservation:${id}`);
    assert.equal((await stored("deliveries", "state.mongodb", `delivery:${id}`)).status, "DeliveryStarted");
    await stored("tickets", "state.mongodb", `ticket:${id}`);
    await stored("messages", "state.mongodb", "message:1");
    await stored("orderview", "state.redis", `row:${id}`);
    await stored("stamps", "state.redis", "card:tel:01011112222");
  });

  it("nothing of one component is in the place of another", async () => {
    const all: string[] = [];
    for (const [type, read] of Object.entries(contents))
      for (const name of namesOf(type)) {
        const keys = [...(await read(name)).keys()];
        assert.ok(keys.length > 2, name);
        assert.deepEqual(
          keys.filter((key) => !key.startsWith(`${name}||`)),
          [],
          name,
        );
        all.push(...keys);
      }
    assert.equal(new Set(all).size, all.length);
  });

  it("and in no fourth place of these servers", async () => {
    const secrets = JSON.parse(readFileSync(join(shop.data, "secrets.json"), "utf8")) as Record<
      string,
      string
    >;
    const { host, port } = (await openMysql("orders")).config;
    const admin = await mysql.createConnection({
      ...{ host: host ?? "", port: port ?? 0, user: "root", password: secrets.MYSQL_ROOT_PASSWORD ?? "" },
    });
    closing.push(() => admin.end());
    const [rows] = await admin.query(
      "SELECT table_schema AS place FROM information_schema.tables WHERE table_name = 'state'",
    );
    assert.deepEqual(
      (rows as { place: string }[]).map(({ place }) => place).sort(),
      namesOf("state.mysql").sort(),
    );
    for (const name of namesOf("state.mongodb")) {
      const collections = await (await openMongo(name)).listCollections();
      assert.deepEqual(
        collections.map((one) => one.name),
        ["state"],
        name,
      );
    }
    const client = await openRedis("events");
    const keys: string[] = [];
    for await (const some of client.scanIterator({ COUNT: 1_000 })) keys.push(...some);
    const owned = namesOf("state.redis").map((name) => `${name}||`);
    const others = keys.filter((key) => !owned.some((prefix) => key.startsWith(prefix)));
    assert.ok(others.includes("OrderPlaced"));
    for (const key of others) assert.match(key, /^([A-Z][A-Za-z]+|dead-letters-[a-z]+)$/);
    const length = await client.xLen("OrderPlaced");
    assert.equal(length, ids.length, "one event for each order");
  });

  it("the user of one component is refused at another's", async () => {
    for (const name of namesOf("state.mysql"))
      for (const other of namesOf("state.mysql").filter((one) => one !== name)) {
        const connection = await openMysql(name);
        await assert.rejects(connection.query(`SELECT * FROM ${other}.state`), { code: /ACCESS_DENIED/ });
        await assert.rejects(connection.query(`UPDATE ${other}.state SET value = '{}'`), {
          code: /ACCESS_DENIED/,
        });
      }
    for (const name of namesOf("state.mongodb"))
      for (const other of namesOf("state.mongodb").filter((one) => one !== name)) {
        const theirs = (await openMongo(name)).useDb(other).collection("state");
        await assert.rejects(theirs.findOne(), { code: 13 });
        await assert.rejects(theirs.deleteMany({}), { code: 13 });
      }
    for (const name of [...namesOf("state.redis"), "events"])
      for (const other of namesOf("state.redis").filter((one) => one !== name)) {
        const client = await openRedis(name);
        const key = other === "stamps" ? "stamps||card:tel:01011112222" : `orderview||row:${ids[0]}`;
        await assert.rejects(client.hGetAll(key), /NOPERM/);
        await assert.rejects(client.del(key), /NOPERM/);
        await assert.rejects(client.flushAll(), /NOPERM/);
      }
    await assert.rejects((await openRedis("orderview")).xRange("OrderPlaced", "-", "+"), /NOPERM/);
  });

  it("nobody is let in with a wrong password, or with none", async () => {
    for (const password of ["wrong", ""]) {
      await assert.rejects(openMysql("orders", { password }), { code: "ER_ACCESS_DENIED_ERROR" });
      await assert.rejects(openRedis("orderview", { password }), /WRONGPASS|NOAUTH|NOPERM|syntax/i);
    }
    await assert.rejects(openMongo("deliveries", { password: "wrong" }), { code: 18 });
  });

  const sidecars = () => shop.system.processes().filter(({ kind }) => kind === "sidecar");
  const appOf = (name: string) => name.replace(/-\d+(-sidecar)?$/, "");
  const environment = (pid: number | undefined) =>
    Object.fromEntries(
      readFileSync(`/proc/${pid}/environ`, "utf8")
        .split("\0")
        .map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
    );

  it("the environment of a sidecar holds its own secrets and no others, and that of an app none", () => {
    assert.ok(existsSync("/proc/self/environ"), "this test needs /proc");
    const { components } = shop.system;
    const all = new Set(components.flatMap(({ env }) => Object.keys(env)));
    const values = new Set(components.flatMap(({ env }) => Object.values(env)));
    assert.equal(all.size, 9);
    for (const { name, pid } of sidecars()) {
      const own = components
        .filter(({ scopes }) => scopes.includes(appOf(name)))
        .flatMap(({ env }) => Object.keys(env));
      const held = Object.keys(environment(pid)).filter((variable) => all.has(variable));
      assert.deepEqual(held.sort(), own.sort(), name);
      assert.equal(own.length, appOf(name) === "gateway" ? 0 : 2, name);
    }
    for (const { name, pid } of shop.system.processes().filter(({ kind }) => kind === "app"))
      assert.deepEqual(
        Object.values(environment(pid)).filter((value) => values.has(value)),
        [],
        name,
      );
  });

  it("an app cannot read them through its sidecar", async () => {
    for (const { name } of sidecars()) {
      const sidecar = shop.system.sidecarUrl(appOf(name));
      for (const path of ["EVENTS_PASSWORD", "ORDERS_MYSQL", "bulk"]) {
        const answer = await shop.http("GET", `/v1.0/secrets/secrets/${path}`, undefined, {}, sidecar);
        const text = JSON.stringify(answer.body);
        assert.notEqual(answer.status, 401);
        assert.ok(
          path === "bulk" ? !/PASSWORD|MYSQL/.test(text) : answer.status === 403,
          `${name}: ${path}: ${text}`,
        );
      }
    }
  });

  it("a sidecar knows the store of its own app and no other", async () => {
    for (const { name } of sidecars()) {
      const app = appOf(name);
      const sidecar = shop.system.sidecarUrl(app);
      const metadata = await shop.http("GET", "/v1.0/metadata", undefined, {}, sidecar);
      const known = (metadata.body as { components: { name: string; type: string }[] }).components
        .filter(({ type }) => type.startsWith("state."))
        .map((one) => one.name);
      const own = shop.system.components
        .filter(({ type, scopes }) => type.startsWith("state.") && scopes.includes(app))
        .map((one) => one.name);
      assert.deepEqual(known, own, app);
      assert.equal(own.length, app === "gateway" ? 0 : 1, app);
    }
  });
});
