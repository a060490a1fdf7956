import { createHash } from "node:crypto";
import { Conflict, readOne, type Store, Unavailable } from "#kit/sidecar.js";

/** Ids are given out in blocks that end at multiples of this; a journal token names one such block. */
export const BLOCK = 32;

/**
 * Numeric ids (/orders/1) from blocks of one counter key. Each process takes a block with one write and numbers from
 * memory; a clean stop gives the rest back, a crash leaves a gap. The counter is also how far a listing has to look.
 */
export class Ids {
  private from = 1;
  private to = 0;
  private covered = 0;
  private taking: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly counter: string,
  ) {}

  /** The next id that nobody else has had. @throws Unavailable */
  async next(): Promise<number> {
    while (this.from > this.to) {
      this.taking ??= this.take().finally(() => {
        this.taking = undefined;
      });
      await this.taking;
    }
    return this.from++;
  }

  /** Keeps ids up to `id` for things that come with ids of their own (a shop's catalogue). */
  async setAside(id: number): Promise<void> {
    await this.change((next) => (next > id ? undefined : id + 1));
  }

  /** Makes sure that a listing reaches `id`, which another service has numbered. */
  async cover(id: number): Promise<void> {
    if (id <= this.covered) return;
    const end = endOfBlock(id);
    await this.change((next) => (next > id ? undefined : end + 1));
    this.covered = Math.max(this.covered, end);
  }

  /** The highest id that may be in use. */
  async last(): Promise<number> {
    return (await this.read()).next - 1;
  }

  /** Gives back what is left of this process's block, if no later block was given out. */
  async giveBack(): Promise<void> {
    const { from, to } = this;
    this.from = 1;
    this.to = 0;
    if (from <= to) await this.change((next) => (next === to + 1 ? from : undefined));
  }

  private async take(): Promise<void> {
    let from = 1;
    await this.change((next) => {
      from = next;
      return endOfBlock(next) + 1;
    });
    // Not before it is written: until then another replica may get this block, and somebody may ask here meanwhile.
    this.from = from;
    this.to = endOfBlock(from);
  }

  private async read(): Promise<{ next: number; etag: string | null }> {
    const entry = await readOne(this.store, this.counter);
    return { next: (entry?.value as { next: number } | undefined)?.next ?? 1, etag: entry?.etag ?? null };
  }

  private async change(to: (next: number) => number | undefined): Promise<void> {
    for (let tries = 0; ; tries++) {
      const { next, etag } = await this.read();
      const wanted = to(next);
      if (wanted === undefined) return;
      try {
        // The random part tells two processes apart that want the same value, when a write has to be read back.
        await this.store.save(this.counter, { next: wanted, by: crypto.randomUUID() }, etag);
        return;
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
        if (tries > 100) throw new Unavailable("the id counter changes faster than this replica can follow");
      }
    }
  }
}

/** The last id of the block that `id` is in. */
export function endOfBlock(id: number): number {
  return Math.ceil(id / BLOCK) * BLOCK;
}

/** What stands for a text that somebody else has chosen in a key: short, and of letters that every store takes. */
export const digest = (text: string): string => createHash("sha256").update(text).digest("base64url");
