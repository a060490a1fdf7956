/**
 * What the chart's job and init containers do: dapr/prepare.ts as a program of its own, at real servers that know nothing of the
 * components yet.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createConnection } from "mysql2/promise";
import { componentsByServer, patiently, readComponents } from "#dapr/prepare.js";
import { root, type Servers, startServers } from "#dapr/runner.js";
import { Passwords } from "#dapr/secrets.js";
import { openStore } from "#dapr/stores.js";

const ports = 21_500;
const data = mkdtempSync(join(tmpdir(), "jangteo-prepare-"));
after(() => rmSync(data, { recursive: true, force: true, maxRetries: 10 }));

/** A component as the chart renders it. */
const component = (
  name: string,
  type: string,
  metadata: Record<string, string>,
  secret: [string, string],
) => ({
  ...{ apiVersion: "dapr.io/v1alpha1", kind: "Component", metadata: { name }, scopes: ["order"] },
  spec: {
    ...{ type, version: "v1" },
    metadata: [
      ...Object.entries({ ...metadata, keyPrefix: "name" }).map(([item, value]) => ({ name: item, value })),
      { name: secret[0], secretKeyRef: { name: "shop-stores", key: secret[1] } },
    ],
  },
});
const [mysqlAt, mongodbAt, postgresqlAt] = [3316, 7027, 5442].map((port) => `127.0.0.1:${port + ports}`);
const components = [
  component("letters", "state.mysql", { schemaName: "letters_1", tableName: "state" }, [
    "connectionString",
    "LETTERS_MYSQL",
  ]),
  component("parcels", "state.mysql", { schemaName: "parcels" }, ["connectionString", "PARCELS_MYSQL"]),
  component(
    "routes",
    "state.mongodb",
    { host: mongodbAt ?? "", username: "routes", databaseName: "routes", collectionName: "state" },
    ["password", "ROUTES_PASSWORD"],
  ),
  component(
    "drivers",
    "state.postgresql",
    { connectionString: `postgres://drivers@${postgresqlAt}/drivers?sslmode=disable` },
    ["password", "DRIVERS_PASSWORD"],
  ),
];
const secrets = (password: string) => ({
  LETTERS_MYSQL: `letters:${password}@tcp(${mysqlAt})/`,
  PARCELS_MYSQL: `parcels:${password}@tcp(${mysqlAt})/`,
  ROUTES_PASSWORD: password,
  DRIVERS_PASSWORD: password,
  COMPONENTS: JSON.stringify({ components }),
});

/** Runs the program, and answers what it has said. */
async function prepare(
  env: Record<string, string>,
  ...args: string[]
): Promise<{ code: number; said: string }> {
  const child = spawn(process.execPath, [join(root, "dist", "dapr", "prepare.js"), ...args], {
    env: { PATH: process.env.PATH, ...env },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text) => {
      said += String(text);
    });
  const code = await new Promise<number>((resolve) => child.once("close", resolve));
  return { code, said };
}

/** What a store holds, opened as its component. */
async function use(name: string, password: string): Promise<void> {
  const found = readComponents(secrets(password)).find((one) => one.name === name);
  assert.ok(found);
  const store = await openStore(found, data);
  try {
    await store.write([{ key: "one", value: '"kept"', expires: undefined }]);
    assert.equal((await store.get(["one"])).get("one")?.value, '"kept"');
  } finally {
    await store.close();
  }
}

describe("a server that knows nothing of the components", () => {
  let servers: Servers;
  let administrators: Record<string, string>;
  before(async () => {
    servers = await startServers({ data, ports, backends: ["polyglot", "postgresql"] });
    const passwords = new Passwords(data);
    administrators = Object.fromEntries(
      ["MYSQL", "MONGODB", "POSTGRESQL"].map((kind) => {
        const variable = `${kind}_ROOT_PASSWORD`;
        return [variable, passwords.of(variable)];
      }),
    );
  });
  after(() => servers.stop());

  it("is left alone by who has no administrator's password", async () => {
    const { code, said } = await prepare(secrets("first-password"));
    assert.equal(code, 0, said);
    assert.match(said, /mysql at \S+ is left as it is, for its administrator is not known: letters, parcels/);
    await assert.rejects(use("letters", "first-password"));
  });

  it("keeps pods waiting, so long as they are told, and then lets them try", async () => {
    const { code, said } = await prepare(secrets("first-password"), "--wait", "1");
    assert.equal(code, 0);
    for (const name of ["letters", "routes", "drivers"])
      assert.match(said, new RegExp(`waiting for ${name}: .+`), said);
    assert.match(said, /its sidecar may find out itself/);
    assert.doesNotMatch(said, /first-password/);
  });

  it("gets their schemas, users and tables", async () => {
    const { code, said } = await prepare({ ...secrets("first-password"), ...administrators });
    assert.equal(code, 0, said);
    for (const kind of ["mysql", "postgresql"])
      assert.match(said, new RegExp(`${kind} at \\S+ is ready for`));
    await use("letters", "first-password");
    const pods = await prepare(
      { ...secrets("first-password"), COMPONENTS: JSON.stringify({ components: components.slice(0, 2) }) },
      "--wait",
      "30",
    );
    assert.deepEqual([pods.code, pods.said], [0, "letters is there\nparcels is there\n"]);
  });

  it("lets each user into its own and nowhere else", async () => {
    const [, port] = (mysqlAt ?? "").split(":");
    const login = { host: "127.0.0.1", port: Number(port), user: "parcels", password: "first-password" };
    const client = await createConnection(login);
    try {
      await assert.rejects(client.query("SELECT * FROM letters_1.state"), /denied/);
      const [rows] = await client.query("SELECT count(*) AS n FROM parcels.state");
      assert.deepEqual(rows, [{ n: 0 }]);
    } finally {
      client.destroy();
    }
  });

  it("keeps what is there when it is prepared again, and takes new passwords", async () => {
    const { code, said } = await prepare({ ...secrets("second-password"), ...administrators });
    assert.equal(code, 0, said);
    await assert.rejects(use("letters", "first-password"));
    const [letters] = readComponents(secrets("second-password"));
    assert.ok(letters);
    const store = await openStore(letters, data);
    assert.equal((await store.get(["one"])).get("one")?.value, '"kept"');
    await store.close();
  });
});

describe("what the program is told", () => {
  it("names what is missing", async () => {
    const { LETTERS_MYSQL, ...without } = secrets("x");
    assert.throws(() => readComponents(without), /letters wants LETTERS_MYSQL, which is not set/);
    assert.throws(() => readComponents({}), /COMPONENTS is not set/);
    const { code, said } = await prepare({}, "--wait", "soon");
    assert.deepEqual([code, /--wait: "soon" is no number/.test(said)], [2, true], said);
  });

  it("is put together by server", () => {
    const found = componentsByServer(readComponents(secrets("x")));
    assert.deepEqual(
      found.map(({ kind, address, components: own }) => [kind, address, own.map(({ name }) => name)]),
      [
        ["mysql", mysqlAt, ["letters", "parcels"]],
        ["mongodb", mongodbAt, ["routes"]],
        ["postgresql", postgresqlAt, ["drivers"]],
      ],
    );
  });

  it("is tried until it succeeds, and no longer than asked", async () => {
    let tries = 0;
    await patiently("it", 5_000, async () => {
      if (++tries < 2) throw new Error("not yet");
    });
    assert.equal(tries, 2);
    await assert.rejects(
      patiently("it", 0, () => Promise.reject(new Error("never"))),
      /never/,
    );
  });
});
