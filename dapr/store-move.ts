/** Moves one component's records from one store to another, and compares the two. */
import { createHash } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { type StateStore, type StoredRecord, wholeSeconds } from "./stores.js";

/** Copies records into a target, those that are there already once more. @param after where an earlier move stopped */
export async function copy(
  source: StateStore,
  target: StateStore,
  after: string | undefined,
  onBatch: (records: number, next: string) => void,
): Promise<void> {
  const batches = source.read(after)[Symbol.asyncIterator]();
  let reading = batches.next();
  for (;;) {
    const { done, value } = await reading;
    if (done) return;
    reading = batches.next(); // while these are written
    reading.catch(() => undefined); // told when it is awaited
    await target.write(value.records);
    onBatch(value.records.length, value.next);
    await turn(); // two SQLite files would leave no turn to signals and the progress bar
  }
}

/** How many records there are and a checksum of them, whatever their order. */
export interface Sum {
  records: number;
  /** 128 bits, as hexadecimal digits */
  checksum: string;
}

/** Sums up what lasts beyond a time: what expires sooner may be gone from one store and still be in the other. */
export async function sumOf(
  store: StateStore,
  horizon: number,
  onBatch: (records: number) => void,
): Promise<Sum> {
  let records = 0;
  let high = 0n;
  let low = 0n;
  for await (const batch of store.read()) {
    for (const record of batch.records) {
      if (!lasts(record, horizon)) continue;
      const digest = createHash("sha256").update(essence(record)).digest();
      // Added, not XORed: a record that is there twice must not cancel itself out.
      high += digest.readBigUInt64BE(0);
      low += digest.readBigUInt64BE(8);
      records++;
    }
    onBatch(batch.records.length);
    await turn();
  }
  const hex = (sum: bigint) => BigInt.asUintN(64, sum).toString(16).padStart(16, "0");
  return { records, checksum: hex(high) + hex(low) };
}

/** A key that is not the same in both stores. */
export interface Difference {
  key: string;
  how: "is missing in the target" | "differs in the target" | "is in the target only";
}

/** Up to `most` keys in which the stores differ. */
export async function differences(
  source: StateStore,
  target: StateStore,
  horizon: number,
  most = 10,
): Promise<Difference[]> {
  const found: Difference[] = [];
  const compare = async (
    one: StateStore,
    other: StateStore,
    how: (mine: StoredRecord, its: StoredRecord | undefined) => Difference["how"] | undefined,
  ) => {
    for await (const { records } of one.read()) {
      const lasting = records.filter((record) => lasts(record, horizon));
      if (lasting.length === 0) continue;
      const there = await other.get(lasting.map(({ key }) => key));
      for (const record of lasting) {
        const difference = how(record, there.get(record.key));
        if (difference !== undefined) found.push({ key: record.key, how: difference });
        if (found.length === most) return;
      }
    }
  };
  await compare(source, target, (mine, its) => {
    if (its === undefined) return "is missing in the target";
    return essence(mine) === essence(its) ? undefined : "differs in the target";
  });
  if (found.length < most)
    await compare(target, source, (_, its) => (its === undefined ? "is in the target only" : undefined));
  return found;
}

const lasts = ({ expires }: StoredRecord, horizon: number) => expires === undefined || expires > horizon;

/** What must be equal: stores keep the same JSON in different words, and times in different precision. */
export const essence = ({ key, value, expires }: StoredRecord): string =>
  `${key}\0${expires === undefined ? "" : wholeSeconds(expires)}\0${canonical(value)}`;

/** JSON in one way of writing it; a text that is no JSON as it is. */
function canonical(text: string): string {
  try {
    const value = JSON.parse(text);
    return JSON.stringify(isInOrder(value) ? value : inOrder(value));
  } catch {
    return text;
  }
}

/** Whether the fields of all objects are sorted, as sidecars write them: quicker than to sort them. */
function isInOrder(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  if (Array.isArray(value)) return value.every(isInOrder);
  let last = "";
  for (const name in value) {
    if (name < last || !isInOrder((value as Record<string, unknown>)[name])) return false;
    last = name;
  }
  return true;
}

function inOrder(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(inOrder);
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([name, item]) => [name, inOrder(item)]));
}
