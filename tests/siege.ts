/** The seeds' load tester, https://www.joedog.org/siege-home, and the table that it prints. */
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { words } from "./httpie.js";

/** The lines of siege's table, with their units. */
export const LINES = {
  Transactions: "hits",
  Availability: "%",
  "Elapsed time": "secs",
  "Data transferred": "MB",
  "Response time": "secs",
  "Transaction rate": "trans/sec",
  Throughput: "MB/sec",
  Concurrency: "",
  "Successful transactions": "",
  "Failed transactions": "",
  "Longest transaction": "",
  "Shortest transaction": "",
} as const;
export type Line = keyof typeof LINES;
export type Siege = Record<Line, number>;

/** As siege comes, but that nothing is left in a log, and that it does not give up where a lot fails, as it is meant to. */
export const CONFIG = `verbose = false
color = off
json_output = false
logging = false
show-logfile = false
parser = false
connection = close
delay = 0.0
limit = 255
failures = 1000000
`;

/**
 * What siege has printed.
 * @throws Error where its table is not complete
 */
export function parseTable(text: string): Siege {
  const entries = Object.keys(LINES).map((line) => {
    const value = new RegExp(`^${line}:\\s+(-?[\\d.]+)`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`siege has not said its "${line}":\n${text}`);
    return [line, Number(value)];
  });
  return Object.fromEntries(entries) as Siege;
}

/** The same command, asking `base` instead of the host that it names. */
export const aimedAt = (command: string, base: string): string => command.replace(/http:\/\/[^/\s'"]+/, base);

/**
 * Runs a siege command to its end.
 * @param command as typed into a shell
 * @param directory where siege keeps what is its own, instead of in the home of whoever runs this
 */
export async function siege(command: string, directory: string): Promise<Siege> {
  const [, ...args] = words(command);
  mkdirSync(directory, { recursive: true });
  const config = join(directory, "siegerc");
  writeFileSync(config, CONFIG);
  const child = spawn(process.env.SIEGE ?? "siege", ["-R", config, ...args], {
    env: { ...process.env, HOME: directory },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let said = "";
  child.stderr.on("data", (data) => {
    said += String(data);
  });
  try {
    await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
  } finally {
    process.off("exit", kill);
  }
  return parseTable(said);
}
