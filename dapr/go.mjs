/**
 * The programs that are built with Go: Dapr's sidecar, its certificate authority, a stand-in for mongod, and helm for the tests of
 * the chart. A part of the set-up (./setup.mjs), with nothing installed yet.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { alone, cacheDirectory, hash, root, run, SetupError, step } from "./steps.mjs";

/** From this version on, Go fetches by itself the newer toolchain that a module asks for. */
export const oldestGo = "1.21";

export const firstMatch = (text, pattern) => pattern.exec(text ?? "")?.[1];

/** Compares the numbers of two dotted versions. */
export function newEnough(version, oldest) {
  const numbers = (text) => text.split(".").map((part) => Number.parseInt(part, 10) || 0);
  const [have, need] = [numbers(version), numbers(oldest)];
  for (let i = 0; i < need.length; i++) if (have[i] !== need[i]) return (have[i] ?? 0) > need[i];
  return true;
}

/** The installed Go, and how new it must be: one that may not switch its toolchain has to suit go.mod by itself. */
export function goFacts(modules) {
  // Asked outside the module: inside, Go may already switch to, or fetch, the toolchain named in go.mod.
  const { stdout } = spawnSync("go", ["env", "GOVERSION", "GOTOOLCHAIN"], {
    cwd: tmpdir(),
    encoding: "utf8",
  });
  const [version, toolchain] = (stdout ?? "").trim().split("\n");
  const needed = (module) => (toolchain === "local" ? firstMatch(goModOf(module), /^go (\S+)/m) : oldestGo);
  return {
    go: firstMatch(version, /go(\d+\.\d+\S*)/),
    goNeeded: Object.fromEntries(modules.map((module) => [module.name, needed(module)])),
  };
}

const goModOf = ({ directory }) => readFileSync(join(root, directory, "go.mod"), "utf8");
const daprVersion = () => firstMatch(goModOf(sidecar), /github\.com\/dapr\/dapr v(\S+)/);

/** The path of what this version of a Go module's sources gives: the cache keeps one per hash of them. */
const cached = (label, directory, files) =>
  join(
    cacheDirectory(),
    `${label}-${hash(...files.map((file) => readFileSync(join(root, directory, file)))).slice(0, 12)}`,
  );

export const sidecar = {
  name: "daprd",
  directory: "dapr/tools",
  target() {
    const files = ["go.mod", "go.sum", "daprd/main.go", ...patches("patches")];
    return join(cached(`daprd-${daprVersion()}`, this.directory, files), "daprd");
  },
  step: "building daprd, the Dapr sidecar (only once, takes some minutes)",
  flags: async (temporary) => ["-tags", "stablecomponents", "-modfile", await patched(temporary, "patches")],
  linkerFlags: () => ` -X github.com/dapr/dapr/pkg/buildinfo.version=${daprVersion()}`,
  package: "./daprd",
};

export const sentry = {
  name: "sentry",
  directory: "dapr/tools",
  target() {
    const files = ["go.mod", "go.sum", ...patches("patches/sentry")];
    return join(cached(`sentry-${daprVersion()}`, this.directory, files), "sentry");
  },
  step: "building sentry, Dapr's certificate authority",
  flags: async (temporary) => ["-modfile", await patched(temporary, "patches/sentry")],
  linkerFlags: sidecar.linkerFlags,
  package: "github.com/dapr/dapr/cmd/sentry",
};

/** The files with patches to Dapr in a folder of dapr/tools: dapr/tools/patches/README.md. */
const patches = (folder) =>
  readdirSync(join(root, sidecar.directory, folder))
    .filter((file) => file.endsWith(".json"))
    .map((file) => `${folder}/${file}`)
    .sort();

/** One patch: a `find` and a `replace`, or several of them as `changes`. */
function readPatch(path) {
  const { module, file, changes, ...only } = JSON.parse(readFileSync(path, "utf8"));
  return { module, file, changes: changes ?? [only] };
}

/**
 * Writes copies of the modules that have patches, patched, and answers the go.mod that uses them. (`go build -overlay` would be
 * simpler, but Go allows it for no file of its module cache.)
 */
async function patched(temporary, folder) {
  const here = join(root, sidecar.directory);
  const copies = {};
  for (const patch of patches(folder)) {
    const { module, file, changes } = readPatch(join(here, patch));
    copies[module] ??= await copyModule(module, join(temporary, basename(module)), here);
    const path = join(copies[module], file);
    let text = readFileSync(path, "utf8");
    for (const { find, replace } of changes) {
      const parts = text.split(find);
      if (parts.length !== 2)
        throw new SetupError(
          `dapr/tools/${patch} does not fit ${file} of Dapr ${daprVersion()}: what it replaces is there ${parts.length - 1} times.`,
        );
      text = parts.join(replace);
    }
    chmodSync(path, 0o644); // in the module cache all is read-only
    writeFileSync(path, text);
  }
  const replaced = Object.entries(copies).map(
    ([module, copy]) => `replace ${module} => ${JSON.stringify(copy)}\n`,
  );
  const modfile = join(temporary, "go.mod");
  writeFileSync(modfile, `${goModOf(sidecar)}\n${replaced.join("")}`);
  copyFileSync(join(here, "go.sum"), join(temporary, "go.sum"));
  return modfile;
}

/** @param cwd a folder of the Go module that asks for it */
async function copyModule(module, copy, cwd) {
  const about = await run("go", ["mod", "download", "-json", module], { cwd });
  const original = JSON.parse(`"${firstMatch(about, /"Dir": "(.*)"/)}"`);
  copyFolder(original, copy, ["tests", "docs", "img"]); // without what no build uses
  return copy;
}

/** Unlike cpSync it makes folders that can be removed again: those of the module cache are read-only. */
function copyFolder(from, to, without = []) {
  mkdirSync(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, copy] = [join(from, entry.name), join(to, entry.name)];
    if (without.includes(entry.name)) continue;
    if (entry.isDirectory()) copyFolder(source, copy);
    else copyFileSync(source, copy);
  }
}

export const standIn = {
  name: "mongodb",
  directory: "dapr/tools/mongodb",
  target() {
    const sources = readdirSync(join(root, this.directory)).filter((file) => /(?<!_test)\.go$/.test(file));
    return join(
      cached("mongodb-standin", this.directory, ["go.mod", "go.sum", ...sources.sort()]),
      "mongodb-standin",
    );
  },
  said: "no mongod here: building a stand-in for development and tests (FerretDB), only once",
  step: "building the stand-in for mongod",
  flags: async () => [],
  linkerFlags: () => "",
  package: ".",
};

const helmVersion = () => firstMatch(goModOf(helm), /helm\.sh\/helm\/v3 v(\S+)/);

export const helm = {
  name: "helm",
  directory: "dapr/tools/helm",
  target() {
    return join(cached(`helm-${helmVersion()}`, this.directory, ["go.mod", "go.sum"]), "helm");
  },
  step: "building helm, for the tests of the chart (only once)",
  flags: async () => [],
  linkerFlags: () => ` -X helm.sh/helm/v3/internal/version.version=v${helmVersion()}`,
  package: "helm.sh/helm/v3/cmd/helm",
};

/** Builds a Go program into the cache, unless it is there, and answers its path. */
export async function build(module) {
  const target = module.target();
  const unfinished = `${dirname(target)}.${process.pid}`;
  const temporary = `${unfinished}.sources`;
  const work = async () => {
    try {
      mkdirSync(temporary, { recursive: true });
      const args = ["build", "-trimpath", ...(await module.flags(temporary))];
      args.push("-ldflags", `-s -w${module.linkerFlags()}`, "-o", join(unfinished, basename(target)));
      await run("go", [...args, module.package], {
        cwd: join(root, module.directory),
        env: { CGO_ENABLED: "0" },
      });
      renameSync(unfinished, dirname(target));
    } finally {
      for (const directory of [unfinished, temporary]) rmSync(directory, { recursive: true, force: true });
    }
  };
  await alone(module.name, async () => {
    if (existsSync(target)) return;
    if (module.said) console.log(module.said);
    await step(module.step, work);
  });
  return target;
}
