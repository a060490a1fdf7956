/**
 * compose.yaml against what it must agree with: dapr/dapr.yaml, the components of components/polyglot and dapr/compose/.
 * No container engine is needed; docs/compose.md says what was seen on one.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { runInNewContext } from "node:vm";
import { parse } from "yaml";
import { z } from "zod";
import { root } from "#dapr/runner.js";
import { asComponent, type Component, instances, readTopology, render, sidecarArgs } from "#dapr/topology.js";

const temporary = mkdtempSync(join(tmpdir(), "jangteo-compose-"));
after(() => rmSync(temporary, { recursive: true, force: true }));
const read = (path: string) => readFileSync(join(root, path), "utf8");

const condition = z.strictObject({
  condition: z.enum(["service_started", "service_healthy"]),
  restart: z.boolean().optional(),
});
const serviceSchema = z.object({
  image: z.string(),
  build: z.object({ context: z.string(), target: z.string() }).optional(),
  restart: z.string(),
  entrypoint: z.array(z.string()).default([]),
  command: z.array(z.string()).default([]),
  environment: z.record(z.string(), z.string()).default({}),
  network_mode: z.string().optional(),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  depends_on: z.record(z.string(), condition).default({}),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
  read_only: z.boolean().optional(),
});
type Service = z.infer<typeof serviceSchema>;
const text = read("compose.yaml");
const compose = z
  .object({ services: z.record(z.string(), serviceSchema), volumes: z.record(z.string(), z.null()) })
  .parse(parse(text, { merge: true }));

const servers = ["mysql", "mongo", "redis"];
const topology = readTopology(join(root, "dapr", "dapr.yaml"), [join(root, "components", "polyglot")]);
const all = instances(topology, {}, 0);
const rendered = render(topology, temporary, 0);
const names = all.map(({ app }) => app.appID);

function service(name: string): Service {
  const found = compose.services[name];
  assert.ok(found, `compose.yaml has a service ${name}`);
  return found;
}

/** The components that an app may use. */
const componentsOf = (app: string): Component[] =>
  rendered.components.filter(({ scopes }) => scopes.length === 0 || scopes.includes(app));

/** `--flag value` and `--flag=value` alike, as pairs; a flag without a value is "true". */
function flags(args: string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const [i, arg] of args.entries()) {
    if (!arg.startsWith("--")) continue;
    const [flag = "", value] = arg.split(/=(.*)/s);
    const next = args[i + 1];
    found.set(flag, value ?? (next === undefined || next.startsWith("--") ? "true" : next));
  }
  return found;
}

describe("compose.yaml", () => {
  it("runs each service of dapr/dapr.yaml with a sidecar and their network, the servers, and nothing else", () => {
    assert.deepEqual(
      Object.keys(compose.services).sort(),
      [...servers, ...names.flatMap((name) => [name, `${name}-sidecar`, `${name}-pod`])].sort(),
    );
    for (const name of names) {
      const network = `service:${name}-pod`;
      assert.equal(service(name).network_mode, network);
      assert.equal(service(`${name}-sidecar`).network_mode, network);
      assert.equal(service(`${name}-pod`).network_mode, undefined);
    }
  });

  it("starts each service as dapr/dapr.yaml does", () => {
    for (const { app, ports, name } of all) {
      const { command, environment } = service(app.appID);
      assert.deepEqual(command, app.command);
      const { APP_ID, APP_PORT, DAPR_HTTP_PORT, REPLICA } = environment;
      assert.deepEqual(
        { APP_ID, APP_PORT, DAPR_HTTP_PORT, REPLICA },
        {
          APP_ID: app.appID,
          APP_PORT: String(ports.app),
          DAPR_HTTP_PORT: String(ports.http),
          REPLICA: name,
        },
      );
      const shop = (value = "") => value.replace(/\$\{SHOP_NAME:-(\w+)\}/, "$1");
      assert.equal(shop(environment.SHOP), app.env?.SHOP);
      assert.match(read("Dockerfile"), /ENV NODE_ENV=production/);
      assert.equal(app.env?.NODE_ENV, "production");
    }
  });

  it("starts each sidecar with the flags of npm start, but for where its files are and how others find it", () => {
    for (const instance of all) {
      const { entrypoint, command } = service(`${instance.app.appID}-sidecar`);
      assert.equal(entrypoint[0], "/daprd");
      const here = flags([...entrypoint, ...command]);
      const there = flags(sidecarArgs(instance, rendered));
      assert.deepEqual(
        [here.get("--resources-path"), here.get("--config")],
        ["/dapr/resources", "/dapr/config.yaml"],
      );
      for (const flag of ["--resources-path", "--config", "--dapr-internal-grpc-port"]) {
        assert.ok(here.delete(flag) && there.delete(flag), flag);
      }
      // Other sidecars call from other containers.
      assert.ok(there.delete("--dapr-internal-grpc-listen-address"));
      // A service ends before its sidecar, and no other replica goes on.
      assert.ok(there.delete("--dapr-block-shutdown-duration"));
      assert.deepEqual(Object.fromEntries([...here].sort()), Object.fromEntries([...there].sort()));
    }
  });

  it("gives each sidecar the secrets of its components and its tokens, and nobody anybody else's", () => {
    const tokens = ["DAPR_API_TOKEN", "APP_API_TOKEN"];
    for (const name of names) {
      const wanted = componentsOf(name).flatMap(({ secrets }) => Object.values(secrets));
      assert.deepEqual(
        Object.keys(service(`${name}-sidecar`).environment).sort(),
        [...new Set([...wanted, ...tokens])].sort(),
      );
      for (const [variable, of] of [
        ["DAPR_API_TOKEN", "_SIDECAR"],
        ["APP_API_TOKEN", ""],
      ] as const) {
        const value = service(name).environment[variable];
        assert.equal(value, `\${${name.toUpperCase()}${of}_TOKEN:?run node dapr/compose/env.mjs}`);
        assert.equal(service(`${name}-sidecar`).environment[variable], value);
      }
      for (const quiet of [name, `${name}-pod`])
        for (const [variable, value] of Object.entries(service(quiet).environment))
          if (!tokens.includes(variable)) assert.doesNotMatch(value, /:\?/);
    }
  });

  it("gives each server the passwords of the components that live there, under their names", () => {
    const kinds = { mysql: /\.mysql$/, mongo: /\.mongodb$/, redis: /\.redis$/ };
    for (const [server, kind] of Object.entries(kinds)) {
      const living = rendered.components.filter(({ type }) => kind.test(type));
      assert.ok(living.length > 2, server);
      const given = Object.keys(service(server).environment).filter((variable) => !/ROOT|KEY/.test(variable));
      assert.deepEqual(given.sort(), living.map(({ name }) => `${name.toUpperCase()}_PASSWORD`).sort());
      // A sidecar waits for the servers of its components.
      for (const { name, scopes } of living)
        for (const app of scopes)
          assert.equal(
            service(`${app}-sidecar`).depends_on[server]?.condition,
            "service_healthy",
            `${app} uses ${name}`,
          );
    }
    // The connection string in a sidecar and the user in the server are made of the same password.
    for (const { name, secrets } of rendered.components.filter(({ type }) => type === "state.mysql"))
      for (const variable of Object.values(secrets)) {
        const user = rendered.components.find((component) => component.name === name)?.scopes[0];
        assert.equal(
          service(`${user}-sidecar`).environment[variable],
          `${name}:${service("mysql").environment[`${name.toUpperCase()}_PASSWORD`]}@tcp(mysql:3306)/`,
        );
      }
  });

  it("holds no secret: each comes from outside, and without it nothing starts", () => {
    const secret = /PASSWORD|KEY|MYSQL$|TOKEN$/;
    let count = 0;
    for (const [name, { environment }] of Object.entries(compose.services))
      for (const [variable, value] of Object.entries(environment).filter(([variable]) =>
        secret.test(variable),
      )) {
        assert.match(value, /\$\{\w+:\?run node dapr\/compose\/env\.mjs\}/, `${name}: ${variable}`);
        count++;
      }
    assert.ok(count > 56, `${count} secrets`);
  });

  it("checks the health of everything that can be ill, and starts again what has ended", () => {
    for (const [name, { healthcheck, restart }] of Object.entries(compose.services)) {
      assert.equal(restart, "unless-stopped", name);
      if (!name.endsWith("-pod")) assert.ok(healthcheck, name); // which does nothing but be there
    }
    for (const { app, ports } of all)
      assert.ok(
        service(`${app.appID}-sidecar`).healthcheck?.test.includes(
          `http://127.0.0.1:${ports.http}/v1.0/healthz`,
        ),
      );
  });

  it("has every image pinned, and our own at the version of package.json", () => {
    const version = z.object({ version: z.string() }).parse(JSON.parse(read("package.json"))).version;
    for (const [name, { image }] of Object.entries(compose.services)) {
      // With the registry's name, for Podman knows no default one.
      assert.match(image, /^(docker\.io\/[a-z/]+|jangteo-[a-z]+):\d+\.\d+/, name);
      if (image.startsWith("jangteo-")) assert.equal(image.split(":")[1], version);
    }
    const from = [...read("Dockerfile").matchAll(/^FROM (\S+)/gm)].map(([, image]) => image ?? "");
    assert.ok(from.length >= 4);
    for (const image of from) assert.match(image, /^docker\.io\/[a-z/]+:\d+\.\d+\.\d+/);
    // The sidecar of containers is of the version that npm start builds.
    const daprd = /github\.com\/dapr\/dapr v(\S+)/.exec(read("dapr/tools/go.mod"))?.[1];
    assert.ok(from.includes(`docker.io/daprio/daprd:${daprd}`));
  });

  it("builds each image of ours once", () => {
    const built = Object.values(compose.services).flatMap(({ image, build }) =>
      build ? [`${image} ${build.target}`] : [],
    );
    assert.deepEqual(built.sort(), ["jangteo-service:0.1.0 service", "jangteo-sidecar:0.1.0 sidecar"]);
  });

  it("keeps data in named volumes only, and opens one port, on this machine only", () => {
    const sources = Object.values(compose.services).flatMap(({ volumes }) =>
      volumes.map((volume) => volume.split(":")),
    );
    const named = sources.map(([source = ""]) => source).filter((source) => !source.startsWith("."));
    assert.deepEqual([...new Set(named)].sort(), Object.keys(compose.volumes).sort());
    for (const [source = "", , mode] of sources.filter(([source]) => source?.startsWith("."))) {
      assert.equal(mode, "ro");
      assert.ok(existsSync(join(root, source)), source);
    }
    const ports = Object.entries(compose.services).flatMap(([name, { ports }]) =>
      ports.map((port) => `${name} ${port}`),
    );
    const gateway = all.find(({ app }) => app.appID === "gateway")?.ports.app;
    assert.deepEqual(ports, [`gateway-pod 127.0.0.1:\${GATEWAY_PORT:-${gateway}}:${gateway}`]);
    // Only the gateway listens beyond its own network, for that port.
    for (const name of names)
      assert.equal(service(name).environment.APP_HOST, name === "gateway" ? "0.0.0.0" : undefined);
  });
});

describe("dapr/compose", () => {
  it("renders polyglot for containers: same components, servers and sidecars by name", () => {
    const target = join(temporary, "rendered");
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(root, "dapr/compose/render.mjs"), "polyglot", target],
      { encoding: "utf8" },
    );
    assert.equal(status, 0, stderr);
    const resources = join(target, "resources");
    const files = readdirSync(resources).sort();
    assert.deepEqual(files, readdirSync(rendered.resources).sort());
    const addresses: Record<string, [item: string, address: string]> = {
      redis: ["redisHost", "redis:6379"],
      mongodb: ["host", "mongo:27017"],
    };
    let moved = 0;
    for (const file of files) {
      const before = asComponent(parse(readFileSync(join(rendered.resources, file), "utf8")));
      const now = asComponent(parse(readFileSync(join(resources, file), "utf8")));
      const [item, address] = addresses[before?.type.split(".").at(-1) ?? ""] ?? [];
      if (before && item && address) {
        before.metadata[item] = address;
        moved++;
      }
      assert.deepEqual(now, before, file);
    }
    assert.ok(moved >= 6);
    const config = parse(readFileSync(join(target, "config.yaml"), "utf8"));
    const { nameResolution } = config.spec;
    const format: string = nameResolution.configuration.format;
    assert.equal(nameResolution.component, "nameformat");
    for (const name of names) {
      const [host, port] = format.replace("{appid}", name).split(":");
      assert.ok(compose.services[host ?? ""], host);
      assert.equal(
        service(host ?? "").network_mode,
        undefined,
        "who has no network of its own has no name there",
      );
      assert.equal(flags(service(`${name}-sidecar`).entrypoint).get("--dapr-internal-grpc-port"), port);
    }
    const original = parse(read("dapr/config.yaml"));
    assert.deepEqual({ ...config.spec, nameResolution }, { ...original.spec, nameResolution });
  });

  it("refuses a component whose server compose.yaml does not run", () => {
    const copy = join(temporary, "copy");
    for (const path of ["dapr/compose", "dapr/config.yaml", "components/rabbitmq", "package.json"])
      cpSync(join(root, path), join(copy, path), { recursive: true });
    cpSync(join(root, "node_modules/yaml"), join(copy, "node_modules/yaml"), { recursive: true });
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(copy, "dapr/compose/render.mjs"), "rabbitmq", join(temporary, "refused")],
      { encoding: "utf8" },
    );
    assert.notEqual(status, 0);
    assert.match(
      stderr,
      /events\.yaml: compose\.yaml runs no server for pubsub\.rabbitmq at 127\.0\.0\.1:\d+/,
    );
  });

  it("makes every password that compose.yaml asks for, once, for its owner's eyes", () => {
    const copy = join(temporary, "env");
    cpSync(join(root, "dapr/compose"), join(copy, "dapr/compose"), { recursive: true });
    cpSync(join(root, "compose.yaml"), join(copy, "compose.yaml"));
    const run = () =>
      spawnSync(process.execPath, [join(copy, "dapr/compose/env.mjs")], { encoding: "utf8" }).stdout;
    const made = () => readFileSync(join(copy, ".env"), "utf8");
    assert.match(run(), /passwords made/);
    const first = made();
    assert.equal(statSync(join(copy, ".env")).mode & 0o777, 0o600);
    const wanted = [...new Set([...text.matchAll(/\$\{(\w+):\?/g)].map(([, variable]) => variable))].sort();
    const values = new Map(
      [...first.matchAll(/^(\w+)=([0-9a-f]{48})$/gm)].map(([, key, value]) => [key, value]),
    );
    assert.deepEqual([...values.keys()].sort(), wanted);
    assert.equal(new Set(values.values()).size, wanted.length);
    assert.match(run(), /kept/);
    assert.equal(made(), first);
    // A variable that is missing is added, and the others stay.
    const [variable = ""] = wanted;
    const rest = first.split("\n").filter((line) => !line.startsWith(`${variable}=`));
    writeFileSync(join(copy, ".env"), rest.join("\n"));
    assert.match(run(), new RegExp(`1 passwords made, for ${variable}`));
    for (const line of rest) assert.ok(made().includes(line));
  });

  it("is kept from git and from the images", () => {
    assert.ok(read(".gitignore").split("\n").includes(".env"));
    const ignored = read(".dockerignore").split("\n");
    assert.ok(ignored.includes("*"), "only what is named enters a build");
    assert.ok(!ignored.some((line) => /^!.*\.env/.test(line)));
  });

  it("makes MongoDB a replica set once, and calls it healthy when it takes writes", () => {
    const check = (status: () => void, isWritablePrimary: boolean) => {
      const seen: unknown[] = [];
      const quit = (code: number) => seen.push(`quit ${code}`);
      const db = {
        getSiblingDB: () => ({ auth: () => seen.push("auth") }),
        hello: () => ({ isWritablePrimary }),
      };
      const rs = { status, initiate: (config: unknown) => seen.push(config) };
      runInNewContext(read("dapr/compose/mongo-health.js"), { db, rs, quit, process: { env: {} } });
      return seen;
    };
    const fails = (codeName: string) => () => {
      throw Object.assign(new Error(codeName), { codeName });
    };
    assert.deepEqual(
      check(() => {}, true),
      ["auth"],
    );
    assert.deepEqual(
      check(() => {}, false),
      ["auth", "quit 1"],
    );
    const [, config, end] = check(fails("NotYetInitialized"), false);
    assert.equal(
      JSON.stringify(config),
      JSON.stringify({ _id: "rs0", members: [{ _id: 0, host: "mongo:27017" }] }),
    );
    assert.equal(end, "quit 1");
    assert.throws(() => check(fails("NoReplicationEnabled"), true), /NoReplicationEnabled/);
    assert.match(read("dapr/compose/mongo.sh"), /--replSet rs0 /);
  });

  it("makes the users of the components in each server", () => {
    const users = (pattern: RegExp, file: string) =>
      (pattern.exec(read(`dapr/compose/${file}`))?.[1] ?? "").match(/\w+/g)?.sort();
    const living = (type: RegExp) =>
      rendered.components
        .filter((one) => type.test(one.type))
        .map(({ name }) => name)
        .sort();
    assert.deepEqual(users(/^for component in (.*); do/m, "mysql.sh"), living(/mysql/));
    assert.deepEqual(users(/of \[(.*)\]/, "mongo-users.js"), living(/mongodb/));
    const acl = [...read("dapr/compose/redis.sh").matchAll(/^user (\w+) on ~/gm)]
      .map(([, user]) => user)
      .sort();
    assert.deepEqual(acl, living(/redis/));
    // Executable, it would run in a shell of its own, without the functions of the image's entrypoint.
    assert.equal(statSync(join(root, "dapr/compose/mysql.sh")).mode & 0o111, 0);
  });
});
