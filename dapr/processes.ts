/** Child processes that are kept running, and what is needed to find them again after the runner itself was killed. */
import { execFileSync, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

export interface ProcessSpec {
  name: string;
  kind: "server" | "sidecar" | "app";
  command: string;
  args: string[];
  cwd: string;
  /** Asked anew for each start, so that a start can differ from the first one. */
  env: (restarts: number) => Record<string, string | undefined>;
  /** Both output streams are appended to this file. */
  log: string;
  port: number;
  /** One quick check whether the process does its work now. */
  ready: () => Promise<boolean>;
}

/** Waits before a crashed process is started again; the last one repeats. */
const backoff = [0, 200, 1000, 2000, 5000];
/** A process that ran this long before it crashed is started again without a wait. */
const stableAfter = 10_000;
/** How often a condition is looked at while waiting for it. */
const pollInterval = 50;

/** Calls `check` until it returns true; false when `timeout` ms passed before that. */
export async function until(check: () => boolean | Promise<boolean>, timeout: number): Promise<boolean> {
  for (const end = Date.now() + timeout; Date.now() < end; await delay(pollInterval))
    if (await check()) return true;
  return check();
}

/** A process that is started again whenever it ends by itself. */
export class Supervised {
  pid: number | undefined;
  restarts = 0;
  /** How often it ended of itself without having been seen ready since its start. */
  failedStarts = 0;
  #wasReady = false;
  #stopping = false;
  #crashes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    readonly spec: ProcessSpec,
    /** Called after each start, with the new pid set. */
    private readonly onStart: (process: Supervised) => void,
    /** Called with a sentence for people when the process ended unexpectedly. */
    private readonly onCrash: (message: string) => void,
  ) {}

  start(): void {
    const { command, args, cwd, env, log } = this.spec;
    const file = openSync(log, "a");
    const startedAt = Date.now();
    this.#wasReady = false;
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env(this.restarts) },
      stdio: ["ignore", file, file],
      // A session of its own: Ctrl-C in the terminal reaches only the runner, which stops things in order.
      detached: true,
    });
    this.pid = child.pid;
    const ended = (how: string, killed = false) => {
      closeSync(file);
      this.#ended(how, Date.now() - startedAt, killed);
    };
    child.once("exit", (code, signal) =>
      ended(signal ? `was ended by ${signal}` : `ended with code ${code}`, signal === "SIGKILL"),
    );
    child.once("error", (error) => {
      if (child.pid !== undefined) return; // started, so that `exit` will tell its end
      writeSync(file, `${error.message}\n`);
      ended("could not be started");
    });
    this.onStart(this);
  }

  /** Checks now whether the process is up and does its work. */
  async ready(): Promise<boolean> {
    const { pid } = this;
    if (pid === undefined || !(await this.spec.ready())) return false;
    if (pid !== this.pid) return false; // it answered, and ended meanwhile
    this.#wasReady = true;
    this.failedStarts = 0;
    return true;
  }

  /** Sends a signal. After one that ends processes, resolves when this process has ended. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const { pid } = this;
    if (pid === undefined) return;
    process.kill(pid, signal);
    if (!["SIGSTOP", "SIGCONT"].includes(signal)) await until(() => this.pid !== pid, 10_000);
  }

  /** Ends the process for good: SIGTERM, and SIGKILL if it still runs after `patience` ms. */
  async stop(patience: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    if (this.pid === undefined) return;
    process.kill(this.pid, patience > 0 ? "SIGTERM" : "SIGKILL");
    if (await until(() => this.pid === undefined, patience)) return;
    process.kill(this.pid, "SIGKILL");
    await until(() => this.pid === undefined, 1000);
  }

  /** The end of the log, for an error message. */
  lastLines(count = 15): string {
    return readFileSync(this.spec.log, "utf8").trimEnd().split("\n").slice(-count).join("\n");
  }

  #ended(how: string, uptime: number, killed: boolean): void {
    this.pid = undefined;
    if (this.#stopping) return;
    // Who is killed has not failed to start.
    if (!this.#wasReady && !killed) this.failedStarts++;
    if (uptime > stableAfter) this.#crashes = 0;
    const wait = backoff[Math.min(this.#crashes++, backoff.length - 1)] ?? 0;
    const when = wait ? `again in ${wait / 1000} s` : "again now";
    this.onCrash(`${this.spec.name} ${how} and is started ${when}; log: ${this.spec.log}`);
    this.#timer = setTimeout(() => {
      this.restarts++;
      this.start();
    }, wait);
  }
}

/**
 * What tells a process from a later one with the same pid: when it was started. Undefined if there is no such process.
 */
export function identity(pid: number): string | undefined {
  if (existsSync("/proc/self/stat")) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      // Behind the command's name (in parentheses, may contain anything): state is field 3, the start time field 22.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (fields[0] === "Z") return undefined;
      return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${fields[19]}`;
    } catch {
      return undefined;
    }
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || undefined;
  } catch {
    return undefined;
  }
}
