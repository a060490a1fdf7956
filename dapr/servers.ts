/** The servers that a backend needs on this machine, derived from its Dapr components. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { mongodb } from "./mongodb.js";
import { mysql } from "./mysql.js";
import { postgresql } from "./postgresql.js";
import type { Owner, ProcessSpec } from "./processes.js";
import { rabbitmq } from "./rabbitmq.js";
import { redis } from "./redis.js";
import type { Passwords, Resolved } from "./secrets.js";
import type { Component } from "./topology.js";

/** Whom a server lets in: one component, to what is its own. */
export interface Account {
  /** The component's name, or the user's where the component names one. */
  user: string;
  /** Empty: nobody is asked for one. */
  password: string;
  /** The schema or database that it may use, where the kind of server has such. */
  database: string;
  /** The Dapr type of the component, as in `state.redis`. */
  type: string;
  /** The apps that may use the component. */
  scopes: string[];
}

/** Who may do everything at a server. */
export interface Administrator {
  /** The usual name of the kind if not given. */
  user?: string;
  password: string;
}

/** One server to be run. */
export interface Site {
  /** `mysql`; `redis-6390` where it is not the kind's usual port */
  name: string;
  port: number;
  /** Its private data directory; it exists. */
  directory: string;
  accounts: Account[];
  /** Of the server's own administrator. */
  rootPassword: string;
}

/** How a kind of server is recognised in a component and how it is run. A new one adds a file like dapr/redis.ts. */
export interface ServerKind {
  /** Of the process, its log and its directory. */
  name: string;
  /** A component of this type uses such a server. */
  type: RegExp;
  /** The port that the project's components name. */
  port: number;
  /** The metadata items that say where the server is. */
  addressItems: string[];
  /** Reads `host:port` and the account from a component whose secrets are known. */
  read(component: Component): {
    address: string | undefined;
    user: string;
    password: string;
    database: string;
  };
  /** The value of a secret that is more than a password, such as a connection string; undefined: it is the password. */
  secret?(component: Component, item: string, password: string, offset: number): string | undefined;
  /** Where the program is; what the set-up has found is in the environment. */
  command(): string;
  args(site: Site): string[];
  /** Added to ours; undefined takes a variable away. */
  env?(site: Site): Record<string, string | undefined>;
  /** Whom the process belongs to, where the server refuses to be root's. It gets its directory as `spawnFor` says. */
  owner?(): Owner | undefined;
  /** What makes the server end within 2 s; SIGTERM if not given. */
  endSignal?: NodeJS.Signals;
  /**
   * Before each start: makes the data directory where there is none yet, and writes the accounts where the server reads them.
   * Quick when there is nothing to do; what a kill -9 leaves half-made must not be taken for made.
   */
  setUp?(site: Site): Promise<void>;
  /** One quick check whether the server does its work now; dapr/probe.ts helps. */
  ready(site: Site): Promise<boolean>;
  /** After the start, for what can only be told to a running server (accounts). May be called again. */
  prepare?(site: Site): Promise<void>;
}

/** A server process to start before the sidecars. */
export class Server implements Site {
  readonly accounts: Account[] = [];

  constructor(
    private readonly kind: ServerKind,
    readonly name: string,
    readonly port: number,
    readonly directory: string,
    private readonly passwords: Passwords,
  ) {}

  /** Made up when it is first asked for: not every kind has an administrator. */
  get rootPassword(): string {
    return this.passwords.of(`${this.name.toUpperCase().replaceAll("-", "_")}_ROOT_PASSWORD`);
  }

  /** Makes what the server needs to start. */
  async setUp(): Promise<void> {
    mkdirSync(this.directory, { recursive: true });
    await this.kind.setUp?.(this);
  }

  /** How it is started; only after {@link setUp}. */
  spec(): Pick<
    ProcessSpec,
    "name" | "kind" | "command" | "args" | "cwd" | "env" | "owner" | "port" | "ready"
  > {
    const { kind, name, directory, port } = this;
    return {
      ...{ name, kind: "server", command: kind.command(), args: kind.args(this), cwd: directory, port },
      ...{ owner: kind.owner?.(), endSignal: kind.endSignal },
      env: () => kind.env?.(this) ?? {},
      ready: () => kind.ready(this),
    };
  }

  /** Once it is ready: what can only be told to a running server. */
  async prepare(): Promise<void> {
    await this.kind.prepare?.(this);
  }
}

const kinds: ServerKind[] = [redis, mysql, mongodb, postgresql, rabbitmq];

export const kindOf = ({ type }: Component): ServerKind | undefined =>
  kinds.find((kind) => kind.type.test(type));

/** One server per distinct loopback address that the components name, unless it is somebody else's. @param offset as `--ports` */
export function serversFor(
  components: readonly Resolved[],
  data: string,
  passwords: Passwords,
  offset: number,
): Server[] {
  const servers = new Map<number, Server>();
  for (const component of components) {
    const kind = kindOf(component);
    if (kind === undefined || component.isForeign) continue;
    const { address, user, password, database } = kind.read(component);
    const port = Number(/^(?:127\.0\.0\.1|localhost):(\d+)$/.exec(address ?? "")?.[1]);
    if (!port) continue;
    const usual = port - offset === kind.port;
    const name = usual ? kind.name : `${kind.name}-${port - offset}`;
    const server = servers.get(port) ?? new Server(kind, name, port, join(data, name), passwords);
    servers.set(port, server);
    if (password !== "" && !server.accounts.some((known) => known.user === user))
      server.accounts.push({ user, password, database, type: component.type, scopes: component.scopes });
  }
  return [...servers.values()];
}
