import { Conflict, type Entry, readOne, type Store } from "#kit/sidecar.js";

/** In ms; tests have shorter ones. */
export const TIMES = {
  /** A busy replica writes its journal at least this often. */
  beat: 1_000,
  /** A token stays on record this long after its last use. */
  linger: 20_000,
  /** An idle replica has nothing to take over and only shows that it lives. */
  idleBeat: 10_000,
  /** Others look at each journal this often. */
  watch: 2_000,
  /** A busy journal that stands still for this long is taken over; an idle one is merely forgotten, later. */
  takeover: 6_000,
  forget: 60_000,
};

const ROSTER = "replicas";

/** What is stored of a journal. */
export interface Journaled {
  beat: number;
  tokens: string[];
}

interface Roster {
  /** slot by replica id; a slot is taken by one process at a time, so its next process knows that the last is gone */
  slots: Record<string, string>;
}

export interface JournalOptions {
  store: Store;
  /** unique to this process */
  replica: string;
  /** the place that this process fills, such as "order-0" */
  slot: string;
  /** Finishes what a dead replica had under way; told again if it throws. */
  recover(tokens: string[], dead: string): Promise<void>;
  /** Hears of things worth a log line. */
  log(message: string, detail: object): void;
  times?: Partial<typeof TIMES>;
}

/**
 * What this replica's commands are changing, on record before they change it.
 *
 * An event handler needs none of this: the message is redelivered. A command is not, so if the process dies between
 * its commit and its last publication somebody must know where to look. One small key per replica holds tokens (each
 * names a range of record keys), and one write covers all commands that arrive meanwhile. Another replica that sees
 * the beat stand still, or the next process in the same slot, recovers those records and deletes the journal.
 */
export class Journal {
  private readonly key: string;
  private readonly active = new Map<string, number>();
  /** tokens lately in use, and when: they stay on record a while, since the next command is likely to want them */
  private readonly lingering = new Map<string, number>();
  private written = new Set<string>();
  private etag: string | null = null;
  private beat = 0;
  /** whether the key may exist: also after a write whose answer was lost */
  private tried = false;
  private lastWrite = Number.NEGATIVE_INFINITY;
  private flight: Promise<void> | undefined;
  private reading: Promise<Entry | undefined> | undefined;
  private readonly watched = new Map<string, { etag: string; since: number }>();
  private timers: NodeJS.Timeout[] = [];
  private watching: Promise<void> | undefined;
  private joining: Promise<Roster> | undefined;
  private readonly times: typeof TIMES;

  constructor(private readonly options: JournalOptions) {
    this.key = `journal:${options.replica}`;
    this.times = { ...TIMES, ...options.times };
  }

  /** Joins the roster, takes over what the slot's last process left, begins to beat and to watch. */
  async start(): Promise<void> {
    const roster = await this.join();
    for (const [replica, slot] of Object.entries(roster.slots)) {
      if (slot === this.options.slot && replica !== this.options.replica) await this.takeOver(replica);
    }
    for (const timer of this.timers) clearInterval(timer); // of a start that came only so far
    this.timers = [
      setInterval(() => void this.keepBeating(), this.times.beat),
      setInterval(() => {
        this.watching ??= this.watch().finally(() => {
          this.watching = undefined;
        });
      }, this.times.watch),
    ];
  }

  /** Stops beating. A clean stop leaves neither journal nor name behind. */
  async stop(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    await this.watching?.catch(() => undefined);
    await this.flight?.catch(() => undefined);
    if (this.active.size > 0) return;
    const mine = await this.read();
    if (mine !== undefined) await this.options.store.delete(this.key, mine.etag);
    await this.changeRoster(({ [this.options.replica]: _me, ...others }) => others);
  }

  /** Resolves once the token is on record; what it names may be changed from then on. @throws Unavailable */
  async begin(token: string): Promise<void> {
    this.announce(token);
    try {
      await this.join(); // a sidecar may send calls before the start has come so far
      while (!this.written.has(token)) await this.write();
      await this.fresh();
    } catch (error) {
      this.end(token);
      throw error;
    }
  }

  /** As {@link begin}, but for what has been changed already: the token goes on record as soon as that is possible. */
  announce(token: string): void {
    this.active.set(token, (this.active.get(token) ?? 0) + 1);
  }

  /** The change that {@link begin} announced is finished and published. The record of it fades with a later write. */
  end(token: string): void {
    const left = (this.active.get(token) ?? 1) - 1;
    if (left > 0) this.active.set(token, left);
    else this.active.delete(token);
    this.lingering.set(token, performance.now());
  }

  /**
   * Resolves if this replica cannot have been taken for dead; after a pause (a stopped process, a sidecar away) it
   * first puts its journal on record again. @throws Unavailable
   */
  async fresh(): Promise<void> {
    while (performance.now() - this.lastWrite > this.times.takeover / 2) await this.write();
  }

  /** The replicas on the roster, this one included. */
  async alive(): Promise<Set<string>> {
    return new Set(Object.keys(rosterOf(await readOne(this.options.store, ROSTER)).slots));
  }

  /** Puts this replica on the roster, once: nobody would look for the journal of one that is not. Answers who was there before. */
  private join(): Promise<Roster> {
    const { replica, slot } = this.options;
    this.joining ??= this.changeRoster((slots) => ({ ...slots, [replica]: slot })).catch((error) => {
      this.joining = undefined;
      throw error;
    });
    return this.joining;
  }

  private write(): Promise<void> {
    this.flight ??= this.writeNow().finally(() => {
      this.flight = undefined;
    });
    return this.flight;
  }

  private async writeNow(): Promise<void> {
    const { store, replica, slot, log } = this.options;
    for (const [token, since] of this.lingering) {
      if (performance.now() - since >= this.times.linger) this.lingering.delete(token);
    }
    const tokens = [...new Set([...this.active.keys(), ...this.lingering.keys()])];
    // From here on the record may lack what this write leaves out: who begins it meanwhile must wait for the next one.
    this.written = new Set(tokens.filter((token) => this.written.has(token)));
    const started = performance.now();
    try {
      // A save does not tell the new ETag, so it is read behind each save, where nobody waits for it.
      if (this.tried) this.etag = (await (this.reading ?? this.read()))?.etag ?? null;
      this.reading = undefined;
      this.tried = true;
      if (this.beat > 0 && this.etag === null) {
        log("taken for dead after a pause; joining again", { replica });
        await this.changeRoster((slots) => ({ ...slots, [replica]: slot }));
      }
      await store.save(this.key, { beat: this.beat + 1, tokens } satisfies Journaled, this.etag);
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
      return;
    }
    this.beat++;
    this.written = new Set(tokens);
    this.lastWrite = started;
    this.reading = this.read();
    this.reading.catch(() => {
      this.reading = undefined;
    });
  }

  private read(): Promise<Entry | undefined> {
    return readOne(this.options.store, this.key);
  }

  private async keepBeating(): Promise<void> {
    const { beat, idleBeat } = this.times;
    const busy = this.active.size > 0 || this.written.size > 0;
    if (performance.now() - this.lastWrite < (busy ? beat : idleBeat) - 100) return;
    await this.write().catch(() => undefined);
  }

  private async watch(): Promise<void> {
    const { store, replica } = this.options;
    try {
      const roster = rosterOf(await readOne(store, ROSTER));
      const others = Object.keys(roster.slots).filter((one) => one !== replica);
      const journals =
        others.length === 0 ? new Map() : await store.get(others.map((one) => `journal:${one}`));
      const now = performance.now();
      for (const other of others) {
        const journal = journals.get(`journal:${other}`);
        const etag = journal?.etag ?? "";
        const before = this.watched.get(other);
        if (before === undefined || before.etag !== etag) {
          this.watched.set(other, { etag, since: now });
          continue;
        }
        const busy = ((journal?.value as Journaled | undefined)?.tokens.length ?? 0) > 0;
        if (now - before.since > (busy ? this.times.takeover : this.times.forget)) await this.takeOver(other);
      }
    } catch {
      // No beat can be written while the store is away, so what stood still meanwhile proves nothing.
      this.watched.clear();
    }
  }

  private async takeOver(dead: string): Promise<void> {
    const { store, log, recover } = this.options;
    const key = `journal:${dead}`;
    const entry = await readOne(store, key);
    if (entry !== undefined) {
      const { tokens } = entry.value as Journaled;
      if (tokens.length > 0) {
        log("taking over the journal of a dead replica", { dead, tokens });
        await recover(tokens, dead);
      }
      await store.delete(key, entry.etag);
    }
    await this.changeRoster(({ [dead]: _gone, ...others }) => others);
    this.watched.delete(dead);
  }

  private async changeRoster(
    change: (slots: Record<string, string>) => Record<string, string>,
  ): Promise<Roster> {
    for (;;) {
      const entry = await readOne(this.options.store, ROSTER);
      const before = rosterOf(entry);
      try {
        await this.options.store.save(ROSTER, { slots: change(before.slots) }, entry?.etag ?? null);
        return before;
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
      }
    }
  }
}

function rosterOf(entry: Entry | undefined): Roster {
  return (entry?.value as Roster | undefined) ?? { slots: {} };
}
