/**
 * `npm run images`: builds what Kubernetes runs of ours, with whatever builder of images is here, and takes it to a cluster or a
 * registry. Two images: the services, from the Dockerfile, and the sidecar that the set-up builds, with our patches to Dapr. For
 * tests there are others (tests/kubernetes/stand-ins).
 */
import { spawn } from "node:child_process";
import {
  accessSync,
  constants,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { rootCertificates } from "node:tls";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseDocument } from "yaml";
import { z } from "zod";
import { command } from "./command.js";
import { StartError } from "./topology.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const builders = ["docker", "podman", "buildah"];

/** The targets of tests/kubernetes/stand-ins, and where the chart's values name the image that they stand for. */
const standIns = {
  mysql: ["servers", "mysql", "image"],
  mongo: ["servers", "mongodb", "image"],
  redis: ["servers", "redis", "image"],
  nginx: ["ingress", "nginx", "image"],
  tools: [], // no stand-in, but a pod's worth of tools
};

const usage = `Usage: npm run images -- [IMAGE...] [options]

Builds jangteo-service and jangteo-daprd, or what is named: service, daprd, and for tests on clusters that can pull
no images ${Object.keys(standIns).join(", ")} (tests/kubernetes/stand-ins).

  --builder NAME         ${builders.join(", ")} (the first of these that is here), or a program that is used like them
  --build-args "WORDS"   more words for the builder's build command
  --load COMMAND         run as COMMAND IMAGE after each build: "kind load docker-image", "minikube image load",
                         "k3d image import"
  --push REGISTRY        also tagged as REGISTRY/IMAGE, and pushed there
  --help                 show this`;

type StandIn = keyof typeof standIns;
type Kind = "service" | "daprd" | StandIn;

const ours: Kind[] = ["service", "daprd"];
const kinds = [...ours, ...(Object.keys(standIns) as StandIn[])];

/** What is asked for. */
export interface Options {
  kinds: Kind[];
  builder?: string;
  buildArgs: string[];
  load: string[];
  push?: string;
}

const words = (text = "") => text.split(/\s+/).filter((word) => word !== "");

/** Reads the command line. @throws Error with a sentence for people */
export function readOptions(args: string[]): Options | "help" {
  // To parseArgs a value that begins with a dash looks like one that was forgotten.
  const joined = args.flatMap((arg, i) => {
    if (arg === "--build-args" && args[i + 1] !== undefined) return [`${arg}=${args[i + 1]}`];
    return args[i - 1] === "--build-args" ? [] : [arg];
  });
  const text = { type: "string" } as const;
  const { values, positionals } = parseArgs({
    args: joined,
    allowPositionals: true,
    options: {
      ...{ builder: text, "build-args": text, load: text, push: text },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return "help";
  const unknown = positionals.find((name) => !kinds.some((kind) => kind === name));
  if (unknown !== undefined) throw new Error(`There is no image "${unknown}"; there are ${kinds.join(", ")}`);
  return {
    kinds: positionals.length === 0 ? ours : kinds.filter((kind) => positionals.includes(kind)),
    builder: values.builder,
    buildArgs: words(values["build-args"]),
    load: words(values.load),
    push: values.push?.replace(/\/+$/, ""),
  };
}

/** The builder that is asked for, or the first that PATH has. @throws StartError */
function findBuilder(asked: string | undefined, path = ""): string {
  const isHere = (name: string) =>
    path.split(delimiter).some((directory) => isProgram(join(directory, name)));
  if (asked !== undefined) {
    if (asked.includes("/") ? isProgram(asked) : isHere(asked)) return asked;
    throw new StartError(`--builder: there is no program ${asked}`);
  }
  const found = builders.find(isHere);
  if (found !== undefined) return found;
  throw new StartError(
    "Images are built by Docker, Podman or Buildah, and none of them is on PATH. Install one of them:\n" +
      "  https://docs.docker.com/engine/install, https://podman.io/docs/installation, or your system's package buildah",
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Runs a program that shows what it does. @throws StartError if it fails */
async function perform(program: string, args: string[], given: NodeJS.ProcessEnv): Promise<void> {
  console.log(`$ ${[program, ...args].join(" ")}`);
  // Only BuildKit can keep npm's cache between builds; Buildah without this builds every step anew.
  const env = { ...given, DOCKER_BUILDKIT: "1", BUILDAH_LAYERS: "true" };
  const child = spawn(program, args, { cwd: root, env, stdio: "inherit" });
  const stop = () => child.kill();
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, stop);
  try {
    const failure = await new Promise<string | undefined>((resolve) => {
      child.once("error", (error) => resolve(`cannot be started: ${error.message}`));
      child.once("close", (code, signal) =>
        resolve(code === 0 ? undefined : `ended with ${signal ?? `exit code ${code}`}`),
      );
    });
    if (failure !== undefined) throw new StartError(`${program} ${args[0]} ${failure}`);
  } finally {
    for (const signal of signals) process.off(signal, stop);
  }
}

const versionOfService = (): string =>
  (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string }).version;

function versionOfDapr(): string {
  const modules = readFileSync(join(root, "dapr", "tools", "go.mod"), "utf8");
  const version = /github\.com\/dapr\/dapr v(\S+)/.exec(modules)?.[1];
  if (version === undefined) throw new Error("dapr/tools/go.mod names no version of Dapr");
  return version;
}

/** Calls the builder's build command with these arguments. */
type Build = (args: string[]) => Promise<void>;

/**
 * The sidecar. As in Dapr's own image there is no entrypoint: Dapr's injector gives "/daprd" as the first argument. Certificates
 * are those that came with Node.js, not this machine's.
 */
async function buildDaprd(daprd: string | undefined, build: Build): Promise<void> {
  if (daprd === undefined)
    throw new StartError("DAPRD does not say where daprd is: use npm run images, which finds or builds it");
  if (process.platform !== "linux")
    throw new StartError(
      `${daprd} is for ${process.platform}, and an image wants one for Linux: build jangteo-daprd there`,
    );
  const context = mkdtempSync(join(tmpdir(), "jangteo-images-"));
  try {
    const certificates = join(context, "files", "etc", "ssl", "certs");
    mkdirSync(certificates, { recursive: true });
    writeFileSync(join(certificates, "ca-certificates.crt"), `${rootCertificates.join("\n")}\n`);
    copyFileSync(daprd, join(context, "files", "daprd"), constants.COPYFILE_FICLONE);
    writeFileSync(
      join(context, "Dockerfile"),
      `FROM scratch
LABEL org.opencontainers.image.title="jangteo-daprd" \\
  org.opencontainers.image.description="Dapr's sidecar with the patches of jangteo" \\
  org.opencontainers.image.licenses="Apache-2.0"
COPY files /
USER 65532:65532
CMD ["/daprd"]
`,
    );
    await build([context]);
  } finally {
    rmSync(context, { recursive: true, force: true });
  }
}

function nameOfStandIn(kind: StandIn): string {
  if (kind === "tools") return "jangteo-tools:test";
  const values = parseDocument(readFileSync(join(root, "helm", "jangteo", "values.yaml"), "utf8"));
  return z.string().parse(values.getIn(standIns[kind]));
}

async function buildStandIn(kind: StandIn, build: Build): Promise<void> {
  const mongod = kind === "mongo" ? ["--build-context", `mongod=${dirname(await mongodStandIn())}`] : [];
  await build(["--target", kind, ...mongod, join("tests", "kubernetes", "stand-ins")]);
}

/** The path of the stand-in for mongod, which is built as the set-up does. @throws StartError */
async function mongodStandIn(): Promise<string> {
  const go = (await import(join(root, "dapr", "go.mjs"))) as {
    build: (module: unknown) => Promise<string>;
    standIn: unknown;
  };
  return go.build(go.standIn).catch((error: Error) => {
    throw new StartError(error.message);
  });
}

const nameOf = (kind: Kind): string => {
  if (kind === "service") return `jangteo-service:${versionOfService()}`;
  return kind === "daprd" ? `jangteo-daprd:${versionOfDapr()}` : nameOfStandIn(kind);
};

async function buildOne(kind: Kind, daprd: string | undefined, build: Build): Promise<void> {
  if (kind === "service") await build(["--target", "service", "."]);
  else if (kind === "daprd") await buildDaprd(daprd, build);
  else await buildStandIn(kind, build);
}

/** Builds, loads and pushes. @throws StartError */
export async function buildImages(options: Options, env = process.env): Promise<void> {
  const { buildArgs, load, push } = options;
  const builder = findBuilder(options.builder, env.PATH);
  // Without a registry these two put localhost/ before the name, where Kubernetes, as Docker, puts docker.io/library/.
  const isLocal = ["podman", "buildah"].includes(basename(builder));
  const done: string[] = [];
  for (const kind of options.kinds) {
    const name = nameOf(kind);
    const image = isLocal && !name.includes("/") ? `docker.io/library/${name}` : name;
    const began = Date.now();
    await buildOne(kind, env.DAPRD, (args) =>
      perform(builder, ["build", "--tag", image, ...buildArgs, ...args], env),
    );
    console.log(`${image} built in ${Math.round((Date.now() - began) / 1000)} s\n`);
    done.push(image);
    const [loader, ...loaderArgs] = load;
    if (loader !== undefined) await perform(loader, [...loaderArgs, image], env);
    if (push === undefined) continue;
    const remote = `${push}/${basename(name)}`;
    await perform(builder, ["tag", image, remote], env);
    await perform(builder, ["push", remote], env);
    done.push(remote);
  }
  console.log(`ready:\n${done.map((image) => `  ${image}`).join("\n")}`);
}

if (process.argv[1]?.endsWith("/images.js"))
  await command(usage, readOptions, (options) => buildImages(options));
