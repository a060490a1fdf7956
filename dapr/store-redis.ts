/** Records of a state.redis component. Its hashes: state/redis/redis.go of dapr/components-contrib. */
import { createClient, ErrorReply } from "redis";
import { kindOf } from "./servers.js";
import {
  BATCH,
  type Batch,
  byKey,
  hasExpired,
  type Opened,
  portions,
  type StateStore,
  type StoredRecord,
} from "./stores.js";
import { type Component, StartError } from "./topology.js";

export type Redis = Awaited<ReturnType<typeof connectRedis>>;

/** Connects as the component does. @throws StartError if it does not say where the server is */
export async function connectRedis(component: Component) {
  const { address, user, password } = kindOf(component)?.read(component) ?? {};
  const [, host, port] = /^(.+):(\d+)$/.exec(address ?? "") ?? [];
  if (host === undefined) throw new StartError(`${component.name}: its redisHost is not like HOST:PORT`);
  const client = createClient({
    socket: { host, port: Number(port), reconnectStrategy: false },
    database: Number(component.metadata.redisDB || 0),
    commandOptions: { timeout: undefined }, // removing a million records takes its time
    ...(password ? { username: user, password } : {}),
  });
  client.on("error", () => undefined); // the call that fails says it
  await client.connect();
  return client;
}

/** Which database of which server. */
export const redisPlace = (component: Component): string =>
  `redis ${kindOf(component)?.read(component).address} ${component.metadata.redisDB || 0}`;

/** Keys that are known of at a time. */
const MOST_KEYS = 200_000;

/** Connects. */
export async function openRedis({ component, prefix }: Opened): Promise<StateStore> {
  const client = await connectRedis(component);
  const pattern = `${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;

  const partsNow = async () => Math.max(1, Math.ceil((await client.dbSize()) / MOST_KEYS));

  /**
   * All keys, once each. SCAN has no order and may name a key twice, so each pass keeps the keys that it has seen, and takes
   * only one part of them where they are too many for that.
   */
  async function* keys(part: number, parts: number): AsyncGenerator<string[]> {
    const seen = new Set<string>();
    let cursor = "0";
    let page: string[] = [];
    do {
      const found = await client.scan(cursor, { MATCH: pattern, COUNT: 1000 });
      cursor = found.cursor;
      for (const key of found.keys) {
        if (partOf(key, parts) !== part || seen.has(key)) continue;
        seen.add(key);
        page.push(key);
      }
      while (page.length >= BATCH) {
        yield page.slice(0, BATCH);
        page = page.slice(BATCH);
      }
    } while (cursor !== "0");
    if (page.length > 0) yield page;
  }

  /** The records of some keys, prefix and all; those that are gone are left out. */
  const load = async (some: readonly string[]): Promise<StoredRecord[]> => {
    const asking = client.multi();
    for (const key of some) asking.hGet(key, "data").addCommand(["PEXPIRETIME", key]);
    const replies = await asking.execAsPipeline().catch(explain);
    return some
      .map((key, i) => {
        const [data, at] = replies.slice(2 * i) as unknown[];
        const time = Number(at ?? -2);
        if (time === -2) return undefined;
        if (typeof data !== "string")
          throw new StartError(`${key} is a hash without "data", so not of state.redis`);
        return { key: key.slice(prefix.length), value: data, expires: time < 0 ? undefined : time };
      })
      .filter((record) => record !== undefined)
      .filter((record) => !hasExpired(record));
  };

  return {
    place: `${redisPlace(component)} ${prefix}`,
    async *read(after): AsyncGenerator<Batch> {
      const [first = 0, parts = 1] = (after ?? `0/${await partsNow()}`).split("/").map(Number);
      for (let part = first; part < parts; part++) {
        // What was moved of a part is not known after an interruption: it is moved again.
        for await (const some of keys(part, parts))
          yield { records: await load(some), next: `${part}/${parts}` };
      }
    },
    get: async (some) => byKey(await load(some.map((key) => prefix + key))),
    async write(records) {
      for (const portion of portions(records)) {
        const writing = client.multi();
        for (const { key, value, expires } of portion) {
          // As the component writes what nobody may create again: kit/dapr.ts always asks for first-write.
          writing.hSet(prefix + key, { data: value, version: 1, "first-write": 0 });
          if (expires === undefined) writing.persist(prefix + key);
          else writing.pExpireAt(prefix + key, Math.ceil(expires));
        }
        await writing.execAsPipeline();
      }
    },
    async count() {
      let total = 0;
      const parts = await partsNow();
      for (let part = 0; part < parts; part++)
        for await (const some of keys(part, parts)) total += some.length;
      return total;
    },
    async clear() {
      const parts = await partsNow();
      for (let part = 0; part < parts; part++)
        for await (const some of keys(part, parts)) await client.unlink(some);
    },
    async close() {
      client.destroy();
    },
  };
}

/** FNV-1a: any even spread will do. */
function partOf(key: string, parts: number): number {
  if (parts === 1) return 0;
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193) >>> 0;
  return hash % parts;
}

function explain(error: unknown): never {
  if (error instanceof ErrorReply && /unknown command/i.test(error.message))
    throw new StartError(
      "Records can be read from Redis 7 or newer: older ones cannot say when exactly a record expires.",
    );
  throw error;
}
