/**
 * Fault points, for tests only: FAULTS="after-save:order" ends the process, as kill -9 would, the first time that it
 * passes the point; FAULTS="after-save:order@3" the third time. Without FAULTS they cost one comparison.
 */
const [wanted, nth] = (process.env.FAULTS ?? "").split("@");
let passes = 0;

/** A place where a test may end this process. */
export async function fault(point: string, detail: string): Promise<void> {
  if (wanted === "" || wanted !== `${point}:${detail}`) return;
  passes++;
  if (passes < Number(nth ?? 1)) return;
  process.kill(process.pid, "SIGKILL");
  // The signal is delivered asynchronously; nothing may happen after the point.
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
