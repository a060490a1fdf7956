/**
 * Reads a topology in Dapr's Multi-App Run format, and turns it into what one run needs: instances with their ports,
 * and copies of the Dapr resources with shifted ports. The files in the repository stay as they are.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";

/** A mistake of the person who started the system: shown as it is, without a stack. */
export class StartError extends Error {
  override name = "StartError";
}

/** The settings that `common` may hold for all apps, and an app for itself. Unknown ones are refused, not ignored. */
const sharedFields = {
  resourcesPaths: z.array(z.string()).optional(),
  configFilePath: z.string().optional(),
  appProtocol: z.string().optional(),
  enableAppHealthCheck: z.boolean().optional(),
  appHealthCheckPath: z.string().optional(),
  appHealthProbeInterval: z.number().optional(),
  appHealthProbeTimeout: z.number().optional(),
  appHealthThreshold: z.number().optional(),
  appMaxConcurrency: z.number().optional(),
  maxBodySize: z.string().optional(),
  readBufferSize: z.string().optional(),
  logLevel: z.string().optional(),
  env: z.record(z.string(), z.coerce.string()).optional(),
  // Where the CLI writes logs; the runner always writes them to files.
  appLogDestination: z.string().optional(),
  daprdLogDestination: z.string().optional(),
};
const port = z.number().int().min(1).max(65535);
const appSchema = z.strictObject({
  ...sharedFields,
  appID: z.string(),
  appDirPath: z.string(),
  appPort: port,
  daprHTTPPort: port,
  daprGRPCPort: port,
  daprInternalGRPCPort: port,
  metricsPort: port,
  command: z.array(z.string()).min(1),
});
const topologySchema = z.strictObject({
  version: z.literal(1),
  common: z.strictObject(sharedFields).default({}),
  apps: z.array(appSchema).min(1),
});

/** An app of the topology, with the `common` settings merged in and its directory made absolute. */
export type App = z.infer<typeof appSchema>;

export interface Topology {
  apps: App[];
  /** Absolute paths of Dapr resources, in layers: of two files with one name in a list, the later one counts. */
  resources: string[][];
  /** The absolute path of the Dapr Configuration. */
  config: string | undefined;
}

/** The ports of one replica: the app's own and those of its sidecar. */
export interface Ports {
  app: number;
  http: number;
  grpc: number;
  internal: number;
  metrics: number;
}

/** One replica of an app, with its sidecar. */
export interface Instance {
  app: App;
  replica: number;
  /** `order-0`; its sidecar is `order-0-sidecar`. */
  name: string;
  ports: Ports;
}

/** Replica k listens 100*k above the ports in the file: the blocks 35nn, 45nn … then stay apart. */
const replicaStep = 100;
export const maxReplicas = 10;
/** From 32768 on the kernel hands ports out to clients, so that a listener may find its port taken at any time. */
export const highestPort = 32767;

/**
 * Reads the file.
 * @param backend directories, or single files, that take the place of the resources directory that lies under components/
 */
export function readTopology(file: string, backend: string[] = []): Topology {
  const parsed = topologySchema.safeParse(parse(readFileSync(file, "utf8")));
  if (!parsed.success) throw new StartError(`${file}: ${z.prettifyError(parsed.error)}`);
  const { common, apps } = parsed.data;
  const here = dirname(file);
  const resources = (common.resourcesPaths ?? []).map((path) => {
    const directory = resolve(here, path);
    return backend.length > 0 && basename(dirname(directory)) === "components" ? backend : [directory];
  });
  const own = apps.find((app) => app.resourcesPaths || app.configFilePath);
  if (own) throw new StartError(`${file}: ${own.appID}: resources and config belong under "common"`);
  return {
    apps: apps.map((app) => ({
      ...common,
      ...app,
      env: { ...common.env, ...app.env },
      appDirPath: resolve(here, app.appDirPath),
    })),
    resources,
    config: common.configFilePath && resolve(here, common.configFilePath),
  };
}

/** Reads `order=3,delivery=2`. @throws Error, with a sentence for people */
export function readCounts(lists: readonly string[]): Record<string, number> {
  const counts = lists
    .flatMap((list) => list.split(","))
    .map((item) => {
      const [, app, count] = /^([\w-]+)=(\d+)$/.exec(item.trim()) ?? [];
      if (!app) throw new Error(`"${item}" is not of the form order=3`);
      return [app, Number(count)] as const;
    });
  return Object.fromEntries(counts);
}

/** Where replica number `replica` of an app runs. */
export function place(app: App, replica: number, offset: number): Instance {
  const shift = offset + replica * replicaStep;
  return {
    app,
    replica,
    name: `${app.appID}-${replica}`,
    ports: {
      app: app.appPort + shift,
      http: app.daprHTTPPort + shift,
      grpc: app.daprGRPCPort + shift,
      internal: app.daprInternalGRPCPort + shift,
      metrics: app.metricsPort + shift,
    },
  };
}

/** The instances to start: each app once, or as often as `replicas` says, all ports shifted by `offset`. */
export function instances(topology: Topology, replicas: Record<string, number>, offset: number): Instance[] {
  const known = topology.apps.map((app) => app.appID);
  for (const [app, count] of Object.entries(replicas)) {
    if (!known.includes(app))
      throw new StartError(`replicas: no service "${app}"; there are ${known.join(", ")}`);
    if (!Number.isInteger(count) || count < 1 || count > maxReplicas)
      throw new StartError(`replicas: ${app}=${count} is not a number from 1 to ${maxReplicas}`);
    if (app === "gateway" && count > 1)
      throw new StartError(
        "replicas: the gateway is the one address that clients know, so it runs once here",
      );
  }
  const list = topology.apps.flatMap((app) =>
    Array.from({ length: replicas[app.appID] ?? 1 }, (_, replica) => place(app, replica, offset)),
  );
  const highest = Math.max(...list.flatMap((instance) => Object.values(instance.ports)));
  if (offset < 0 || !Number.isInteger(offset) || highest > highestPort)
    throw new StartError(
      `--ports ${offset} is out of range: a whole number from 0 to ${highestPort - highest + offset}`,
    );
  return list;
}

/** A Dapr component, as far as the runner and the tools that open a backend directly look at it. */
export interface Component {
  name: string;
  type: string;
  /** What the file says; and, once the secrets are known ({@link file://./secrets.ts}), those under their names too. */
  metadata: Record<string, string>;
  /** By the name of the metadata item: the environment variable that holds its value (secretstores.local.env). */
  secrets: Record<string, string>;
  /** The secret store that they come from. */
  secretStore: string | undefined;
  /** The apps that may use it; all of them if there are none. */
  scopes: string[];
}

const componentSchema = z.object({
  kind: z.literal("Component"),
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    type: z.string(),
    metadata: z
      .array(
        z.object({
          name: z.string(),
          value: z.coerce.string().optional(),
          secretKeyRef: z.object({ name: z.string(), key: z.string() }).optional(),
        }),
      )
      .default([]),
  }),
  auth: z.object({ secretStore: z.string() }).optional(),
  scopes: z.array(z.string()).default([]),
});

/** What a document says, if it is a component. */
export function asComponent(document: unknown): Component | undefined {
  const { success, data } = componentSchema.safeParse(document);
  if (!success) return undefined;
  const metadata: Component["metadata"] = {};
  const secrets: Component["secrets"] = {};
  for (const { name, value, secretKeyRef } of data.spec.metadata) {
    if (secretKeyRef === undefined) metadata[name] = value ?? "";
    else secrets[name] = secretKeyRef.key;
  }
  const { scopes, auth } = data;
  return {
    name: data.metadata.name,
    type: data.spec.type,
    metadata,
    secrets,
    secretStore: auth?.secretStore,
    scopes,
  };
}

/** Moves every loopback host:port pair in a text by `offset`. */
export const shiftPorts = (text: string, offset: number): string =>
  text.replace(/\b(127\.0\.0\.1|localhost):(\d+)/g, (_, host, port) => `${host}:${Number(port) + offset}`);

/** Dapr resources as rendered for one run. */
export interface Rendered {
  resources: string;
  config: string | undefined;
  components: Component[];
}

/** Writes copies of all Dapr resources of the topology into `target`, ports shifted. */
export function render(topology: Topology, target: string, offset: number): Rendered {
  const resources = join(target, "resources");
  rmSync(resources, { recursive: true, force: true });
  mkdirSync(resources, { recursive: true });
  const components: Component[] = [];
  for (const [file, path] of topology.resources.flatMap((layers) => [...filesOf(layers)])) {
    const text = shiftPorts(readFileSync(path, "utf8"), offset);
    const documents = parseAllDocuments(text).map((document) => document.toJS() as { kind?: string } | null);
    // The directory of resiliency.yaml also holds the topology and the configuration, which are no resources.
    if (!documents.some((document) => document?.kind && document.kind !== "Configuration")) continue;
    const copy = join(resources, file);
    if (existsSync(copy)) throw new StartError(`two Dapr resource files are called ${file}`);
    writeFileSync(copy, text);
    for (const document of documents) {
      const component = asComponent(document);
      if (component !== undefined) components.push(component);
    }
  }
  checkNames(components);
  if (!topology.config) return { resources, config: undefined, components };
  const config = join(target, "config.yaml");
  writeFileSync(config, shiftPorts(readFileSync(topology.config, "utf8"), offset));
  return { resources, config, components };
}

/** The YAML files of some layers, by name: what a later layer brings takes the place of an earlier layer's. */
function filesOf(layers: string[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const layer of layers) {
    if (!existsSync(layer)) throw new StartError(`no such Dapr components: ${layer}`);
    if (statSync(layer).isFile()) files.set(basename(layer), layer);
    else
      for (const file of readdirSync(layer).filter((name) => /\.ya?ml$/.test(name)))
        files.set(file, join(layer, file));
  }
  return files;
}

function checkNames(components: Component[]): void {
  const names = components.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw new StartError(
      `two components are called ${twice}: a file replaces another one only if both have the same name, ${twice}.yaml`,
    );
}

/** The command line of a sidecar. Flags with values come first: `dapr list` reads them in pairs. */
export function sidecarArgs({ app, ports }: Instance, { resources, config }: Rendered): string[] {
  const optional = (flag: string, value: string | number | undefined) =>
    value === undefined ? [] : [flag, String(value)];
  return [
    ...["--app-id", app.appID, "--app-port", String(ports.app), "--app-channel-address", "127.0.0.1"],
    ...["--dapr-http-port", String(ports.http), "--dapr-grpc-port", String(ports.grpc)],
    ...["--dapr-internal-grpc-port", String(ports.internal), "--metrics-port", String(ports.metrics)],
    ...["--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1"],
    ...["--metrics-listen-address", "127.0.0.1", "--dapr-graceful-shutdown-seconds", "3"],
    // After SIGTERM it takes no more messages, is not found any more, and serves its app so long. More than kit's DRAIN.most.
    ...["--dapr-block-shutdown-duration", "7s"],
    ...["--resources-path", resources, ...optional("--config", config)],
    ...optional("--app-protocol", app.appProtocol),
    ...optional("--app-max-concurrency", app.appMaxConcurrency),
    ...optional("--app-health-check-path", app.appHealthCheckPath),
    ...optional("--app-health-probe-interval", app.appHealthProbeInterval),
    ...optional("--app-health-probe-timeout", app.appHealthProbeTimeout),
    ...optional("--app-health-threshold", app.appHealthThreshold),
    ...optional("--max-body-size", app.maxBodySize),
    ...optional("--read-buffer-size", app.readBufferSize),
    ...optional("--log-level", app.logLevel),
    ...(app.enableAppHealthCheck ? ["--enable-app-health-check"] : []),
  ];
}
