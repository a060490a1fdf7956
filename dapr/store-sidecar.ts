/** A sidecar without an app, for who needs the stores of a backend as Dapr makes and sees them. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments, stringify } from "yaml";
import { TOKEN_HEADER } from "#kit/token.js";
import { guard, unguard } from "./guard.js";
import { remember } from "./lock.js";
import { Supervised, until } from "./processes.js";
import { root } from "./runner.js";
import { environmentOf, type Resolved } from "./secrets.js";
import { instances, readTopology, StartError, sidecarArgs } from "./topology.js";

/** The configuration of a sidecar that nobody looks for. */
const configuration = {
  apiVersion: "dapr.io/v1alpha1",
  kind: "Configuration",
  metadata: { name: "migration" },
  spec: {
    nameResolution: {
      component: "sqlite",
      version: "v1",
      configuration: { connectionString: ":memory:", cleanupInterval: "0" },
    },
  },
};

/**
 * Starts a sidecar that has opened these components when it resolves. It is nobody's, so they lose their scopes; it serves
 * who shows the token that is answered.
 * @param components as `startServers` answered them; the files are those that it has rendered last
 * @param data the data directory, which is locked by this process
 * @param ports as `--ports`; the sidecar has the ports of the first app's
 * @throws StartError if it can't open all of them
 */
export async function startSidecar(
  components: readonly Resolved[],
  data: string,
  ports: number,
): Promise<{ port: number; token: string; stop(): Promise<void> }> {
  const directory = join(data, "run", "migration");
  const names = components.map(({ name }) => name);
  const resources = writeResources(directory, join(data, "run", "resources"), names);
  const config = join(directory, "config.yaml");
  writeFileSync(config, stringify(configuration));
  const [first] = instances(readTopology(join(root, "dapr", "dapr.yaml")), {}, ports);
  if (first === undefined) throw new Error("a topology has at least one app");
  const instance = { ...first, app: { ...first.app, appID: "migration", enableAppHealthCheck: false } };
  const url = `http://127.0.0.1:${instance.ports.http}/v1.0`;
  const token = randomBytes(24).toString("base64url");
  const sidecar = new Supervised(
    {
      name: "migration-sidecar",
      kind: "sidecar",
      command: process.env.DAPRD ?? "daprd",
      args: sidecarArgs(instance, { resources, config, components: [] }),
      cwd: data,
      env: () => ({
        ...environmentOf(
          "",
          components.map((component) => ({ ...component, scopes: [] })),
        ),
        DAPR_HOST_IP: "127.0.0.1",
        DAPR_API_TOKEN: token,
      }),
      log: join(data, "logs", "migration-sidecar.log"),
      port: instance.ports.http,
      ready: () =>
        fetch(`${url}/healthz/outbound`).then(
          ({ ok }) => ok,
          () => false,
        ),
    },
    ({ pid, spec: { name } }) => remember(data, [...remembered(data), { name, pid }]),
    () => undefined,
  );
  const guarded = {
    async stop() {
      await sidecar.stop(3000);
      unguard(guarded);
      rmSync(directory, { recursive: true, force: true });
    },
    pids: () => (sidecar.pid === undefined ? [] : [sidecar.pid]),
  };
  guard(guarded);
  try {
    sidecar.start();
    const isOver = async () => sidecar.failedStarts > 0 || (await sidecar.ready());
    const isReady = (await until(isOver, 30_000)) && sidecar.failedStarts === 0;
    // One whose secret store is missing is left out without an error.
    const missing = isReady ? await notLoaded(url, token, names) : names;
    if (missing.length > 0)
      throw new StartError(
        `A sidecar could not open ${missing.join(", ")}. The end of its log, ${sidecar.spec.log}:\n${sidecar.lastLines()}`,
      );
  } catch (error) {
    await guarded.stop();
    throw error;
  }
  return { port: instance.ports.http, token, stop: guarded.stop };
}

/** Copies the files of some components, and of all secret stores. */
function writeResources(directory: string, rendered: string, names: readonly string[]): string {
  const resources = join(directory, "resources");
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(resources, { recursive: true });
  const documents = readdirSync(rendered)
    .flatMap((file) => parseAllDocuments(readFileSync(join(rendered, file), "utf8")))
    .map((document) => document.toJS() as { metadata?: { name: string }; spec?: { type?: string } } | null)
    .filter((document) => document !== null)
    .filter(
      ({ metadata, spec }) => spec?.type?.startsWith("secretstores.") || names.includes(metadata?.name ?? ""),
    );
  const texts = documents.map((document) => stringify({ ...document, scopes: undefined }));
  writeFileSync(join(resources, "components.yaml"), texts.join("---\n"));
  return resources;
}

async function notLoaded(url: string, token: string, names: readonly string[]): Promise<string[]> {
  const answer = await fetch(`${url}/metadata`, { headers: { [TOKEN_HEADER]: token } });
  const { components = [] } = (await answer.json()) as { components?: { name: string }[] };
  return names.filter((name) => !components.some((one) => one.name === name));
}

/** The servers, which the next start ends if this process is killed: the sidecar is to be among them. */
function remembered(data: string): { name: string; pid: number }[] {
  const file = join(data, "run", "pids.json");
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : [];
}
