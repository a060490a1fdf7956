/** MariaDB or MySQL, for state. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { firstReply } from "./probe.js";
import { pathOf, runToEnd } from "./processes.js";
import type { Account, Administrator, ServerKind } from "./servers.js";
import { type Component, StartError } from "./topology.js";

/** `user:password@tcp(host:port)/…`, as state.mysql wants it. */
const dsn = /^([^:]+):(.*)@tcp\(([^)]+)\)\//;
const usualPort = 3316;

export const mysql: ServerKind = {
  name: "mysql",
  port: usualPort,
  type: /\.mysql$/,
  addressItems: ["connectionString"],
  read({ name, metadata }) {
    const [, user = "", password = "", address] = dsn.exec(metadata.connectionString ?? "") ?? [];
    return { address, user, password, database: metadata.schemaName ?? name };
  },
  secret: ({ name }, item, password, offset) =>
    item === "connectionString" ? `${name}:${password}@tcp(127.0.0.1:${usualPort + offset})/` : undefined,
  command,
  args: ({ port, directory }) => [
    ...[
      "--no-defaults",
      `--datadir=${join(directory, "data")}`,
      `--tmpdir=${join(directory, "tmp")}`,
      ...asRoot(),
    ],
    ...["--bind-address=127.0.0.1", `--port=${port}`],
    "--socket=", // none: its path would have to be short
    "--loose-mysqlx=OFF", // MySQL's second protocol would listen on every interface
    `--pid-file=${join(directory, "pid")}`,
    `--secure-file-priv=${join(directory, "tmp")}`,
    `--init-file=${accountsFile(directory)}`,
    "--skip-name-resolve",
    // Keys are told apart by case, as in every other store.
    ...["--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin"],
    // An acknowledged write is on the disk. No replica, so no binary log.
    ...["--innodb-flush-log-at-trx-commit=1", "--skip-log-bin"],
    ...["--innodb-buffer-pool-size=64M", "--performance-schema=OFF", "--max-connections=500"],
  ],
  async setUp({ directory, accounts, rootPassword }) {
    for (const old of readdirSync(directory).filter((name) => name.startsWith("making-")))
      rmSync(join(directory, old), { recursive: true, force: true, maxRetries: 10 });
    mkdirSync(join(directory, "tmp"), { recursive: true });
    writeFileSync(accountsFile(directory), accountsSql(accounts, rootPassword), { mode: 0o600 });
    if (existsSync(join(directory, "data"))) return;
    // Renamed when it is complete, so that a half-made one is never taken for made.
    const making = mkdtempSync(join(directory, "making-"));
    const version = await runToEnd(command(), ["--no-defaults", "--version"], { cwd: directory });
    const { args, input } = initialisation(version, making, () => systemTables(command()));
    await runToEnd(command(), args, { cwd: directory, input });
    renameSync(making, join(directory, "data"));
  },
  // It greets a client first, once it has read the accounts: a packet of protocol version 10.
  ready: async ({ port }) => (await firstReply(port))?.[4] === 10,
};

function command(): string {
  return process.env.MYSQL_SERVER ?? "mariadbd";
}

/** Both refuse to be root's process unless told so. */
const asRoot = () => (process.getuid?.() === 0 ? ["--user=root"] : []);

const accountsFile = (directory: string) => join(directory, "accounts.sql");

/**
 * How a data directory is made that knows nobody but root without a password, which the first start gives one.
 * @param version what the server's --version says
 * @param tables reads MariaDB's own SQL
 */
export function initialisation(
  version: string,
  directory: string,
  tables: () => string,
): { args: string[]; input: string } {
  const common = ["--no-defaults", `--datadir=${directory}`, ...asRoot()];
  if (!version.includes("MariaDB")) return { args: [...common, "--initialize-insecure"], input: "" };
  // What mariadb-install-db does, without its help texts and its anonymous user; that script needs programs of the client.
  return { args: [...common, "--bootstrap"], input: `CREATE DATABASE mysql;\nUSE mysql;\n${tables()}` };
}

/** MariaDB's definition of its system tables, from the files that come with the server. */
function systemTables(program: string): string {
  const share = join(dirname(pathOf(program)), "..", "share");
  const directories = ["mysql", "mariadb", "."].map((name) => join(share, name));
  for (const prefix of ["mysql", "mariadb"])
    for (const directory of directories) {
      const files = ["system_tables", "performance_tables"].map((name) =>
        join(directory, `${prefix}_${name}.sql`),
      );
      if (files.every((file) => existsSync(file)))
        return files.map((file) => readFileSync(file, "utf8")).join("\n");
    }
  throw new StartError(
    `${program} comes without mariadb_system_tables.sql (looked in ${directories.join(", ")}): ` +
      "install MariaDB's server completely, or let MYSQL_SERVER name another mariadbd or mysqld.",
  );
}

/** Run at every start, one statement per line: each schema and its one user, who may do anything there and nothing elsewhere. */
export function accountsSql(accounts: readonly Account[], rootPassword: string): string {
  const user = (name: string, host: string, password: string) => [
    `CREATE USER IF NOT EXISTS ${text(name)}@'${host}' IDENTIFIED BY ${text(password)}`,
    `ALTER USER ${text(name)}@'${host}' IDENTIFIED BY ${text(password)}`,
  ];
  const statements = [
    ...["localhost", "127.0.0.1"].flatMap((host) => [
      ...user("root", host, rootPassword),
      `GRANT ALL PRIVILEGES ON *.* TO 'root'@'${host}' WITH GRANT OPTION`,
    ]),
    ...accounts.flatMap(({ user: name, password, database }) => [
      `CREATE SCHEMA IF NOT EXISTS ${identifier(database)} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
      ...user(name, "127.0.0.1", password),
      `GRANT ALL PRIVILEGES ON ${inGrant(database)}.* TO ${text(name)}@'127.0.0.1'`,
    ]),
  ];
  return statements.map((statement) => `${statement};\n`).join("");
}

/**
 * At a server that runs already, its own or somebody else's: each component's schema, its tables and then its user, who may come
 * from anywhere. The tables are those that state.mysql makes (state/mysql/mysql.go of dapr/components-contrib 1.18); sidecars that
 * start at the same time would make them at the same time, and fail.
 */
export async function prepareSchemas(
  address: string,
  components: readonly Component[],
  { user = "root", password }: Administrator,
): Promise<void> {
  const { createConnection } = await import("mysql2/promise");
  const [, host, port] = /^(.+):(\d+)$/.exec(address) ?? [];
  const db = await createConnection({ host: host ?? address, port: Number(port ?? 3306), user, password });
  db.on("error", () => undefined); // the call that fails says it
  try {
    for (const component of components) {
      const account = mysql.read(component);
      const [schema, name] = [identifier(account.database), `${text(account.user)}@'%'`];
      const [table, about] = [
        component.metadata.tableName ?? "state",
        component.metadata.metadataTableName ?? "dapr_metadata",
      ].map((one) => `${schema}.${identifier(one)}`);
      await db.query(`CREATE SCHEMA IF NOT EXISTS ${schema} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`);
      await db.query(`CREATE TABLE IF NOT EXISTS ${table} (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL,
        isbinary BOOLEAN NOT NULL, insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
        updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        eTag VARCHAR(36) NOT NULL, expiredate TIMESTAMP NULL, INDEX expiredate_idx(expiredate))`);
      await db.query(
        `CREATE TABLE IF NOT EXISTS ${about} (id VARCHAR(255) NOT NULL PRIMARY KEY, value TEXT NOT NULL)`,
      );
      const secret = text(account.password);
      await db.query(`CREATE USER IF NOT EXISTS ${name} IDENTIFIED BY ${secret}`);
      await db.query(`ALTER USER ${name} IDENTIFIED BY ${secret}`);
      await db.query(`GRANT ALL PRIVILEGES ON ${inGrant(account.database)}.* TO ${name}`);
    }
  } finally {
    await db.end();
  }
}

/** In a GRANT, _ and % stand for any characters. */
const inGrant = (database: string) => identifier(database.replace(/[_%]/g, "\\$&"));
const text = (value: string) => `'${value.replace(/[\\']/g, "\\$&")}'`;
const identifier = (name: string) => `\`${name.replaceAll("`", "``")}\``;
