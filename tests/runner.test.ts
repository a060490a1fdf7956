import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { identity, until } from "#dapr/processes.js";
import { root, type StartOptions, type System, startSystem } from "#dapr/runner.js";
import { instances, readTopology, shiftPorts } from "#dapr/topology.js";

/** Away from the ports of a system that runs on this machine with no offset, or with a round one. */
const ports = 12350;
const topology = join(root, "tests/fixtures/system/dapr.yaml");
const temporary = mkdtempSync(join(tmpdir(), "jangteo-runner-"));
after(() => rmSync(temporary, { recursive: true, force: true }));

let directories = 0;
const newData = () => join(temporary, `data-${directories++}`);
const start = (options: StartOptions = {}) => startSystem({ topology, data: newData(), ports, ...options });

async function json<T = Record<string, string>>(url: string, init?: RequestInit): Promise<T> {
  const response = await fetch(url, init);
  assert.ok(response.ok, `${url}: ${response.status}`);
  return (await response.json()) as T;
}
type Metadata = { extended: Record<string, string> };
type Delivered = { body: { data: unknown; traceparent: string } }[];

const isAlive = (pid: number) => identity(pid) !== undefined;
const pids = (system: System) => system.processes().flatMap(({ pid }) => pid ?? []);

/** Whether something listens on a port. */
async function listens(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  const answer = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(() => false),
  ]).catch(() => false);
  socket.destroy();
  return answer;
}

describe("a running system", () => {
  const said: string[] = [];
  let system: System;
  let data: string;
  before(async () => {
    data = newData();
    system = await start({ data, replicas: { pong: 2 }, onEvent: (message) => said.push(message) });
  });
  after(() => system.stop());

  it("consists of the servers of the backend and an app and a sidecar per replica", () => {
    const list = system.processes().map(({ name, kind, port }) => ({ name, kind, port }));
    assert.deepEqual(list, [
      { name: "redis", kind: "server", port: ports + 6389 },
      { name: "ping-0-sidecar", kind: "sidecar", port: ports + 3501 },
      { name: "ping-0", kind: "app", port: ports + 8081 },
      { name: "pong-0-sidecar", kind: "sidecar", port: ports + 3502 },
      { name: "pong-0", kind: "app", port: ports + 8082 },
      { name: "pong-1-sidecar", kind: "sidecar", port: ports + 3602 },
      { name: "pong-1", kind: "app", port: ports + 8182 },
    ]);
    assert.deepEqual(said, []);
    assert.equal(system.url("pong", 1), `http://127.0.0.1:${ports + 8182}`);
    assert.equal(system.sidecarUrl("pong", 1), `http://127.0.0.1:${ports + 3602}`);
  });

  it("tells each app who it is", async () => {
    const env = await json(`${system.url("pong", 1)}/env`);
    assert.equal(env.APP_ID, "pong");
    assert.equal(env.REPLICA, "pong-1");
    assert.equal(env.DAPR_HTTP_PORT, String(ports + 3602));
    assert.equal(env.FROM_TOPOLOGY, "yes");
    assert.equal(env.FAULTS, undefined);
  });

  it("can be seen by `dapr list`", async () => {
    const { extended } = await json<Metadata>(`${system.sidecarUrl("ping")}/v1.0/metadata`);
    const app = system.processes().find(({ name }) => name === "ping-0");
    assert.equal(extended.appPID, String(app?.pid));
    assert.equal(extended.cliPID, String(process.pid));
    assert.equal(extended.appCommand, "node dist/tests/fixtures/stub.js");
  });

  it("passes calls and messages, with their trace", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const invoke = `${system.sidecarUrl("ping")}/v1.0/invoke/pong/method/headers`;
    assert.equal((await json(invoke, { headers: { traceparent } })).traceparent, traceparent);

    const publish = `${system.sidecarUrl("ping")}/v1.0/publish/events/ticks?metadata.cloudevent.traceparent=${traceparent}`;
    const headers = { "content-type": "application/json" };
    assert.equal((await fetch(publish, { method: "POST", headers, body: '{"n":1}' })).status, 204);
    const delivered = () => json<Delivered>(`${system.url("ping")}/delivered`);
    assert.ok(await until(async () => (await delivered()).length > 0, 5000));
    const body = (await delivered())[0]?.body;
    assert.deepEqual([body?.data, body?.traceparent], [{ n: 1 }, traceparent]);
  });

  for (const name of ["ping-0", "ping-0-sidecar", "redis"])
    it(`starts ${name} again after a kill -9`, async () => {
      const find = () => system.processes().find((process) => process.name === name);
      const pid = find()?.pid;
      await system.kill(name);
      await system.waitReady();
      assert.notEqual(find()?.pid, pid);
      assert.equal(find()?.restarts, 1);
      assert.match(said.pop() ?? "", new RegExp(`^${name} was ended by SIGKILL and is started again now`));
    });

  it("brings what `dapr list` shows up to date after that", async () => {
    const app = system.processes().find(({ name }) => name === "ping-0");
    const shown = async () =>
      (await json<Metadata>(`${system.sidecarUrl("ping")}/v1.0/metadata`)).extended.appPID;
    assert.ok(await until(async () => (await shown()) === String(app?.pid), 5000));
  });

  it("refuses a second system on its data directory", async () => {
    await assert.rejects(start({ data, ports: ports + 20 }), /already running on .*--data DIR/s);
  });

  it("refuses a second system on its ports, naming them and a way out", async () => {
    await assert.rejects(start(), new RegExp(`${ports + 8081}, wanted by ping-0\n.*--ports 10000`, "s"));
  });

  it("has room for a second one beside it", async () => {
    const second = await start({ ports: ports + 20 });
    try {
      await json(`${second.url("ping")}/env`);
      await json(`${system.url("ping")}/env`);
    } finally {
      await second.stop();
    }
  });

  it("leaves no process and no busy port when it stops", async () => {
    const running = pids(system);
    assert.equal(running.length, 7);
    const began = Date.now();
    await Promise.all([system.stop(), system.stop()]);
    assert.ok(Date.now() - began < 10_000);
    assert.deepEqual(running.filter(isAlive), []);
    for (const { port } of system.processes()) assert.equal(await listens(port), false);
  });
});

describe("a start that fails", () => {
  it("leaves nothing running and shows the log of what failed", async () => {
    const data = newData();
    const said: string[] = [];
    const onEvent = (message: string) => said.push(message);
    await assert.rejects(
      start({ data, env: { FAULTS: "exit" }, onEvent }),
      /(ping|pong)-0 failed to start 5 times in a row.*this stub was told to fail/s,
    );
    assert.ok(said.length >= 4, "each crash is told");
    for (const port of [8081, 8082, 3501, 3502, 6389]) assert.equal(await listens(ports + port), false);
    await (await start({ data })).stop(); // nor does it leave a lock
  });

  it("is no failure if only the first start of an app was to fail", async () => {
    const system = await start({ faults: { ping: "exit" } });
    const restarts = system.processes().map(({ name, restarts }) => [name, restarts]);
    await system.stop();
    assert.equal(Object.fromEntries(restarts)["ping-0"], 1);
  });

  for (const [what, options, message] of [
    ["an unknown backend", { backend: "nonesuch" }, /no backend "nonesuch"; there are .*embedded/],
    ["an unknown shop", { shop: "nonesuch" }, /no shop "nonesuch"; there are .*fashion/],
    ["an unknown service", { replicas: { nonesuch: 2 } }, /no service "nonesuch"; there are ping, pong/],
    ["too many replicas", { replicas: { ping: 11 } }, /ping=11 is not a number from 1 to 10/],
    ["ports beyond the range", { ports: 30000 }, /--ports 30000 is out of range/],
  ] as const)
    it(`names ${what}`, () => assert.rejects(start(options), message));
});

describe("the end of the runner", () => {
  async function runElsewhere(data: string): Promise<{ child: ChildProcess; running: number[] }> {
    const script = join(root, "dist/tests/fixtures/run-system.js");
    const child = spawn(process.execPath, [script, data, String(ports)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = await once(child.stdout ?? child, "data");
    return { child, running: JSON.parse(String(line)) };
  }

  it("by Ctrl-C ends the system", async () => {
    const { child, running } = await runElsewhere(newData());
    assert.equal(running.length, 5);
    child.kill("SIGINT");
    const [code] = await once(child, "exit");
    assert.equal(code, 130);
    assert.deepEqual(running.filter(isAlive), []);
  });

  it("by kill -9 leaves processes, which the next start ends", async () => {
    const data = newData();
    const { child, running } = await runElsewhere(data);
    child.kill("SIGKILL");
    await once(child, "exit");
    assert.equal(running.filter(isAlive).length, 5);
    const said: string[] = [];
    const system = await start({ data, onEvent: (message) => said.push(message) });
    await system.stop();
    assert.match(said[0] ?? "", /left running: redis, ping-0-sidecar, ping-0, pong-0-sidecar, pong-0/);
    assert.deepEqual(running.filter(isAlive), []);
  });
});

describe("the topology", () => {
  const ours = readTopology(join(root, "dapr/dapr.yaml"));

  it("gives every replica ports of its own, outside the range of clients", () => {
    const replicas = Object.fromEntries(
      ours.apps.map(({ appID }) => [appID, appID === "gateway" ? 1 : 10] as const),
    );
    const all = instances(ours, replicas, 20000).flatMap((instance) => Object.values(instance.ports));
    assert.equal(new Set([...all, 26389]).size, all.length + 1);
    assert.ok(Math.max(...all) < 32768);
  });

  it("has one gateway", () => {
    assert.throws(() => instances(ours, { gateway: 2 }, 0), /the gateway .* runs once/);
  });

  it("takes another backend instead of its own, and keeps resiliency.yaml", () => {
    const { resources } = readTopology(join(root, "dapr/dapr.yaml"), "/elsewhere");
    assert.deepEqual(resources, ["/elsewhere", join(root, "dapr")]);
  });

  it("moves loopback addresses, and no others", () => {
    assert.equal(
      shiftPorts("a: 127.0.0.1:6389\nb: tcp(localhost:3306)/x\nc: db.example:3306\nd: 5", 100),
      "a: 127.0.0.1:6489\nb: tcp(localhost:3406)/x\nc: db.example:3306\nd: 5",
    );
  });
});

describe("npm start", () => {
  const cli = (...args: string[]) =>
    spawnSync(process.execPath, [join(root, "dist/dapr/start.js"), ...args], { encoding: "utf8" });

  it("explains its options", () => {
    const { status, stdout } = cli("--help");
    assert.equal(status, 0);
    for (const option of ["backend", "shop", "replicas", "data", "ports", "drills"])
      assert.match(stdout, new RegExp(`--${option} `));
  });

  for (const args of [["--nonesuch"], ["--replicas", "order"], ["--ports", "many"], ["stray"]])
    it(`refuses ${args.join(" ")}`, () => {
      const { status, stderr } = cli(...args);
      assert.equal(status, 2);
      assert.match(stderr, new RegExp(`${args[0]}.*Usage:`, "s"));
    });
});

describe("the set-up", () => {
  const setup = join(root, "dapr/setup.mjs");
  interface Facts {
    node: string;
    daprd?: string;
    daprdEnvProblem?: string;
    go?: string;
    goNeeded?: string;
    redis?: string;
    packageManager?: string;
    isRoot?: boolean;
    canSudo?: boolean;
  }
  let plan: (facts: Facts) => { daprd: string; redis: string };
  before(async () => {
    ({ plan } = await import(setup));
  });
  const all: Facts = { node: "20.1.0", daprd: "/bin/daprd", redis: "/bin/redis-server" };
  const go = { daprd: undefined, go: "1.26.8", goNeeded: "1.21" };

  it("takes what is there", () => {
    assert.deepEqual(plan(all), { daprd: "/bin/daprd", redis: "/bin/redis-server" });
  });
  it("builds daprd with Go", () => {
    assert.equal(plan({ ...all, ...go }).daprd, "build");
    assert.throws(() => plan({ ...all, ...go, go: "1.20.14" }), /Go 1\.20\.14 is older than 1\.21/);
    assert.throws(() => plan({ ...all, ...go, goNeeded: "1.26.9" }), /Go 1\.26\.8 is older than 1\.26\.9/);
  });
  it("installs Redis where it may", () => {
    const apt = { ...all, redis: undefined, packageManager: "apt-get" };
    assert.equal(plan({ ...apt, isRoot: true }).redis, "install");
    assert.equal(plan({ ...apt, canSudo: true }).redis, "install");
    assert.equal(plan({ ...apt, packageManager: "brew" }).redis, "install");
    assert.throws(() => plan(apt), /sudo apt-get install -y redis-server/);
  });
  it("names everything that is missing, at once", () => {
    assert.throws(
      () => plan({ node: "18.20.0" }),
      /Node\.js 18\.20\.0 is too old.*daprd .* was not found.*go\.dev.*redis-server was not found/s,
    );
  });

  it("ends with that message on a machine that has nothing", () => {
    const home = join(temporary, "home");
    mkdirSync(join(home, "bin"), { recursive: true });
    symlinkSync(process.execPath, join(home, "bin/node"));
    const { status, stdout, stderr } = spawnSync(process.execPath, [setup, "start"], {
      encoding: "utf8",
      env: { PATH: join(home, "bin"), HOME: home },
    });
    assert.equal(status, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /daprd .* was not found.*there is no Go.*redis-server was not found/s);
    assert.doesNotMatch(stderr, / at .*setup\.mjs/);
  });

  it("refuses a DAPRD that is too old or doesn't run", () => {
    const { status, stderr } = spawnSync(process.execPath, [setup, "start"], {
      encoding: "utf8",
      env: { ...process.env, DAPRD: "/nonesuch/daprd" },
    });
    assert.equal(status, 1);
    assert.match(stderr, /DAPRD is set to \/nonesuch\/daprd, which doesn't run/);
  });

  describe("on a machine with Go and a package manager", () => {
    const clone = join(temporary, "clone");
    const bin = join(temporary, "bin");
    const calls = () => readFileSync(join(bin, "calls"), "utf8").trim().split("\n");
    const write = (file: string, text: string) => {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text, { mode: 0o755 });
    };
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
    const run = () => {
      const child = spawn(process.execPath, [join(clone, "dapr/setup.mjs"), "start", "an", "argument"], {
        env: { PATH: bin, HOME: temporary, JANGTEO_CACHE: join(temporary, "cache") },
      });
      const output: string[] = [];
      for (const stream of [child.stdout, child.stderr])
        stream.on("data", (data) => output.push(String(data)));
      return once(child, "close").then(([code]) => ({ code, output: output.join("") }));
    };

    before(() => {
      for (const path of ["dapr/setup.mjs", "dapr/tools", "package-lock.json", "tsconfig.json"])
        cpSync(join(root, path), join(clone, path), { recursive: true });
      mkdirSync(bin);
      symlinkSync(process.execPath, join(bin, "node"));
      fake(join(bin, "sudo"), "sudo", 'require("node:child_process").spawnSync(args[1], args.slice(2));');
      fake(join(bin, "npm"), "npm", 'touch("node_modules/installed");');
      fake(join(clone, "node_modules/typescript/bin/tsc"), "tsc", "");
      write(join(clone, "dist/dapr/start.js"), "console.log(process.argv.slice(2), process.env.DAPRD);");
      const goBody = `args[0] === "env" ? console.log("go1.26.8\\nauto") : touch(args[args.indexOf("-o") + 1]);`;
      fake(join(bin, "go"), "go", goBody);
      // Installs only after an update, as on a machine that has no package lists yet.
      const aptBody = `if (args[0] === "update") touch("${bin}/lists");
        else if (fs.existsSync("${bin}/lists")) touch("${bin}/redis-server");
        else process.exit(100);`;
      fake(join(bin, "apt-get"), "apt-get", aptBody);
      write(join(clone, "dapr/start.ts"), ""); // the source of dist/dapr/start.js
    });

    it("gets everything, once, even if started twice at the same time", async () => {
      const results = await Promise.all([run(), run()]);
      for (const { code, output } of results) {
        assert.equal(code, 0, output);
        assert.match(output, /\[ 'an', 'argument' \] .*cache\/daprd-1\.18\.2-[0-9a-f]{12}\/daprd/);
      }
      const count = (pattern: RegExp) => calls().filter((call) => pattern.test(call)).length;
      assert.equal(count(/^npm ci/), 1);
      assert.equal(count(/^tsc -p \./), 1);
      assert.equal(count(/^go build .*-tags stablecomponents .*buildinfo\.version=1\.18\.2/), 1);
      assert.equal(count(/^apt-get update/), 1);
      assert.ok(results.some(({ output }) => output.includes("installing it with apt-get")));
    });

    it("does nothing the next time", async () => {
      const before = calls().length;
      const { code, output } = await run();
      assert.equal(code, 0);
      assert.equal(output.trim().split("\n").length, 1);
      assert.equal(calls().length, before);
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
