import { KeyedLock } from "#kit/batch.js";
import { Unavailable } from "#kit/sidecar.js";

/** Pauses after failures, in ms: the first, doubling up to the longest. */
export const PAUSE = { first: 250, longest: 15_000 };

/**
 * Reads a message again and answers how to hand it over; undefined where nothing is left to do. What it throws says
 * nothing about the channel; what the handing over throws does.
 */
export type Look = (id: number) => Promise<(() => Promise<void>) | undefined>;

/** Orders whose next message may be tried, first come first served. */
class Lane {
  readonly orders = new Set<number>();
  private failures = 0;
  private notBefore = 0;

  isOpen(now: number): boolean {
    return this.orders.size > 0 && now >= this.notBefore;
  }

  fail(now: number): void {
    this.notBefore = now + Math.min(PAUSE.longest, PAUSE.first * 2 ** this.failures++);
  }

  wait(now: number): void {
    this.notBefore = Math.max(this.notBefore, now + PAUSE.first);
  }

  clear(): void {
    this.failures = 0;
    this.notBefore = 0;
  }
}

/**
 * One way to the outside. It takes one message at a time, those of one order in their order, and is left alone for a while
 * when it fails.
 *
 * One at a time, because bindings.smtp of Dapr 1.18 merges the metadata of a call into what all its calls share: of two
 * mails at once, both may go to one customer.
 *
 * Nobody outside says whether the channel is down or will never take this one message. So what has failed before waits
 * in a lane of its own, which holds up nothing that has not.
 */
export class Channel {
  private readonly turns = new KeyedLock();
  /** ids that wait, by order, the lowest first */
  private readonly waiting = new Map<number, number[]>();
  private readonly fresh = new Lane();
  private readonly again = new Lane();

  constructor(
    private readonly name: string,
    private readonly look: Look,
    private readonly clock: () => number = () => performance.now(),
  ) {}

  /** Resolves once the message has been taken, or needs no sending. @throws Unavailable when that can't be now: ask again */
  async send(id: number, orderId: number): Promise<void> {
    this.enqueue(id, orderId);
    await this.turns.run("", async () => {
      while (this.waiting.get(orderId)?.includes(id)) await this.attempt(this.next());
    });
  }

  private enqueue(id: number, orderId: number): void {
    const ids = this.waiting.get(orderId);
    if (ids?.includes(id)) return;
    this.waiting.set(
      orderId,
      [...(ids ?? []), id].sort((a, b) => a - b),
    );
    if (!this.again.orders.has(orderId)) this.fresh.orders.add(orderId);
  }

  private next(): { orderId: number; lane: Lane } {
    const now = this.clock();
    const lane = [this.fresh, this.again].find((one) => one.isOpen(now));
    const [orderId] = lane?.orders ?? [];
    if (lane === undefined || orderId === undefined)
      throw new Unavailable(`${this.name} is left alone for a while`);
    return { orderId, lane };
  }

  private async attempt({ orderId, lane }: { orderId: number; lane: Lane }): Promise<void> {
    const id = this.waiting.get(orderId)?.[0];
    const handOver = id === undefined ? undefined : await this.look(id);
    try {
      await handOver?.();
    } catch (error) {
      this.failed(orderId, lane);
      throw error;
    }
    if (handOver !== undefined) {
      lane.clear();
      if (lane === this.again) this.fresh.clear();
    }
    this.done(id, orderId);
  }

  private failed(orderId: number, lane: Lane): void {
    const now = this.clock();
    lane.fail(now);
    if (lane === this.fresh) this.again.wait(now);
    lane.orders.delete(orderId);
    this.again.orders.add(orderId); // behind the others that wait
  }

  private done(id: number | undefined, orderId: number): void {
    const left = (this.waiting.get(orderId) ?? []).filter((one) => one !== id);
    this.again.orders.delete(orderId);
    if (left.length > 0) {
      this.waiting.set(orderId, left);
      this.fresh.orders.add(orderId);
    } else {
      this.waiting.delete(orderId);
      this.fresh.orders.delete(orderId);
    }
  }
}
