/**
 * Starts the whole system on this machine, keeps it running and stops it: the backend's servers, and for each service
 * of the topology an app and its sidecar. `npm start`, the end-to-end tests and the benchmark all use it.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { basename, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { readDialects } from "#kit/dialects.js";
import { readShop, type Shop } from "#kit/shop.js";
import { type Control, openControl } from "./control.js";
import { type Door, openDoor } from "./door.js";
import { guard, unguard } from "./guard.js";
import { keepAlive, type Liveness, readLiveness } from "./liveness.js";
import { endLeftovers, lock, remember, unlock } from "./lock.js";
import { type ProcessSpec, Supervised } from "./processes.js";
import { Replicas } from "./replicas.js";
import { environmentOf, Passwords, type Resolved, resolve as resolveSecrets } from "./secrets.js";
import { type Server, serversFor } from "./servers.js";
import {
  type Instance,
  instances,
  place,
  type Rendered,
  readTopology,
  render,
  StartError,
  sidecarArgs,
  type Topology,
} from "./topology.js";

export { StartError } from "./topology.js";

/** Where a migration notes how far it is, until it is finished. */
export const migrationJournal = (data: string): string => join(data, "run", "migration.json");

/** The repository's root, seen from dist/dapr/. */
export const root = fileURLToPath(new URL("../../", import.meta.url));

export interface StartOptions {
  /**
   * Where state and messages live: a directory under components/, or a path to a directory or a single file. Several, with
   * commas between: of files with one name the last one counts. Default: as in the topology file.
   */
  backend?: string;
  /** How the business runs: a file under shops/ (without .yaml), or a path. Default: as in the topology file. */
  shop?: string;
  /** How often each service runs, once if not given. */
  replicas?: Record<string, number>;
  /** The directory for state, logs and everything else that this run writes. Default: data, or data/NAME for a shop that was named. */
  data?: string;
  /** Added to every port. Default: 0. */
  ports?: number;
  /** More environment for all apps. */
  env?: Record<string, string>;
  /** Sets DRILLS=1 in the apps. */
  drills?: boolean;
  /** Sets FAULTS for an app (`order`) or one of its replicas (`order-1`), in its first start only. */
  faults?: Record<string, string>;
  /** When a process that does not answer is killed, as `period=1,failures=3`. Default: LIVENESS, or as dapr/liveness.ts says. */
  liveness?: string;
  /** The topology file. Default: dapr/dapr.yaml. */
  topology?: string;
  /** Told, in sentences for people, about crashes, restarts and replicas. Default: nobody is. */
  onEvent?: (message: string) => void;
}

export interface ProcessInfo {
  /** `redis`, `order-0`, `order-0-sidecar` */
  name: string;
  kind: ProcessSpec["kind"];
  pid: number | undefined;
  port: number;
  restarts: number;
  log: string;
}

/** A running system. */
export interface System {
  /** The offset that was added to every port. */
  ports: number;
  /** The base URL of an app, of the first of its replicas that run, or of a later one; of the gateway, what clients know. */
  url(app: string, replica?: number): string;
  /** The base URL of the sidecar of such a replica. */
  sidecarUrl(app: string, replica?: number): string;
  /** The base URL of the gateway. */
  readonly gateway: string;
  /** The backend's components, with their secrets. */
  readonly components: readonly Resolved[];
  processes(): ProcessInfo[];
  /** Sends a signal to a process and, if the signal ends processes, waits for its end. It is then started again. */
  kill(name: string, signal?: NodeJS.Signals): Promise<void>;
  /**
   * Replaces each replica of an app by a new process: one after another the new one is started, and the old one ended once
   * the new one does its work, or, without `readiness`, as soon as it has been started. What the old one has begun it finishes.
   * @throws StartError if there is no such app, or if a new process does not get ready; then the old one goes on
   */
  roll(app: string, options?: { readiness?: boolean }): Promise<void>;
  /** Starts or ends replicas of an app, from 0 to 10; of those that end, what they have begun is finished. @throws StartError */
  scale(app: string, count: number): Promise<void>;
  /** Resolves once a process (all of them, if none is named) does its work; rejects after a minute. */
  waitReady(name?: string): Promise<void>;
  /** Ends everything in order, within 10 s; with `now`, at once. May be called repeatedly. */
  stop(options?: { now?: boolean }): Promise<void>;
}

/** How many services are started at once: more take no less time on two cores. */
const AT_ONCE = 2;
const isFirst = ({ replica }: Instance) => replica === 0;
const readyWithin = 60_000;
const maxFailedStarts = 5;
const maxLogBytes = 10_000_000;
/** How long a replica that leaves may take for what it has begun; kit's DRAIN.most is less. */
const drainPatience = 9000;
/** Other sidecars may just have been told the address of a replica that leaves. */
const lastCalls = 200;
/** How long each kind may take to stop, in this order: an app uses its sidecar, and that its servers, to the end. */
const stopPatience = { app: 4000, sidecar: 3500, server: 2000 };

/** Starts the system and resolves when all of it is ready. If that fails, nothing of it keeps running. */
export async function startSystem(options: StartOptions = {}): Promise<System> {
  const offset = options.ports ?? 0;
  const backend = layersOf(options.backend);
  const shop = options.shop && named("shop", "shops", ".yaml", options.shop);
  const topology = readTopology(options.topology ?? join(root, "dapr", "dapr.yaml"), backend);
  const rules = rulesOf(topology, options, shop);
  const data = resolve(options.data ?? join(root, "data", rules.isUsual ? "" : (rules.shop?.name ?? "")));
  const list = instances(topology, options.replicas ?? {}, offset);

  return alone(list, data, { ...options, topology }, async (system) => {
    checkMoves(data);
    const rendered = render(topology, join(data, "run"), offset);
    checkBindings(rules.shop, rendered);
    checkSecretStores(rendered);
    const passwords = new Passwords(data);
    const components = resolveSecrets(rendered.components, passwords, offset);
    system.components = components;
    await system.startServers(serversFor(components, data, passwords, offset), list);
    const door = system.openDoor();
    const begin = async (instance: Instance) => {
      system.start(sidecarSpec(instance, rendered, components, data));
      await system.waitLoaded(`${instance.name}-sidecar`, `http://127.0.0.1:${instance.ports.http}`);
      system.start(appSpec(instance, options, shop, door));
    };
    system.begin = begin;
    // Sidecars that make the same file or schema at the same moment get in each other's way (and one that fails to open the
    // file for name resolution runs on without ever getting ready): the first one makes what all share, then the first
    // one of each service what its replicas share.
    const [first, ...others] = list;
    if (first !== undefined) await begin(first);
    for (const round of [others.filter(isFirst), others.filter((one) => !isFirst(one))])
      for (let i = 0; i < round.length; i += AT_ONCE)
        await Promise.all(round.slice(i, i + AT_ONCE).map(begin));
    await system.waitReady();
    await Promise.all(list.map((instance) => system.announce(instance)));
    await system.openControl();
    return system;
  });
}

/** The servers of some backends, running without a shop. */
export interface Servers {
  /** By backend, in the order asked for: its components with their secrets, as its sidecars would get them. */
  backends: Resolved[][];
  stop(): Promise<void>;
}

/**
 * Starts only the servers of one or more backends, for who looks at the stores directly: the shop on that data directory
 * must not run. @throws StartError
 */
export async function startServers(
  options: Pick<StartOptions, "data" | "ports" | "topology" | "onEvent"> & { backends: string[] },
): Promise<Servers> {
  const offset = options.ports ?? 0;
  const data = resolve(options.data ?? join(root, "data"));
  const nothing: Topology = { apps: [], resources: [], config: undefined };
  return alone([], data, { ...options, topology: nothing }, async (system) => {
    const passwords = new Passwords(data);
    const file = options.topology ?? join(root, "dapr", "dapr.yaml");
    const backends = options.backends.map((backend) => {
      const topology = readTopology(file, layersOf(backend));
      return resolveSecrets(render(topology, join(data, "run"), offset).components, passwords, offset);
    });
    await system.startServers(serversFor(backends.flat(), data, passwords, offset), []);
    return { backends, stop: () => system.stop() };
  });
}

/** Starts what `begin` starts with the data directory to itself. If that fails, nothing of it keeps running. */
async function alone<T>(
  list: Instance[],
  data: string,
  options: Pick<StartOptions, "ports" | "onEvent" | "liveness"> & { topology: Topology },
  begin: (system: LocalSystem) => Promise<T>,
): Promise<T> {
  for (const directory of ["run", "logs"]) mkdirSync(join(data, directory), { recursive: true });
  const liveness = readLiveness(options.liveness ?? process.env.LIVENESS);
  lock(data);
  const system = new LocalSystem(options.topology, list, data, options.ports ?? 0, liveness, options.onEvent);
  guard(system);
  try {
    await system.endLeftovers();
    return await begin(system);
  } catch (error) {
    await system.stop();
    throw error;
  }
}

class LocalSystem implements System {
  components: Resolved[] = [];
  /** Starts one replica; set once it is known how. */
  begin: (instance: Instance) => Promise<void> = () => Promise.reject(new Error("nothing to start yet"));
  readonly #processes: Supervised[] = [];
  readonly #replicas: Replicas;
  readonly #listeners = new Set<(message: string) => void>();
  #door: Door | undefined;
  #control: Control | undefined;
  #stopping: Promise<void> | undefined;

  constructor(
    private readonly topology: Topology,
    list: Instance[],
    private readonly data: string,
    readonly ports: number,
    private readonly liveness: Liveness,
    onEvent: (message: string) => void = () => {},
  ) {
    this.#listeners.add(onEvent);
    this.#replicas = new Replicas(topology, list, ports, {
      isFree: async (instance) => (await busyAmong(portsOf(instance))).length === 0,
      begin: (instance) => this.begin(instance),
      ready: async (instance) => {
        await Promise.all([this.waitReady(`${instance.name}-sidecar`), this.waitReady(instance.name)]);
        await this.announce(instance);
      },
      end: (instance) => this.#drain(instance),
      tell: this.tell,
    });
  }

  private readonly tell = (message: string): void => {
    for (const listener of this.#listeners) listener(message);
  };

  url(app: string, replica = 0): string {
    const door = this.#doorPort;
    if (app === "gateway" && door !== undefined) return `http://127.0.0.1:${door}`;
    return `http://127.0.0.1:${this.#instance(app, replica).ports.app}`;
  }

  sidecarUrl(app: string, replica = 0): string {
    return `http://127.0.0.1:${this.#instance(app, replica).ports.http}`;
  }

  get gateway(): string {
    return this.url("gateway");
  }

  processes(): ProcessInfo[] {
    return this.#processes.map(({ spec: { name, kind, port, log }, pid, restarts }) => {
      return { name, kind, pid, port, restarts, log };
    });
  }

  async kill(name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await this.#process(name).kill(signal);
  }

  async roll(app: string, { readiness = true } = {}): Promise<void> {
    if (app === "gateway" && this.#door === undefined)
      throw new StartError("this Node.js can't hand the gateway's address down from process to process");
    await this.#replicas.roll(app, readiness);
  }

  scale(app: string, count: number): Promise<void> {
    return this.#replicas.scale(app, count);
  }

  async waitReady(name?: string): Promise<void> {
    const awaited = name ? [this.#process(name)] : this.#processes;
    let failed = false; // one failure ends the wait for the others
    const wait = async (process: Supervised) => {
      try {
        await becomesReady(process, () => failed || this.#stopping !== undefined);
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    await Promise.all(awaited.map(wait));
  }

  /** Resolves once a sidecar has opened its components, which it does before it waits for its app. */
  async waitLoaded(name: string, url: string): Promise<void> {
    const loaded = () => answers(`${url}/v1.0/healthz/outbound`);
    await becomesReady(this.#process(name), () => this.#stopping !== undefined, loaded);
  }

  /** Starts the servers that a backend needs, and resolves when sidecars may use them. */
  async startServers(servers: Server[], list: Instance[]): Promise<void> {
    await checkPorts(servers, list);
    // The first start of a database takes a while, mostly waiting for the disk.
    await Promise.all(servers.map((server) => server.setUp()));
    for (const server of servers) this.start(server.spec());
    await this.waitReady();
    await Promise.all(servers.map((server) => server.prepare()));
  }

  /** Opens the address that clients know, for the gateway to listen at. */
  openDoor(): Door | undefined {
    const port = this.#doorPort;
    if (port !== undefined) this.#door = openDoor(port);
    return this.#door;
  }

  /** Lets `npm run restart` and `npm run scale` in. */
  async openControl(): Promise<void> {
    this.#control = await openControl(this.data, async (order, say) => {
      this.#listeners.add(say);
      try {
        if (order.kind === "scale")
          for (const [app, count] of Object.entries(order.counts)) await this.scale(app, count);
        else for (const app of this.#named(order.apps)) await this.roll(app);
      } finally {
        this.#listeners.delete(say);
      }
    });
    if (this.#control === undefined)
      this.tell(
        `npm run restart and npm run scale can't reach this system: the path of ${this.data} is too long`,
      );
  }

  async stop({ now = false } = {}): Promise<void> {
    this.#stopping ??= this.#stopInOrder();
    if (now) await Promise.all(this.#processes.map((process) => process.stop(0)));
    await this.#stopping;
  }

  async endLeftovers(): Promise<void> {
    const left = await endLeftovers(this.data);
    if (left.length > 0) this.tell(`ended what an earlier run left running: ${left.join(", ")}`);
  }

  /** Starts a process, to be kept running until the system stops. */
  start(spec: Omit<ProcessSpec, "log">): void {
    if (this.#stopping) throw new StartError("stopped while starting");
    const log = join(this.data, "logs", `${spec.name}.log`);
    if (existsSync(log) && statSync(log).size > maxLogBytes) renameSync(log, `${log}.1`);
    const started = (process: Supervised) => {
      remember(this.data, this.processes());
      if (process.restarts > 0) void this.#announceAgain(process.spec.name);
    };
    const process = new Supervised({ ...spec, log }, started, this.tell);
    this.#processes.push(process);
    process.start();
    keepAlive(process, this.liveness, this.tell);
  }

  /** Tells a sidecar what `dapr list` shows about its app. */
  async announce({ name, app, ports }: Instance): Promise<void> {
    const metadata = {
      cliPID: String(process.pid),
      appPID: String(this.#process(name).pid ?? 0),
      appCommand: app.command.join(" "),
    };
    for (const [key, body] of Object.entries(metadata))
      await fetch(`http://127.0.0.1:${ports.http}/v1.0/metadata/${key}`, { method: "PUT", body });
  }

  /** The ids of processes that run now: for the end of this process, which can't wait for anything. */
  pids(): number[] {
    return this.#processes.flatMap(({ pid }) => pid ?? []);
  }

  async #announceAgain(restarted: string): Promise<void> {
    const instance = this.#replicas.all.find(
      ({ name }) => restarted === name || restarted === `${name}-sidecar`,
    );
    if (!instance) return;
    try {
      await this.waitReady(`${instance.name}-sidecar`);
      await this.announce(instance);
    } catch {
      // Stopped meanwhile; or ended again, and then it is announced after that start.
    }
  }

  /**
   * Ends one replica while others go on. First its sidecar leaves the name resolution and takes no more messages; then the app
   * answers what it has been asked and puts its journal away, for which it needs its sidecar, which ends last.
   */
  async #drain({ name }: Instance): Promise<void> {
    const ofIt = (process: Supervised) => [name, `${name}-sidecar`].includes(process.spec.name);
    const app = this.#processes.find(({ spec }) => spec.name === name);
    const sidecar = this.#processes.find(({ spec }) => spec.name === `${name}-sidecar`);
    sidecar?.leave("SIGTERM");
    await delay(lastCalls);
    app?.leave("SIGTERM");
    await app?.ended(drainPatience);
    await sidecar?.stop(stopPatience.sidecar);
    const left = this.#processes.filter((process) => !ofIt(process));
    this.#processes.splice(0, this.#processes.length, ...left);
    if (this.#stopping === undefined) remember(this.data, this.processes());
  }

  async #stopInOrder(): Promise<void> {
    this.#control?.close();
    for (const kind of ["app", "sidecar", "server"] as const) {
      const ofKind = this.#processes.filter(({ spec }) => spec.kind === kind);
      await Promise.all(ofKind.map((process) => process.stop(stopPatience[kind])));
    }
    this.#door?.close();
    unlock(this.data);
    unguard(this);
  }

  get #doorPort(): number | undefined {
    const app = this.topology.apps.find(({ appID }) => appID === "gateway");
    return app && place(app, 0, this.ports).ports.app;
  }

  /** The services that an operator names. @throws StartError */
  #named(apps: string[]): string[] {
    const known = this.topology.apps.map(({ appID }) => appID);
    const unknown = apps.find((app) => app !== "all" && !known.includes(app));
    if (unknown !== undefined)
      throw new StartError(`no service "${unknown}"; there are ${known.join(", ")}, and all`);
    return known.filter((app) => apps.includes(app) || apps.includes("all"));
  }

  #instance(app: string, replica: number): Instance {
    const found = this.#replicas.of(app)[replica];
    if (!found) throw new Error(`no replica ${replica} of ${app} runs here`);
    return found;
  }

  #process(name: string): Supervised {
    const found = this.#processes.find(({ spec }) => spec.name === name);
    if (!found) throw new Error(`no process "${name}" runs here`);
    return found;
  }
}

/** Waits until `check` holds for a process; throws when it can't be expected to any more. */
async function becomesReady(
  process: Supervised,
  cancelled: () => boolean,
  check = () => process.ready(),
): Promise<void> {
  const { name, log } = process.spec;
  const fail = (what: string) => {
    throw new StartError(`${name} ${what}. The end of its log, ${log}:\n${process.lastLines()}`);
  };
  for (const end = Date.now() + readyWithin; !(await check()); await delay(20)) {
    if (cancelled()) throw new StartError(`stopped while waiting for ${name}`);
    if (process.failedStarts >= maxFailedStarts) fail(`failed to start ${maxFailedStarts} times in a row`);
    if (Date.now() > end) fail(`is not ready after ${readyWithin / 1000} s`);
  }
}

function sidecarSpec(
  instance: Instance,
  rendered: Rendered,
  components: Resolved[],
  data: string,
): Omit<ProcessSpec, "log"> {
  const { app, name, ports } = instance;
  const sidecar = `http://127.0.0.1:${ports.http}/v1.0`;
  return {
    name: `${name}-sidecar`,
    kind: "sidecar",
    command: process.env.DAPRD ?? "daprd",
    args: sidecarArgs(instance, rendered),
    cwd: data, // relative SQLite files of the components end up there
    env: () => ({
      ...environmentOf(app.appID, components),
      DAPR_HOST_IP: "127.0.0.1", // the address it registers for other sidecars
    }),
    port: ports.http,
    end: async () => {
      const options = { method: "POST", signal: AbortSignal.timeout(1000) };
      const { ok, status } = await fetch(`${sidecar}/shutdown`, options);
      if (!ok) throw new Error(`${name}-sidecar refuses to end: ${status}`);
    },
    alive: () => answers(`${sidecar}/healthz`),
    // A call to its own app passes only when the sidecar's health probe has found the app healthy.
    ready: async () =>
      (await answers(`${sidecar}/healthz`)) &&
      (!app.enableAppHealthCheck || answers(`${sidecar}/invoke/${app.appID}/method${healthPath(instance)}`)),
  };
}

function appSpec(
  instance: Instance,
  options: StartOptions,
  shop: string | undefined,
  door: Door | undefined,
): Omit<ProcessSpec, "log"> {
  const { app, name, ports, replica } = instance;
  const sockets = door && app.appID === "gateway" ? [door.fd] : [];
  const [program = "", ...args] = app.command;
  return {
    name,
    kind: "app",
    command: program === "node" ? process.execPath : program, // the node that runs us, not another one on PATH
    args,
    cwd: app.appDirPath,
    env: (restarts) => ({
      ...app.env,
      ...(shop && { SHOP: shop }),
      // The same names as the Dapr CLI sets …
      APP_ID: app.appID,
      APP_PORT: String(ports.app),
      DAPR_HTTP_PORT: String(ports.http),
      DAPR_GRPC_PORT: String(ports.grpc),
      // … and ours.
      REPLICA: `${app.appID}-${replica}`,
      APP_FD: sockets.length > 0 ? "3" : undefined,
      DRILLS: options.drills ? "1" : undefined,
      FAULTS: restarts === 0 ? (options.faults?.[name] ?? options.faults?.[app.appID]) : undefined,
      ...options.env,
    }),
    port: ports.app,
    sockets,
    endSignal: "SIGINT", // all of it stops: nobody else will come
    alive: () => answers(`http://127.0.0.1:${ports.app}/healthz`),
    ready: () => answers(`http://127.0.0.1:${ports.app}${healthPath(instance)}`),
  };
}

const healthPath = ({ app }: Instance) => app.appHealthCheckPath ?? "/readyz";

/** Whether a GET succeeds now. */
async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

/** The shop that will run, read here so that a mistake in it is told once, and before anything starts. */
function rulesOf(
  { apps }: Topology,
  { env }: StartOptions,
  named: string | undefined,
): { shop: Shop | undefined; isUsual: boolean } {
  const [app] = apps;
  const usual = app?.env?.SHOP && resolve(app.appDirPath, app.env.SHOP);
  const path = named || usual;
  // A topology without shops is none of ours.
  if (!app || !usual || !path) return { shop: undefined, isUsual: true };
  try {
    const shop = readShop(path);
    readDialects(
      resolve(app.appDirPath, env?.DIALECTS ?? process.env.DIALECTS ?? "shops/dialects.yaml"),
      shop.dialect,
    );
    return { shop, isUsual: path === usual };
  } catch (error) {
    throw new StartError((error as Error).message);
  }
}

/** daprd would leave out a component whose secret store is not there, and run on. */
function checkSecretStores({ components }: Rendered): void {
  for (const { name, secrets, secretStore } of components)
    if (Object.keys(secrets).length > 0 && !components.some((one) => one.name === secretStore))
      throw new StartError(
        `${name} takes its secrets from "${secretStore}", and the backend has no such component. The folders that hold only a part ` +
          "of a backend go over a whole one, as in --backend embedded,postgresql.",
      );
}

/** What changes while a migration is unfinished would be left behind. */
function checkMoves(data: string): void {
  const journal = migrationJournal(data);
  if (existsSync(journal))
    throw new StartError(
      `A migration of ${data} is unfinished: repeat it (npm run migrate, with the same arguments) before the shop starts again, ` +
        `or give it up by removing ${journal}.`,
    );
}

/** What a shop names as a channel or as its payment gateway must be among the components. */
function checkBindings(shop: Shop | undefined, { components }: Rendered): void {
  if (shop === undefined) return;
  const gateway = shop.payment.gateway === "demo" ? [] : [shop.payment.gateway];
  const wanted = new Set([...gateway, ...shop.notifications.map(({ channel }) => channel)]);
  for (const name of wanted)
    if (!components.some((one) => one.name === name && one.type.startsWith("bindings.")))
      throw new StartError(
        `The shop ${shop.name} names the output binding "${name}", and the backend has no such component: ` +
          `docs/operations.md#channels says how to add ${name}.yaml.`,
      );
}

/** The layers that a backend names: `polyglot,postgresql/deliveries.yaml` is polyglot with one store from elsewhere. */
const layersOf = (backend = ""): string[] =>
  backend
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .map((name) => named("backend", "components", "", name));

/** Finds what an option names: a file or directory of ours, or any path. */
function named(option: string, directory: string, suffix: string, value: string): string {
  const ours = join(root, directory, `${value}${suffix}`);
  const path = !/^[./]/.test(value) && existsSync(ours) ? ours : resolve(value);
  if (existsSync(path)) return path;
  const names = readdirSync(join(root, directory))
    .filter((name) => name !== "dialects.yaml") // what the shops speak, and no shop
    .map((name) => basename(name, suffix || undefined));
  throw new StartError(`no ${option} "${value}"; there are ${names.join(", ")}, or give a path`);
}

/** Throws if a port that the system needs is in use. */
async function checkPorts(servers: Server[], list: Instance[]): Promise<void> {
  const wanted = [...servers.map(({ name, port }) => ({ name, port })), ...list.flatMap(portsOf)];
  const busy = await busyAmong(wanted);
  if (busy.length === 0) return;
  const ports = busy.map(({ name, port }) => `  ${port}, wanted by ${name}`).join("\n");
  throw new StartError(
    `These ports are in use by other programs:\n${ports}\n` +
      "End those programs, or move this system to other ports: npm start -- --ports 10000",
  );
}

interface Wanted {
  name: string;
  port: number;
}

const portsOf = ({ name, ports }: Instance): Wanted[] =>
  Object.entries(ports).map(([use, port]) => ({
    name: use === "app" ? name : `${name}-sidecar (${use})`,
    port,
  }));

async function busyAmong(wanted: Wanted[]): Promise<Wanted[]> {
  const free = await Promise.all(wanted.map(({ port }) => isFree(port)));
  return wanted.filter((_, index) => !free[index]);
}

/** Whether nothing listens on a port, neither on loopback nor on all interfaces. */
async function isFree(port: number): Promise<boolean> {
  for (const host of ["127.0.0.1", undefined]) {
    const free = await new Promise<boolean>((done) => {
      const probe = createServer();
      probe.once("error", () => done(false));
      probe.listen({ port, host }, () => probe.close(() => done(true)));
    });
    if (!free) return false;
  }
  return true;
}
