/**
 * How the set-up works: steps that show how long they take, programs that are run to their end, locks. It runs before
 * anything is installed, so it is plain JavaScript and uses nothing but Node's own modules.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** A problem that the user can solve: shown without a stack. */
export class SetupError extends Error {}

/** Runs a step, and shows its name and the time it takes once that exceeds a second: updating on a terminal. */
export async function step(name, work) {
  const began = Date.now();
  const { stdout } = process;
  const seconds = () => `${Math.round((Date.now() - began) / 1000)} s`;
  let shown = false;
  const ticker = setInterval(() => {
    if (stdout.isTTY) stdout.write(`\r${name} … ${seconds()}`);
    else if (!shown) stdout.write(`${name} … `);
    shown = true;
  }, 1000);
  try {
    const result = await work();
    if (shown) stdout.write(stdout.isTTY ? `\r${name}: ${seconds()}  \n` : `${seconds()}\n`);
    return result;
  } catch (error) {
    if (shown) stdout.write("\n");
    throw error;
  } finally {
    clearInterval(ticker);
  }
}

/** The program that runs now. A signal to us is passed on to it, and we end after it. */
let child;

function passOn(signal) {
  if (child) child.kill(signal);
  else process.exit(1);
}

/** Takes signals, and the end of the process that started us, as the wish to stop. */
export function listenForTheEnd() {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, passOn);
  // A signal to npm alone ends npm and its shell, and doesn't reach us: without this, all would run on unseen.
  const parent = process.ppid;
  const watch = () => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    passOn("SIGTERM");
  };
  const timer = setInterval(watch, 500).unref();
}

/**
 * Runs a program to its end and answers its output; if it fails, a SetupError is thrown that calls it `title` and shows
 * the output. With `stdio` "inherit" the output is shown as it comes, and the exit status is answered.
 */
export async function run(command, args, { stdio = "pipe", env = {}, cwd = root, title } = {}) {
  child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["inherit", stdio, stdio] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (data) => (output += data));
  const { code, signal, error } = await new Promise((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal }));
    child.once("error", (error) => resolve({ error }));
  });
  child = undefined;
  if (signal && stdio === "pipe") process.exit(1); // stopped by the user
  if (stdio === "pipe" && (error || code !== 0))
    throw new SetupError(
      `${title ?? [command, ...args].join(" ")} failed:\n${error?.message ?? output.trim()}`,
    );
  if (stdio === "pipe") return output;
  return error ? 127 : (code ?? 1);
}

/** Only one set-up at a time does what has this name: works in a clone, builds into the cache, installs packages. */
export async function alone(name, work) {
  const lock = join(cacheDirectory(), `${name}.lock`);
  mkdirSync(dirname(lock), { recursive: true });
  const mine = `${lock}.${process.pid}`;
  const wait = async () => {
    for (;;) {
      try {
        return linkSync(mine, lock); // unlike writing a new file, it never shows a lock without its owner
      } catch (error) {
        if (error.code !== "EEXIST") throw error;
      }
      if (isAlive(ownerOf(lock))) await delay(100);
      else rmSync(lock, { force: true });
    }
  };
  writeFileSync(mine, String(process.pid));
  process.once("exit", () => rmSync(mine, { force: true }));
  await step("waiting for another set-up to finish", wait);
  const release = () => rmSync(lock, { force: true });
  process.once("exit", release); // also when a signal ends the set-up
  try {
    return await work();
  } finally {
    process.off("exit", release);
    release();
  }
}

function ownerOf(lock) {
  try {
    return Number(readFileSync(lock, "utf8"));
  } catch {
    return 0; // released meanwhile
  }
}

function isAlive(pid) {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Where what was built is kept, for all clones of this user. */
export const cacheDirectory = () =>
  process.env.JANGTEO_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "jangteo");

export const hash = (...parts) =>
  parts.reduce((sum, part) => sum.update(part), createHash("sha256")).digest("hex");
