/** Child processes that are kept running, and what is needed to find them again after the runner itself was killed. */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, realpathSync, writeSync } from "node:fs";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { StartError } from "./topology.js";

export interface ProcessSpec {
  name: string;
  kind: "server" | "sidecar" | "app";
  command: string;
  args: string[];
  cwd: string;
  /** Asked anew for each start, so that a start can differ from the first one. */
  env: (restarts: number) => Record<string, string | undefined>;
  /** Whom the process belongs to; ours if not given. See {@link spawnFor}. */
  owner?: Owner | undefined;
  /** What asks the process to end when the system stops, SIGTERM if not given. */
  endSignal?: NodeJS.Signals | undefined;
  /** Asks the process to end where that takes more than a signal; the signal follows if this fails. */
  end?: (() => Promise<void>) | undefined;
  /** Sockets that the process finds open as file descriptors from 3 on. */
  sockets?: number[];
  /** Both output streams are appended to this file. */
  log: string;
  port: number;
  /** One quick check whether the process does its work now. */
  ready: () => Promise<boolean>;
  /** One quick check whether the process answers at all, if that is less than `ready`; who fails it again and again is killed. */
  alive?: () => Promise<boolean>;
}

/** Where a program is, behind all links; what was asked for if it can't be found. */
export function pathOf(program: string): string {
  const directories = program.includes("/") ? [""] : (process.env.PATH ?? "").split(delimiter);
  const found = directories.map((directory) => join(directory, program)).find((path) => existsSync(path));
  return found === undefined ? program : realpathSync(found);
}

/** A user of this machine. */
export interface Owner {
  uid: number;
  gid: number;
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

/**
 * Spawns a process for another user, where one is given. That user may not be let through to `cwd` (a directory below
 * /root, say): so the process begins in / and finds `cwd` open as file descriptor 3.
 */
export function spawnFor(
  owner: Owner | undefined,
  command: string,
  args: string[],
  { cwd, stdio, ...options }: SpawnOptions & { cwd: string; stdio: Stdio[] },
): ChildProcess {
  if (owner === undefined) return spawn(command, args, { cwd, stdio, ...options });
  const directory = openSync(cwd, "r");
  try {
    return spawn(command, args, { ...options, ...owner, cwd: "/", stdio: [...stdio, directory] });
  } finally {
    closeSync(directory);
  }
}

type Stdio = "ignore" | "pipe" | number;

/**
 * Runs a program to its end, and ends it with this process.
 * @param input what it reads from its standard input
 * @throws StartError with the end of what it said, if it fails
 */
export function runToEnd(
  command: string,
  args: string[],
  { cwd, owner, input = "" }: { cwd: string; owner?: Owner | undefined; input?: string },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawnFor(owner, command, args, { cwd, stdio: ["pipe", "pipe", "pipe"] });
    const said: Buffer[] = [];
    const output = () => Buffer.concat(said).toString();
    const kill = () => child.kill("SIGKILL");
    process.once("exit", kill);
    child.stdout?.on("data", (chunk) => said.push(chunk));
    child.stderr?.on("data", (chunk) => said.push(chunk));
    child.stdin?.on("error", () => {}); // it ended before it read all: its exit code tells
    child.stdin?.end(input);
    child.once("error", (error) => {
      process.off("exit", kill);
      reject(new StartError(`${command} could not be started: ${error.message}`));
    });
    child.once("close", (code, signal) => {
      process.off("exit", kill);
      if (code === 0) return resolve(output());
      const end = output().trimEnd().split("\n").slice(-15).join("\n");
      reject(
        new StartError(
          `${command} ${signal ? `was ended by ${signal}` : `failed with code ${code}`}:\n${end}`,
        ),
      );
    });
  });
}

/** A process that is started again whenever it ends by itself. */
export class Supervised {
  pid: number | undefined;
  restarts = 0;
  /** How often it ended of itself without having been seen ready since its start. */
  failedStarts = 0;
  stopping = false;
  #wasReady = false;
  #stuck = false;
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
    const { command, args, cwd, env, log, owner, sockets = [] } = this.spec;
    const file = openSync(log, "a");
    const startedAt = Date.now();
    this.#wasReady = false;
    const child = spawnFor(owner, command, args, {
      cwd,
      env: { ...process.env, ...env(this.restarts) },
      stdio: ["ignore", file, file, ...sockets],
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
    if (!["SIGSTOP", "SIGCONT"].includes(signal)) await until(() => this.pid !== pid, 15_000);
  }

  /** Kills a process that runs but does not answer. Unlike one that crashes after a good while, it is not started at once again and again. */
  killStuck(): void {
    if (this.pid === undefined) return;
    this.#stuck = true;
    process.kill(this.pid, "SIGKILL");
  }

  /** Asks the process to end and not to be started again, as `signal` does it. */
  leave(signal: NodeJS.Signals): void {
    this.stopping = true;
    clearTimeout(this.#timer);
    if (this.pid !== undefined) process.kill(this.pid, signal);
  }

  /** Ends the process for good: what asks it to end, and SIGKILL if it still runs after `patience` ms. */
  async stop(patience: number): Promise<void> {
    this.stopping = true;
    clearTimeout(this.#timer);
    if (this.pid === undefined) return;
    if (patience > 0) await this.#askToEnd(patience);
    if (this.pid === undefined) return;
    process.kill(this.pid, "SIGKILL");
    await until(() => this.pid === undefined, 1000);
  }

  /** Resolves once it has ended by itself; after `patience` ms it is killed. */
  async ended(patience: number): Promise<void> {
    if (!(await until(() => this.pid === undefined, patience))) await this.stop(0);
  }

  async #askToEnd(patience: number): Promise<void> {
    const { end, endSignal = "SIGTERM" } = this.spec;
    const signal = () => this.pid !== undefined && process.kill(this.pid, endSignal);
    if (end) await end().catch(signal);
    else signal();
    await until(() => this.pid === undefined, patience);
  }

  /** The end of the log, for an error message. */
  lastLines(count = 15): string {
    return readFileSync(this.spec.log, "utf8").trimEnd().split("\n").slice(-count).join("\n");
  }

  #ended(how: string, uptime: number, killed: boolean): void {
    this.pid = undefined;
    if (this.stopping) return;
    // Who is killed has not failed to start.
    if (!this.#wasReady && !killed) this.failedStarts++;
    if (uptime > stableAfter && !this.#stuck) this.#crashes = 0;
    this.#stuck = false;
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
