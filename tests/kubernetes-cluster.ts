/** A cluster as kubectl and helm see it, and a shop in it. */
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "#dapr/runner.js";
import { StartError } from "#dapr/topology.js";
import { chart, type Manifest, withoutLinks } from "./chart.js";
import { ShopAt, until } from "./shop.js";
import { aimedAt, CONFIG, parseTable, type Siege } from "./siege.js";

const most = 256 * 1024 * 1024;

/** Runs a program to its end. @param input what it reads @throws StartError with what it said */
export function run(
  program: string,
  args: string[],
  input = "",
): Promise<{ stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: most }, (error, stdout, stderr) => {
      if (error === null) return resolve({ stdout, stderr });
      const said = withoutLinks(stderr).trim() || stdout.trim() || error.message;
      reject(new StartError(`${[program, ...args].join(" ").slice(0, 300)}:\n${said}`));
    });
    child.stdin?.on("error", () => undefined); // it has ended without reading
    child.stdin?.end(input);
  });
}

/** kubectl, with the configuration that it finds by itself (KUBECONFIG). */
export async function kubectl(args: string[], input?: string): Promise<string> {
  return (await run("kubectl", args, input)).stdout;
}

export const get = async (what: string[]): Promise<Manifest> =>
  JSON.parse(await kubectl(["get", ...what, "-o", "json"])) as Manifest;

export const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** What load.mjs has seen. */
export interface Ordered {
  ids: number[];
  refused: number;
  unanswered: number;
  odd: string[];
  /** ms until an order was known, over all its repeats */
  p50: number;
  p99: number;
  /** ms between two orders that were taken */
  longestGap: number;
  seconds: number;
}

/** The name of a pod from which load is put on a shop, and its image. */
const TOOLS = "tools";
const TOOLS_IMAGE = "jangteo-tools:test";

/** One shop, installed under its own name in a namespace of the same name. */
export class Release {
  /** as in --set-json, kept over upgrades */
  private settings: string[];

  constructor(
    readonly name: string,
    settings: string[],
    readonly values: readonly string[] = [],
  ) {
    this.settings = settings;
  }

  get gateway(): string {
    return `http://${this.name}-gateway:8088`;
  }

  /** Installs it, or changes it: these settings over the earlier ones. Resolves when all is ready. */
  async install(settings: string[] = [], { keep = true, wait = true } = {}): Promise<void> {
    const all = [...this.settings, ...settings];
    if (keep) this.settings = all;
    await this.helm("upgrade", "--install", this.name, chart, [
      ...["--create-namespace", "--timeout", "12m", ...(wait ? ["--wait", "--wait-for-jobs"] : [])],
      ...this.values.flatMap((file) => ["--values", file]),
      ...all.flatMap((setting) => ["--set-json", setting]),
    ]);
  }

  /** Forgets settings that one proof needed. */
  forget(...settings: string[]): void {
    this.settings = this.settings.filter((setting) => !settings.includes(setting));
  }

  async helm(...args: (string | string[])[]): Promise<string> {
    return (await run(process.env.HELM ?? "helm", [...args.flat(), "--namespace", this.name])).stdout;
  }

  kubectl(...args: string[]): Promise<string> {
    return kubectl(["--namespace", this.name, ...args]);
  }

  get(...what: string[]): Promise<Manifest> {
    return get(["--namespace", this.name, ...what]);
  }

  /** The pods of a service that are to stay, whatever they do. */
  private async staying(app: string): Promise<Manifest[]> {
    const selector = `app.kubernetes.io/name=${app},app.kubernetes.io/instance=${this.name}`;
    const { items } = await this.get("pods", "-l", selector);
    return (items as Manifest[]).filter(({ metadata }) => !("deletionTimestamp" in metadata));
  }

  async pods(app: string): Promise<Manifest[]> {
    return (await this.staying(app)).filter(({ status }) => status.phase === "Running");
  }

  /** The one pod of a service, or the first. */
  async pod(app: string): Promise<Manifest> {
    const [pod] = await this.pods(app);
    if (pod === undefined) throw new Error(`${this.name}: no pod of ${app} runs`);
    return pod;
  }

  /** Runs a command in a container of a service. */
  async exec(app: string, command: string[], container = app): Promise<string> {
    const { metadata } = await this.pod(app);
    return this.kubectl("exec", metadata.name, "-c", container, "--", ...command);
  }

  /** Waits until a Deployment's new pods are there and its old ones gone. */
  async rolledOut(app: string, withinS = 300): Promise<void> {
    await this.kubectl("rollout", "status", `deployment/${this.name}-${app}`, `--timeout=${withinS}s`);
  }

  /** How often a service's container, or its sidecar, has been started again, in all pods that are to stay. */
  async restarts(app: string, container = app): Promise<number> {
    return (await this.staying(app))
      .flatMap(({ status }) => [...(status.containerStatuses ?? []), ...(status.initContainerStatuses ?? [])])
      .filter((one: { name: string }) => one.name === container)
      .reduce((sum: number, one: { restartCount: number }) => sum + one.restartCount, 0);
  }

  // --- load from inside the cluster ---------------------------------------------------------------------------------

  /** Starts the pod that {@link siege} and {@link ordering} work in. */
  async startTools(): Promise<void> {
    const config = {
      kind: "ConfigMap",
      apiVersion: "v1",
      metadata: { name: TOOLS },
      data: { siegerc: CONFIG },
    };
    const container = {
      ...{ name: TOOLS, image: TOOLS_IMAGE, imagePullPolicy: "IfNotPresent", command: ["sleep", "infinity"] },
      env: [{ name: "HOME", value: "/tmp" }],
      volumeMounts: [
        { name: "config", mountPath: "/etc/tools" },
        { name: "tmp", mountPath: "/tmp" },
      ],
    };
    const spec = {
      terminationGracePeriodSeconds: 0,
      containers: [container],
      volumes: [
        { name: "config", configMap: { name: TOOLS } },
        { name: "tmp", emptyDir: {} },
      ],
    };
    const pod = { kind: "Pod", apiVersion: "v1", metadata: { name: TOOLS }, spec };
    const list = { apiVersion: "v1", kind: "List", items: [config, pod] };
    await kubectl(["--namespace", this.name, "apply", "-f", "-"], JSON.stringify(list));
    await this.kubectl("wait", "--for=condition=Ready", `pod/${TOOLS}`, "--timeout=120s");
  }

  /** Runs a siege command, as the seeds have it, aimed at the gateway. */
  async siege(command: string): Promise<Siege> {
    const aimed = aimedAt(command, this.gateway).replace(/^siege/, "siege -R /etc/tools/siegerc");
    const script = `${aimed} 2>&1 >/dev/null`;
    return parseTable(await this.kubectl("exec", TOOLS, "--", "bash", "-c", script));
  }

  /** Customers who order for a while. */
  async ordering(
    clients: number,
    forSeconds: number,
    body: object = { productId: 1, qty: 1 },
  ): Promise<Ordered> {
    const config = JSON.stringify({ base: this.gateway, clients, seconds: forSeconds, body });
    const script = readFileSync(join(root, "tests", "kubernetes", "load.mjs"), "utf8");
    const args = ["exec", "-i", TOOLS, "--", "env", `CONFIG=${config}`, "node", "--input-type=module", "-"];
    return JSON.parse(await kubectl(["--namespace", this.name, ...args], script)) as Ordered;
  }

  /** One request from inside the cluster: its status and body. */
  async curl(url: string, ...args: string[]): Promise<{ status: number; body: string; type: string }> {
    const out = await this.kubectl(
      "exec",
      TOOLS,
      "--",
      "curl",
      "-sS",
      "-k",
      "-m",
      "20",
      "-w",
      "\n%{http_code} %{content_type}",
      ...args,
      url,
    );
    const at = out.lastIndexOf("\n");
    const [status = "", type = ""] = out.slice(at + 1).split(" ");
    return { status: Number(status), body: out.slice(0, at), type };
  }

  /** A way to one of its Services from here, as long as `work` takes. */
  async reached<T>(service: string, port: number, work: (shop: ShopAt) => Promise<T>): Promise<T> {
    const args = ["--namespace", this.name, "port-forward", `service/${service}`, `:${port}`];
    const child = spawn("kubectl", args, { stdio: ["ignore", "pipe", "pipe"] });
    const end = () => child.kill();
    process.once("exit", end);
    try {
      const local = await new Promise<string>((resolve, reject) => {
        let said = "";
        const hear = (data: Buffer) => {
          said += String(data);
          const found = /Forwarding from 127\.0\.0\.1:(\d+)/.exec(said)?.[1];
          if (found !== undefined) resolve(found);
        };
        child.stdout.on("data", hear);
        child.stderr.on("data", hear);
        child.once("close", () => reject(new StartError(`kubectl port-forward ended: ${said}`)));
      });
      return await work(new ShopAt(`http://127.0.0.1:${local}`));
    } finally {
      process.off("exit", end);
      child.kill();
    }
  }

  /** {@link reached}: the gateway. */
  shop<T>(work: (shop: ShopAt) => Promise<T>): Promise<T> {
    return this.reached(`${this.name}-gateway`, 8088, work);
  }

  async uninstall(): Promise<void> {
    await kubectl(["delete", "namespace", this.name, "--ignore-not-found", "--wait=true", "--timeout=180s"]);
  }
}

/** Kills processes of pods on a node, as only someone on that node can: kill -9 of a container's first process. */
export class Killer {
  private constructor(
    private readonly namespace: string,
    private readonly nodes: ReadonlySet<string>,
  ) {}

  static async start(namespace: string): Promise<Killer> {
    const { items } = await get(["nodes"]);
    const nodes = (items as Manifest[]).map(({ metadata }) => metadata.name);
    for (const node of nodes) {
      const container = {
        ...{
          name: "killer",
          image: TOOLS_IMAGE,
          imagePullPolicy: "IfNotPresent",
          command: ["sleep", "infinity"],
        },
        securityContext: { runAsUser: 0, privileged: true },
      };
      const spec = {
        hostPID: true,
        nodeName: node,
        terminationGracePeriodSeconds: 0,
        containers: [container],
      };
      const pod = { kind: "Pod", apiVersion: "v1", metadata: { name: `killer-${node}`, namespace }, spec };
      await kubectl(["apply", "-f", "-"], JSON.stringify(pod));
      await kubectl([
        "-n",
        namespace,
        "wait",
        "--for=condition=Ready",
        `pod/killer-${node}`,
        "--timeout=120s",
      ]);
    }
    return new Killer(namespace, new Set(nodes));
  }

  /** Sends SIGKILL to all processes of a container of a pod. @throws StartError if there is none */
  async kill(pod: Manifest, container: string): Promise<void> {
    const node: string = pod.spec.nodeName;
    if (!this.nodes.has(node)) throw new StartError(`nobody on ${node} can kill`);
    const statuses = [...(pod.status.containerStatuses ?? []), ...(pod.status.initContainerStatuses ?? [])];
    const found = statuses.find((one: { name: string }) => one.name === container);
    const id = String(found?.containerID ?? "").replace(/^.*:\/\//, "");
    if (id === "") throw new StartError(`${pod.metadata.name} has no container ${container}`);
    const script = `pids=$(grep -l ${id} /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3); kill -9 $pids && echo $pids`;
    await kubectl(["-n", this.namespace, "exec", `killer-${node}`, "--", "bash", "-c", script]);
  }
}

/** Whether the cluster knows a kind of objects, by its CRD's name. */
export const knows = async (crd: string): Promise<boolean> =>
  kubectl(["get", "crd", crd, "-o", "name"]).then(
    () => true,
    () => false,
  );

export { until };
