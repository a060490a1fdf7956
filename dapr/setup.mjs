/**
 * `npm start`, `npm test`, `npm run scenario`, `npm run bench`, `npm run reset`: makes sure that everything they need is
 * there, then runs them. Runs before anything is installed, so it is plain JavaScript and uses nothing but Node's own
 * modules.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const oldestNode = 20;
const oldestDaprd = "1.17";
/** From this version on, Go fetches by itself the newer toolchain that a module asks for. */
const oldestGo = "1.21";
const sources = ["kit", "services", "dapr", "tests", "bench"];

/** A problem that the user can solve: shown without a stack. */
class SetupError extends Error {}

// --- what is there, and what is to be done -------------------------------------------------------------------------

/** How each package manager installs Redis. */
const packageManagers = {
  "apt-get": { install: "apt-get install -y redis-server", refresh: "apt-get update" },
  dnf: { install: "dnf install -y redis" },
  yum: { install: "yum install -y redis" },
  apk: { install: "apk add redis", refresh: "apk update" },
  pacman: { install: "pacman -S --noconfirm redis", refresh: "pacman -Sy" },
  brew: { install: "brew install redis", asUser: true },
};

/**
 * Decides from facts alone how to get the two programs that aren't npm packages.
 * Throws one SetupError that names everything that is missing and how to get it.
 */
export function plan(facts) {
  const problems = [];
  if (Number.parseInt(facts.node, 10) < oldestNode)
    problems.push(
      `Node.js ${facts.node} is too old: install version ${oldestNode} or newer, https://nodejs.org`,
    );

  let daprd = facts.daprd; // the path of a usable one
  if (facts.daprdEnvProblem) problems.push(facts.daprdEnvProblem);
  else if (!daprd && facts.go && newEnough(facts.go, facts.goNeeded)) daprd = "build";
  else if (!daprd)
    problems.push(
      `The Dapr sidecar, daprd ${oldestDaprd} or newer, was not found, and it can't be built without Go:\n` +
        `  ${facts.go ? `Go ${facts.go} is older than ${facts.goNeeded}` : "there is no Go"}. Either install Dapr\n` +
        "    wget -q https://raw.githubusercontent.com/dapr/cli/master/install/install.sh -O - | /bin/bash\n" +
        "    dapr init --slim\n" +
        "  or install Go from https://go.dev/dl (this project then builds daprd by itself),\n" +
        "  or set DAPRD to the path of a daprd.",
    );

  let redis = facts.redis;
  const manager = packageManagers[facts.packageManager];
  if (!redis && manager && (facts.isRoot || facts.canSudo || manager.asUser)) redis = "install";
  else if (!redis && manager)
    problems.push(`redis-server was not found, and installing it takes root:\n    sudo ${manager.install}`);
  else if (!redis)
    problems.push(
      "redis-server was not found, nor a package manager that could install it. Install Redis 6 or newer,\n" +
        "  https://redis.io/docs/latest/operate/oss_and_stack/install, or set REDIS_SERVER to its path.",
    );
  if (problems.length > 0) throw new SetupError(problems.map((problem) => `- ${problem}`).join("\n"));
  return { daprd, redis };
}

/** Compares the numbers of two dotted versions. */
export function newEnough(version, oldest) {
  const numbers = (text) => text.split(".").map((part) => Number.parseInt(part, 10) || 0);
  const [have, need] = [numbers(version), numbers(oldest)];
  for (let i = 0; i < need.length; i++) if (have[i] !== need[i]) return (have[i] ?? 0) > need[i];
  return true;
}

/** Looks around on this machine. */
function gatherFacts() {
  const cached = cachedDaprd();
  const fromEnv = process.env.DAPRD;
  const envVersion = fromEnv && daprdVersion(fromEnv);
  const daprdEnvProblem =
    fromEnv && !(envVersion && newEnough(envVersion, oldestDaprd))
      ? `DAPRD is set to ${fromEnv}, ${envVersion ? `version ${envVersion}; ${oldestDaprd} is needed` : "which doesn't run"}.`
      : undefined;
  const candidates = [onPath("daprd"), join(homedir(), ".dapr", "bin", "daprd")];
  const daprd =
    fromEnv ??
    candidates.find(
      (path) => path && existsSync(path) && newEnough(daprdVersion(path) ?? "0", oldestDaprd),
    ) ??
    (existsSync(cached) ? cached : undefined);
  const redis = process.env.REDIS_SERVER ?? onPath("redis-server") ?? onPath("valkey-server");
  const packageManager = redis ? undefined : Object.keys(packageManagers).find(onPath);
  const isRoot = process.getuid?.() === 0;
  return {
    node: process.versions.node,
    daprd,
    daprdEnvProblem,
    ...(daprd ? {} : goFacts()),
    redis,
    packageManager,
    isRoot,
    canSudo: !!packageManager && !isRoot && spawnSync("sudo", ["-n", "true"]).status === 0,
  };
}

function onPath(program) {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .map((directory) => join(directory, program))
    .find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());
}

const firstMatch = (text, pattern) => pattern.exec(text ?? "")?.[1];

const daprdVersion = (path) =>
  firstMatch(spawnSync(path, ["--version"], { encoding: "utf8" }).stdout, /(\d+\.\d+\S*)/);

/** The installed Go, and how new it must be: one that may not switch its toolchain has to suit go.mod by itself. */
function goFacts() {
  // Asked outside the module: inside, Go may already switch to, or fetch, the toolchain named in go.mod.
  const { stdout } = spawnSync("go", ["env", "GOVERSION", "GOTOOLCHAIN"], {
    cwd: tmpdir(),
    encoding: "utf8",
  });
  const [version, toolchain] = (stdout ?? "").trim().split("\n");
  return {
    go: firstMatch(version, /go(\d+\.\d+\S*)/),
    goNeeded: toolchain === "local" ? firstMatch(goModule(), /^go (\S+)/m) : oldestGo,
  };
}

const goModule = () => readFileSync(join(root, "dapr/tools/go.mod"), "utf8");
const moduleVersion = () => firstMatch(goModule(), /github\.com\/dapr\/dapr v(\S+)/);

// --- the steps -----------------------------------------------------------------------------------------------------

/** Runs a step, and shows its name and the time it takes once that exceeds a second: updating on a terminal. */
async function step(name, work) {
  const began = Date.now();
  const { stdout } = process;
  const seconds = () => `${Math.round((Date.now() - began) / 1000)} s`;
  let shown = false;
  const ticker = setInterval(() => {
    if (stdout.isTTY) stdout.write(`\r${name} … ${seconds()}`);
    else if (!shown) stdout.write(`${name} … `);
    shown = true;
  }, 1000);
  try {
    const result = await work();
    if (shown) stdout.write(stdout.isTTY ? `\r${name}: ${seconds()}  \n` : `${seconds()}\n`);
    return result;
  } catch (error) {
    if (shown) stdout.write("\n");
    throw error;
  } finally {
    clearInterval(ticker);
  }
}

/** The program that runs now. A signal to us is passed on to it, and we end after it. */
let child;

function passOn(signal) {
  if (child) child.kill(signal);
  else process.exit(1);
}

/** Takes signals, and the end of the process that started us, as the wish to stop. */
function listenForTheEnd() {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, passOn);
  // A signal to npm alone ends npm and its shell, and doesn't reach us: without this, all would run on unseen.
  const parent = process.ppid;
  const watch = () => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    passOn("SIGTERM");
  };
  const timer = setInterval(watch, 500).unref();
}

/** Runs a program to its end; its output is shown only if it fails, unless `stdio` is "inherit". */
async function run(command, args, { stdio = "pipe", env = {}, cwd = root } = {}) {
  child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["inherit", stdio, stdio] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
  const { code, signal, error } = await new Promise((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal }));
    child.once("error", (error) => resolve({ error }));
  });
  child = undefined;
  if (signal && stdio === "pipe") process.exit(1); // stopped by the user
  if (stdio === "pipe" && (error || code !== 0))
    throw new SetupError(`${[command, ...args].join(" ")} failed:\n${error?.message ?? output.trim()}`);
  return error ? 127 : (code ?? 1);
}

/** Only one set-up at a time works in a clone, or builds into the cache. */
async function alone(name, work) {
  const lock = join(cacheDirectory(), `${name}.lock`);
  mkdirSync(dirname(lock), { recursive: true });
  const mine = `${lock}.${process.pid}`;
  const wait = async () => {
    for (;;) {
      try {
        return linkSync(mine, lock); // unlike writing a new file, it never shows a lock without its owner
      } catch (error) {
        if (error.code !== "EEXIST") throw error;
      }
      if (isAlive(ownerOf(lock))) await delay(100);
      else rmSync(lock, { force: true });
    }
  };
  writeFileSync(mine, String(process.pid));
  process.once("exit", () => rmSync(mine, { force: true }));
  await step("waiting for another set-up to finish", wait);
  const release = () => rmSync(lock, { force: true });
  process.once("exit", release); // also when a signal ends the set-up
  try {
    return await work();
  } finally {
    process.off("exit", release);
    release();
  }
}

function ownerOf(lock) {
  try {
    return Number(readFileSync(lock, "utf8"));
  } catch {
    return 0; // released meanwhile
  }
}

function isAlive(pid) {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return error.code === "EPERM";
  }
}

const cacheDirectory = () =>
  process.env.JANGTEO_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "jangteo");

const hash = (...parts) => parts.reduce((sum, part) => sum.update(part), createHash("sha256")).digest("hex");

const npmStamp = join(root, "node_modules", ".jangteo-lock");
const lockHash = () => hash(readFileSync(join(root, "package-lock.json")));
const isInstalled = () => existsSync(npmStamp) && readFileSync(npmStamp, "utf8") === lockHash();

async function install() {
  const wanted = lockHash();
  const npm = process.env.npm_execpath; // npm itself, when it started us: there may be another one on PATH
  const [command, args] = npm?.endsWith(".js") ? [process.execPath, [npm]] : ["npm", []];
  await run(command, [...args, "ci", "--no-audit", "--no-fund"]);
  writeFileSync(npmStamp, wanted);
}

/** All files and directories below a directory, the directory itself included. */
function walk(path) {
  const below = readdirSync(path, { withFileTypes: true }).filter(({ name }) => name !== "node_modules");
  return [
    path,
    ...below.flatMap((entry) =>
      entry.isDirectory() ? walk(join(path, entry.name)) : join(path, entry.name),
    ),
  ];
}

const buildStamp = join(root, "dist", ".built");

/** Directories count as well: theirs is the time when a file was added, renamed or removed. */
function isBuilt() {
  const stamp = statSync(buildStamp, { throwIfNoEntry: false });
  if (!stamp) return false;
  const inputs = sources
    .filter((path) => existsSync(join(root, path)))
    .flatMap((path) => walk(join(root, path)));
  return [...inputs, join(root, "tsconfig.json"), npmStamp].every(
    (path) => statSync(path).mtimeMs <= stamp.mtimeMs,
  );
}

async function build() {
  const began = new Date(); // a file that is changed while the build runs is newer than this build
  const dist = join(root, "dist");
  const outputs = existsSync(dist) ? walk(dist).filter((path) => /\.js(\.map)?$/.test(path)) : [];
  const source = (path) => join(root, relative(dist, path).replace(/\.js(\.map)?$/, ".ts"));
  for (const path of outputs.filter((path) => !existsSync(source(path)))) rmSync(path);
  await run(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "."]);
  writeFileSync(buildStamp, "");
  utimesSync(buildStamp, began, began);
}

/** The place of the daprd that this version of dapr/tools gives. */
function cachedDaprd() {
  const inputs = ["go.mod", "go.sum", "daprd/main.go"].map((file) =>
    readFileSync(join(root, "dapr/tools", file)),
  );
  return join(cacheDirectory(), `daprd-${moduleVersion()}-${hash(...inputs).slice(0, 12)}`, "daprd");
}

async function buildDaprd() {
  const target = cachedDaprd();
  const unfinished = `${dirname(target)}.${process.pid}`;
  try {
    const version = `-X github.com/dapr/dapr/pkg/buildinfo.version=${moduleVersion()}`;
    const flags = ["-trimpath", "-tags", "stablecomponents", "-ldflags", `-s -w ${version}`];
    await run("go", ["build", ...flags, "-o", join(unfinished, "daprd"), "./daprd"], {
      cwd: join(root, "dapr/tools"),
      env: { CGO_ENABLED: "0" },
    });
    renameSync(unfinished, dirname(target));
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return target;
}

async function installRedis({ packageManager, isRoot }) {
  const { install, refresh, asUser } = packageManagers[packageManager];
  const privileged = (line) => (isRoot || asUser ? line : `sudo -n ${line}`).split(" ");
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const attempt = () => run(privileged(install)[0], privileged(install).slice(1), { env });
  try {
    await attempt();
  } catch (error) {
    if (!refresh) throw error;
    await run(privileged(refresh)[0], privileged(refresh).slice(1), { env });
    await attempt();
  }
  const redis = onPath("redis-server") ?? onPath("valkey-server");
  if (!redis) throw new SetupError(`"${install}" succeeded, but there is no redis-server on PATH.`);
  return redis;
}

// --- the commands --------------------------------------------------------------------------------------------------

/** Installs npm packages and compiles, where needed. */
async function prepareCode() {
  if (isInstalled() && isBuilt()) return;
  await alone(`clone-${hash(realpathSync(root)).slice(0, 12)}`, async () => {
    if (!isInstalled()) await step("installing npm packages", install);
    if (!isBuilt()) await step("compiling", build);
  });
}

/** Looks for daprd and redis-server; the function returned provides them and gives the environment that tells where. */
function prepareTools() {
  const facts = gatherFacts();
  let { daprd, redis } = plan(facts);
  return async () => {
    if (daprd === "build")
      daprd = await alone("daprd", () =>
        existsSync(cachedDaprd())
          ? cachedDaprd()
          : step("building daprd, the Dapr sidecar (only once, takes some minutes)", buildDaprd),
      );
    if (redis === "install") {
      console.log(`redis-server is not there; installing it with ${facts.packageManager}`);
      const install = () =>
        onPath("redis-server") ?? step("installing redis-server", () => installRedis(facts));
      redis = await alone("redis", install);
    }
    return { DAPRD: daprd, REDIS_SERVER: redis };
  };
}

const program = (name, args, env) =>
  run(process.execPath, ["--enable-source-maps", join(root, "dist", name), ...args], {
    stdio: "inherit",
    env,
  });

async function test(filters, env) {
  const lint = await run(process.execPath, ["node_modules/@biomejs/biome/bin/biome", "check", "."], {
    stdio: "inherit",
  });
  if (lint !== 0) return lint;
  const files = walk(join(root, "dist"))
    .map((path) => relative(root, path))
    .filter((path) => path.endsWith(".test.js"))
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)));
  if (files.length === 0) throw new SetupError(`no test file's name contains ${filters.join(" or ")}`);
  // One file at a time: several of them start the whole system.
  const options = ["--enable-source-maps", "--test", "--test-concurrency=1", "--test-reporter=spec"];
  return run(process.execPath, [...options, ...files], { stdio: "inherit", env });
}

const commands = {
  start: (args, env) => program("dapr/start.js", args, env),
  bench: (args, env) => program("bench/bench.js", args, env),
  scenario: (args, env) => program("tests/play.js", args, env),
  test,
};

async function main([command, ...args]) {
  if (command === "reset") {
    await prepareCode();
    return program("dapr/reset.js", args);
  }
  // What only lists the scenarios, or says that there is none of that name, needs no sidecar.
  const names = args.filter((arg) => /^[a-z]/i.test(arg));
  const known =
    names.length > 0 && names.every((name) => existsSync(join(root, "scenarios", `${name}.yaml`)));
  if (command === "scenario" && !known) {
    await prepareCode();
    return commands.scenario(args, {});
  }
  if (!commands[command])
    throw new SetupError(`usage: node dapr/setup.mjs ${Object.keys(commands).join("|")}|reset`);
  const provideTools = prepareTools(); // what is missing is said before minutes are spent on what is not
  await prepareCode();
  return commands[command](args, await provideTools());
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  listenForTheEnd();
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}
