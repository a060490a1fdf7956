/**
 * Prepares the servers of a backend where no runner does it: on Kubernetes, as a job before the sidecars begin. Makes the
 * schema, the user and the table of each component, on servers whose administrator it knows; with --wait it only waits until a
 * component's user finds its store, as the pods of the services do.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { command } from "./command.js";
import { prepareReplicaSet } from "./mongodb.js";
import { prepareSchemas } from "./mysql.js";
import { prepareDatabases } from "./postgresql.js";
import { type Administrator, kindOf } from "./servers.js";
import { openStore } from "./stores.js";
import { asComponent, type Component, StartError } from "./topology.js";

const usage = `Usage: node dist/dapr/prepare.js [--wait SECONDS]

  --wait SECONDS   only wait, so long at most, until each store can be used by its component

Environment:
  COMPONENTS               {"components": […]}: Dapr components, as JSON or YAML
  the keys that their secretKeyRefs name, such as ORDERS_MYSQL
  MYSQL_ROOT_PASSWORD, MONGODB_ROOT_PASSWORD, POSTGRESQL_ROOT_PASSWORD
                           of the administrators; servers without one are left as they are
  MYSQL_ROOT_USER, MONGODB_ROOT_USER, POSTGRESQL_ROOT_USER
                           their names, if they are not root, root and postgres`;

/** How long a server may take until it answers, in ms. */
const PATIENCE = 600_000;

type Prepare = (address: string, components: Component[], administrator: Administrator) => Promise<void>;

/** How each kind of server is told of its components. What is there already is kept, and passwords are set anew. */
const preparing: Record<string, Prepare> = {
  mysql: prepareSchemas,
  mongodb: prepareReplicaSet,
  postgresql: prepareDatabases,
};

/** Reads the components, and their secrets from the environment. @throws StartError */
export function readComponents(env: NodeJS.ProcessEnv): Component[] {
  const { components } = parse(env.COMPONENTS ?? "{}") as { components?: unknown[] };
  if (!Array.isArray(components)) throw new StartError(`COMPONENTS is not set\n\n${usage}`);
  return components.map((document) => {
    const component = asComponent(document);
    if (component === undefined) throw new StartError("COMPONENTS holds what is no Dapr component");
    for (const [item, key] of Object.entries(component.secrets)) {
      const value = env[key];
      if (value === undefined) throw new StartError(`${component.name} wants ${key}, which is not set`);
      component.metadata[item] = value;
    }
    return component;
  });
}

/** The servers that can be prepared, each with the components that it is to let in. */
export function componentsByServer(
  components: readonly Component[],
): { kind: string; address: string; components: Component[] }[] {
  const servers = new Map<string, { kind: string; address: string; components: Component[] }>();
  for (const component of components) {
    const kind = kindOf(component);
    const address = kind?.read(component).address;
    if (kind === undefined || address === undefined || preparing[kind.name] === undefined) continue;
    const server = servers.get(address) ?? { kind: kind.name, address, components: [] };
    servers.set(address, server);
    server.components.push(component);
  }
  return [...servers.values()];
}

/** Tries until it succeeds, and says every few seconds why it does not. @throws what the last try threw */
export async function patiently(what: string, withinMs: number, work: () => Promise<void>): Promise<void> {
  const end = Date.now() + withinMs;
  for (let said = 0; ; await delay(500)) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > end) throw error;
      if (Date.now() - said < 5_000) continue;
      said = Date.now();
      console.log(`waiting for ${what}: ${(error as Error).message || error}`);
    }
  }
}

async function prepareAll(components: readonly Component[], env: NodeJS.ProcessEnv): Promise<void> {
  for (const { kind, address, components: own } of componentsByServer(components)) {
    const prepare = preparing[kind];
    const [user, password] = ["USER", "PASSWORD"].map((word) => env[`${kind.toUpperCase()}_ROOT_${word}`]);
    const names = own.map(({ name }) => name).join(", ");
    if (!prepare || !password) {
      console.log(`${kind} at ${address} is left as it is, for its administrator is not known: ${names}`);
      continue;
    }
    await patiently(`${kind} at ${address}`, PATIENCE, () =>
      prepare(address, own, { ...(user ? { user } : {}), password }),
    );
    console.log(`${kind} at ${address} is ready for ${names}`);
  }
}

/** Before the first use there is no table where the sidecar makes it itself: MySQL and PostgreSQL say so by these codes. */
const NO_SUCH_TABLE = ["ER_NO_SUCH_TABLE", "42P01"];

async function wait(components: readonly Component[], withinMs: number): Promise<void> {
  for (const component of components.filter(({ type }) => type.startsWith("state."))) {
    const look = async () => {
      const store = await openStore(component, "/data");
      try {
        await store.get(["anything"]);
      } catch (error) {
        if (!NO_SUCH_TABLE.includes((error as { code?: string }).code ?? "")) throw error;
      } finally {
        await store.close();
      }
    };
    try {
      await patiently(component.name, withinMs, look);
      console.log(`${component.name} is there`);
    } catch (error) {
      console.log(`${component.name}: ${(error as Error).message}; its sidecar may find out itself`);
    }
  }
}

if (process.argv[1]?.endsWith("/prepare.js"))
  await command(
    usage,
    (args) => {
      const { values } = parseArgs({
        args,
        options: { wait: { type: "string" }, help: { type: "boolean", default: false } },
      });
      if (values.help) return "help";
      const seconds = values.wait === undefined ? undefined : Number(values.wait);
      if (seconds !== undefined && !(seconds >= 0)) throw new Error(`--wait: "${values.wait}" is no number`);
      return { seconds };
    },
    async ({ seconds }) => {
      const components = readComponents(process.env);
      if (seconds === undefined) await prepareAll(components, process.env);
      else await wait(components, seconds * 1_000);
    },
  );
