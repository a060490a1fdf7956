/** Whom chaos hits, when and how: chosen by a seed, so that the same disaster can be asked for again. */
import type { ProcessInfo } from "#dapr/runner.js";

/** kill: -9. stop: hangs for a while. restart: is asked to end, as a deployment does. */
export type How = "kill" | "stop" | "restart";

/** What happens to one process. */
export interface Blow {
  /** ms since the beginning */
  at: number;
  /** the process's name */
  victim: string;
  how: How;
  /** how long it hangs, in ms; 0 for the others */
  forMs: number;
}

/** Between two disasters there are so many ms on average. */
const MEAN_GAP_MS = 4_000;
/** The first one comes so much later than the load, in ms. */
const FIRST_MS = 2_000;
/** How long a process hangs, in ms: below what a supervisor takes for dead. */
const HANG_MS = { least: 500, most: 15_000 };
/** Who has just been hit is left alone for so long, in ms, to have something to lose again. */
const REST_MS = 3_000;
/** How often several are hit at once, and how many at most. */
const TOGETHER = { share: 0.2, most: 4 };

/** How often each kind of process is hit, and each way of hitting is chosen. */
const KINDS: Record<ProcessInfo["kind"], number> = { app: 4, sidecar: 4, server: 2 };
const WAYS: Record<How, number> = { kill: 5, stop: 3, restart: 2 };

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One of a list that is not empty. */
export function pick<T>(random: () => number, list: readonly T[]): T {
  const chosen = list[Math.floor(random() * list.length)];
  if (chosen === undefined) throw new Error("there is nothing to choose from");
  return chosen;
}

/** One of these words, each as often as its weight says. */
export function weighted<K extends string>(random: () => number, weights: Record<K, number>): K {
  const entries = Object.entries(weights) as [K, number][];
  let left = random() * entries.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [key, weight] of entries) {
    left -= weight;
    if (left < 0) return key;
  }
  throw new Error("no weight is above 0");
}

/**
 * What happens to these processes within so many ms. The same seed and the same processes make the same plan; what it does to
 * a running system differs from run to run, as real time does.
 * @returns in the order of time
 */
export function plan(
  seed: number,
  withinMs: number,
  processes: readonly Pick<ProcessInfo, "name" | "kind">[],
): Blow[] {
  const random = randomOf(seed);
  const busyUntil = new Map<string, number>();
  const blows: Blow[] = [];
  for (let at = FIRST_MS; at < withinMs; at += (0.2 + 1.6 * random()) * MEAN_GAP_MS) {
    const together = random() < TOGETHER.share ? 2 + Math.floor(random() * (TOGETHER.most - 1)) : 1;
    for (let n = 0; n < together; n++) {
      const kind = weighted(random, KINDS);
      const free = processes.filter((one) => one.kind === kind && (busyUntil.get(one.name) ?? 0) <= at);
      const how = weighted(random, WAYS);
      // Short pauses are the usual ones, so the length is chosen by its order of magnitude.
      const hang = HANG_MS.least * (HANG_MS.most / HANG_MS.least) ** random();
      if (free.length === 0) continue;
      const victim = pick(random, free).name;
      const forMs = how === "stop" ? Math.round(Math.min(hang, withinMs - at)) : 0;
      busyUntil.set(victim, at + forMs + REST_MS);
      blows.push({ at: Math.round(at), victim, how, forMs });
    }
  }
  return blows;
}
