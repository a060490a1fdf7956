/** Self-healing: a process that runs but does not answer is killed, so that it is started again. */
import { z } from "zod";
import type { Supervised } from "./processes.js";
import { StartError } from "./topology.js";

/** As Kubernetes' liveness probes; in seconds. */
export interface Liveness {
  /** How long one answer may take. */
  timeout: number;
  /** From one question to the next. */
  period: number;
  /** So many questions in a row without an answer are too many. */
  failures: number;
  /** A process that has not answered since its start is given so long before its silence counts. */
  delay: number;
}

/** The seeds' numbers. */
const usual: Liveness = { timeout: 2, period: 5, failures: 5, delay: 120 };

const schema = z.strictObject({
  timeout: z.coerce.number().positive(),
  period: z.coerce.number().positive(),
  failures: z.coerce.number().int().positive(),
  delay: z.coerce.number().nonnegative(),
});

/** Reads `period=1,failures=3`; what is not named is as usual. @throws StartError */
export function readLiveness(text = ""): Liveness {
  const items = text.split(",").filter((item) => item.trim() !== "");
  const given = Object.fromEntries(items.map((item) => item.split("=").map((part) => part.trim())));
  const parsed = schema.safeParse({ ...usual, ...given });
  if (parsed.success) return parsed.data;
  throw new StartError(
    `LIVENESS=${text} can't be understood; it is of the form timeout=2,period=5,failures=5,delay=120`,
  );
}

/**
 * Asks a process again and again whether it is alive, and kills it when it has not answered for too long.
 * @param tell told, in a sentence for people, when it is killed
 */
export function keepAlive(
  process: Supervised,
  { timeout, period, failures, delay }: Liveness,
  tell: (message: string) => void,
): void {
  let pid: number | undefined;
  let since = 0;
  let hasAnswered = false;
  let failed = 0;
  const look = async () => {
    if (process.pid !== pid) {
      pid = process.pid;
      since = Date.now();
      hasAnswered = false;
      failed = 0;
    }
    if (pid === undefined) return;
    const answered = await within(timeout * 1000, process.spec.alive ?? process.spec.ready);
    if (process.pid !== pid || process.stopping) return;
    if (answered) {
      hasAnswered = true;
      failed = 0;
    } else if (hasAnswered || Date.now() - since > delay * 1000) failed++;
    if (failed < failures) return;
    failed = 0;
    tell(`${process.spec.name} runs but has not answered ${failures} times in a row, and is killed`);
    process.killStuck();
  };
  let looking = false;
  const timer = setInterval(() => {
    if (process.stopping) return clearInterval(timer);
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, period * 1000);
  timer.unref();
}

async function within(ms: number, check: () => Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  const answer = await Promise.race([check().catch(() => false), late]);
  clearTimeout(timer);
  return answer;
}
