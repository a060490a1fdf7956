/** Makes sure that the end of this process, however it comes, also ends the systems that it runs. */

/** What is to be ended with this process. */
interface Guarded {
  stop(options?: { now?: boolean }): Promise<void>;
  pids(): number[];
}

const exitCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
type Signal = keyof typeof exitCodes;

const guarded = new Set<Guarded>();
let installed = false;
let signalledAt = 0;

/** Puts a system under guard. */
export function guard(system: Guarded): void {
  guarded.add(system);
  if (installed) return;
  installed = true;
  process.on("exit", killAll);
  for (const signal of Object.keys(exitCodes) as Signal[]) process.on(signal, stopAll);
}

/** Releases a system that has been stopped. */
export function unguard(system: Guarded): void {
  guarded.delete(system);
}

function stopAll(signal: Signal): void {
  // npm passes on the Ctrl-C that the terminal has already sent to us: only a later one is a second one.
  const now = signalledAt > 0 && Date.now() - signalledAt > 500;
  signalledAt ||= Date.now();
  const stopped = [...guarded].map((system) => system.stop({ now }));
  void Promise.allSettled(stopped).then(() => process.exit(exitCodes[signal]));
}

/** The last resort, when the exit leaves no time to stop things in order. */
function killAll(): void {
  for (const system of guarded)
    for (const pid of system.pids())
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended, and we have not heard of it yet; the others must still go.
      }
}
