/** More load than a shop can take: how much it takes, and what becomes of it under several times that. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Load, Seen } from "./load.js";
import { type TestShop, until } from "./shop.js";

/** Puts a load on a gateway, from a process of its own. */
export async function put(load: Load): Promise<Seen> {
  const program = fileURLToPath(new URL("load.js", import.meta.url));
  const child = spawn(process.execPath, [program, JSON.stringify(load)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`the load ended with ${code}`);
  return JSON.parse(Buffer.concat(chunks).toString()) as Seen;
}

/** The value that so large a share of them does not exceed. NaN where there are none. */
export function percentile(times: readonly number[], share: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Resident memory of every process of a shop, in MiB, by name. */
export function memory(shop: TestShop): Map<string, number> {
  const found = new Map<string, number>();
  for (const { name, pid } of shop.system.processes()) {
    if (pid === undefined) continue;
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    found.set(name, Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1_024);
  }
  return found;
}

/** In a line, for people. */
export function told(seen: Seen): string {
  const at = (times: readonly number[], share: number) => Math.round(percentile(times, share));
  return (
    `${seen.perSecond.toFixed(1)}/s, p50 ${at(seen.served, 0.5)} p99 ${at(seen.served, 0.99)} ms; ` +
    `${seen.served.length} served, ${seen.refused.length} refused (p50 ${at(seen.refused, 0.5)} p99 ${at(seen.refused, 0.99)} ms) ${JSON.stringify(seen.codes)}, slowest by second ${seen.slowest.join(" ")}, others ${JSON.stringify(seen.others)}; at once ${seen.most}, lag ${Math.round(seen.lag)} ms`
  );
}

/** What a shop does under more than it can take. */
export interface Overload {
  /** the most orders per second that it placed for clients who wait for their answers, before the overload and after it */
  peak: [before: number, after: number];
  /** the overload, from one address */
  flood: Seen;
  /** two clients at another address meanwhile, each of which waits for its answers */
  neighbour: Seen;
  /** what those were told meanwhile who looked every now and then: "/readyz 200", and how often */
  looks: Record<string, number>;
  /** ids of all orders that were promised */
  promised: number[];
  /** resident memory of all its processes, in MiB, before the overload and at its end */
  memory: [before: number, after: number];
  /** how long it took from the end of the overload until the view showed every order as being delivered, in ms */
  followedMs: number;
}

/** How many clients the peak is measured with: below that, fewer writes travel together. */
const CLIENTS = 200;

/**
 * Puts `times` as many orders on a shop as it can take, for so many seconds, on a clock; nobody waits for an answer.
 * @param tell hears how it goes
 */
export async function overload(
  shop: TestShop,
  { times, seconds, peakSeconds }: { times: number; seconds: number; peakSeconds: number },
  tell: (line: string) => void,
): Promise<Overload> {
  const promised: number[] = [];
  const load = async (what: string, asked: Omit<Load, "url">): Promise<Seen> => {
    const seen = await put({ url: shop.system.gateway, ...asked });
    promised.push(...seen.ids);
    tell(`${what}: ${told(seen)}`);
    return seen;
  };
  await load("warming up", { clients: 8, seconds: 2 });
  // Twice: code that has just been compiled is faster.
  const few = await load("16 clients", { clients: 16, seconds: peakSeconds });
  const many = await load(`${CLIENTS} clients`, { clients: CLIENTS, seconds: peakSeconds });
  const peak = Math.max(few.perSecond, many.perSecond);
  const before = sum(memory(shop));
  const looks: Record<string, number> = {};
  const [flood, neighbour] = await Promise.all([
    load(`${times} times as much`, { rate: Math.round(times * peak), seconds }),
    load("a neighbour", { clients: 2, seconds, from: "127.0.0.2" }),
    looking(shop, seconds, looks),
  ]);
  tell(`looks: ${JSON.stringify(looks)}`);
  const after = sum(memory(shop));
  const ended = performance.now();
  await until("the view shows every order", 120_000, () => followed(shop));
  const followedMs = performance.now() - ended;
  tell(
    `followed after ${Math.round(followedMs)} ms, memory ${Math.round(before)} → ${Math.round(after)} MiB`,
  );
  const again = await load(`${CLIENTS} clients`, { clients: CLIENTS, seconds: peakSeconds });
  return {
    peak: [peak, again.perSecond],
    flood,
    neighbour,
    looks,
    promised,
    memory: [before, after],
    followedMs,
  };
}

/** Asks for health and for a page of orders, four times a second. */
async function looking(shop: TestShop, seconds: number, looks: Record<string, number>): Promise<void> {
  for (const end = performance.now() + seconds * 1_000; performance.now() < end; await delay(250))
    for (const path of ["/readyz", "/orders?size=1"]) {
      const { status } = await shop.http("GET", path);
      const what = `${path} ${status}`;
      looks[what] = (looks[what] ?? 0) + 1;
    }
}

const sum = (of: Map<string, number>): number => [...of.values()].reduce((all, one) => all + one, 0);

/** Whether every order has its delivery and its row. */
async function followed(shop: TestShop): Promise<boolean> {
  const count = async (name: string) =>
    (await shop.http("GET", `/${name}?size=1`)).body.page.totalElements as number;
  const orders = await count("orders");
  return (await count("deliveries")) >= orders && (await count("orderStatuses")) >= orders;
}
