/** What a service does with more requests than it can serve: some wait, not for long, and the others are refused at once. */
import type { EventEmitter } from "node:events";
import type { IncomingMessage } from "node:http";
import type Koa from "koa";
import type { RateLimit } from "#kit/clients.js";
import type { Logger } from "#kit/log.js";
import { Problem, tryLater } from "#kit/problem.js";

export interface GateOptions {
  /** most that are let in at once */
  atOnce: number;
  /** most that wait, of one client and in all */
  waitingEach: number;
  waiting: number;
  /** who would have to wait longer than this, in ms, as it looks on arrival, is refused; half as long again is the most */
  patienceMs: number;
  /** what is inside for longer than this, in ms, shows that there are too many */
  slowMs: number;
}

/** How far the gate closes while those inside are slow. */
const LEAST = 8;
/** How much it closes for one slow one, at most this often, in ms; how much it opens again for one that was not. */
const [CLOSING, EVERY_MS, OPENING] = [0.9, 250, 0.25];
/** Who waits although it was to be shorter gives up after so many times as long. */
const AT_MOST = 1.5;
/** Over how many gaps between two departures their mean goes; it says nothing before there were as many. */
const GAPS = 32;

interface Waiter {
  enter(): void;
  refuse(): void;
}

/**
 * Lets a bounded number in at once, for beyond some number more at once only makes all of them slower. Those who wait
 * outside get in client by client in turn, so one who sends hundreds keeps a second one waiting no longer than its own few
 * take. Who would wait too long, as far as one can tell from the pace of late, is refused on arrival.
 */
export class Gate {
  private inside = 0;
  private waiting = 0;
  private open: number;
  private closedAt = Number.NEGATIVE_INFINITY;
  /** Who waits, by client; the client whose turn it is comes first. */
  private readonly lines = new Map<string, Set<Waiter>>();
  /** mean time between two departures while somebody waits, in ms, and of how many */
  private gapMs = 0;
  private gaps = 0;
  private leftAt: number | undefined;

  constructor(
    private readonly options: GateOptions,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.open = options.atOnce;
  }

  /** Whether a client would be refused if it came now; cheaper than to read first what it has brought. @throws Problem 503 */
  check(client: string): void {
    if (this.inside < this.open && this.waiting === 0) return;
    const own = this.lines.get(client)?.size ?? 0;
    const ahead = Math.min(this.waiting, (own + 1) * Math.max(1, this.lines.size));
    const { waitingEach, patienceMs } = this.options;
    const waitMs = this.gaps < GAPS ? 0 : ahead * this.gapMs;
    const full = own >= waitingEach || (this.isFull && this.longest().size <= own + 1);
    if (full || waitMs > patienceMs) throw overloaded(waitMs);
  }

  /**
   * Resolves when the client is let in; with what it has to call when it leaves.
   * @param leaving tells (`close`) that the client has given up, so that nothing is done for nobody
   * @throws Problem 503
   */
  async enter(client: string, leaving: EventEmitter): Promise<(overloaded?: boolean) => void> {
    this.check(client);
    if (this.inside < this.open && this.waiting === 0) this.inside++;
    else await this.wait(client, leaving);
    return this.pass();
  }

  /** How many are inside, and how many wait. */
  get load(): { inside: number; waiting: number; open: number } {
    return { inside: this.inside, waiting: this.waiting, open: Math.floor(this.open) };
  }

  private pass(): (overloaded?: boolean) => void {
    const entered = this.now();
    let left = false;
    return (overloaded = false) => {
      if (left) return;
      left = true;
      this.inside--;
      this.adapt(overloaded || this.now() - entered > this.options.slowMs);
      this.note();
      this.letIn();
    };
  }

  private adapt(slow: boolean): void {
    const { atOnce } = this.options;
    if (!slow) this.open = Math.min(atOnce, this.open + OPENING);
    else if (this.now() - this.closedAt >= EVERY_MS) {
      this.closedAt = this.now();
      this.open = Math.max(Math.min(LEAST, atOnce), this.open * CLOSING);
    }
  }

  private note(): void {
    const now = this.now();
    if (this.waiting > 0 && this.leftAt !== undefined) {
      const gap = now - this.leftAt;
      this.gaps = Math.min(GAPS, this.gaps + 1);
      this.gapMs += (gap - this.gapMs) / this.gaps;
    }
    this.leftAt = this.waiting > 0 ? now : undefined;
  }

  private wait(client: string, leaving: EventEmitter): Promise<void> {
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        this.leaveLine(client, waiter);
        done(() => reject(overloaded(this.waiting * this.gapMs)));
      };
      const waiter = { enter: () => done(resolve), refuse: giveUp };
      const timer = setTimeout(giveUp, this.options.patienceMs * AT_MOST);
      const done = (how: () => void) => {
        clearTimeout(timer);
        leaving.off("close", giveUp);
        how();
      };
      leaving.once("close", giveUp);
      // Nobody who brings many keeps out one who brings few: the last in the longest line makes room.
      if (this.isFull) [...this.longest()].at(-1)?.refuse();
      const line = this.lines.get(client) ?? new Set();
      this.lines.set(client, line.add(waiter));
      this.waiting++;
    });
  }

  private get isFull(): boolean {
    return this.waiting >= this.options.waiting;
  }

  private longest(): ReadonlySet<Waiter> {
    let longest: ReadonlySet<Waiter> = new Set();
    for (const line of this.lines.values()) if (line.size > longest.size) longest = line;
    return longest;
  }

  private letIn(): void {
    while (this.inside < this.open) {
      const [next] = this.lines;
      if (next === undefined) return;
      const [client, line] = next;
      const [waiter] = line;
      if (waiter === undefined) return;
      this.leaveLine(client, waiter);
      if (line.size > 0) {
        this.lines.delete(client); // to the end: the others come first
        this.lines.set(client, line);
      }
      this.inside++;
      waiter.enter();
    }
  }

  private leaveLine(client: string, waiter: Waiter): void {
    const line = this.lines.get(client);
    if (!line?.delete(waiter)) return;
    this.waiting--;
    if (line.size === 0) this.lines.delete(client);
  }
}

/** When to come again: once those who wait now are through, and not all at the same moment. */
function overloaded(waitMs: number) {
  const seconds = Math.min(10, Math.max(1, Math.ceil(waitMs / 1_000)) + Math.floor(Math.random() * 3));
  return tryLater(
    "overloaded",
    "There is more to do at the moment than can be done. Nothing was changed.",
    seconds,
  );
}

/** What has to be answered also by who has no time for anything else. */
export const isOperation = (path: string): boolean =>
  /^\/(healthz|readyz|actuator\/.*|dapr\/.*|drill)$/.test(path);

/**
 * Bounds what a service works on at once for callers; messages are bounded where they come from (`concurrency` of the pub/sub
 * component). Its callers bound themselves to less, so this is for those who do not.
 */
export function bounded(most: number): Koa.Middleware {
  let inside = 0;
  return async (ctx, next) => {
    if (isOperation(ctx.path) || ctx.path.startsWith("/events/")) return next();
    if (inside >= most) throw overloaded(1_000);
    inside++;
    try {
      await next();
    } finally {
      inside--;
    }
  };
}

/** How often refusals are logged, in ms, as a number. */
const TOLD_MS = 5_000;

/** Refuses who asks too often, and counts what is refused here or further in because it is too much. */
export function shedding(
  limit: RateLimit,
  clientOf: (request: IncomingMessage) => string,
  log: Logger,
): Koa.Middleware {
  let refused = 0;
  const count = () => {
    if (refused++ > 0) return;
    setTimeout(() => {
      log.warn({ refused, seconds: TOLD_MS / 1_000 }, "more is asked than can be done; some was refused");
      refused = 0;
    }, TOLD_MS).unref();
  };
  return async (ctx, next) => {
    if (isOperation(ctx.path)) return next();
    try {
      limit.take(clientOf(ctx.req));
      await next();
    } catch (error) {
      if (error instanceof Problem && (error.status === 429 || error.code === "overloaded")) {
        ctx.state.shed = true;
        count();
      }
      throw error;
    }
  };
}
