import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { root } from "#dapr/runner.js";
import { Passwords, resolve } from "#dapr/secrets.js";
import { serversFor as serversOfRunner } from "#dapr/servers.js";
import { readTopology, render } from "#dapr/topology.js";

const temporary = mkdtempSync(join(tmpdir(), "jangteo-setup-"));
after(() => rmSync(temporary, { recursive: true, force: true }));

interface Facts {
  node: string;
  daprd?: string | undefined;
  installedDaprd?: string | undefined;
  wantsSentry?: boolean;
  wantsHelm?: boolean;
  helm?: string;
  sentry?: string;
  installedSentry?: string;
  servers?: Record<string, string | undefined>;
  wrong?: Record<string, string>;
  go?: string;
  goNeeded?: Record<string, string>;
  packageManager?: string;
  isRoot?: boolean;
  canSudo?: boolean;
}
interface Machine {
  env: Record<string, string>;
  machine: string;
}
interface ServerKind {
  variable: string;
  packages: Record<string, string>;
}

// The set-up is plain JavaScript, outside dist/, as it runs before anything is compiled.
const setup = join(root, "dapr/setup.mjs");
const { plan, locate, installScript, servers, serversOf } = (await import(join(root, "dapr/tools.mjs"))) as {
  plan: (facts: Facts) => Record<string, string>;
  locate: (name: string, machine: Machine) => string | undefined;
  installScript: (manager: string, services: string[], policy?: string) => string;
  servers: Record<string, ServerKind>;
  serversOf: (
    backends: string[],
    options?: { env?: Record<string, string>; components?: string },
  ) => string[] | undefined;
};
const { serversFor } = (await import(setup)) as {
  serversFor: (command: string, args: string[]) => string[] | undefined;
};

const write = (file: string, text: string) => {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o755 });
};

describe("the plan of the set-up", () => {
  const here: Facts = {
    node: "20.1.0",
    daprd: "/bin/daprd",
    servers: Object.fromEntries(Object.keys(servers).map((name) => [name, `/bin/${name}`])),
  };
  const nothing: Facts = {
    node: "20.1.0",
    servers: Object.fromEntries(Object.keys(servers).map((name) => [name, undefined])),
    go: "1.26.8",
  };
  const without = (name: string): Facts => ({ ...here, servers: { ...here.servers, [name]: undefined } });

  it("takes what is there", () => {
    assert.deepEqual(plan(here), { daprd: "/bin/daprd", ...here.servers });
  });

  it("leaves out the servers that no one needs", () => {
    assert.deepEqual(plan({ node: "20.1.0", daprd: "/bin/daprd", servers: {} }), { daprd: "/bin/daprd" });
  });

  for (const packageManager of ["apt-get", "dnf", "yum", "apk", "pacman", "brew"])
    it(`builds and installs with ${packageManager} what is not there`, () => {
      const expected = {
        ...{ daprd: "build", mongodb: "build" },
        ...{ redis: "install", mysql: "install", postgresql: "install", rabbitmq: "install" },
        siege: "install",
      };
      assert.deepEqual(plan({ ...nothing, packageManager, isRoot: true }), expected);
      assert.deepEqual(plan({ ...nothing, packageManager, canSudo: true }), expected);
      const message =
        /redis-server, mariadbd .* and postgres, rabbitmq-server, siege were not found, and installing them takes root:\n {4}sudo (.*)\n.* set REDIS_SERVER to its path, MYSQL_SERVER .* POSTGRES_BIN to the directory .* RABBITMQ_SERVER to its path, SIEGE/;
      if (packageManager === "brew") assert.deepEqual(plan({ ...nothing, packageManager }), expected);
      else
        assert.throws(
          () => plan({ ...nothing, packageManager }),
          (error: Error) => {
            const [, line] = message.exec(error.message) ?? [];
            const packages = ["redis", "mysql", "postgresql", "rabbitmq", "siege"].map(
              (name) => servers[name]?.packages[packageManager],
            );
            return line?.startsWith(`${packageManager} `) === true && line.endsWith(packages.join(" "));
          },
        );
    });

  it("builds with Go, if it is new enough", () => {
    const daprd = { ...here, daprd: undefined };
    assert.equal(plan({ ...daprd, go: "1.26.8" }).daprd, "build");
    assert.throws(() => plan({ ...daprd, go: "1.20.14" }), /Go 1\.20\.14 is older than 1\.21/);
    const installed = { ...daprd, installedDaprd: "/opt/daprd" };
    assert.equal(plan(installed).daprd, "/opt/daprd");
    assert.equal(plan({ ...installed, go: "1.26.8" }).daprd, "build", "which has our patches");
    const local = { go: "1.26.8", goNeeded: { daprd: "1.26.9", mongodb: "1.26.8" } };
    assert.throws(() => plan({ ...daprd, ...local }), /daprd .* Go 1\.26\.8 is older than 1\.26\.9/s);
    assert.equal(plan({ ...without("mongodb"), ...local }).mongodb, "build");
    assert.throws(
      () => plan({ ...without("mongodb"), go: "1.20.14" }),
      /mongod was .*older than 1\.21.*MONGOD/s,
    );
  });

  it("has sentry where it is asked for: given, built, or installed where there is no Go", () => {
    const wanted = { ...here, wantsSentry: true };
    assert.equal(plan(here).sentry, undefined);
    assert.equal(plan({ ...wanted, sentry: "/opt/sentry" }).sentry, "/opt/sentry");
    const installed = { ...wanted, installedSentry: "/opt/dapr/sentry" };
    assert.equal(plan({ ...installed, go: "1.26.8" }).sentry, "build", "which listens on loopback only");
    assert.equal(plan(installed).sentry, "/opt/dapr/sentry");
    assert.throws(() => plan(wanted), /sentry, was not found.*no Go.*go\.dev.*set SENTRY.*leave out --mtls/s);
    const wrong = { ...wanted, wrong: { sentry: "SENTRY is wrong" } };
    assert.throws(() => plan(wrong), /- SENTRY is wrong$/m);
  });

  it("has helm where the chart is to be rendered: given, on PATH, or built", () => {
    const wanted = { ...here, wantsHelm: true };
    assert.equal(plan(here).helm, undefined);
    assert.equal(plan({ ...wanted, helm: "/opt/helm" }).helm, "/opt/helm");
    assert.equal(plan({ ...wanted, go: "1.26.8" }).helm, "build");
    assert.throws(() => plan(wanted), /helm, which .*no Go.*helm\.sh.*go\.dev.*set HELM/s);
    assert.throws(() => plan({ ...wanted, wrong: { helm: "HELM is wrong" } }), /- HELM is wrong$/m);
  });

  it("says how to install by hand where there is no package manager", () => {
    for (const [name, { variable }] of Object.entries(servers))
      assert.throws(
        () => plan(without(name)),
        (error: Error) => error.message.includes("https://") && error.message.includes(`set ${variable} to`),
      );
  });

  it("refuses a variable that is wrong, even if it could install", () => {
    for (const name of ["daprd", ...Object.keys(servers)])
      assert.throws(
        () => plan({ ...nothing, wrong: { [name]: "it is wrong" }, packageManager: "apk", isRoot: true }),
        { message: "- it is wrong" },
      );
  });

  it("names everything that is missing, at once", () => {
    assert.throws(
      () => plan({ ...nothing, node: "18.20.0", go: "1.20", wrong: { redis: "REDIS_SERVER is wrong" } }),
      /Node\.js 18\.20\.0 is too old.*daprd .* was not found.*go\.dev.*\n- REDIS_SERVER is wrong\n- maria.*\n- Postgre.*\n- rabbit.*\n- mongod /s,
    );
  });
});

describe("the servers that a command needs", () => {
  it("are those that the runner would start, for every backend that we ship", () => {
    const components = join(root, "components");
    for (const backend of readdirSync(components)) {
      const data = mkdtempSync(join(temporary, "data-"));
      const topology = readTopology(join(root, "dapr/dapr.yaml"), [join(components, backend)]);
      const passwords = new Passwords(data);
      const resolved = resolve(render(topology, data, 0).components, passwords, 0);
      const started = serversOfRunner(resolved, data, passwords, 0).map(({ name }) =>
        name.replace(/-\d+$/, ""),
      );
      assert.deepEqual(serversOf([backend])?.sort(), [...new Set(started)].sort(), backend);
    }
  });

  const component = (type: string, item: string, value: string) =>
    `kind: Component\nmetadata: { name: orders }\nspec:\n  type: ${type} # no 127.0.0.1:1\n  metadata:\n    - name: other\n      value: 127.0.0.1:1\n    - name: ${item}\n      ${value}\nscopes: [order]\n`;
  const needed = (text: string, env: Record<string, string> = {}) => {
    write(join(temporary, "components/own/orders.yaml"), text);
    return serversOf(["own"], { env, components: join(temporary, "components") });
  };

  it("are only those on a loopback address", () => {
    assert.deepEqual(needed(component("state.redis", "redisHost", 'value: "localhost:6379"')), ["redis"]);
    assert.deepEqual(needed(component("state.redis", "redisHost", "value: redis.example:6379")), []);
    const postgresql = (value: string) =>
      needed(component("state.postgresql", "connectionString", `value: "${value}"`));
    assert.deepEqual(postgresql("postgres://orders@localhost/orders"), ["postgresql"]);
    assert.deepEqual(postgresql("host=127.0.0.1 user=orders"), ["postgresql"]);
    assert.deepEqual(postgresql("host=db.example user=localhost"), []);
    assert.deepEqual(needed(component("state.sqlite", "connectionString", "value: orders.db")), []);
  });

  it("are not those whose address the environment gives", () => {
    for (const secret of [
      "secretKeyRef: { name: ORDERS, key: ORDERS }",
      "secretKeyRef:\n        name: ORDERS\n        key: ORDERS",
    ]) {
      const text = component("state.mysql", "connectionString", secret);
      assert.deepEqual(needed(text), ["mysql"]);
      assert.deepEqual(needed(text, { ORDERS: "a:b@tcp(127.0.0.1:3306)/" }), []);
    }
  });

  it("are those of the last layer that brings a file", () => {
    needed(component("state.mongodb", "host", "value: 127.0.0.1:27017"));
    const own = join(temporary, "components/own");
    assert.deepEqual(serversOf([`mysql, ${own}/orders.yaml`]), ["mysql", "mongodb"]);
    assert.deepEqual(serversOf([own, "embedded"]), ["redis", "mongodb"]);
    assert.deepEqual(serversOf([`${own},mysql/orders.yaml`]), ["mysql"]);
    assert.equal(serversOf(["embedded", "nonesuch"]), undefined);
  });

  for (const [line, expected] of [
    ["start", ["redis"]],
    ["start --backend= --drills", ["redis"]],
    ["start --backend mysql --backend=mongodb", ["mongodb"]],
    ["start --help", undefined],
    ["start --backend nonesuch", undefined],
    ["bench --seconds 5", ["redis"]],
    ["proof --list", undefined],
    ["proof s3-o5", ["redis", "siege"]],
    ["proof all --backend mysql", ["mysql", "siege"]],
    ["scenario --list", undefined],
    ["scenario nonesuch", undefined],
    ["scenario all", ["redis"]],
    ["scenario flower coffee --ports 100 --backend mysql", ["mysql"]],
    ["migrate --from mysql --to mongodb --component orders", ["mysql", "mongodb"]],
    ["migrate --from mysql", undefined],
    ["rebuild-view", undefined],
    ["reset", undefined],
    ["test sagas", Object.keys(servers)],
  ] as const)
    it(`of "${line}": ${expected?.join(", ") ?? "no programs at all"}`, () => {
      const [command = "", ...args] = line.split(" ");
      assert.deepEqual(serversFor(command, args), expected);
    });
});

describe("the search for a server", () => {
  const machine = join(temporary, "machine");
  const find = (name: string, env: Record<string, string> = {}) =>
    locate(name, { env, machine })?.replace(machine, "");
  const at = (path: string) => `${machine}${path}`;
  before(() => {
    for (const path of [
      ...[
        "/opt/own/redis-server",
        "/usr/bin/valkey-server",
        "/usr/sbin/mariadbd",
        "/usr/sbin/rabbitmq-server",
      ],
      ...["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/lib/postgresql/9/bin/initdb"],
      ...["/usr/lib/postgresql/9/bin/postgres", "/usr/lib/postgresql/15/bin/initdb"],
      ...["/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/16/bin/psql"],
    ])
      write(at(path), "");
    writeFileSync(at("/opt/own/mongod"), "", { mode: 0o644 });
  });

  it("looks on PATH", () => {
    assert.equal(find("redis"), undefined);
    assert.equal(find("redis", { PATH: at("/usr/bin") }), "/usr/bin/valkey-server");
    assert.equal(find("redis", { PATH: `${at("/opt/own")}:${at("/usr/bin")}` }), "/opt/own/redis-server");
    assert.equal(find("mongodb", { PATH: at("/opt/own") }), undefined, "not executable");
  });

  it("looks where distributions put servers, for the newest version that is complete", () => {
    assert.equal(find("mysql"), "/usr/sbin/mariadbd");
    assert.equal(find("postgresql"), "/usr/lib/postgresql/15/bin");
    assert.equal(find("rabbitmq"), "/usr/lib/rabbitmq/bin/rabbitmq-server");
  });

  it("prefers RabbitMQ itself to the script that serves the system's own broker", () => {
    assert.equal(find("rabbitmq", { PATH: at("/usr/sbin") }), "/usr/lib/rabbitmq/bin/rabbitmq-server");
  });

  it("takes nothing but what a variable names, if it is set", () => {
    const PATH = at("/usr/bin");
    assert.equal(find("redis", { PATH, REDIS_SERVER: at("/opt/own/redis-server") }), "/opt/own/redis-server");
    assert.equal(find("redis", { PATH, REDIS_SERVER: "valkey-server" }), "/usr/bin/valkey-server");
    assert.equal(find("redis", { PATH, REDIS_SERVER: "/nonesuch" }), undefined);
    assert.equal(find("redis", { PATH, REDIS_SERVER: machine }), undefined, "a directory");
    assert.equal(find("redis", { PATH, REDIS_SERVER: "" }), "/usr/bin/valkey-server");
    const POSTGRES_BIN = at("/usr/lib/postgresql/9/bin");
    assert.equal(find("postgresql", { POSTGRES_BIN }), "/usr/lib/postgresql/9/bin");
    assert.equal(find("postgresql", { POSTGRES_BIN: at("/usr/lib/postgresql/16/bin") }), undefined);
  });
});

describe("an installation with apt-get", () => {
  const bin = join(temporary, "apt");
  const policy = join(bin, "policy-rc.d");
  const calls = () => readFileSync(join(bin, "calls"), "utf8").trim().split("\n");
  /** A stand-in for apt-get that works only after an update, and for systemctl: redis-server was enabled before. */
  const install = (...packages: string[]) => {
    rmSync(bin, { recursive: true, force: true });
    write(
      join(bin, "apt-get"),
      `#!/bin/sh
      ${policy} any-service start; echo "apt-get $* $DEBIAN_FRONTEND, policy $?" >>${bin}/calls
      [ "$1" = update ] && exec touch ${bin}/lists
      case "$*" in *broken*) exit 100;; esac
      case "$*" in *stopped*) touch ${bin}/lists; kill -TERM $PPID; exit 1;; esac
      [ -e ${bin}/lists ] || exit 100`,
    );
    write(
      join(bin, "systemctl"),
      `#!/bin/sh
      echo "systemctl $*" >>${bin}/calls
      [ "$2 $3" != "is-enabled postgresql" ]`,
    );
    const script = installScript("apt-get", ["redis-server", "postgresql"], policy);
    return (before: string | undefined = undefined) => {
      if (before !== undefined) write(policy, before);
      const env = { PATH: `${bin}:${process.env.PATH}` };
      return spawnSync("/bin/sh", ["-c", script, "sh", ...packages], { env, encoding: "utf8" }).status;
    };
  };
  const installing = "apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends";

  it("fetches the lists of packages when it has to, and starts no service, now or later", () => {
    assert.equal(install("redis-server", "postgresql")(), 0);
    assert.deepEqual(calls(), [
      "systemctl --quiet is-enabled redis-server",
      "systemctl --quiet is-enabled postgresql",
      `${installing} redis-server postgresql noninteractive, policy 101`,
      "apt-get update noninteractive, policy 101",
      `${installing} redis-server postgresql noninteractive, policy 101`,
      "systemctl --quiet disable postgresql",
    ]);
    assert.equal(existsSync(policy), false);
  });

  it("leaves nothing behind when it fails or is stopped", () => {
    for (const name of ["broken", "stopped"]) {
      assert.notEqual(install(name)(), 0);
      assert.ok(calls().length >= 3);
      assert.equal(existsSync(policy), false);
    }
  });

  it("leaves a policy that was there as it is", () => {
    assert.equal(install("redis-server")("#!/bin/sh\nexit 104\n"), 0);
    assert.match(calls().join(), /policy 104/);
    assert.equal(readFileSync(policy, "utf8"), "#!/bin/sh\nexit 104\n");
  });
});

describe("the set-up", () => {
  it("ends with one message on a machine that has nothing", () => {
    const home = join(temporary, "home");
    mkdirSync(join(home, "bin"), { recursive: true });
    symlinkSync(process.execPath, join(home, "bin/node"));
    const backend = join(home, "components");
    write(
      join(backend, "orders.yaml"),
      "spec:\n  type: state.mongodb\n  metadata:\n    - name: host\n      value: localhost:27017\n",
    );
    write(
      join(backend, "events.yaml"),
      "spec:\n  type: pubsub.redis\n  metadata:\n    - name: redisHost\n      value: localhost:6379\n",
    );
    const { status, stdout, stderr } = spawnSync(process.execPath, [setup, "start", "--backend", backend], {
      encoding: "utf8",
      env: { PATH: join(home, "bin"), HOME: home },
    });
    assert.equal(status, 1);
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /daprd .* was not found.*there is no Go.*redis-server was not found.*mongod was not found/s,
    );
    assert.doesNotMatch(stderr, / at .*\.mjs/);
  });

  const old = join(temporary, "old-daprd");
  write(old, "#!/bin/sh\necho 1.16.9");
  for (const [variable, value, message] of [
    ["DAPRD", "/nonesuch/daprd", /DAPRD is set to \/nonesuch\/daprd, which doesn't run/],
    ["DAPRD", old, /DAPRD is set to .*old-daprd, version 1\.16\.9; 1\.17 is needed/],
    ["REDIS_SERVER", "/nonesuch", /REDIS_SERVER is set to \/nonesuch, which is no program/],
  ] as const)
    it(`refuses ${variable}=${value.replace(temporary, "")}`, () => {
      const { status, stderr } = spawnSync(process.execPath, [setup, "start", "stray"], {
        encoding: "utf8",
        env: { ...process.env, [variable]: value },
      });
      assert.equal(status, 1);
      assert.match(stderr, message);
    });

  it("names its commands", () => {
    const { status, stderr } = spawnSync(process.execPath, [setup, "nonesuch"], { encoding: "utf8" });
    assert.equal(status, 1);
    assert.match(stderr, /usage: .*test\|start\|scenario\|.*\|chaos\|.*\|restart\|scale\|.*reset/);
  });

  describe("on a machine with Go and a package manager", () => {
    const clone = join(temporary, "clone");
    const bin = join(temporary, "bin");
    const dapr = join(temporary, "dapr-module");
    const built = join(temporary, "built-module");
    const patchFile = "dapr/tools/patches/app-pipeline.json";
    type Patch = Record<"module" | "file" | "find" | "replace", string>;
    const patches: Patch[] = readdirSync(join(root, "dapr/tools/patches"))
      .filter((name) => name.endsWith(".json"))
      .map((name) => JSON.parse(readFileSync(join(root, "dapr/tools/patches", name), "utf8")))
      .flatMap(
        ({ changes, ...patch }) => changes?.map((change: object) => ({ ...patch, ...change })) ?? patch,
      );
    const patch: Patch = JSON.parse(readFileSync(join(root, patchFile), "utf8"));
    /** What a file has that patches are for, before or after they are applied. */
    const sourceOf = (file: string, which: "find" | "replace") =>
      `before\n${patches
        .filter((one) => one.file === file)
        .map((one) => one[which])
        .join("between\n")}after\n`;
    const calls = () => readFileSync(join(bin, "calls"), "utf8").trim().split("\n");
    /** A stand-in for a program: writes down its arguments, then runs `body`. */
    const fake = (file: string, name: string, body: string) =>
      write(
        file,
        `#!/usr/bin/env node
        const fs = require("node:fs"), path = require("node:path"), args = process.argv.slice(2);
        const touch = (file) => { fs.mkdirSync(path.dirname(file), { recursive: true }); fs.writeFileSync(file, "", { mode: 0o755 }); };
        fs.appendFileSync("${bin}/calls", "${name} " + args.join(" ") + "\\n");
        ${body}`,
      );
    const run = (env: Record<string, string> = {}, args = ["--backend", "both"]) => {
      const child = spawn(process.execPath, [join(clone, "dapr/setup.mjs"), "start", ...args], {
        env: { PATH: bin, HOME: temporary, JANGTEO_CACHE: join(temporary, "cache"), ...env },
      });
      const output: string[] = [];
      for (const stream of [child.stdout, child.stderr])
        stream.on("data", (data) => output.push(String(data)));
      return once(child, "close").then(([code]) => ({ code, output: output.join("") }));
    };

    before(() => {
      for (const file of readdirSync(join(root, "dapr")).filter((name) => name.endsWith(".mjs")))
        cpSync(join(root, "dapr", file), join(clone, "dapr", file));
      for (const path of ["dapr/tools", "package-lock.json", "tsconfig.json"])
        cpSync(join(root, path), join(clone, path), { recursive: true });
      for (const file of ["redis/orders.yaml", "mongodb/tickets.yaml"])
        cpSync(join(root, "components", file), join(clone, "components/both", file.replace(/.*\//, "")));
      mkdirSync(bin);
      symlinkSync(process.execPath, join(bin, "node"));
      fake(join(bin, "sudo"), "sudo", 'require("node:child_process").spawnSync(args[1], args.slice(2));');
      fake(join(bin, "npm"), "npm", 'touch("node_modules/installed");');
      fake(join(clone, "node_modules/typescript/bin/tsc"), "tsc", "");
      write(
        join(clone, "dist/dapr/start.js"),
        "const { DAPRD, REDIS_SERVER, MONGOD, MYSQL_SERVER } = process.env;\n" +
          "console.log(process.argv.slice(2).join(), DAPRD, REDIS_SERVER, MONGOD, MYSQL_SERVER);",
      );
      for (const { file } of patches) write(join(dapr, file), sourceOf(file, "find"));
      write(join(dapr, "tests/large.go"), "");
      // The module that daprd is built from is kept for a look, as the set-up removes it.
      const goBody = `if (args[0] === "env") console.log("go1.26.8\\nauto");
        else if (args[0] === "mod") console.log('{\\n\\t"Dir": "${dapr}"\\n}');
        else touch(args[args.indexOf("-o") + 1]);
        const modfile = args[args.indexOf("-modfile") + 1];
        if (args.includes("-modfile")) {
          for (const [, module, copy] of fs.readFileSync(modfile, "utf8").matchAll(/^replace (github.com.dapr.\\S+) => "(.*)"$/gm))
            fs.cpSync(copy, path.join("${built}", module), { recursive: true });
          fs.cpSync(path.join(path.dirname(modfile), "go.sum"), "${built}/go.sum");
        }`;
      fake(join(bin, "go"), "go", goBody);
      // Installs only after an update, as on a machine that has no package lists yet.
      const apkBody = `if (args[0] === "update") touch("${bin}/lists");
        else if (fs.existsSync("${bin}/lists")) touch("${bin}/redis-server");
        else process.exit(100);`;
      fake(join(bin, "apk"), "apk", apkBody);
      write(join(clone, "dapr/start.ts"), ""); // the source of dist/dapr/start.js
    });

    const got =
      /--backend,both \S+\/cache\/daprd-1\.18\.2-[0-9a-f]{12}\/daprd \S+\/bin\/redis-server \S+\/cache\/mongodb-standin-[0-9a-f]{12}\/mongodb-standin undefined\n/;

    it("gets everything, once, even if started twice at the same time", async () => {
      const results = await Promise.all([run(), run()]);
      for (const { code, output } of results) {
        assert.equal(code, 0, output);
        assert.match(output, got);
      }
      const count = (pattern: RegExp) => calls().filter((call) => pattern.test(call)).length;
      assert.equal(count(/^npm ci/), 1);
      assert.equal(count(/^tsc -p \./), 1);
      assert.equal(count(/^go build .*-tags stablecomponents .*buildinfo\.version=1\.18\.2/), 1);
      assert.equal(count(/^go build -trimpath -ldflags -s -w -o \S+mongodb-standin \.$/), 1);
      assert.equal(count(/^apk update/), 1);
      assert.equal(count(/^apk add redis$/), 2);
      const said = results.map(({ output }) => output).join("");
      assert.equal(said.split("not here: redis-server; installing redis with apk").length, 2, said);
      assert.equal(said.split("no mongod here: building a stand-in").length, 2, said);
    });

    it("builds daprd with our patches", () => {
      for (const { module, file } of patches)
        assert.equal(readFileSync(join(built, module, file), "utf8"), sourceOf(file, "replace"));
      assert.deepEqual(readFileSync(join(built, "go.sum")), readFileSync(join(root, "dapr/tools/go.sum")));
      assert.equal(existsSync(join(built, patch.module, "tests")), false);
    });

    it("leaves nothing but the programs in the cache", () => {
      const kept = readdirSync(join(temporary, "cache"), { recursive: true }).map(String);
      assert.match(
        kept.sort().join(),
        /^daprd-1\.18\.2-\w+,daprd-[^,]+\/daprd,mongodb-standin-\w+,mongodb-standin-[^,]+\/mongodb-standin$/,
      );
    });

    it("does nothing the next time", async () => {
      const before = calls().length;
      const { code, output } = await run();
      assert.equal(code, 0);
      assert.match(output, new RegExp(`^${got.source}$`));
      assert.equal(calls().length, before);
    });

    it("builds sentry, with its own patch, where certificates are asked for", async () => {
      const loopback: Patch = JSON.parse(
        readFileSync(join(root, "dapr/tools/patches/sentry/loopback.json"), "utf8"),
      );
      write(join(dapr, loopback.file), `before\n${loopback.find}\nafter\n`);
      const before = calls().length;
      const { code, output } = await run({}, ["--backend", "both", "--mtls"]);
      assert.equal(code, 0, output);
      const made = calls().slice(before).join("\n");
      assert.match(made, /go build .*-o \S+\/sentry github\.com\/dapr\/dapr\/cmd\/sentry$/m);
      assert.doesNotMatch(made, /daprd/, "which stays as it is");
      const source = readFileSync(join(built, loopback.module, loopback.file), "utf8");
      assert.equal(source, `before\n${loopback.replace}\nafter\n`);
      const after = calls().length;
      await run({}, ["--backend", "both", "--mtls"]);
      assert.equal(calls().length, after);
    });

    it("takes a mongod that is there instead of its stand-in", async () => {
      write(join(bin, "mongod"), "");
      assert.match((await run()).output, /\/bin\/mongod undefined\n$/);
      rmSync(join(bin, "mongod"));
    });

    it("builds the stand-in again when its source was changed, and not for a test of it", async () => {
      const before = calls().length;
      write(join(clone, "dapr/tools/mongodb/added_test.go"), "package main");
      await run();
      assert.deepEqual(calls().slice(before), ["tsc -p ."], "the folder was changed");
      write(join(clone, "dapr/tools/mongodb/added.go"), "package main");
      await run();
      assert.match(calls().slice(before).join("\n"), /go build .*mongodb-standin/);
    });

    it("needs no program where a server of the user's takes its place, and none to refuse an argument", async () => {
      const none = { PATH: dirname(process.execPath), JANGTEO_CACHE: join(temporary, "empty") };
      const file = join(clone, "components/both/orders.yaml");
      const daprd = join(temporary, "daprd");
      fake(daprd, "daprd", 'console.log("1.18.2");');
      const own = readFileSync(file, "utf8").replace(/127\.0\.0\.1/, "redis.example");
      write(join(clone, "components/own/orders.yaml"), own);
      const { code, output } = await run({ ...none, DAPRD: daprd }, ["--backend", "own"]);
      assert.deepEqual([code, output], [0, `--backend,own ${daprd} undefined undefined undefined\n`]);
      const { output: refused } = await run(none, ["--backend", "nonesuch"]);
      assert.equal(refused, "--backend,nonesuch undefined undefined undefined undefined\n");
    });

    it("says what to do when an installation fails, or brings nothing", async () => {
      const redis = join(bin, "redis-server");
      rmSync(redis);
      const worked = readFileSync(join(bin, "apk"), "utf8");
      fake(join(bin, "apk"), "apk", 'console.log("no such package"); process.exit(1);');
      const failed = await run();
      assert.equal(failed.code, 1);
      assert.match(
        failed.output,
        /apk add redis failed:\nno such package.*by hand:\n {2}Redis 6 .*REDIS_SERVER/s,
      );
      fake(join(bin, "apk"), "apk", "");
      const empty = await run();
      assert.equal(empty.code, 1);
      assert.match(
        empty.output,
        /"apk add redis" succeeded, but there is no redis-server \(set REDIS_SERVER/,
      );
      write(join(bin, "apk"), worked);
      assert.equal((await run()).code, 0);
    });

    it("builds no daprd that lacks a patch", async () => {
      write(join(clone, patchFile), JSON.stringify({ ...patch, find: "what is not there" }));
      const { code, output } = await run();
      assert.equal(code, 1);
      assert.match(
        output,
        /patches\/app-pipeline\.json does not fit \S+pipeline\.go of Dapr 1\.18\.2: .* 0 times/,
      );
      write(join(clone, patchFile), JSON.stringify(patch, null, 2));
      assert.equal((await run()).code, 0);
    });

    it("compiles again when a source was changed, and drops what lost its source", async () => {
      write(join(clone, "kit/new.ts"), "");
      write(join(clone, "dist/kit/old.js"), "");
      const before = calls().length;
      assert.equal((await run()).code, 0);
      assert.deepEqual(calls().slice(before), ["tsc -p ."]);
      assert.equal(existsSync(join(clone, "dist/kit/old.js")), false);
    });

    it("shows why a step failed", async () => {
      fake(
        join(clone, "node_modules/typescript/bin/tsc"),
        "tsc",
        'console.log("a type is wrong"); process.exit(2);',
      );
      write(join(clone, "kit/newer.ts"), "");
      const { code, output } = await run();
      assert.equal(code, 1);
      assert.match(output, /tsc -p \. failed:\na type is wrong/);
    });
  });
});
