/**
 * A state component as kit/sidecar.ts promises it, made of what a sidecar offers. Stores differ in ways that Dapr's API does
 * not show; they are found out by trying ({@link habitsOf}) and by reading back, so that no line here knows a backend.
 */
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { Batcher } from "#kit/batch.js";
import { Conflict, type Entry, type Store, Unavailable } from "#kit/sidecar.js";

/** One write as it goes to the sidecar. */
export interface Row {
  key: string;
  value: unknown;
  /** null: only if there is no such key */
  etag: string | null;
  ttlSeconds?: number | undefined;
}

/**
 * The calls of a sidecar's state API. A write answers undefined when it was accepted, Unavailable when there was no answer, and
 * any other error when the answer was an error.
 */
export interface Raw {
  /** Each row for itself. */
  save(rows: readonly Row[]): Promise<Error | undefined>;
  /** All rows in one transaction. */
  transact(rows: readonly Row[]): Promise<Error | undefined>;
  remove(key: string, etag: string): Promise<Error | undefined>;
  /** What is there, as it is stored. @throws Unavailable, at the latest after `withinMs` */
  rows(keys: readonly string[], withinMs?: number): Promise<Map<string, Entry>>;
  /** Whether the component says that it has transactions. @throws Unavailable */
  hasTransactions(): Promise<boolean>;
}

/** How a store behaves where stores differ. */
export interface Habits {
  /** A new value is mixed with the old one, or parts of it are taken for commands: values travel as text. */
  altersValues: boolean;
  /** What was created in a transaction may be created again, or that isn't known: creations travel for themselves. */
  forgetsCreation: boolean;
  /** An update brings a deleted key back: what is deleted leaves a gravestone. */
  revivesKeys: boolean;
  /** Transactions work. */
  transacts: boolean;
}

/** How long a gravestone stands, in seconds: longer than a replica may be paused and still try to write. */
const GRAVE_S = 86_400;
/** Where a transaction failed and the same writes succeeded one by one, none is tried for so long, in ms. */
const NO_BATCH_MS = 60_000;
/** How often that must have happened in a row: a busy store may do it once. */
const FAILED_BATCHES = 2;
/** How long a write and reading it back may take together, in ms; and how much of it is at least left for reading. */
const [PATIENCE_MS, LATE_READ_MS] = [2_500, 500];
/** How many keys may wait to be read: a list asks for 128 at once. */
const READS_WAIT = 65_536;
/** How often a write is tried that the store refuses for a reason of its own, such as a deadlock between other writers. */
const TRIES = 6;
/** The wait before the second try lasts up to so many ms, before each further one up to twice as long. */
const WAIT_MS = 10;
const aWhile = (tries: number) => delay(Math.random() * WAIT_MS * 2 ** (tries - 1));

interface Write {
  key: string;
  value: unknown;
  etag: string | null;
  ttlSeconds: number | undefined;
}

/**
 * Concurrent reads travel in one bulk get, concurrent writes in one transaction, or in one bulk save where there are none. A write
 * that failed in any way is settled by reading it back, because stores report the same thing differently (409, 500 with
 * "failed to set key", 1062, 1213) and a timeout says nothing.
 */
export class BackendStore implements Store {
  private readonly reads: Batcher<string, Entry | undefined>;
  private readonly writes: Batcher<Write, void>;
  private learning: Promise<Habits> | undefined;
  private failedBatches = 0;
  private noBatchUntil = 0;

  constructor(
    private readonly name: string,
    private readonly raw: Raw,
  ) {
    this.reads = new Batcher<string, Entry | undefined>((keys) => this.read(keys), 256, 2, READS_WAIT);
    this.writes = new Batcher<Write, void>((writes) => this.write(writes));
  }

  async get(keys: readonly string[]): Promise<Map<string, Entry>> {
    const entries = await Promise.all(keys.map(async (key) => [key, await this.reads.add(key)] as const));
    return new Map(entries.filter((pair): pair is [string, Entry] => pair[1] !== undefined));
  }

  save(key: string, value: unknown, etag: string | null, ttlSeconds?: number): Promise<void> {
    return this.writes.add({ key, value, etag, ttlSeconds });
  }

  async delete(key: string, etag: string): Promise<void> {
    const { revivesKeys } = await this.learn();
    for (let tries = 1; ; tries++) {
      const began = performance.now();
      const failure = await (revivesKeys
        ? this.raw.save([{ key, value: GRAVE, etag, ttlSeconds: GRAVE_S }])
        : this.raw.remove(key, etag));
      if (failure === undefined) return;
      const now = (await this.readBack([key], failure, began)).get(key);
      if (now === undefined || isGrave(now)) return;
      if (now.etag !== etag) throw new Conflict(`${key} has changed`);
      if (failure instanceof Unavailable || tries >= TRIES) throw this.unavailable(failure);
      await aWhile(tries);
    }
  }

  /** How this store behaves; found out before the first write. @throws Unavailable */
  async learn(): Promise<Habits> {
    this.learning ??= this.remember(habitsOf(this.raw));
    const habits = await this.learning;
    if (habits.transacts || performance.now() < this.noBatchUntil) return habits;
    // It may have been busy, or has learned it meanwhile.
    this.noBatchUntil = performance.now() + NO_BATCH_MS;
    this.learning = this.remember(tryBatch(this.raw).then((tried) => ({ ...habits, ...tried })));
    return this.learning;
  }

  private remember(learning: Promise<Habits>): Promise<Habits> {
    return learning.then(
      (habits) => {
        this.noBatchUntil = habits.transacts ? 0 : performance.now() + NO_BATCH_MS;
        return habits;
      },
      (error) => {
        this.learning = undefined;
        throw this.unavailable(error);
      },
    );
  }

  private async read(keys: string[]): Promise<(Entry | undefined)[]> {
    const found = await this.raw.rows([...new Set(keys)]);
    const entries = new Map([...found].map(([key, entry]) => [key, unpacked(entry)]));
    return keys.map((key) => entries.get(key));
  }

  private async write(writes: Write[]): Promise<(undefined | Error)[]> {
    const habits = await this.learn();
    const outcomes = new Map<Write, undefined | Error>();
    let open = writes;
    let batchFailed = false;
    for (let round = 0; round < 2 && open.length > 1; round++) {
      const began = performance.now();
      const sent = await this.send(firstOfEachKey(open), habits);
      for (const write of sent.written) outcomes.set(write, undefined);
      batchFailed ||= sent.batchFailed;
      open = open.filter((write) => !outcomes.has(write));
      if (open.length === 0) break;
      await this.settleAll(open, sent.failure, began, outcomes);
      open = open.filter((write) => !outcomes.has(write));
    }
    // Behind a batch that failed: whether nothing was in the way of its writes but that they came together.
    let plainly = open.length > 0 && [...outcomes.values()].every((outcome) => outcome === undefined);
    for (const write of open) {
      const { outcome, tries } = await this.writeOne(write, habits);
      outcomes.set(write, outcome);
      plainly &&= outcome === undefined && tries === 1;
    }
    if (batchFailed) this.failedBatches = plainly ? this.failedBatches + 1 : 0;
    if (this.failedBatches >= FAILED_BATCHES) {
      this.failedBatches = 0;
      this.noBatchUntil = performance.now() + NO_BATCH_MS;
    }
    return writes.map((write) => outcomes.get(write));
  }

  /** Sends writes of different keys together, in one call or two. */
  private async send(
    writes: readonly Write[],
    habits: Habits,
  ): Promise<{ written: readonly Write[]; failure: Error | undefined; batchFailed: boolean }> {
    const batches = habits.transacts && performance.now() >= this.noBatchUntil;
    const fits = ({ etag }: Write) => batches && !(habits.forgetsCreation && etag === null);
    const [together, apart] = [writes.filter(fits), writes.filter((write) => !fits(write))];
    const rows = (list: readonly Write[]) => list.map((write) => packed(write, habits));
    const [lost, failure] = await Promise.all([
      together.length > 1 ? this.raw.transact(rows(together)) : this.saveSome(rows(together)),
      this.saveSome(rows(apart)),
    ]);
    const batchFailed = together.length > 1 && lost !== undefined && !(lost instanceof Unavailable);
    if (together.length > 1 && lost === undefined) this.failedBatches = 0;
    return {
      written: [...(lost === undefined ? together : []), ...(failure === undefined ? apart : [])],
      failure: [lost, failure].find((one) => one instanceof Unavailable) ?? lost ?? failure,
      batchFailed,
    };
  }

  private async saveSome(rows: readonly Row[]): Promise<Error | undefined> {
    return rows.length === 0 ? undefined : this.raw.save(rows);
  }

  /** Finds out what became of writes that failed together: one stale ETag fails all of them, or some stores apply a part. */
  private async settleAll(
    open: readonly Write[],
    failure: Error | undefined,
    began: number,
    outcomes: Map<Write, undefined | Error>,
  ): Promise<void> {
    let now: Map<string, Entry>;
    try {
      now = await this.readBack([...new Set(open.map(({ key }) => key))], failure, began);
    } catch (error) {
      for (const write of open) outcomes.set(write, error as Error);
      return;
    }
    for (const write of open) {
      const state = settled(write, now.get(write.key));
      if (state === "written") outcomes.set(write, undefined);
      else if (state === "overtaken") outcomes.set(write, new Conflict(`${write.key} has changed`));
      else if (failure instanceof Unavailable) outcomes.set(write, this.unavailable(failure));
    }
  }

  private async writeOne(
    write: Write,
    habits: Habits,
  ): Promise<{ outcome: undefined | Error; tries: number }> {
    for (let tries = 1; ; tries++) {
      const began = performance.now();
      const failure = await this.raw.save([packed(write, habits)]);
      if (failure === undefined) return { outcome: undefined, tries };
      let now: Entry | undefined;
      try {
        now = (await this.readBack([write.key], failure, began)).get(write.key);
      } catch (error) {
        return { outcome: error as Error, tries };
      }
      const state = settled(write, now);
      if (state === "written") return { outcome: undefined, tries };
      if (state === "overtaken") return { outcome: new Conflict(`${write.key} has changed`), tries };
      // Unchanged, although the store answers: perhaps a deadlock with other writers, so it is tried again.
      if (failure instanceof Unavailable || tries >= TRIES)
        return { outcome: this.unavailable(failure), tries };
      if (write.etag === null && now !== undefined)
        await this.raw.remove(write.key, now.etag); // a gravestone
      else await aWhile(tries);
    }
  }

  private async readBack(
    keys: string[],
    failure: Error | undefined,
    began: number,
  ): Promise<Map<string, Entry>> {
    const left = Math.max(LATE_READ_MS, PATIENCE_MS - (performance.now() - began));
    try {
      return await this.raw.rows(keys, left);
    } catch (error) {
      throw this.unavailable(failure ?? (error as Error));
    }
  }

  private unavailable(failure: Error): Unavailable {
    return failure instanceof Unavailable ? failure : new Unavailable(`${this.name}: ${failure.message}`);
  }
}

/** What stands for a deleted key. */
const GRAVE: readonly [] = [];
const isGrave = ({ value }: Entry) => Array.isArray(value) && value.length === 0;

/** A value as text in a list is one that every store keeps as it is. Lists always travel so: then nothing else looks like it. */
const asText = (value: unknown) => [JSON.stringify(value)];

function packed({ key, value, etag, ttlSeconds }: Write, { altersValues }: Habits): Row {
  return { key, value: altersValues || Array.isArray(value) ? asText(value) : value, etag, ttlSeconds };
}

/** What a stored value stands for, however it travelled; undefined if it stands for a deleted key. */
export function unpacked(entry: Entry): Entry | undefined {
  if (!Array.isArray(entry.value)) return entry;
  const [text] = entry.value as unknown[];
  return text === undefined ? undefined : { ...entry, value: JSON.parse(String(text)) as unknown };
}

/** What became of a write that failed, to see from what is stored now. */
function settled(write: Write, stored: Entry | undefined): "written" | "overtaken" | "open" {
  const now = stored && unpacked(stored);
  // Ours after all? Then the answer was lost, or an earlier try had applied it.
  if (now !== undefined && isDeepStrictEqual(now.value, JSON.parse(JSON.stringify(write.value))))
    return "written";
  const unchanged = write.etag === null ? now === undefined : now?.etag === write.etag;
  return unchanged ? "open" : "overtaken";
}

function firstOfEachKey(writes: readonly Write[]): Write[] {
  const first = new Map<string, Write>();
  for (const write of writes) if (!first.has(write.key)) first.set(write.key, write);
  return [...first.values()];
}

// --- finding out ---------------------------------------------------------------------------------------------------

/** How long a key of a trial that was cut short stays, in seconds. */
const TRIAL_S = 60;

/**
 * Tries out how a store behaves, with keys that nobody else uses. In doubt it is taken for one that needs more care.
 * @throws Unavailable when that can't be found out now
 */
export async function habitsOf(raw: Raw): Promise<Habits> {
  return { ...(await trySingle(raw)), ...(await tryBatch(raw)) };
}

const trial = (key: string, value: unknown, etag: string | null = null): Row => ({
  ...{ key, value, etag },
  ttlSeconds: TRIAL_S,
});
const newKey = () => `trial:${crypto.randomUUID()}`;

/** What one store or another does not keep: texts and names that look like commands, and numbers to the last digit. */
const DIFFICULT = { before: 1, $text: "$text", "a.b": { $c: [1] }, third: 1 / 3, small: 1e-9, big: 1e21 };

/** How often a trial must be refused: once may be for a reason that has nothing to do with it. */
const REFUSALS = 3;

async function trySingle(raw: Raw): Promise<Pick<Habits, "altersValues" | "revivesKeys">> {
  const key = newKey();
  const now = async () => (await raw.rows([key])).get(key);
  const save = async (value: unknown, etag: string | null) => {
    for (let tries = 1; tries <= REFUSALS; tries++) {
      if (answered(await raw.save([trial(key, value, etag)])) === undefined) return;
      await aWhile(tries);
    }
  };
  const keeps = async (value: unknown, etag: string | null) => {
    await save(value, etag);
    return isDeepStrictEqual((await now())?.value, value);
  };
  let altersValues = !(await keeps(DIFFICULT, null));
  const entry = await now();
  if (!altersValues && entry !== undefined) altersValues = !(await keeps({ after: 1 }, entry.etag));
  if (entry === undefined && !(await keeps(asText({ after: 1 }), null)))
    throw new Unavailable("it takes no values");
  const { etag } = (await now()) ?? { etag: "" };
  for (let tries = 1; ; tries++) {
    const failure = answered(await raw.remove(key, etag));
    if (failure === undefined || (await now()) === undefined) break;
    if (tries >= REFUSALS) throw new Unavailable(failure.message);
    await aWhile(tries);
  }
  await save(asText({ again: 1 }), etag);
  const revived = await now();
  if (revived !== undefined) await raw.remove(key, revived.etag);
  return { altersValues, revivesKeys: revived !== undefined };
}

async function tryBatch(raw: Raw): Promise<Pick<Habits, "forgetsCreation" | "transacts">> {
  if (!(await raw.hasTransactions())) return { forgetsCreation: true, transacts: false };
  const [key, other] = [newKey(), newKey()];
  const failure = answered(await raw.transact([trial(key, asText(1)), trial(other, asText(1))]));
  if (failure !== undefined) return { forgetsCreation: true, transacts: false };
  let forgetsCreation = false;
  for (let tries = 1; tries <= REFUSALS && !forgetsCreation; tries++)
    forgetsCreation = answered(await raw.save([trial(key, asText(2))])) === undefined;
  for (const [left, { etag }] of await raw.rows([key, other])) await raw.remove(left, etag);
  return { forgetsCreation, transacts: true };
}

/** An answer that is an error is one; none at all proves nothing. @throws Unavailable */
function answered(failure: Error | undefined): Error | undefined {
  if (failure instanceof Unavailable) throw failure;
  return failure;
}
