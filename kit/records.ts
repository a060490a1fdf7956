import { KeyedLock } from "#kit/batch.js";
import { fault } from "#kit/faults.js";
import { BLOCK, endOfBlock, Ids } from "#kit/ids.js";
import { Journal, type JournalOptions } from "#kit/journal.js";
import { currentTrace, type Logger } from "#kit/log.js";
import { type CloudEvent, Conflict, type Entry, readOne, type Sidecar, Unavailable } from "#kit/sidecar.js";

/** Something that happened in the domain. */
export interface DomainEvent {
  type: string;
  data: object;
}

/** A kind of record: its name is the key's prefix; `evolve` says what an event makes of a state. Pure. */
export interface Aggregate<S, E extends DomainEvent> {
  name: string;
  /** whether its ids are numbers and clients may list it */
  listed: boolean;
  /** a view evolves with others' events and publishes none */
  view?: boolean;
  evolve(state: S | undefined, event: E): S;
}

/** Why a record changes: a command (nobody repeats it for us) or an event (its message is redelivered until acked). */
export type Cause = { command: string } | { event: string };

interface OutboxEntry {
  id: string;
  type: string;
  time: string;
  data: Record<string, unknown>;
  cause: string;
  replica: string;
  traceparent?: string;
}

/** What a key holds. `seen`: the causes of recent changes. `outbox`: events of recent changes, perhaps published. */
export interface Stored<S> {
  /** null: nothing is there, and a first write that comes late must not succeed any more */
  state: S | null;
  version: number;
  seen: string[];
  outbox: OutboxEntry[];
  /** the replica that wrote it */
  by: string;
}

export interface Outcome<S, E> {
  state: S | undefined;
  /** what was decided; empty when nothing was to be done or the cause had been seen before */
  events: E[];
}

/** What the caller knows of a record before it is read, to save the reading. Wrong guesses cost a second try only. */
export interface Hint {
  /** the record most likely does not exist yet: try to create it at once */
  isNew?: boolean;
  /** it has been read already, with {@link Records.read} */
  known?: Promise<Entry | undefined>;
}

/** What follows from a command outside the store, once it is committed and published. */
export interface FollowUp<S> {
  /**
   * Repeated until it succeeds. The journal names the record meanwhile: should this process end first, whoever takes
   * the journal over resumes the record.
   */
  then?: (state: S | undefined) => Promise<void>;
}

/** One call of {@link Records.handle} on its way. */
interface Change<S, E extends DomainEvent> {
  aggregate: Aggregate<S, E>;
  key: string;
  cause: string;
  decide: Decide<S, E>;
  hint: Hint & FollowUp<S>;
}

/** One page of a listing, newest first or oldest first, with Spring Data's counts. */
export interface Page<S> {
  items: { id: number; state: S }[];
  size: number;
  number: number;
  totalElements: number;
}

/**
 * What a cause means for a state. The deciding itself is the domain's, pure; it may wait here for what it needs to know
 * from outside (a payment gateway's verdict). It may run several times, and throws to refuse.
 */
export type Decide<S, E> = (state: S | undefined) => E[] | Promise<E[]>;

type Resume = (id: string, state: unknown) => Promise<void>;

/** How many causes a record remembers. An order's life has about ten; see the design for keys that many orders share. */
const SEEN = 24;
/** Outbox entries of others (or forgotten by ourselves) older than this are published again, then dropped, in ms. */
const STALE_MS = 60_000;
const PUBLISHED_REMEMBERED = 50_000;
/** How often the log is told that something fails and is tried again, in ms. */
const WARN_MS = 10_000;
/**
 * How many commands may wait for what follows them: their events while the broker is away, or their recovery. What
 * comes then is refused, for these live in memory: some 10 KB each.
 */
const MOST_BEHIND = 20_000;
const TRIES = 30;
const CHUNK = 4 * BLOCK;
const CHUNK_TRUST_MS = 10_000;

export interface RecordsOptions {
  app: string;
  replica: string;
  slot: string;
  sidecar: Sidecar;
  /** whether an event type is for others to know; the rest never leaves the record */
  isPublic(type: string): boolean;
  log: Logger;
  now(): Date;
  /** how many commands may wait for what follows them; for tests */
  mostBehind?: number | undefined;
  /** the journal's; for tests */
  times?: JournalOptions["times"];
}

/**
 * The record-and-journal protocol: load → seen? → decide → journal → save with ETag → publish → done.
 *
 * A record is one key, so state and outbox change together on any store. An event handler returns only after its
 * events are published. A command answers after its commit; its events go out behind it, and its journal token stays
 * until they are.
 */
export class Records {
  readonly journal: Journal;
  private readonly counters = new Map<string, Ids>();
  private readonly locks = new KeyedLock();
  private readonly published = new Set<string>();
  private readonly resumes = new Map<string, Resume>();
  private readonly shared = new Set<string>();
  private readonly chunks = new Map<string, { count: number; until: number }>();
  private readonly behind = new Set<Promise<void>>();
  private readonly warned = new Map<string, number>();
  private stopping = false;

  constructor(private readonly options: RecordsOptions) {
    this.journal = new Journal({
      store: options.sidecar.store,
      replica: options.replica,
      slot: options.slot,
      recover: (tokens, dead) => this.recover(tokens, dead),
      log: (message, detail) => options.log.warn(detail, message),
      times: options.times,
    });
  }

  /**
   * Says how to go on with a record of this kind whose writer died or failed half-way. Must be repeatable. The state is
   * undefined where the record was announced and is not there. Where somebody else has written since, they have gone on
   * with it; not so in a record that many changes share, which says of each whether it is finished.
   * @param shared whether it is such a record
   */
  onResume<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    resume: (id: string, state: S | undefined) => Promise<void>,
    { shared = false } = {},
  ): void {
    if (shared) this.shared.add(aggregate.name);
    this.resumes.set(aggregate.name, (id, state) => resume(id, state as S | undefined));
  }

  /** The ids of one kind of record. */
  ids(aggregate: { name: string }): Ids {
    const known = this.counters.get(aggregate.name);
    if (known !== undefined) return known;
    const ids = new Ids(this.options.sidecar.store, `ids:${aggregate.name}`);
    this.counters.set(aggregate.name, ids);
    return ids;
  }

  async start(): Promise<void> {
    await this.journal.start();
  }

  /** Waits (a few seconds at most) for what is still to be published, then leaves the journal cleanly. */
  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.race([
      Promise.all(this.behind),
      new Promise((resolve) => setTimeout(resolve, 2_000).unref()),
    ]);
    // Ids that cannot be given back are a gap, no reason to keep the journal.
    for (const ids of this.counters.values()) await ids.giveBack().catch(() => undefined);
    await this.journal.stop();
  }

  /** Reads the state of one record. @throws Unavailable */
  async load<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    id: string | number,
  ): Promise<S | undefined> {
    return (await this.loadMany(aggregate, [id])).get(String(id));
  }

  /** Reads the states of several records by id. @throws Unavailable */
  async loadMany<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    ids: readonly (string | number)[],
  ): Promise<Map<string, S>> {
    const entries = await this.options.sidecar.store.get(ids.map((id) => keyOf(aggregate.name, id)));
    const found = new Map<string, S>();
    for (const id of ids) {
      const entry = entries.get(keyOf(aggregate.name, id));
      const state = stateOf(entry?.value as Stored<S> | undefined);
      if (state !== undefined) found.set(String(id), state);
    }
    return found;
  }

  /**
   * Changes one record. Where `decide` answers no events there is nothing to do, and a cause that the record has seen
   * changes nothing.
   * @throws Unavailable when the store cannot be reached, or when `decide` throws, that
   */
  async handle<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    id: string | number,
    cause: Cause,
    decide: Decide<S, E>,
    hint: Hint & FollowUp<S> = {},
  ): Promise<Outcome<S, E>> {
    const key = keyOf(aggregate.name, id);
    return this.locks.run(key, () =>
      "command" in cause
        ? this.handleCommand({ aggregate, key, cause: cause.command, decide, hint })
        : this.handleEvent({ aggregate, key, cause: cause.event, decide, hint }),
    );
  }

  /**
   * Lets the service resume this record as soon as that is possible: for a change of several steps that cannot be gone on
   * with now, and cannot be taken back either. The journal names the record meanwhile.
   */
  resumeLater<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, id: string | number): void {
    const key = keyOf(aggregate.name, id);
    this.journal.announce(tokenOf(key));
    this.recoverLater(key, tokenOf(key));
  }

  /** Reads a record ahead, for {@link Hint.known}. @throws Unavailable */
  read<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    id: string | number,
  ): Promise<Entry | undefined> {
    return this.readKey(keyOf(aggregate.name, id));
  }

  /**
   * Removes a record of a view. (Others have an outbox, which must not go with them.)
   * @param isWrong whether it is to go, asked once it has been read, and again if it has changed by then
   * @returns whether it was removed
   * @throws Unavailable when the store cannot be reached, or when `isWrong` throws, that
   */
  async remove<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    id: string | number,
    isWrong: (state: S) => boolean | Promise<boolean>,
    { known }: Pick<Hint, "known"> = {},
  ): Promise<boolean> {
    if (aggregate.view !== true) throw new Error(`a ${aggregate.name} is no view's, and is not removed`);
    const key = keyOf(aggregate.name, id);
    return this.locks.run(key, async () => {
      let entry = await (known ?? this.readKey(key));
      for (let tries = 0; tries < TRIES; tries++) {
        const state = stateOf(entry?.value as Stored<S> | undefined);
        if (entry === undefined || state === undefined || !(await isWrong(state))) return false;
        try {
          await this.options.sidecar.store.delete(key, entry.etag);
          this.recount(aggregate, Number(id), Number(id));
          return true;
        } catch (error) {
          if (!(error instanceof Conflict)) throw error;
          entry = await this.readKey(key);
        }
      }
      throw new Unavailable(`${key} changes faster than this replica can follow`);
    });
  }

  /** Lists count these ids again: another replica may have removed some of them. */
  recount<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, from: number, to: number): void {
    for (let start = from - ((from - 1) % CHUNK); start <= to; start += CHUNK)
      this.chunks.delete(`${aggregate.name}:${start}`);
  }

  /**
   * Resumes the newest records whose writers are no longer on the roster: a safety net under the journal for a
   * replica that was paused beyond the takeover bound, woke, wrote one record and died before it could say so.
   */
  async sweep<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, newest = 2 * CHUNK): Promise<void> {
    const last = await this.ids(aggregate).last();
    const first = Math.max(1, last - newest + 1);
    const keys = Array.from({ length: last - first + 1 }, (_, i) => keyOf(aggregate.name, first + i));
    const entries = await this.options.sidecar.store.get(keys);
    const alive = await this.journal.alive();
    for (const [key, entry] of entries) {
      const stored = entry.value as Stored<unknown>;
      if (!alive.has(stored.by)) await this.resume(key, stateOf(stored));
    }
  }

  /**
   * One page of a collection whose ids are numbers.
   * @param visible whether a record is to be shown
   * @param only of these, those to be shown, where their states alone do not tell
   * @param order "newest" or "oldest" first
   * @param lasting whether what is visible once stays so; then full chunks need not be counted again
   */
  async page<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    request: {
      page: number;
      size: number;
      order?: "newest" | "oldest";
      visible?: (state: S) => boolean;
      only?: (rows: Page<S>["items"]) => Promise<Page<S>["items"]>;
      lasting?: boolean;
    },
  ): Promise<Page<S>> {
    const { page, size, order = "newest", lasting = true, ...which } = request;
    const last = await this.ids(aggregate).last();
    const starts = Array.from({ length: Math.ceil(last / CHUNK) }, (_, i) => i * CHUNK + 1);
    if (order === "newest") starts.reverse();
    const items: Page<S>["items"] = [];
    let skip = page * size;
    let total = 0;
    for (const start of starts) {
      const known = this.chunks.get(`${aggregate.name}:${start}`);
      const trusted = lasting && known !== undefined && known.until > Date.now() ? known.count : undefined;
      if (trusted !== undefined && (trusted <= skip || items.length === size)) {
        total += trusted;
        skip = Math.max(0, skip - trusted);
        continue;
      }
      const rows = await this.chunk(aggregate, start, which);
      if (order === "newest") rows.reverse();
      total += rows.length;
      items.push(...rows.slice(skip, skip + size - items.length));
      skip = Math.max(0, skip - rows.length);
    }
    return { items, size, number: page, totalElements: total };
  }

  private async chunk<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    start: number,
    {
      visible = () => true,
      only = async (rows) => rows,
    }: {
      visible?: (state: S) => boolean;
      only?: (rows: Page<S>["items"]) => Promise<Page<S>["items"]>;
    },
  ): Promise<Page<S>["items"]> {
    const ids = Array.from({ length: CHUNK }, (_, i) => start + i);
    const states = await this.loadMany(aggregate, ids);
    const rows = await only(
      ids.flatMap((id) => {
        const state = states.get(String(id));
        return state !== undefined && visible(state) ? [{ id, state }] : [];
      }),
    );
    // A chunk without gaps stays as it is; one with gaps may still be filled by another replica's block.
    const full = rows.length === CHUNK;
    this.chunks.set(`${aggregate.name}:${start}`, {
      count: rows.length,
      until: full
        ? Date.now() + 60 * CHUNK_TRUST_MS
        : states.size === CHUNK
          ? Date.now() + CHUNK_TRUST_MS
          : 0,
    });
    return rows;
  }

  private async handleCommand<S, E extends DomainEvent>(change: Change<S, E>): Promise<Outcome<S, E>> {
    if (this.behind.size >= (this.options.mostBehind ?? MOST_BEHIND))
      throw new Unavailable("too many events wait to be published");
    const token = tokenOf(change.key);
    const reading = this.lookUp(change);
    reading.catch(() => undefined); // it is told below, where the token is seen to
    await this.journal.begin(token);
    try {
      const { outcome, toPublish } = await this.commit(change, await reading, () => this.journal.fresh());
      this.inBackground(async () => {
        await this.untilPublished(toPublish);
        const { then } = change.hint;
        if (then !== undefined) await this.untilDone("what follows", () => then(outcome.state));
        this.journal.end(token);
      });
      return outcome;
    } catch (error) {
      // After a refusal nothing has changed; after anything else the record may have, and the token must stay.
      if (error instanceof Unavailable) this.recoverLater(change.key, token);
      else this.journal.end(token);
      throw error;
    }
  }

  private async handleEvent<S, E extends DomainEvent>(change: Change<S, E>): Promise<Outcome<S, E>> {
    const { outcome, toPublish } = await this.commit(change, await this.lookUp(change));
    await this.publish(toPublish);
    return outcome;
  }

  private async lookUp({ key, hint }: { key: string; hint: Hint }): Promise<Entry | undefined> {
    return hint.isNew === true ? undefined : (hint.known ?? this.readKey(key));
  }

  private async commit<S, E extends DomainEvent>(
    change: Change<S, E>,
    first: Entry | undefined,
    afterSave: () => Promise<void> = async () => undefined,
  ): Promise<{ outcome: Outcome<S, E>; toPublish: CloudEvent[] }> {
    const { aggregate, key, cause, decide } = change;
    let entry = first;
    for (let tries = 0; tries < TRIES; tries++) {
      const stored = entry?.value as Stored<S> | undefined;
      if (stored?.seen.includes(cause)) {
        const left = stored.outbox.filter((one) => one.cause === cause && !this.published.has(one.id));
        return {
          outcome: { state: stateOf(stored), events: [] },
          toPublish: left.map((one) => this.toEvent(one, key)),
        };
      }
      const state = stateOf(stored);
      const events = await decide(state);
      if (events.length === 0) return { outcome: { state, events }, toPublish: [] };
      const next = this.evolve(change, stored, events);
      if (state === undefined && aggregate.listed) {
        await this.ids(aggregate).cover(Number(key.slice(aggregate.name.length + 1)));
      }
      try {
        await fault("before-save", aggregate.name);
        await this.options.sidecar.store.save(key, next.stored, entry?.etag ?? null);
        await fault("after-save", aggregate.name);
        await afterSave();
        return {
          outcome: { state: stateOf(next.stored), events },
          toPublish: next.toPublish.map((one) => this.toEvent(one, key)),
        };
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
        if (tries > 0)
          await new Promise((resolve) => setTimeout(resolve, Math.random() * 2 ** Math.min(tries, 6)));
        entry = await this.readKey(key);
      }
    }
    throw new Unavailable(`${key} changes faster than this replica can follow`);
  }

  private evolve<S, E extends DomainEvent>(
    { aggregate, key, cause }: Change<S, E>,
    before: Stored<S> | undefined,
    events: E[],
  ): { stored: Stored<S>; toPublish: OutboxEntry[] } {
    const { app, replica, now, isPublic } = this.options;
    const version = (before?.version ?? 0) + 1;
    const at = now();
    const time = at.toISOString();
    const kept = (before?.outbox ?? []).filter((one) => !this.published.has(one.id));
    const stale = kept.filter((one) => at.getTime() - Date.parse(one.time) > STALE_MS);
    const traceparent = currentTrace()?.traceparent;
    const fresh = events
      .filter((event) => aggregate.view !== true && isPublic(event.type))
      .map((event, n) => ({
        id: `${app}/${key}/${version}/${n}`,
        type: event.type,
        time,
        data: { ...event.data, eventType: event.type, timestamp: compactTime(at) },
        cause,
        replica,
        ...(traceparent === undefined ? {} : { traceparent }),
      }));
    const state = events.reduce<S | undefined>(
      (was, event) => aggregate.evolve(was, event),
      stateOf(before),
    ) as S;
    const seen = [...(before?.seen ?? []), cause].slice(-SEEN);
    return {
      stored: { state, version, seen, outbox: [...kept, ...fresh], by: replica },
      toPublish: [...stale, ...fresh],
    };
  }

  private async publish(events: CloudEvent[]): Promise<void> {
    if (events.length === 0) return;
    await fault("before-publish", events[0]?.type ?? "");
    await Promise.all(events.map((event) => this.options.sidecar.publish(event.type, [event])));
    for (const event of events) this.published.add(event.id);
    for (const old of this.published) {
      if (this.published.size <= PUBLISHED_REMEMBERED) break;
      this.published.delete(old);
    }
  }

  /** The broker may be away for hours: commands succeed meanwhile, and their events leave when it is back. */
  private async untilPublished(events: CloudEvent[]): Promise<void> {
    await this.untilDone("publishing", () => this.publish(events));
  }

  private async untilDone(what: string, task: () => Promise<void>): Promise<void> {
    for (let tries = 0; !this.stopping || tries === 0; tries++) {
      try {
        await task();
        return;
      } catch (error) {
        if (tries === 0) this.warn(what, error);
        await new Promise((resolve) => setTimeout(resolve, this.pause(tries)).unref());
      }
    }
    throw new Unavailable(`${what} was interrupted by the stop; the journal says where to go on`);
  }

  /** A second at most; longer where thousands wait for the same thing, or they would do nothing but try. */
  private pause(tries: number): number {
    return Math.min(50 * 2 ** tries, 1_000 + this.behind.size / 2);
  }

  /** Once in a while: what fails for one record most often fails for thousands. */
  private warn(what: string, error: unknown): void {
    if ((this.warned.get(what) ?? Number.NEGATIVE_INFINITY) > performance.now() - WARN_MS) return;
    this.warned.set(what, performance.now());
    this.options.log.warn({ err: error }, `${what} failed; trying until it succeeds`);
  }

  private recoverLater(key: string, token: string): void {
    this.inBackground(async () => {
      await this.untilDone("recovering", () => this.recoverOne(key, this.options.replica));
      this.journal.end(token);
    });
  }

  private inBackground(task: () => Promise<void>): void {
    const running = task()
      .catch((error) => this.options.log.warn({ err: error }, "left for the journal's next reader"))
      .finally(() => this.behind.delete(running));
    this.behind.add(running);
  }

  /** Finishes what the tokens of a dead replica name. */
  private async recover(tokens: string[], dead: string): Promise<void> {
    for (const token of tokens) await Promise.all(keysOf(token).map((key) => this.recoverOne(key, dead)));
  }

  /** Publishes what may not have been published, and lets the service go on with what `writer` left half-way. */
  private async recoverOne(key: string, writer: string): Promise<void> {
    const stored = await this.locks.run(key, () => this.fence(key, writer));
    const isTheirs = stored === undefined || stored.by === writer || this.shared.has(kindOf(key));
    if (isTheirs) await this.resume(key, stateOf(stored));
  }

  /**
   * Publishes a record's outbox and changes its ETag: a write that is still on its way (from a paused process, or through
   * a paused sidecar) fails from then on. Where there is no record yet, an empty one takes its place.
   */
  private async fence(key: string, writer: string): Promise<Stored<unknown> | undefined> {
    for (;;) {
      const entry = await this.readKey(key);
      const stored = entry?.value as Stored<unknown> | undefined;
      const left = (stored?.outbox ?? []).filter((one) => !this.published.has(one.id));
      await this.publish(left.map((one) => this.toEvent(one, key)));
      // `by` stays: should this replica die now, the next reader of the dead one's journal goes on from here.
      const { state, version, seen, by } = stored ?? { ...NOTHING, by: writer };
      const next: Stored<unknown> = { state, version: version + 1, seen, outbox: [], by };
      try {
        await this.options.sidecar.store.save(key, next, entry?.etag ?? null);
        return stored;
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
      }
    }
  }

  private async resume(key: string, state: unknown): Promise<void> {
    const kind = kindOf(key);
    await this.resumes.get(kind)?.(key.slice(kind.length + 1), state);
  }

  private readKey(key: string): Promise<Entry | undefined> {
    return readOne(this.options.sidecar.store, key);
  }

  private toEvent(entry: OutboxEntry, key: string): CloudEvent {
    return {
      specversion: "1.0",
      id: entry.id,
      source: this.options.app,
      type: entry.type,
      time: entry.time,
      subject: key,
      datacontenttype: "application/json",
      data: entry.data,
      ...(entry.traceparent === undefined
        ? {}
        : { traceparent: entry.traceparent, traceid: entry.traceparent }),
    };
  }
}

const NOTHING = { state: null, version: 0, seen: [] };

function stateOf<S>(stored: Stored<S> | undefined): S | undefined {
  return stored?.state ?? undefined;
}

function keyOf(name: string, id: string | number): string {
  return `${name}:${id}`;
}

const kindOf = (key: string): string => key.slice(0, key.indexOf(":"));

/** The journal token of a key: for a numbered record its whole block, so that 32 new orders share one journal write. */
function tokenOf(key: string): string {
  const at = key.indexOf(":");
  const text = key.slice(at + 1);
  // 01012341234 is no number of a record: its block would not name it.
  const id = /^[1-9]\d*$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(id) ? `${key.slice(0, at)}#${endOfBlock(id)}` : key;
}

function keysOf(token: string): string[] {
  const at = token.indexOf("#");
  if (at < 0) return [token];
  const end = Number(token.slice(at + 1));
  return Array.from({ length: BLOCK }, (_, i) => keyOf(token.slice(0, at), end - BLOCK + 1 + i));
}

/** yyyyMMddHHmmss in local time, as the seeds' events carry it. */
export function compactTime(date: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  return (
    `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}` +
    `${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`
  );
}
