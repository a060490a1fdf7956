/** Records of a state.mysql component. Its table: state/mysql/mysql.go of dapr/components-contrib. */
import { createConnection, type RowDataPacket } from "mysql2/promise";
import { kindOf } from "./servers.js";
import {
  BATCH,
  byKey,
  identifier,
  type Opened,
  pages,
  portions,
  type Row,
  recordsOf,
  type StateStore,
  textOf,
  wholeSeconds,
} from "./stores.js";
import { StartError } from "./topology.js";

const columns = "id AS `key`, value, isbinary AS isBinary, UNIX_TIMESTAMP(expiredate) AS expires";
const NO_SUCH_TABLE = 1146;

/** Connects. @throws StartError if the connection string is not understood */
export async function openMysql({ component, prefix }: Opened): Promise<StateStore> {
  const { address, user, password, database } = kindOf(component)?.read(component) ?? {};
  const [, host, port] = /^(.+):(\d+)$/.exec(address ?? "") ?? [];
  if (host === undefined)
    throw new StartError(`${component.name}: its connectionString is not like USER:PASSWORD@tcp(HOST:PORT)/`);
  const table = identifier(component, "tableName", "state");
  const db = await createConnection({
    ...{ host, port: Number(port), user, password, database },
    jsonStrings: true, // MySQL's JSON columns as text, as MariaDB's are
    charset: "utf8mb4",
  });
  db.on("error", () => undefined); // the call that fails says it
  await db.query("SET time_zone = '+00:00'"); // an hour that comes twice in autumn would be two times
  const select = async (condition: string, values: unknown[]): Promise<Row[]> => {
    const [rows] = await db.query<RowDataPacket[]>(
      `SELECT ${columns} FROM ${table} WHERE ${condition}`,
      values,
    );
    return rows.map(asRow);
  };
  const ours = "LEFT(id, ?) = ?";
  const mine = [prefix.length, prefix];

  return {
    place: `mysql ${address} ${database} ${table} ${prefix}`,
    read: (after) =>
      pages(
        (last) => ifThere(select(`id > ? AND ${ours} ORDER BY id LIMIT ${BATCH}`, [last, ...mine]), []),
        prefix,
        after,
      ),
    async get(keys) {
      return byKey(recordsOf(await select("id IN (?)", [keys.map((key) => prefix + key)]), prefix));
    },
    async write(records) {
      for (const portion of portions(records)) {
        const rows = portion.map(({ key, value, expires }) => {
          const isText = fitsIntoJson(value);
          return [
            prefix + key,
            isText ? value : JSON.stringify(Buffer.from(value).toString("base64")),
            crypto.randomUUID(),
            isText ? 0 : 1,
            expires === undefined ? null : new Date(wholeSeconds(expires) * 1000).toISOString().slice(0, 19),
          ];
        });
        await db.query(`REPLACE INTO ${table} (id, value, eTag, isbinary, expiredate) VALUES ?`, [rows]);
      }
    },
    async count() {
      const counting = db.query<RowDataPacket[]>(`SELECT count(*) AS n FROM ${table} WHERE ${ours}`, mine);
      const [[row]] = await ifThere(counting, [[], []]);
      return Number(row?.n ?? 0);
    },
    async clear() {
      await db.query(`DELETE FROM ${table} WHERE ${ours}`, mine);
    },
    close: () => db.end(),
  };
}

function asRow({ key, value, isBinary, expires }: RowDataPacket): Row {
  return {
    key,
    value: isBinary ? textOf(JSON.parse(value), key) : value,
    expires: expires === null ? undefined : Number(expires) * 1000,
  };
}

/** What is asked of a table that does not exist yet. */
async function ifThere<T>(answer: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if ((error as { errno?: number }).errno === NO_SUCH_TABLE) return otherwise;
    throw error;
  }
}

/** MariaDB takes JSON of 32 levels, MySQL of 100. What is deeper travels as the component keeps bytes. */
const DEEPEST = 30;

function fitsIntoJson(text: string): boolean {
  try {
    return isShallow(JSON.parse(text), DEEPEST);
  } catch {
    return false;
  }
}

function isShallow(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((item) => isShallow(item, levels - 1));
}
