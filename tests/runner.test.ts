import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { identity, until } from "#dapr/processes.js";
import { Replicas } from "#dapr/replicas.js";
import { migrationJournal, root, type StartOptions, type System, startSystem } from "#dapr/runner.js";
import { type Instance, instances, readTopology, shiftPorts } from "#dapr/topology.js";

/** Away from the ports of a system that runs on this machine with no offset, or with a round one. */
const ports = 12350;
const topology = join(root, "tests/fixtures/system/dapr.yaml");
const temporary = mkdtempSync(join(tmpdir(), "jangteo-runner-"));
after(() => rmSync(temporary, { recursive: true, force: true }));

let directories = 0;
const newData = () => join(temporary, `data-${directories++}`);
const start = (options: StartOptions = {}) => startSystem({ topology, data: newData(), ports, ...options });

/** The stub demands no token, its sidecar does. */
async function json<T = Record<string, string>>(
  url: string,
  headers: Record<string, string> = {},
): Promise<T> {
  const response = await fetch(url, { headers });
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
    const sidecar = system.sidecarUrl("ping");
    const { extended } = await json<Metadata>(`${sidecar}/v1.0/metadata`, system.headersFor(sidecar));
    const app = system.processes().find(({ name }) => name === "ping-0");
    assert.equal(extended.appPID, String(app?.pid));
    assert.equal(extended.cliPID, String(process.pid));
    assert.equal(extended.appCommand, "node dist/tests/fixtures/stub.js");
  });

  it("passes calls and messages, with their trace", async () => {
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const invoke = `${system.sidecarUrl("ping")}/v1.0/invoke/pong/method/headers`;
    const token = system.headersFor(system.sidecarUrl("ping"));
    assert.equal((await json(invoke, { traceparent, ...token })).traceparent, traceparent);

    const publish = `${system.sidecarUrl("ping")}/v1.0/publish/events/ticks?metadata.cloudevent.traceparent=${traceparent}`;
    const headers = { "content-type": "application/json", ...token };
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
    const sidecar = system.sidecarUrl("ping");
    const shown = async () =>
      (await json<Metadata>(`${sidecar}/v1.0/metadata`, system.headersFor(sidecar))).extended.appPID;
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

describe("the replicas of a running system", () => {
  const said: string[] = [];
  const run = promisify(execFile);
  const npmRun = (command: string, ...args: string[]) =>
    run(process.execPath, [join(root, `dist/dapr/${command}.js`), ...args]);
  /** Of each process that is started from now on. */
  const env: Record<string, string> = {};
  let system: System;
  let data: string;
  const names = () => system.processes().map(({ name }) => name);
  before(async () => {
    data = newData();
    mkdirSync(join(data, "run"), { recursive: true });
    writeFileSync(join(data, "run", "control.sock"), "left by a runner that was killed");
    system = await start({ data, env, onEvent: (message) => said.push(message) });
  });
  after(() => system.stop());

  const askPong = () => {
    const sidecar = system.sidecarUrl("ping");
    return json(`${sidecar}/v1.0/invoke/pong/method/env`, system.headersFor(sidecar));
  };

  it("are replaced by npm run restart, one after another, which says so here and there", async () => {
    const { stdout } = await npmRun("restart", "pong", "--data", data);
    assert.match(stdout, /^pong-1 is ready after [\d.]+ s\npong-0 has ended\n$/);
    assert.deepEqual(said.join("\n"), stdout.trim());
    assert.deepEqual(names(), ["redis", "ping-0-sidecar", "ping-0", "pong-1-sidecar", "pong-1"]);
    const asked = await askPong();
    assert.equal(asked.REPLICA, "pong-1");
    assert.equal(system.url("pong"), `http://127.0.0.1:${ports + 8182}`);
    const sidecar = system.sidecarUrl("pong");
    const { extended } = await json<Metadata>(`${sidecar}/v1.0/metadata`, system.headersFor(sidecar));
    assert.equal(extended.appPID, String(system.processes().find(({ name }) => name === "pong-1")?.pid));
  });

  it("become more and fewer by npm run scale", async () => {
    const more = await npmRun("scale", "pong=2", "--data", data);
    assert.match(more.stdout, /^pong-2 is ready after .*\npong runs 2 times\n$/);
    const none = await npmRun("scale", "pong=0,ping=1", "--data", data);
    assert.match(none.stdout, /^pong-2 has ended\npong-1 has ended\npong runs 0 times\nping runs once\n$/);
    assert.deepEqual(names(), ["redis", "ping-0-sidecar", "ping-0"]);
    await system.scale("pong", 1);
    await askPong();
  });

  it("stay as they are where what is asked makes no sense", async () => {
    const before = system.processes();
    for (const [command, asked, answer] of [
      ["restart", "nonesuch", /^no service "nonesuch"; there are ping, pong, and all/],
      ["restart", "", /Which services/],
      ["scale", "nonesuch=1", /^no service "nonesuch"; there are ping, pong/],
      ["scale", "pong=11", /^pong=11 is not a number from 0 to 10/],
      ["scale", "pong", /"pong" is not of the form order=3/],
    ] as const)
      await assert.rejects(npmRun(command, asked, "--data", data), ({ stderr }: { stderr: string }) => {
        assert.match(stderr, answer);
        return true;
      });
    assert.deepEqual(system.processes(), before);
  });

  it("are changed by the owner of the data directory only", async () => {
    const { mode } = statSync(join(data, "run", "control.sock"));
    assert.equal(mode & 0o777, 0o600);
    await assert.rejects(npmRun("restart", "all", "--data", newData()), /No system runs on .*--data DIR/);
  });

  it("go on as they were where a new one does not get ready", async () => {
    const [before] = system.processes().filter(({ name }) => name.startsWith("pong"));
    env.FAULTS = "exit";
    try {
      await assert.rejects(system.roll("pong"), /pong-\d failed to start 5 times in a row/);
    } finally {
      delete env.FAULTS;
    }
    assert.deepEqual(system.processes().filter(({ name }) => name.startsWith("pong"))[0], before);
    await askPong();
  });

  it("end with the system, in the middle of a restart, too", async () => {
    const rolled = assert.rejects(npmRun("restart", "ping", "--data", data), /stopped (while|before)/);
    await until(() => pids(system).length > 5, 5000);
    const running = pids(system);
    await system.stop();
    await rolled;
    assert.deepEqual([...running, ...pids(system)].filter(isAlive), []);
    assert.equal(existsSync(join(data, "run", "control.sock")), false);
  });
});

describe("a process that hangs", () => {
  it("is killed and started again, whatever it is", async () => {
    const said: string[] = [];
    const system = await start({
      liveness: "timeout=0.3,period=0.2,failures=3",
      onEvent: (message) => said.push(message),
    });
    try {
      for (const name of ["ping-0", "pong-0-sidecar", "redis"]) {
        const find = () => system.processes().find((process) => process.name === name);
        const restarts = find()?.restarts ?? 0;
        await delay(500); // for its first answers, before which its silence would not count
        await system.kill(name, "SIGSTOP");
        assert.ok(await until(() => find()?.restarts === restarts + 1, 10_000), name);
        await system.waitReady();
        const [hangs, ended] = said.splice(0);
        assert.equal(hangs, `${name} runs but has not answered 3 times in a row, and is killed`);
        assert.match(ended ?? "", new RegExp(`^${name} was ended by SIGKILL and is started again now`));
      }
    } finally {
      await system.stop();
    }
  });

  it("is given the time that LIVENESS says", async () => {
    await assert.rejects(start({ liveness: "periods=1" }), /LIVENESS=periods=1 can't be understood/);
    await assert.rejects(start({ liveness: "failures=0" }), /LIVENESS/);
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

  it("names a component whose secrets nobody holds", () =>
    assert.rejects(
      startSystem({ data: newData(), ports, backend: "postgresql" }),
      /takes its secrets from "secrets".*--backend embedded,postgresql/,
    ));

  it("is refused while a migration is unfinished", async () => {
    const data = newData();
    mkdirSync(join(data, "run"), { recursive: true });
    writeFileSync(migrationJournal(data), "{}");
    await assert.rejects(start({ data }), /A migration of .* is unfinished: .*npm run migrate/);
    rmSync(migrationJournal(data));
    await (await start({ data })).stop();
  });
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
    const { resources } = readTopology(join(root, "dapr/dapr.yaml"), ["/elsewhere"]);
    assert.deepEqual(resources, [["/elsewhere"], [join(root, "dapr")]]);
  });

  it("moves loopback addresses, and no others", () => {
    assert.equal(
      shiftPorts("a: 127.0.0.1:6389\nb: tcp(localhost:3306)/x\nc: db.example:3306\nd: 5", 100),
      "a: 127.0.0.1:6489\nb: tcp(localhost:3406)/x\nc: db.example:3306\nd: 5",
    );
  });
});

describe("the places of replicas", () => {
  const ours = readTopology(topology);
  const replicas = (count: number, busy: string[] = []) => {
    const done: string[] = [];
    const note = (what: string) => async (instance: Instance) => {
      done.push(`${what} ${instance.name}`);
    };
    const hands = {
      ...{ begin: note("begin"), ready: note("ready"), end: note("end"), tell: () => {} },
      isFree: async ({ name }: Instance) => !busy.includes(name),
    };
    return { done, replicas: new Replicas(ours, instances(ours, { ping: count, pong: 1 }, 0), 0, hands) };
  };

  it("are taken in turn, the one after the last first, without those that others use", async () => {
    const { done, replicas: two } = replicas(2, ["ping-3"]);
    await two.roll("ping");
    const steps = [
      "begin ping-2",
      "ready ping-2",
      "end ping-0",
      "begin ping-4",
      "ready ping-4",
      "end ping-1",
    ];
    assert.deepEqual(done.splice(0), steps);
    await two.roll("ping", false);
    assert.deepEqual(done, ["begin ping-5", "end ping-2", "begin ping-6", "end ping-4"]);
  });

  it("are left first where all are taken", async () => {
    const { done, replicas: ten } = replicas(10);
    await ten.roll("ping");
    assert.deepEqual(done.slice(0, 4), ["end ping-0", "begin ping-0", "ready ping-0", "end ping-1"]);
    assert.equal(ten.of("ping").length, 10);
    await assert.rejects(ten.scale("ping", 11), /ping=11 is not a number from 0 to 10/);
  });

  it("change for one who asks at a time", async () => {
    const { done, replicas: one } = replicas(1);
    await Promise.all([one.scale("ping", 2), one.roll("pong"), one.scale("ping", 1)]);
    assert.deepEqual(done, [
      ...["begin ping-1", "ready ping-1", "begin pong-1", "ready pong-1", "end pong-0", "end ping-1"],
    ]);
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
