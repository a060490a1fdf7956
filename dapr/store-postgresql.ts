/** Records of a state.postgresql component, version v2. Its table: state/postgresql/v2/postgresql.go of dapr/components-contrib. */
import pg from "pg";
import { kindOf } from "./servers.js";
import {
  BATCH,
  byKey,
  type Opened,
  pages,
  portions,
  type Row,
  recordsOf,
  type StateStore,
} from "./stores.js";
import { StartError } from "./topology.js";

const columns = `key, convert_from(value, 'UTF8') AS value, floor(extract(epoch FROM expires_at) * 1000) AS expires`;
const NO_SUCH_TABLE = "42P01";

/** Connects. @throws StartError if the connection string is not understood, or the table is not that of version v2 */
export async function openPostgresql({ component, prefix }: Opened): Promise<StateStore> {
  const { address, user, password, database } = kindOf(component)?.read(component) ?? {};
  const [, host, port] = /^(.+?)(?::(\d+))?$/.exec(address ?? "") ?? [];
  if (host === undefined)
    throw new StartError(
      `${component.name}: its connectionString is not like postgres://USER@HOST:PORT/DATABASE`,
    );
  const table = `${component.metadata.tablePrefix ?? ""}state`;
  if (!/^[\w.]+$/.test(table)) throw new StartError(`${component.name}: "${table}" is no name of a table`);
  const db = new pg.Client({ ...{ host, port: Number(port ?? 5432), user, password, database } });
  db.on("error", () => undefined); // the call that fails says it
  await db.connect();
  const {
    rows: [column],
  } = await db.query(
    "SELECT format_type(atttypid, NULL) AS type FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'value'",
    [table],
  );
  if (column !== undefined && column.type !== "bytea") {
    await db.end();
    throw new StartError(
      `${component.name}: its table is that of state.postgresql v1; only v2 is known here.`,
    );
  }
  const select = async (condition: string, values: unknown[]): Promise<Row[]> => {
    const { rows } = await db.query(`SELECT ${columns} FROM ${table} WHERE ${condition}`, values);
    return rows.map(asRow);
  };
  const ours = "starts_with(key, $1)";

  return {
    place: `postgresql ${address} ${database} ${table} ${prefix}`,
    read: (after) =>
      pages(
        (last) => ifThere(select(`${ours} AND key > $2 ORDER BY key LIMIT ${BATCH}`, [prefix, last]), []),
        prefix,
        after,
      ),
    async get(keys) {
      return byKey(recordsOf(await select("key = ANY($1)", [keys.map((key) => prefix + key)]), prefix));
    },
    async write(records) {
      for (const portion of portions(records))
        await db.query(
          `INSERT INTO ${table} (key, value, expires_at)
           SELECT key, convert_to(value, 'UTF8'), expires_at FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS t (key, value, expires_at)
           ON CONFLICT (key) DO UPDATE
           SET value = excluded.value, etag = gen_random_uuid(), updated_at = now(), expires_at = excluded.expires_at`,
          [
            portion.map(({ key }) => prefix + key),
            portion.map(({ value }) => value),
            portion.map(({ expires }) => (expires === undefined ? null : new Date(expires).toISOString())),
          ],
        );
    },
    async count() {
      const counting = db.query(`SELECT count(*) AS n FROM ${table} WHERE ${ours}`, [prefix]);
      return Number((await ifThere(counting, undefined))?.rows[0]?.n ?? 0);
    },
    async clear() {
      await db.query(`DELETE FROM ${table} WHERE ${ours}`, [prefix]);
    },
    close: () => db.end(),
  };
}

function asRow({ key, value, expires }: { key: string; value: string; expires: string | null }): Row {
  return { key, value, expires: expires === null ? undefined : Number(expires) };
}

/** What is asked of a table that does not exist yet. */
async function ifThere<T, U>(answer: Promise<T>, otherwise: U): Promise<T | U> {
  try {
    return await answer;
  } catch (error) {
    if ((error as { code?: string }).code === NO_SUCH_TABLE) return otherwise;
    throw error;
  }
}
