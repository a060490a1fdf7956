/**
 * State stores opened directly, behind Dapr's back, for what no sidecar can do: list every record. Each kind (dapr/store-*.ts)
 * reads and writes what Dapr's component of that kind does. Nobody else may be writing meanwhile.
 */
import { type Component, StartError } from "./topology.js";

/** A record as a sidecar would answer it. */
export interface StoredRecord {
  /** as the service knows it, without what the component puts before it */
  key: string;
  /** what the sidecar answers, as a rule JSON */
  value: string;
  /** when it disappears, in ms since 1970; undefined: never */
  expires: number | undefined;
}

/** Some records, and from where to go on after them: the store's own notation. */
export interface Batch {
  records: StoredRecord[];
  next: string;
}

/** One component's records. Every call throws what the driver throws when the server fails. */
export interface StateStore {
  /** Where the records lie: two components with one place share their records. */
  readonly place: string;
  /**
   * All records that have not expired, each once, some {@link BATCH} at a time.
   * @param after as a batch's `next`; from the beginning if not given
   */
  read(after?: string): AsyncIterable<Batch>;
  /** Those of these keys that exist and have not expired. */
  get(keys: readonly string[]): Promise<Map<string, StoredRecord>>;
  /** Creates or replaces; on disk when it resolves. May be repeated. */
  write(records: readonly StoredRecord[]): Promise<void>;
  /** How many records there are, some of which may have expired. 0 where there is no table yet. */
  count(): Promise<number>;
  /** Removes all of them. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** What a kind of store needs to know of a component. */
export interface Opened {
  component: Component;
  /** What the component puts before every key. */
  prefix: string;
  /** The working directory of sidecars. */
  data: string;
}

/** Records that are read, written and remembered together. */
export const BATCH = 500;
/** Most text in one write, in characters: servers limit the size of a command. */
const MOST_CHARACTERS = 2_000_000;

/** Each loads its driver when it is asked for: together they take a second to load. */
const kinds: Record<string, (opened: Opened) => Promise<StateStore>> = {
  "state.sqlite": async (opened) => (await import("./store-sqlite.js")).openSqlite(opened),
  "state.mysql": async (opened) => (await import("./store-mysql.js")).openMysql(opened),
  "state.mongodb": async (opened) => (await import("./store-mongodb.js")).openMongodb(opened),
  "state.redis": async (opened) => (await import("./store-redis.js")).openRedis(opened),
  "state.postgresql": async (opened) => (await import("./store-postgresql.js")).openPostgresql(opened),
};

/** Opens a component's records. @param data the working directory of sidecars @throws StartError if it is of no kind known here */
export async function openStore(component: Component, data: string): Promise<StateStore> {
  const open = kinds[component.type];
  if (open === undefined)
    throw new StartError(
      `${component.name} is a ${component.type}; records can be moved between ${Object.keys(kinds).join(", ")}.`,
    );
  return open({ component, prefix: prefixOf(component), data });
}

/** What a sidecar puts before every key. https://docs.dapr.io/developing-applications/building-blocks/state-management/howto-share-state/ */
export function prefixOf({ name, metadata, scopes }: Component): string {
  const strategy = metadata.keyPrefix ?? "appid";
  const [app] = scopes;
  if (strategy === "none") return "";
  if (strategy === "name") return `${name}||`;
  if (strategy !== "appid" && strategy !== "namespace") return `${strategy}||`;
  if (strategy === "appid" && app !== undefined && scopes.length === 1) return `${app}||`;
  throw new StartError(
    `${name}: its keyPrefix is ${strategy}, so its keys do not tell whose they are; "name" is what the project's files say.`,
  );
}

/** A metadata item that becomes part of a statement. @throws StartError unless it is a plain name */
export function identifier({ name, metadata }: Component, item: string, usual: string): string {
  const value = metadata[item] || usual;
  if (!/^\w+$/.test(value)) throw new StartError(`${name}: ${item} "${value}" is no name of a table`);
  return value;
}

export const hasExpired = ({ expires }: { expires: number | undefined }): boolean =>
  expires !== undefined && expires <= Date.now();

/** For stores that keep seconds: no record disappears before its time. @param ms since 1970 */
export const wholeSeconds = (ms: number): number => Math.ceil(ms / 1000);

/** Portions that fit into one command. */
export function* portions(records: readonly StoredRecord[]): Generator<StoredRecord[]> {
  let portion: StoredRecord[] = [];
  let characters = 0;
  for (const record of records) {
    if (portion.length > 0 && characters + record.value.length > MOST_CHARACTERS) {
      yield portion;
      portion = [];
      characters = 0;
    }
    portion.push(record);
    characters += record.value.length;
  }
  if (portion.length > 0) yield portion;
}

/** A row of a table, as the SQL stores read it. */
export interface Row {
  /** with its prefix */
  key: string;
  value: string;
  expires: number | undefined;
}

/**
 * Reads a table in the order of its keys, page by page: nothing is held open between pages, and the last key says where to
 * go on.
 * @param page answers up to {@link BATCH} rows behind a key
 */
export async function* pages(
  page: (after: string) => Promise<Row[]>,
  prefix: string,
  after = "",
): AsyncGenerator<Batch> {
  let last = after;
  for (;;) {
    const rows = await page(last);
    const end = rows.at(-1);
    if (end === undefined) return;
    last = end.key;
    yield { records: recordsOf(rows, prefix), next: last };
    if (rows.length < BATCH) return;
  }
}

/** Rows as the service knows them, without those that have expired. */
export const recordsOf = (rows: readonly Row[], prefix: string): StoredRecord[] =>
  rows
    .filter((row) => !hasExpired(row))
    .map(({ key, value, expires }) => ({ key: key.slice(prefix.length), value, expires }));

export const byKey = (records: readonly StoredRecord[]): Map<string, StoredRecord> =>
  new Map(records.map((record) => [record.key, record]));

/** The text that a value kept as base64 stands for. @throws StartError if it is none */
export function textOf(base64: string, key: string): string {
  const bytes = Buffer.from(base64, "base64");
  const text = bytes.toString("utf8");
  if (!Buffer.from(text).equals(bytes))
    throw new StartError(`${key} holds bytes that are no text; it cannot be moved`);
  return text;
}
