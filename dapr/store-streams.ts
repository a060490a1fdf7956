/**
 * The messages of a pubsub.redis component: streams, and for each app a consumer group (its id) that remembers how far it has
 * read and what it has not acknowledged. See pubsub/redis/redis.go of dapr/components-contrib.
 */
import { createHash } from "node:crypto";
import type { Redis } from "./store-redis.js";
import { BATCH } from "./stores.js";

/** A consumer group of a stream. */
interface Group {
  name: string;
  /** the id of the last message that was handed out */
  last: string;
  /** handed out and not acknowledged */
  pending: number;
}

interface Pending {
  id: string;
  consumer: string;
  /** ms since it was handed out */
  idle: number;
  deliveries: number;
}

/** A topic's stream. */
export interface Stream {
  name: string;
  messages: number;
  /** messages that some group has yet to read or to acknowledge; one that two groups wait for counts once */
  waiting: number;
}

/** All streams, by name. */
export async function streamsOf(redis: Redis): Promise<Stream[]> {
  const names = new Set<string>();
  let cursor = "0";
  do {
    const found = await redis.scan(cursor, { TYPE: "stream", COUNT: 1000 });
    for (const name of found.keys) names.add(name);
    cursor = found.cursor;
  } while (cursor !== "0");
  const streams: Stream[] = [];
  for (const name of [...names].sort())
    streams.push({ name, messages: await redis.xLen(name), waiting: await waitingIn(redis, name) });
  return streams;
}

/** Copies a stream with its groups; messages that are there already stay. */
export async function copyStream(
  source: Redis,
  target: Redis,
  name: string,
  onBatch: (messages: number) => void,
): Promise<void> {
  const [newest] = await range(target, name, "+", "-", 1, "XREVRANGE");
  for await (const messages of messagesOf(source, name, newest?.id)) {
    const writing = target.multi();
    for (const { id, fields } of messages) writing.addCommand(["XADD", name, id, ...fields]);
    await writing.execAsPipeline();
    onBatch(messages.length);
  }
  for (const group of await groupsOf(source, name)) {
    // Anew, should an interrupted move have made it: what it left pending is told again.
    if (await target.exists(name)) await target.sendCommand(["XGROUP", "DESTROY", name, group.name]);
    await target.sendCommand(["XGROUP", "CREATE", name, group.name, group.last, "MKSTREAM"]);
    for await (const some of pendingOf(source, name, group.name))
      await Promise.all(
        some.map(({ id, consumer, idle, deliveries }) =>
          target.sendCommand(
            ["XCLAIM", name, group.name, consumer, "0", id].concat([
              ...["IDLE", String(idle), "RETRYCOUNT", String(deliveries), "FORCE", "JUSTID"],
            ]),
          ),
        ),
      );
  }
  const info = await infoOf(source, name);
  const last = String(info.get("last-generated-id") ?? "0-0");
  // The newest messages may have been deleted: their ids must not be given again.
  if (last !== "0-0" && (await target.exists(name))) await target.sendCommand(["XSETID", name, last]);
}

/** What must be equal in two streams: messages, how far each group has read, and what is pending. */
export async function streamSum(redis: Redis, name: string): Promise<{ records: number; checksum: string }> {
  const hash = createHash("sha256");
  let records = 0;
  for await (const messages of messagesOf(redis, name)) {
    for (const { id, fields } of messages) hash.update(JSON.stringify([id, fields]));
    records += messages.length;
  }
  for (const group of await groupsOf(redis, name)) {
    hash.update(JSON.stringify([group.name, group.last]));
    for await (const some of pendingOf(redis, name, group.name))
      for (const { id, consumer, deliveries } of some)
        hash.update(JSON.stringify([id, consumer, deliveries]));
  }
  return { records, checksum: hash.digest("hex").slice(0, 32) };
}

async function waitingIn(redis: Redis, name: string): Promise<number> {
  const waiting = new Set<string>();
  let oldest: string | undefined;
  for (const group of await groupsOf(redis, name)) {
    if (group.pending > 0)
      for await (const some of pendingOf(redis, name, group.name)) for (const { id } of some) waiting.add(id);
    if (oldest === undefined || before(group.last, oldest)) oldest = group.last;
  }
  if (oldest === undefined) return 0; // nobody has ever subscribed
  // What some group has yet to read; of what is pending, only what is older is not among it.
  let unread = 0;
  for await (const messages of messagesOf(redis, name, oldest)) unread += messages.length;
  return unread + [...waiting].filter((id) => !before(oldest ?? id, id)).length;
}

/** Ids are `ms-sequence`. */
function before(a: string, b: string): boolean {
  const [aMs = 0, aSeq = 0] = a.split("-").map(Number);
  const [bMs = 0, bSeq = 0] = b.split("-").map(Number);
  return aMs < bMs || (aMs === bMs && aSeq < bSeq);
}

/** One entry of a stream. */
export interface Message {
  id: string;
  /** name, value, name, value … */
  fields: string[];
}

async function range(
  redis: Redis,
  name: string,
  from: string,
  to: string,
  count: number,
  command = "XRANGE",
): Promise<Message[]> {
  const reply = await redis.sendCommand<[string, string[]][]>([
    command,
    name,
    from,
    to,
    "COUNT",
    String(count),
  ]);
  return reply.map(([id, fields]) => ({ id, fields }));
}

/** Messages in their order. @param after an id; from the first one if not given */
export async function* messagesOf(redis: Redis, name: string, after?: string): AsyncGenerator<Message[]> {
  let from = after === undefined ? "-" : `(${after}`;
  for (;;) {
    const messages = await range(redis, name, from, "+", BATCH);
    const last = messages.at(-1);
    if (last === undefined) return;
    yield messages;
    from = `(${last.id}`;
  }
}

async function* pendingOf(redis: Redis, name: string, group: string): AsyncGenerator<Pending[]> {
  let from = "-";
  for (;;) {
    const reply = await redis.sendCommand<[string, string, number, number][]>([
      "XPENDING",
      name,
      group,
      from,
      "+",
      String(BATCH),
    ]);
    const last = reply.at(-1);
    if (last === undefined) return;
    const there = await Promise.all(
      reply.map(async ([id]) => (await range(redis, name, id, id, 1)).length > 0),
    );
    yield reply
      .filter((_, i) => there[i]) // a message that is gone (`streamTTL`) can't be delivered any more
      .map(([id, consumer, idle, deliveries]) => ({ id, consumer, idle, deliveries }));
    from = `(${last[0]}`;
  }
}

async function groupsOf(redis: Redis, name: string): Promise<Group[]> {
  const reply = await redis.sendCommand<unknown[]>(["XINFO", "GROUPS", name]);
  return reply
    .map((one) => {
      const info = asMap(one);
      return {
        name: String(info.get("name")),
        last: String(info.get("last-delivered-id")),
        pending: Number(info.get("pending")),
      };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

const infoOf = async (redis: Redis, name: string) =>
  asMap(await redis.sendCommand(["XINFO", "STREAM", name]));

/** Names and values come as a list or, over RESP3, as an object. */
function asMap(reply: unknown): Map<string, unknown> {
  if (reply instanceof Map) return reply;
  if (!Array.isArray(reply)) return new Map(Object.entries(reply as object));
  return new Map(
    Array.from({ length: reply.length / 2 }, (_, i) => [String(reply[2 * i]), reply[2 * i + 1]]),
  );
}
