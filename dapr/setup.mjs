/**
 * `npm start`, `npm test` and the other commands of package.json: makes sure that everything they need is there, then
 * runs them. Runs before anything is installed, so it is plain JavaScript and uses nothing but Node's own modules.
 */
import {
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { alone, hash, listenForTheEnd, root, run, SetupError, step } from "./steps.mjs";
import { prepareTools, servers, serversOf } from "./tools.mjs";

const sources = ["kit", "services", "dapr", "tests", "bench"];

// --- packages and compiled code ------------------------------------------------------------------------------------

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

/** Installs npm packages and compiles, where needed. */
async function prepareCode() {
  if (isInstalled() && isBuilt()) return;
  await alone(`clone-${hash(realpathSync(root)).slice(0, 12)}`, async () => {
    if (!isInstalled()) await step("installing npm packages", install);
    if (!isBuilt()) await step("compiling", build);
  });
}

// --- the commands --------------------------------------------------------------------------------------------------

const programs = {
  start: "dapr/start.js",
  scenario: "tests/play.js",
  bench: "bench/bench.js",
  chaos: "tests/chaos.js",
  proof: "tests/proof.js",
  migrate: "dapr/migrate.js",
  "rebuild-view": "dapr/rebuild.js",
  restart: "dapr/restart.js",
  scale: "dapr/scale.js",
  reset: "dapr/reset.js",
  simulate: "tests/simulate.js",
  "test:kubernetes": "tests/kubernetes.js",
  images: "dapr/images.js",
};

/** The value of an option, the last one if it is given again. */
function optionOf(option, args) {
  const values = args.flatMap((arg, i) => {
    if (arg.startsWith(`${option}=`)) return [arg.slice(option.length + 1)];
    return arg === option && args[i + 1] !== undefined ? [args[i + 1]] : [];
  });
  return values.at(-1);
}

/**
 * The kinds of servers that a command needs beside the sidecar. Undefined if it needs neither: it looks at what runs
 * already, or only explains itself, or will refuse its arguments.
 */
export function serversFor(command, args) {
  if (command === "test") return Object.keys(servers);
  if (["reset", "rebuild-view", "restart", "scale", "simulate"].includes(command) || args.includes("--help"))
    return undefined;
  if (command === "test:kubernetes") {
    if (args.includes("--list")) return undefined;
    return args.includes("--stand-ins") && !args.includes("--no-build") ? ["mongodb"] : [];
  }
  // The sidecar is in one of them only.
  if (command === "images") {
    const others = ["service", "mysql", "mongo", "redis", "nginx", "tools"];
    return args.includes("daprd") || !others.some((image) => args.includes(image)) ? [] : undefined;
  }
  if (command === "scenario") {
    const isValue = (i) => ["--backend", "--ports"].includes(args[i - 1]);
    const names = args.filter((arg, i) => !arg.startsWith("-") && !isValue(i));
    const isKnown = (name) => name === "all" || existsSync(join(root, "scenarios", `${name}.yaml`));
    if (names.length === 0 || !names.every(isKnown)) return undefined;
  }
  if (command === "proof") {
    const named = serversOf([optionOf("--backend", args) || "embedded"]);
    return args.includes("--list") ? undefined : named && [...named, "siege"];
  }
  if (command !== "migrate") return serversOf([optionOf("--backend", args) || "embedded"]);
  const [from, to] = ["--from", "--to"].map((option) => optionOf(option, args));
  return from && to ? serversOf([from, to]) : undefined;
}

/** What a command needs beside the sidecar and servers: Sentry, to give sidecars certificates, and helm. */
const wanted = (command, args) => ({
  wantsSentry: command === "test" || (command === "start" && args.includes("--mtls")),
  wantsHelm: command === "test" || command === "test:kubernetes",
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

async function main([command, ...args]) {
  if (command !== "test" && !programs[command])
    throw new SetupError(`usage: node dapr/setup.mjs ${["test", ...Object.keys(programs)].join("|")}`);
  const kinds = serversFor(command, args);
  const provideTools = kinds ? prepareTools(kinds, wanted(command, args)) : () => ({}); // what is missing is said before minutes are spent
  await prepareCode();
  const env = await provideTools();
  if (command === "test") return test(args, env);
  const program = join(root, "dist", programs[command]);
  return run(process.execPath, ["--enable-source-maps", program, ...args], { stdio: "inherit", env });
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
