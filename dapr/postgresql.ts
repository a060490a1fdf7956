/** PostgreSQL, for state. */
import {
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { firstReply } from "./probe.js";
import { type Owner, runToEnd } from "./processes.js";
import type { Account, Administrator, ServerKind, Site } from "./servers.js";
import { type Component, StartError } from "./topology.js";

const superuser = "postgres";

export const postgresql: ServerKind = {
  name: "postgresql",
  port: 5442,
  type: /\.postgresql$/,
  addressItems: ["connectionString", "host", "port"],
  read({ name, metadata }) {
    const given = { ...connectionOf(metadata.connectionString ?? ""), ...metadata };
    return {
      address: given.host && `${given.host}:${given.port ?? 5432}`,
      user: given.user ?? name,
      password: given.password ?? "",
      database: given.database ?? name,
    };
  },
  command: () => program("postgres"),
  args: ({ port, directory }) => [
    ...["-D", join(reached(directory), "data"), "-c", "listen_addresses=127.0.0.1", "-c", `port=${port}`],
    ...["-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap"], // nothing outside its directory
    ...["-c", "shared_buffers=64MB", "-c", "max_connections=200"],
  ],
  owner,
  endSignal: "SIGINT", // SIGTERM would wait until the last client has gone
  async setUp({ directory, rootPassword }) {
    for (const old of readdirSync(directory).filter((name) => name.startsWith("making-")))
      rmSync(join(directory, old), { recursive: true, force: true, maxRetries: 10 });
    give(directory, owner());
    if (existsSync(join(directory, "data"))) return;
    // Renamed when it is complete, so that a half-made one is never taken for made.
    const making = mkdtempSync(join(directory, "making-"));
    const [password, data] = [join(making, "password"), join(making, "data")];
    writeFileSync(password, rootPassword, { mode: 0o600 });
    mkdirSync(data, { mode: 0o700 });
    give(making, owner());
    await runToEnd(
      program("initdb"),
      [
        ...["-D", join(reached(making), "data"), `--pwfile=${join(reached(making), "password")}`],
        ...["-U", superuser, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"],
      ],
      { cwd: making, owner: owner() },
    );
    renameSync(data, join(directory, "data"));
    rmSync(making, { recursive: true });
  },
  // It asks who logs in for a password (R), once it lets anybody in; before that it says no (E).
  ready: async ({ port }) => (await firstReply(port, hello))?.toString("latin1", 0, 1) === "R",
  prepare,
};

/** What a connection string says: a URL, or `key=value` pairs. */
function connectionOf(text: string): Record<string, string> {
  if (!/^postgres(ql)?:\/\//.test(text)) {
    const { dbname, ...pairs } = Object.fromEntries(
      [...text.matchAll(/(\w+)\s*=\s*(\S+)/g)].map(([, key = "", value = ""]) => [key, value]),
    );
    return dbname === undefined ? pairs : { ...pairs, database: dbname };
  }
  if (!URL.canParse(text)) return {};
  const { hostname, port, username, password, pathname } = new URL(text);
  const all = { host: hostname, port, user: username, password, database: pathname.slice(1) };
  const given = Object.entries(all).filter(([, value]) => value !== "");
  return Object.fromEntries(given.map(([key, value]) => [key, decodeURIComponent(value)]));
}

const program = (name: string) =>
  process.env.POSTGRES_BIN === undefined ? name : join(process.env.POSTGRES_BIN, name);

/** PostgreSQL refuses to run as root: then it is run as its own user, or as nobody. */
function owner(): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = new Map(
    readFileSync("/etc/passwd", "utf8")
      .split("\n")
      .map((line) => line.split(":"))
      .map(([name, , uid, gid]) => [name, { uid: Number(uid), gid: Number(gid) }]),
  );
  const found = users.get("postgres") ?? users.get("_postgres") ?? users.get("nobody");
  if (found === undefined)
    throw new StartError(
      'PostgreSQL does not run as root, and there is no user "postgres" or "nobody" that it could run as: ' +
        "start this as another user.",
    );
  return found;
}

/** The server's path to its directory: its owner may not be let through to it, and has it open instead ({@link file://./processes.ts}). */
const reached = (directory: string) =>
  process.platform === "linux" && owner() !== undefined ? "/proc/self/fd/3" : directory;

/** Makes a directory, and all in it, the owner's; quick if it is already. */
function give(directory: string, to: Owner | undefined): void {
  if (to === undefined || statSync(directory).uid === to.uid) return;
  for (const name of readdirSync(directory, { recursive: true }))
    lchownSync(join(directory, String(name)), to.uid, to.gid);
  chownSync(directory, to.uid, to.gid); // last: who is interrupted here begins again
}

/** A StartupMessage of protocol 3.0. */
const hello = (() => {
  const body = Buffer.from(`\0\x03\0\0user\0${superuser}\0database\0postgres\0\0`, "latin1");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(4 + body.length);
  return Buffer.concat([length, body]);
})();

/** Each database and its one user, who may do anything there and nothing elsewhere. */
async function prepare({ port, accounts, rootPassword }: Site): Promise<void> {
  await prepareAccounts({ host: "127.0.0.1", port, user: superuser, password: rootPassword }, accounts);
}

/** The same at a server that runs already, its own or somebody else's. */
export async function prepareDatabases(
  address: string,
  components: readonly Component[],
  { user = superuser, password }: Administrator,
): Promise<void> {
  const [, host, port] = /^(.+):(\d+)$/.exec(address) ?? [];
  const login = { host: host ?? address, port: Number(port ?? 5432), user, password };
  await prepareAccounts(
    login,
    components.map((component) => postgresql.read(component)),
  );
}

async function prepareAccounts(
  login: { host: string; port: number; user: string; password: string },
  accounts: readonly Pick<Account, "user" | "password" | "database">[],
): Promise<void> {
  const { Client, escapeIdentifier, escapeLiteral } = (await import("pg")).default;
  const client = new Client({ ...login, database: "postgres" });
  await client.connect();
  try {
    const names = async (query: string) =>
      new Set((await client.query<{ name: string }>(query)).rows.map(({ name }) => name));
    const [users, databases] = [
      await names("SELECT rolname AS name FROM pg_roles"),
      await names("SELECT datname AS name FROM pg_database"),
    ];
    const revoke = (database: string) => client.query(`REVOKE ALL ON DATABASE ${database} FROM PUBLIC`);
    for (const database of ["postgres", "template1"]) await revoke(database);
    for (const { user, password, database } of accounts) {
      const [role, own] = [escapeIdentifier(user), escapeIdentifier(database)];
      if (!users.has(user)) await client.query(`CREATE ROLE ${role}`);
      await client.query(`ALTER ROLE ${role} LOGIN PASSWORD ${escapeLiteral(password)}`);
      if (!databases.has(database)) await client.query(`CREATE DATABASE ${own} OWNER ${role}`);
      await revoke(own);
    }
  } finally {
    await client.end();
  }
}
