import type { Logger } from "#kit/log.js";
import type { Sidecar } from "#kit/sidecar.js";

/** In ms; tests have shorter ones. */
export const HEARING = {
  /** The sidecar is asked this often. */
  every: 5_000,
  /** A sidecar that has just started may take this long until it listens. */
  patience: 15_000,
};

/**
 * Sees to it that the sidecar listens to what the service subscribes to. Dapr 1.18 asks its app for the subscriptions once;
 * where that fails, because the app was killed at that moment, it never asks again, and runs on, healthy and deaf
 * (pkg/runtime/processor/subscriber: hasInitProg is set before the question). Only a new sidecar helps.
 * @returns how to stop watching
 */
export function keepHearing(
  sidecar: Pick<Sidecar, "heard" | "restart">,
  topics: readonly string[],
  log: Logger,
  times: Partial<typeof HEARING> = {},
): () => void {
  if (topics.length === 0) return () => undefined; // nothing to miss
  const { every, patience } = { ...HEARING, ...times };
  let deafSince: number | undefined;
  const look = async () => {
    // Away, or starting: that says nothing about what it will listen to.
    const heard = await sidecar.heard().catch(() => undefined);
    const missing = heard === undefined ? [] : topics.filter((topic) => !heard.has(topic));
    if (missing.length === 0) {
      deafSince = undefined;
      return;
    }
    deafSince ??= performance.now();
    if (performance.now() - deafSince < patience) return;
    deafSince = undefined;
    log.warn(
      { missing },
      "the sidecar does not listen to our topics and will not ask again; it is ended, to be started anew",
    );
    await sidecar.restart().catch(() => undefined);
  };
  let looking = false;
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, every);
  timer.unref();
  return () => clearInterval(timer);
}
