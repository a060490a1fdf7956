import { Unavailable } from "#kit/sidecar.js";

/**
 * Group commit: while one call is under way, what is asked meanwhile is gathered and sent together.
 *
 * What is asked within one turn of the event loop travels together, and under load N writes become one request to the
 * sidecar. A lane never has more than `flights` calls under way, which also keeps the writers of one store in order
 * (SQLite's collide otherwise).
 */
export class Batcher<In, Out> {
  private waiting: { item: In; resolve: (out: Out) => void; reject: (error: unknown) => void }[] = [];
  private flying = 0;
  private boarding = false;

  /**
   * @param run takes up to `most` items and answers one result per item, in order; a result that is an Error rejects
   *   just that item, a rejection rejects them all
   * @param waits how many may wait; what comes then is refused. All that asks bounds itself to less, so it is a fuse
   */
  constructor(
    private readonly run: (items: In[]) => Promise<(Out | Error)[]>,
    private readonly most = 64,
    private readonly flights = 1,
    private readonly waits = 8_192,
  ) {}

  /** Adds one item and answers its own result. @throws Unavailable when too many wait */
  add(item: In): Promise<Out> {
    if (this.waiting.length >= this.waits)
      return Promise.reject(new Unavailable("too much waits for the sidecar already"));
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      if (this.boarding || this.flying >= this.flights) return;
      this.boarding = true;
      setImmediate(() => {
        this.boarding = false;
        this.fly();
      });
    });
  }

  private fly(): void {
    const batch = this.waiting.splice(0, this.most);
    if (batch.length === 0) return;
    this.flying++;
    this.run(batch.map((one) => one.item))
      .then(
        (outs) => {
          batch.forEach((one, i) => {
            const out = outs[i];
            if (out instanceof Error) one.reject(out);
            else one.resolve(out as Out);
          });
        },
        (error) => {
          for (const one of batch) one.reject(error);
        },
      )
      .finally(() => {
        this.flying--;
        if (!this.boarding) this.fly();
      });
  }
}

/** Runs the tasks of one key one after another, and those of different keys side by side. */
export class KeyedLock {
  private readonly tails = new Map<string, Promise<unknown>>();

  /** Runs `task` once all earlier tasks of `key` have settled; answers what it answers. */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.tails.get(key);
    const mine = (before ?? Promise.resolve()).then(task, task);
    this.tails.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.tails.get(key) === mine) this.tails.delete(key);
    }
  }
}
