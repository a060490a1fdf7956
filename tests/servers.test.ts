/** The servers of a backend, for real: accounts, isolation, durability, and how their data directories are made. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import mongoose from "mongoose";
import { createConnection } from "mysql2/promise";
import pg from "pg";
import { createClient } from "redis";
import { argsOf, reconfigured } from "#dapr/mongodb.js";
import { accountsSql, initialisation } from "#dapr/mysql.js";
import { postgresql } from "#dapr/postgresql.js";
import { identity, runToEnd, until } from "#dapr/processes.js";
import { rabbitmq } from "#dapr/rabbitmq.js";
import { root, type Servers, StartError, startServers } from "#dapr/runner.js";
import { Passwords, resolve } from "#dapr/secrets.js";
import { kindOf, serversFor } from "#dapr/servers.js";
import { readTopology, render } from "#dapr/topology.js";
import { Amqp } from "./amqp.js";
import { listenersOf } from "./listeners.js";

const offset = 13_000;
const temporary = mkdtempSync(join(tmpdir(), "jangteo-servers-")); // only its owner may enter
after(() => rmSync(temporary, { recursive: true, force: true }));

/** What is written: it must come back as it was. */
const text = "국화 한 다발 💐 'quoted' \"and\" \\";

/** Somebody who has logged in to a server. */
interface Session {
  write(text: string): Promise<unknown>;
  /** What was written last; of another component, if one is named. */
  read(component?: string): Promise<string | undefined>;
  close(): unknown;
}

/** How each kind of server is used directly, with an account. */
const logins: Record<string, (port: number, user: string, password: string) => Promise<Session>> = {
  async mysql(port, user, password) {
    const client = await createConnection({ host: "127.0.0.1", port, user, password, charset: "utf8mb4" });
    const read = async (schema: string) => {
      const [rows] = await client.query(`SELECT value FROM ${schema}.probe`);
      return (rows as { value: string }[])[0]?.value;
    };
    return {
      async write(value) {
        await client.query(`CREATE TABLE ${user}.probe (id VARCHAR(255) PRIMARY KEY, value TEXT)`);
        await client.query(`INSERT INTO ${user}.probe VALUES ('Key', ?), ('key', 'another')`, [value]);
      },
      read: (component = user) => read(component),
      close: () => client.destroy(),
    };
  },
  async mongodb(port, user, password) {
    const login = password === "" ? "" : `${user}:${password}@`;
    const client = await mongoose
      .createConnection(`mongodb://${login}127.0.0.1:${port}/${user}`, { serverSelectionTimeoutMS: 2000 })
      .asPromise();
    const probe = (database: string) => client.useDb(database).collection<{ value: string }>("probe");
    return {
      write: (value) => probe(user).insertOne({ value }),
      read: async (component = user) => (await probe(component).findOne())?.value,
      close: () => client.close(),
    };
  },
  async postgresql(port, user, password) {
    const connect = async (database: string) => {
      const client = new pg.Client({ host: "127.0.0.1", port, user, password, database });
      client.on("error", () => {}); // the server is killed
      await client.connect();
      return client;
    };
    const client = await connect(user);
    return {
      async write(value) {
        await client.query("CREATE TABLE probe (value TEXT)");
        await client.query("INSERT INTO probe VALUES ($1)", [value]);
      },
      async read(component = user) {
        const other = component === user ? client : await connect(component);
        return (await other.query<{ value: string }>("SELECT value FROM probe")).rows[0]?.value;
      },
      close: () => client.end(),
    };
  },
  async redis(port, user, password) {
    const login = password === "" ? {} : { username: user, password };
    const client = createClient({ socket: { host: "127.0.0.1", port, reconnectStrategy: false }, ...login });
    client.on("error", () => {}); // the server is killed
    await client.connect();
    return {
      write: (value) => client.set(`${user}||probe`, value),
      read: async (component = user) => (await client.get(`${component}||probe`)) ?? undefined,
      close: () => client.destroy(),
    };
  },
  async rabbitmq(port, user, password) {
    const client = await Amqp.open(port, user, password);
    return {
      async write(value) {
        await client.queue("probe");
        await client.publish("probe", value);
      },
      read: () => client.peek("probe"),
      close: () => client.close(),
    };
  },
};

/** Of each kind of server, two components if there are two. */
const used = [
  { kind: "mysql", name: "mysql", backend: "polyglot", components: ["orders", "payments"] },
  { kind: "mongodb", name: "mongodb", backend: "polyglot", components: ["deliveries", "tickets"] },
  { kind: "redis", name: "redis-6390", backend: "polyglot", components: ["orderview", "stamps"] },
  { kind: "postgresql", name: "postgresql", backend: "postgresql", components: ["orders", "deliveries"] },
  { kind: "rabbitmq", name: "rabbitmq", backend: "rabbitmq", components: ["events"] },
];
const backends = ["polyglot", "postgresql", "rabbitmq"];

function accountOf(servers: Servers, { kind, backend, components }: (typeof used)[number], index = 0) {
  const component = servers.backends[backends.indexOf(backend)]?.find(
    ({ name }) => name === components[index],
  );
  assert.ok(component, `${backend} has no component ${components[index]}`);
  const { address, user, password } = kindOf(component)?.read(component) ?? {};
  const [host, port] = (address ?? "").split(":");
  assert.equal(host, "127.0.0.1");
  const [name = "", secret = ""] = [user, password];
  assert.ok(secret.length >= 24);
  const login = (as = name, word = secret) => logins[kind]?.(Number(port), as, word) ?? assert.fail(kind);
  return { port: Number(port), user: name, password: secret, login };
}

/** The process ids of the servers that run on a data directory, by name. */
const pidsOf = (data: string) =>
  Object.fromEntries(
    (JSON.parse(readFileSync(join(data, "run/pids.json"), "utf8")) as { name: string; pid: number }[]).map(
      ({ name, pid }) => [name, pid],
    ),
  );

describe("the servers of a backend", () => {
  const data = join(temporary, "data");
  let servers: Servers;
  before(async () => {
    servers = await startServers({ backends, data, ports: offset });
  });
  after(() => servers.stop());

  for (const each of used) {
    const isPlural = each.components.length > 1;
    describe(each.kind, () => {
      it("lets a component in, to what is its own", async () => {
        const session = await accountOf(servers, each).login();
        await session.write(text);
        assert.equal(await session.read(), text);
        await session.close();
      });

      it("lets nobody else in", async () => {
        const { login, user } = accountOf(servers, each);
        await assert.rejects(login(user, "wrong"));
        await assert.rejects(login("nobody", "wrong"));
        for (const [name, password] of [
          ...["root", "postgres", "admin", "default", ""].map((known) => [known, ""] as const),
          ...[["guest", "guest"] as const, ["root", "root"] as const],
        ])
          await assert.rejects(async () => {
            const session = await login(name, password);
            try {
              await session.read(user); // MongoDB and Redis greet everybody
            } finally {
              await session.close();
            }
          }, `${name} was let in`);
      });

      if (isPlural)
        it("shows one component nothing of another", async () => {
          const mine = await accountOf(servers, each, 0).login();
          const other = await accountOf(servers, each, 1).login();
          assert.equal(await mine.read(), text);
          await assert.rejects(other.read(each.components[0]));
          await Promise.all([mine.close(), other.close()]);
        });
    });
  }

  it("tells keys apart by case in MySQL, as elsewhere", async () => {
    const { port, user, password } = accountOf(servers, used[0] ?? assert.fail());
    const client = await createConnection({ host: "127.0.0.1", port, user, password, database: user });
    const [rows] = await client.query("SELECT value FROM probe WHERE id = 'key'");
    assert.deepEqual(rows, [{ value: "another" }]);
    client.destroy();
  });

  it("does not let one component of Redis empty it for all", async () => {
    const { port, user, password } = accountOf(servers, used[2] ?? assert.fail(), 1);
    const client = createClient({ url: `redis://${user}:${password}@127.0.0.1:${port}` });
    await client.connect();
    await assert.rejects(client.flushAll(), /NOPERM/);
    client.destroy();
  });

  it("keeps dead letters in RabbitMQ, though nobody subscribes to them", async () => {
    const { port, user, password } = accountOf(servers, used[4] ?? assert.fail());
    const client = await Amqp.open(port, user, password);
    await client.publish("", "poison", "dead-letters-store"); // as Dapr does: to the exchange of the topic
    assert.equal(await client.peek("dead-letters-store"), "poison");
    client.close();
  });

  it("keeps its passwords to itself", () => {
    const files = [
      "secrets.json",
      "mysql/accounts.sql",
      "mongodb/users.json",
      "rabbitmq/definitions.json",
      "redis-6390/users.acl",
    ];
    for (const file of files) assert.equal(statSync(join(data, file)).mode & 0o077, 0, file);
  });

  it("listens on one port of the loopback interface", { skip: process.platform !== "linux" }, () => {
    const pids = pidsOf(data);
    for (const each of used) {
      const expected = [`0100007F:${accountOf(servers, each).port.toString(16).toUpperCase()}`];
      assert.deepEqual(listenersOf(pids[each.name] ?? assert.fail()), expected, each.name);
    }
  });

  it("never runs PostgreSQL as root", { skip: process.getuid?.() !== 0 }, () => {
    assert.notEqual(statSync(`/proc/${pidsOf(data).postgresql}`).uid, 0);
  });

  it("keeps what was acknowledged when it is killed, and is started again", async () => {
    const killed = pidsOf(data);
    for (const { name } of used) process.kill(killed[name] ?? assert.fail(name), "SIGKILL");
    for (const each of used) {
      const { login } = accountOf(servers, each);
      let session: Session | undefined;
      const back = async () => {
        // A driver may wait for ever for a server that ended while it was greeting.
        session = await Promise.race([
          login().catch(() => undefined),
          delay(1000, undefined, { ref: false }),
        ]);
        return session !== undefined;
      };
      assert.ok(await until(back, 20_000), `${each.name} is not back`);
      assert.notEqual(pidsOf(data)[each.name], killed[each.name]);
      assert.equal(await session?.read(), text, each.name);
      await session?.close();
    }
  });

  it("ends when it is told to, also with a client that does not go; nothing of it is left", async () => {
    const pids = Object.values(pidsOf(data));
    const family = pids.flatMap((pid) => [pid, ...descendants(pid)]);
    assert.ok(family.length > pids.length, "no server has child processes");
    const clients = await Promise.all(used.map((each) => accountOf(servers, each).login()));
    await servers.stop();
    assert.ok(await until(() => family.every((pid) => identity(pid) === undefined), 2000));
    assert.match(readFileSync(join(data, "logs/postgresql.log"), "utf8"), /database system is shut down\s*$/);
    assert.match(readFileSync(join(data, "logs/mysql.log"), "utf8"), /[Ss]hutdown complete[^\n]*\s*$/);
    await Promise.allSettled(clients.map((client) => client.close()));
  });

  it("has its data again at the next start, on other ports, and makes what is half-made again", async () => {
    // What a start that was killed while it made a data directory leaves: here, of another backend's servers.
    for (const name of ["mysql", "postgresql"]) {
      mkdirSync(join(data, name, "making-killed", "data"), { recursive: true });
      writeFileSync(join(data, name, "making-killed", "data", "PG_VERSION"), "");
    }
    servers = await startServers({ backends, data, ports: offset + 100 });
    for (const each of used) {
      const { login, port } = accountOf(servers, each);
      const usual = servers.backends.flat().length > 0 && port - offset - 100;
      assert.ok([3316, 7027, 6390, 5442, 5682].includes(Number(usual)), `${each.name}: ${port}`);
      const session = await login();
      assert.equal(await session.read(), text, each.name);
      await session.close();
    }
    for (const name of ["mysql", "postgresql"])
      assert.deepEqual(
        readdirSync(join(data, name)).filter((file) => file.startsWith("making")),
        [],
      );
    await servers.stop();
  });
});

describe("a first start that is killed", () => {
  for (const name of ["mysql", "postgresql"])
    it(`leaves no data directory of ${name} that looks made`, async () => {
      const data = join(temporary, `killed-${name}`);
      const options = { backends: [name], data, ports: offset + 200 };
      const runner = new URL("../dapr/runner.js", import.meta.url);
      const program = `const { startServers } = await import(${JSON.stringify(runner.href)});
        await startServers(${JSON.stringify(options)});`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
      const making = () => {
        try {
          const directory = readdirSync(join(data, name)).find((file) => file.startsWith("making-"));
          return directory !== undefined && readdirSync(join(data, name, directory)).length > 0;
        } catch {
          return false; // it has not come that far
        }
      };
      try {
        while (!making()) {
          assert.ok(child.exitCode === null && !existsSync(join(data, name, "data")), "it was made in place");
          await new Promise(setImmediate);
        }
      } finally {
        child.kill("SIGKILL");
      }
      await once(child, "exit");
      assert.ok(!existsSync(join(data, name, "data")));
      const servers = await startServers(options);
      try {
        const [component] = servers.backends.flat();
        const { user, password } = (component && kindOf(component)?.read(component)) ?? assert.fail();
        const port = offset + 200 + (name === "mysql" ? 3316 : 5442);
        const session = await logins[name]?.(port, user, password);
        await session?.write(text);
        assert.equal(await session?.read(), text);
        await session?.close();
      } finally {
        await servers.stop();
      }
    });
});

describe("which servers are started", () => {
  const data = join(temporary, "which");
  mkdirSync(data);
  let count = 0;
  const startedFor = (...layers: string[]) => {
    const target = join(data, String(count++));
    mkdirSync(target);
    const topology = readTopology(
      join(root, "dapr/dapr.yaml"),
      layers.map((layer) => (layer.startsWith("/") ? layer : join(root, "components", layer))),
    );
    const passwords = new Passwords(target);
    const components = resolve(render(topology, target, offset).components, passwords, offset);
    return serversFor(components, target, passwords, offset).map(({ name, port }) => `${name}:${port}`);
  };
  const withEnv = (env: Record<string, string>, check: () => void) => {
    Object.assign(process.env, env);
    try {
      check();
    } finally {
      for (const name of Object.keys(env)) delete process.env[name];
    }
  };

  it("those that the components of this machine name, one per address", () => {
    assert.deepEqual(startedFor("embedded"), [`redis:${offset + 6389}`]);
    assert.deepEqual(startedFor("polyglot").sort(), [
      `mongodb:${offset + 7027}`,
      `mysql:${offset + 3316}`,
      `redis-6390:${offset + 6390}`,
    ]);
    assert.deepEqual(startedFor("embedded", "rabbitmq"), [`rabbitmq:${offset + 5682}`]);
    assert.deepEqual(startedFor("postgresql"), [`postgresql:${offset + 5442}`]);
  });

  it("none where somebody brings their own by an environment variable", () => {
    const own = "me:secret@tcp(127.0.0.1:3306)/";
    withEnv({ ORDERS_MYSQL: own, PAYMENTS_MYSQL: own }, () =>
      assert.ok(startedFor("polyglot").includes(`mysql:${offset + 3316}`)),
    );
    withEnv({ ORDERS_MYSQL: own, PAYMENTS_MYSQL: own, INVENTORY_MYSQL: own }, () =>
      assert.ok(!startedFor("polyglot").some((name) => name.startsWith("mysql"))),
    );
  });

  it("none where a component names another machine", () => {
    const hosts: Record<string, [string, string]> = {
      mongodb: ["127.0.0.1:7027", "db.example:7027"],
      postgresql: ["127.0.0.1:5442", "db.example:5442"],
      rabbitmq: ["127.0.0.1:5682", "mq.example:5672"],
    };
    for (const [name, [here, there]] of Object.entries(hosts)) {
      const file = name === "rabbitmq" ? "events.yaml" : "orders.yaml";
      const component = readFileSync(join(root, "components", name, file), "utf8");
      assert.ok(component.includes(here));
      const copy = join(data, `${name}-${file}`);
      writeFileSync(copy, component);
      assert.equal(startedFor(copy).length, 1, name);
      writeFileSync(copy, component.replace(here, there));
      assert.deepEqual(startedFor(copy), [], name);
    }
  });
});

describe("what a server is told", () => {
  it("MySQL makes its data directory by itself, MariaDB from its own SQL", () => {
    const mysql = initialisation(
      "mysqld  Ver 8.4.3 for Linux on x86_64 (Source distribution)",
      "/d",
      assert.fail,
    );
    assert.ok(mysql.args.includes("--initialize-insecure") && mysql.args.includes("--datadir=/d"));
    assert.equal(mysql.args[0], "--no-defaults"); // only there it counts
    assert.equal(mysql.input, "");
    const mariadb = initialisation(
      "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu",
      "/d",
      () => "TABLES",
    );
    assert.ok(mariadb.args.includes("--bootstrap"));
    assert.match(mariadb.input, /^CREATE DATABASE mysql;\nUSE mysql;\nTABLES$/);
  });

  it("MySQL's accounts can neither be broken out of nor stand for others", () => {
    const account = { user: "o'r\\", password: "p'w", database: "a_b`c", type: "state.mysql", scopes: [] };
    const lines = accountsSql([account], "root").split("\n");
    assert.ok(lines.includes("ALTER USER 'o\\'r\\\\'@'127.0.0.1' IDENTIFIED BY 'p\\'w';"));
    assert.ok(
      lines.includes("CREATE SCHEMA IF NOT EXISTS `a_b``c` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;"),
    );
    assert.ok(lines.includes("GRANT ALL PRIVILEGES ON `a\\_b``c`.* TO 'o\\'r\\\\'@'127.0.0.1';"));
  });

  it("a mongod is a replica set of one, which follows its port", () => {
    const site = { name: "mongodb", port: 7027, directory: "/d", accounts: [], rootPassword: "" };
    assert.ok(argsOf(site, false).includes("--replSet"));
    assert.ok(argsOf(site, false).includes("--keyFile"));
    assert.ok(argsOf(site, true).includes("--users"));
    const config = { _id: "jangteo", version: 3, members: [{ _id: 0, host: "127.0.0.1:7027", votes: 1 }] };
    assert.equal(reconfigured(config, "127.0.0.1:7027"), undefined);
    assert.deepEqual(reconfigured(config, "127.0.0.1:40027"), {
      ...config,
      version: 4,
      members: [{ _id: 0, host: "127.0.0.1:40027", votes: 1 }],
    });
  });

  it("no Erlang that RabbitMQ runs, now or later, may start epmd; nobody else's settings count", () => {
    const site = { name: "rabbitmq", port: 5682, directory: "/d", accounts: [], rootPassword: "" };
    process.env.RABBITMQ_NODE_PORT = "1";
    try {
      const env = rabbitmq.env?.(site) ?? {};
      assert.match(env.ERL_FLAGS ?? "", /-start_epmd false/);
      assert.ok("RABBITMQ_NODE_PORT" in env && env.RABBITMQ_NODE_PORT === undefined);
    } finally {
      delete process.env.RABBITMQ_NODE_PORT;
    }
  });

  it("PostgreSQL's connection string may be a URL or pairs, and items besides it win", () => {
    const read = (metadata: Record<string, string>) =>
      postgresql.read({
        name: "orders",
        type: "state.postgresql",
        metadata,
        secrets: {},
        secretStore: undefined,
        scopes: [],
      });
    assert.deepEqual(read({ connectionString: "postgres://u%40:p@127.0.0.1:5442/d?sslmode=disable" }), {
      address: "127.0.0.1:5442",
      user: "u@",
      password: "p",
      database: "d",
    });
    assert.deepEqual(
      read({ connectionString: "host=localhost user=u dbname=d", port: "5442", password: "p" }),
      {
        address: "localhost:5442",
        user: "u",
        password: "p",
        database: "d",
      },
    );
    assert.equal(read({ connectionString: "postgres://" }).address, undefined);
  });

  it("a program that fails tells what it said last", async () => {
    const script = "console.log('one'); console.error('no space left'); process.exit(3)";
    await assert.rejects(runToEnd(process.execPath, ["-e", script], { cwd: temporary }), (error) => {
      assert.ok(error instanceof StartError);
      assert.match(error.message, /failed with code 3:[\s\S]*no space left/);
      return true;
    });
    await assert.rejects(runToEnd("/no/such/program", [], { cwd: temporary }), /could not be started/);
  });
});

/** All processes that a process has started, and theirs. */
function descendants(pid: number): number[] {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((other) => {
      try {
        const stat = readFileSync(`/proc/${other}/stat`, "utf8");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === pid;
      } catch {
        return false; // ended meanwhile
      }
    });
  return children.flatMap((child) => [child, ...descendants(child)]);
}
