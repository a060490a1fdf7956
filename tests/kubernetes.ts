/**
 * `npm run test:kubernetes`: installs the chart on the cluster that kubectl knows, with two shops, and repeats there what the seeds
 * showed of theirs. Builds the images that it needs and takes them to the cluster; leaves nothing behind but them.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs, styleText } from "node:util";
import Table from "cli-table3";
import { command } from "#dapr/command.js";
import { root } from "#dapr/runner.js";
import { StartError } from "#dapr/topology.js";
import { chart, helm, KUBERNETES, VALUES } from "./chart.js";
import { Killer, knows, kubectl, Release, run, seconds } from "./kubernetes-cluster.js";
import { PROOFS, type Stage } from "./kubernetes-proofs.js";

const usage = `Usage: npm run test:kubernetes -- [options] [PROOF...]

Works on the cluster that KUBECONFIG names, in the namespaces jangteo-fashion, jangteo-coffee and jangteo-dry-run, which
it makes and removes. The cluster has Dapr (1.18, with mTLS), a metrics server and volumes that several pods may write.

  PROOF                  what is shown; all, if none is named. --list names them
  --list                 show which proofs there are, and for which items of the seeds
  --load COMMAND         how an image gets to the cluster: "kind load docker-image", "minikube image load", …
  --push REGISTRY        or to which registry, from which the cluster takes it
  --stand-ins            MySQL, MongoDB, Redis and nginx of Debian's packages, for clusters that can pull no images
  --builder NAME         docker, podman or buildah; the first of these that is here
  --build-args "WORDS"   more words for the builder's build command
  --no-build             the images are there already
  --ingress-url URL      where the cluster's own controller of Ingress and Gateway API answers, as seen from a pod, such as
                         http://traefik.traefik; without it, the proof \`controllers\` is left out
  --crds                 install the CRDs of the Gateway API, KEDA and the Prometheus operator where they are missing (with Go), to
                         check what the chart makes of these kinds
  --keep                 leave the two shops on the cluster
  --record               write the figures into docs/kubernetes.md
  --help                 show this`;

const CONTROL_PLANE = "dapr-system";
const [FASHION, COFFEE, DRY_RUN] = ["jangteo-fashion", "jangteo-coffee", "jangteo-dry-run"];

interface Options {
  names: string[];
  list: boolean;
  builder?: string;
  load?: string;
  push?: string;
  ingressUrl?: string;
  standIns: boolean;
  buildArgs?: string;
  build: boolean;
  crds: boolean;
  keep: boolean;
  record: boolean;
}

function readOptions(args: string[]): Options | "help" {
  // To parseArgs a value that begins with a dash looks like one that was forgotten.
  const at = args.indexOf("--build-args");
  const buildArgs = at < 0 ? undefined : args[at + 1];
  const others = at < 0 ? args : [...args.slice(0, at), ...args.slice(at + 2)];
  const flag = { type: "boolean", default: false } as const;
  const text = { type: "string" } as const;
  const { values, positionals } = parseArgs({
    args: others,
    allowPositionals: true,
    options: {
      ...{ builder: text, load: text, push: text, "ingress-url": text, list: flag, help: flag },
      ...{ "stand-ins": flag, "no-build": flag, crds: flag, keep: flag, record: flag },
    },
  });
  if (values.help) return "help";
  const there = PROOFS.map(({ name }) => name);
  const unknown = positionals.find((name) => !there.includes(name));
  if (unknown !== undefined)
    throw new Error(`There is no proof "${unknown}"; there are ${there.join(", ")}.`);
  const { builder, load, push, list, crds, keep, record } = values;
  const ingressUrl = values["ingress-url"];
  const usual = PROOFS.filter(({ wantsController }) => ingressUrl || !wantsController).map(
    ({ name }) => name,
  );
  return {
    names: positionals.length === 0 ? usual : positionals,
    ingressUrl,
    ...{ builder, load, push, list, buildArgs, crds, keep, record },
    ...{ standIns: values["stand-ins"], build: !values["no-build"] },
  };
}

/** Builds what is ours, the pod that puts load on it, and, where they are wanted, stand-ins for others' images. */
function buildImages({ builder, load, push, buildArgs, standIns }: Options): void {
  const words = [
    ...(builder === undefined ? [] : ["--builder", builder]),
    ...(load === undefined ? [] : ["--load", load]),
    ...(push === undefined ? [] : ["--push", push]),
    ...(buildArgs === undefined ? [] : ["--build-args", buildArgs]),
  ];
  const images = ["service", "daprd", "tools", ...(standIns ? ["mysql", "mongo", "redis", "nginx"] : [])];
  const program = join(root, "dist", "dapr", "images.js");
  execFileSync(process.execPath, [program, ...images, ...words], { stdio: "inherit" });
}

// --- the cluster ----------------------------------------------------------------------------------------------------

/** What all of it stands on. @throws StartError that says what is missing and how to get it */
async function preflight(): Promise<string> {
  const version = await kubectl(["version", "-o", "json"]).catch((error: Error) => {
    throw new StartError(
      `There is no cluster: kubectl says\n  ${error.message}\nSet KUBECONFIG, or make one: docs/kubernetes.md.`,
    );
  });
  if (!(await knows("components.dapr.io")))
    throw new StartError(
      "The cluster has no Dapr:\n" +
        "  helm upgrade --install dapr dapr --repo https://dapr.github.io/helm-charts/ --version 1.18 --namespace dapr-system --create-namespace --wait",
    );
  return (JSON.parse(version) as { serverVersion: { gitVersion: string } }).serverVersion.gitVersion;
}

/** CRDs of others that the chart may make objects of: Go modules that have them, and where. */
const CRDS = [
  {
    name: "httproutes.gateway.networking.k8s.io",
    module: "sigs.k8s.io/gateway-api@v1.4.1",
    files: "config/crd/standard",
  },
  { name: "scaledobjects.keda.sh", module: "github.com/kedacore/keda/v2@v2.16.1", files: "config/crd/bases" },
  {
    name: "podmonitors.monitoring.coreos.com",
    module: "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    files: "example/prometheus-operator-crd",
  },
];

async function installCrds(say: (line: string) => void): Promise<void> {
  for (const { name, module, files } of CRDS) {
    if (await knows(name)) continue;
    const { stdout } = await run("go", ["mod", "download", "-json", module]);
    const { Dir } = JSON.parse(stdout) as { Dir: string };
    await kubectl(["apply", "--server-side", "--force-conflicts", "-f", join(Dir, files)]).catch(
      async (error: Error) => {
        // A folder may hold a kustomization beside them.
        if (!(await knows(name))) throw error;
      },
    );
    await kubectl(["wait", "--for=condition=Established", `crd/${name}`, "--timeout=60s"]);
    say(`CRDs of ${module} installed`);
  }
}

/** Every object of every values file, as the cluster itself would take it. */
async function dryRun(stage: Pick<Stage, "say" | "check" | "figure">): Promise<void> {
  await kubectl(["create", "namespace", DRY_RUN ?? ""]).catch(() => undefined);
  let objects = 0;
  try {
    for (const [name, files] of Object.entries(VALUES)) {
      const values = files.flatMap((file) => ["--values", file]);
      await helm("lint", chart, "--strict", "--quiet", ...values);
      const manifests = await helm(
        "template",
        "shop",
        chart,
        "--namespace",
        DRY_RUN ?? "",
        "--kube-version",
        KUBERNETES,
        ...values,
      );
      const said = await kubectl(
        ["apply", "--dry-run=server", "-n", DRY_RUN ?? "", "-f", "-"],
        manifests,
      ).catch((error: Error) => error);
      const lines = said instanceof Error ? [] : said.trim().split("\n");
      objects += lines.length;
      stage.check(
        !(said instanceof Error),
        said instanceof Error
          ? `${name}: ${said.message}`
          : `${name}: the cluster would take all ${lines.length} objects`,
      );
    }
  } finally {
    await kubectl(["delete", "namespace", DRY_RUN ?? "", "--wait=false"]);
  }
  stage.figure(
    "objects of all values files that the cluster would take",
    "–",
    `${objects} of ${Object.keys(VALUES).length} values files`,
  );
}

// --- all of it ------------------------------------------------------------------------------------------------------

async function perform(options: Options): Promise<void> {
  if (options.list)
    return console.log(
      PROOFS.map(({ name, title, items }) => `${name.padEnd(12)}  ${title} (${items.join(", ")})`).join("\n"),
    );
  const colours = process.stdout.isTTY && !process.env.NO_COLOR;
  const styled = (style: Parameters<typeof styleText>[0], text: string) =>
    colours ? styleText(style, text) : text;
  const title = (text: string) => console.log(`\n${styled("bold", text)}`);
  const say = (line: string) => console.log(`  ${line}`);
  const figures: [string, string, string][] = [];
  let wrong: string[] = [];
  const [passed, failed]: [string[], string[]] = [[], []];
  const stage = {
    say,
    check: (holds: boolean, found: string) => {
      if (!holds) wrong.push(found);
      say(`${holds ? "✔" : "✘"} ${found}`);
    },
    figure: (...figure: [string, string, string]) => void figures.push(figure),
  };
  /** One step, after which the next one is taken whatever came of it. */
  const step = async (name: string, work: () => Promise<void>) => {
    wrong = [];
    const began = performance.now();
    await work().catch((error: Error) => {
      wrong.push(error.message);
      say(`✘ ${error.stack ?? error.message}`);
    });
    (wrong.length === 0 ? passed : failed).push(name);
    say(
      styled(
        wrong.length === 0 ? "green" : "red",
        wrong.length === 0 ? `shown, ${seconds(began)}` : "NOT SHOWN",
      ),
    );
  };

  const version = await preflight();
  say(`Kubernetes ${version}`);
  if (options.build) {
    title("images");
    buildImages(options);
  }
  const registry = options.push === undefined ? [] : [`image.registry="${options.push}"`];
  const daprd = `${options.push === undefined ? "" : `${options.push}/`}jangteo-daprd:1.18.2`;
  const settings = [...registry, `dapr.sidecarImage="${daprd}"`, 'ingress.kind="nginx"', "logs.enabled=true"];
  const fashion = new Release(FASHION ?? "", settings);
  const coffee = new Release(COFFEE ?? "", [...settings, 'shop="coffee"', "logs.enabled=false"]);
  const shops = [fashion, coffee];
  try {
    title("every object of every values file");
    if (options.crds) await installCrds(say);
    await step("dry-run", () => dryRun(stage));
    title("helm install, two shops");
    await step("install", async () => {
      for (const release of shops) {
        const isNew = (await kubectl(["get", "namespace", release.name, "--ignore-not-found"])) === "";
        const began = performance.now();
        await release.install();
        stage.check(true, `helm install ${release.name}: all is ready after ${seconds(began)}`);
        if (release === fashion && isNew)
          stage.figure("helm install, until all is ready", "–", seconds(began));
        await release.startTools();
      }
    });
    title("helm test: an order is placed and cancelled");
    await step("helm-test", async () => {
      for (const release of shops) {
        const said = await release.helm("test", release.name, ["--logs", "--timeout", "3m"]);
        stage.check(
          /placed, seen, cancelled/.test(said),
          `${release.name}: ${said.trim().split("\n").at(-1)}`,
        );
      }
    });
    const killer = await Killer.start(fashion.name);
    for (const proof of PROOFS.filter(({ name }) => options.names.includes(name))) {
      title(`${proof.name}  ${proof.title}`);
      say(`shows ${proof.items.join(", ")}`);
      await step(proof.name, () =>
        proof.perform({
          ...stage,
          fashion,
          coffee,
          killer,
          controlPlane: CONTROL_PLANE,
          ingressUrl: options.ingressUrl,
        }),
      );
    }
  } finally {
    if (options.keep) say(`left on the cluster: ${FASHION}, ${COFFEE}`);
    else for (const release of shops) await release.uninstall();
  }

  title("figures");
  const table = new Table({
    head: ["", "the seed", "here"],
    style: { head: [], border: [] },
    colWidths: [34, 40, 70],
    wordWrap: true,
  });
  table.push(...figures);
  console.log(table.toString());
  if (options.record) record(figures, version);
  console.log(
    `\n${passed.length} passed, ${failed.length} failed${failed.length ? `: ${failed.join(", ")}` : ""}`,
  );
  if (failed.length > 0) process.exitCode = 1;
}

/** Puts the figures between the marks in docs/kubernetes.md; those that were not measured this time stay. */
function record(figures: readonly [string, string, string][], version: string): void {
  const path = join(root, "docs", "kubernetes.md");
  const text = readFileSync(path, "utf8");
  const [before = "", rest = ""] = text.split(/(?<=<!-- figures -->\n)/);
  const end = rest.indexOf("<!-- /figures -->");
  const rowOf = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rows = new Map<string, string>();
  for (const line of rest.slice(0, end).split("\n")) {
    const [, what] = /^\| ([^|]+) \|/.exec(line) ?? [];
    if (what !== undefined && what.trim() !== "" && !what.startsWith("---")) rows.set(what.trim(), line);
  }
  for (const figure of figures) rows.set(figure[0], rowOf(figure));
  const date = new Date().toISOString().slice(0, 10);
  const head = `On Kubernetes ${version}, ${date}:\n\n| | the seed | here |\n| --- | --- | --- |\n`;
  writeFileSync(path, `${before}${head}${[...rows.values()].join("\n")}\n${rest.slice(end)}`);
}

await command(usage, readOptions, perform, "stopping");
