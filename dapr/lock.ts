/** One system per data directory: its lock, and the list of processes that a killed runner left behind. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { identity, until } from "./processes.js";
import { StartError } from "./topology.js";

interface Known {
  name: string;
  pid: number;
  identity: string | undefined;
}

const lockFile = (data: string) => join(data, "run", "lock.json");
const pidsFile = (data: string) => join(data, "run", "pids.json");

function read<T>(file: string): T | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined; // missing, or half-written when the machine went down
  }
}

const runs = ({ pid, identity: known }: Known) => known !== undefined && identity(pid) === known;

/** Takes the lock of a data directory, whose run/ exists. Throws when a living runner holds it. */
export function lock(data: string): void {
  const file = lockFile(data);
  const mine = `${file}.${process.pid}`;
  writeFileSync(mine, JSON.stringify({ name: "runner", pid: process.pid, identity: identity(process.pid) }));
  try {
    while (!tryLink(mine, file)) {
      const holder = read<Known>(file);
      if (holder && runs(holder))
        throw new StartError(
          `A system is already running on ${data} (process ${holder.pid}).\n` +
            "Stop it first (Ctrl-C there), or give this one --data DIR and --ports N of its own.",
        );
      rmSync(file, { force: true });
    }
  } finally {
    rmSync(mine);
  }
}

/** Gives a file a second name, if that is free. Unlike writing a new file, it never shows a lock without its holder. */
function tryLink(file: string, name: string): boolean {
  try {
    linkSync(file, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

export function unlock(data: string): void {
  rmSync(pidsFile(data), { force: true });
  rmSync(lockFile(data), { force: true });
}

/** Writes down which processes run now, for `endLeftovers` of a later start. */
export function remember(data: string, processes: { name: string; pid: number | undefined }[]): void {
  const known = processes.flatMap(({ name, pid }) => (pid ? [{ name, pid, identity: identity(pid) }] : []));
  writeFileSync(`${pidsFile(data)}.new`, JSON.stringify(known, null, 1));
  renameSync(`${pidsFile(data)}.new`, pidsFile(data));
}

/** Ends what an earlier runner on this data directory started and, being killed itself, couldn't stop. */
export async function endLeftovers(data: string): Promise<string[]> {
  const left = (read<Known[]>(pidsFile(data)) ?? []).filter(runs);
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    for (const { pid } of left.filter(runs)) process.kill(pid, signal);
    if (await until(() => !left.some(runs), 5000)) break;
  }
  return left.map(({ name }) => name);
}
