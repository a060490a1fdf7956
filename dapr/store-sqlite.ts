/** Records of a state.sqlite component. Its table: state/sqlite/sqlite_migrations.go of dapr/components-contrib. */
import { existsSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import sqlite from "node-sqlite3-wasm";
import {
  BATCH,
  byKey,
  identifier,
  type Opened,
  pages,
  type Row,
  recordsOf,
  type StateStore,
  textOf,
  wholeSeconds,
} from "./stores.js";
import { StartError } from "./topology.js";

const columns = "key, value, is_binary AS isBinary, unixepoch(expiration_time) AS expires";

/** @throws StartError if the file cannot be found from the connection string */
export async function openSqlite({ component, prefix, data }: Opened): Promise<StateStore> {
  const { connectionString = "" } = component.metadata;
  const path = connectionString.replace(/^file:/, "").replace(/\?.*$/s, "");
  if (path === "" || path === ":memory:")
    throw new StartError(`${component.name}: "${connectionString}" names no file to move records from or to`);
  const file = resolve(data, path);
  const table = identifier(component, "tableName", "state");
  let opened: sqlite.Database | undefined;

  /** Undefined where there is no table yet. */
  const database = (): sqlite.Database | undefined => {
    if (opened !== undefined) return opened;
    if (!existsSync(file)) return undefined;
    // This driver locks a file by a directory beside it; nobody is left who could hold it, once the data directory is ours.
    rmSync(`${file}.lock`, { recursive: true, force: true });
    const db = new sqlite.Database(file, { fileMustExist: true });
    // The sidecar keeps the file in WAL mode. This driver has no shared memory for that, and needs none if nobody else may
    // open the file meanwhile; what only the WAL holds, after a kill -9, it reads as well.
    db.exec("PRAGMA locking_mode = EXCLUSIVE");
    db.exec("PRAGMA synchronous = FULL");
    if (db.get("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [table]) === null) {
      db.close();
      return undefined;
    }
    opened = db;
    return db;
  };
  const existing = (): sqlite.Database => {
    const db = database();
    if (db === undefined) throw new StartError(`${component.name}: ${file} has no table ${table}`);
    return db;
  };
  const select = (condition: string, values: sqlite.JSValue[]): Row[] => {
    const rows = database()?.all(`SELECT ${columns} FROM ${table} WHERE ${condition}`, values) ?? [];
    return rows.map((row) => asRow(row as Record<string, sqlite.SQLiteValue>));
  };
  const ours = "substr(key, 1, ?) = ?";
  const mine = [prefix.length, prefix];

  return {
    place: `${file} ${table} ${prefix}`,
    read: (after) =>
      pages(
        async (last) => select(`key > ? AND ${ours} ORDER BY key LIMIT ${BATCH}`, [last, ...mine]),
        prefix,
        after,
      ),
    async get(keys) {
      const marks = keys.map(() => "?").join(", ");
      return byKey(
        recordsOf(
          select(
            `key IN (${marks})`,
            keys.map((key) => prefix + key),
          ),
          prefix,
        ),
      );
    },
    async write(records) {
      const db = existing();
      db.exec("BEGIN IMMEDIATE");
      const insert = db.prepare(
        `INSERT OR REPLACE INTO ${table} (key, value, is_binary, etag, update_time, expiration_time)
         VALUES (?, ?, 0, ?, CURRENT_TIMESTAMP, datetime(?, 'unixepoch'))`,
      );
      try {
        for (const { key, value, expires } of records)
          insert.run([
            prefix + key,
            value,
            crypto.randomUUID(),
            expires === undefined ? null : wholeSeconds(expires),
          ]);
        insert.finalize();
        db.exec("COMMIT");
      } catch (error) {
        if (!insert.isFinalized) insert.finalize();
        if (db.inTransaction) db.exec("ROLLBACK");
        throw error;
      }
    },
    async count() {
      const row = database()?.get(`SELECT count(*) AS n FROM ${table} WHERE ${ours}`, mine);
      return Number((row as { n: number } | undefined)?.n ?? 0);
    },
    async clear() {
      existing().run(`DELETE FROM ${table} WHERE ${ours}`, mine);
    },
    async close() {
      opened?.close();
      opened = undefined;
    },
  };
}

function asRow({ key, value, isBinary, expires }: Record<string, sqlite.SQLiteValue>): Row {
  const name = String(key);
  const text = String(value);
  return {
    key: name,
    value: isBinary ? textOf(text, name) : text,
    expires: expires === null ? undefined : Number(expires) * 1000,
  };
}
