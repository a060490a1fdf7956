/**
 * The secrets of a backend on this machine. A component names them (`secretKeyRef`), its sidecar reads them from its
 * environment (secretstores.local.env). Who sets such a variable before `npm start` brings a server of their own; the
 * others are made up here once, for servers that the runner starts, and kept in the data directory.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { kindOf } from "./servers.js";
import { type Component, StartError } from "./topology.js";

/** A component with its secrets. */
export interface Resolved extends Component {
  /** What its sidecar needs in its environment. */
  env: Record<string, string>;
  /** Whether an address in it came from the environment: then the server is somebody else's to run. */
  isForeign: boolean;
}

const fileSchema = z.record(z.string(), z.string());

/** The passwords of one data directory; those that are missing are made up and kept. */
export class Passwords {
  readonly #file: string;
  readonly #known: Record<string, string>;

  /** @throws StartError if the file is there and cannot be understood: a new one would lock us out of our own data */
  constructor(data: string) {
    this.#file = join(data, "secrets.json");
    try {
      this.#known = existsSync(this.#file)
        ? fileSchema.parse(JSON.parse(readFileSync(this.#file, "utf8")))
        : {};
    } catch (error) {
      throw new StartError(
        `${this.#file} holds the passwords of the servers in this data directory, and cannot be read: ${(error as Error).message}`,
      );
    }
  }

  of(name: string): string {
    const known = this.#known[name];
    if (known !== undefined) return known;
    // Letters, digits, - and _ only: Dapr's MySQL component splits its connection string at every "/".
    const made = randomBytes(24).toString("base64url");
    this.#known[name] = made;
    const unfinished = `${this.#file}.${process.pid}`;
    writeFileSync(unfinished, `${JSON.stringify(this.#known, null, 2)}\n`, { mode: 0o600 });
    renameSync(unfinished, this.#file);
    return made;
  }
}

/** Looks up, or makes up, what the components leave to the environment. @param offset as `--ports` */
export function resolve(components: Component[], passwords: Passwords, offset: number): Resolved[] {
  return components.map((component) => {
    const kind = kindOf(component);
    const resolved: Resolved = {
      ...component,
      metadata: { ...component.metadata },
      env: {},
      isForeign: false,
    };
    for (const [item, variable] of Object.entries(component.secrets)) {
      const given = process.env[variable];
      const made = () => kind?.secret?.(component, item, passwords.of(variable), offset);
      const value = given ?? made() ?? passwords.of(variable);
      resolved.metadata[item] = value;
      resolved.env[variable] = value;
      if (given !== undefined && kind?.addressItems.includes(item)) resolved.isForeign = true;
    }
    return resolved;
  });
}

/** The environment of an app's sidecar: the secrets of the components that it may use, and no others. */
export const environmentOf = (app: string, components: readonly Resolved[]): Record<string, string> =>
  Object.assign(
    {},
    ...components.filter(({ scopes }) => scopes.length === 0 || scopes.includes(app)).map(({ env }) => env),
  );
