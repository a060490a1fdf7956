/**
 * One disaster from its beginning to its audit: a shop of its own, people who use it, processes that die, hang and are
 * restarted, quiet, and then every store opened and counted. `npm run chaos` shows it, tests/chaos.test.ts repeats it.
 */
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type ProcessInfo, root, type System } from "#dapr/runner.js";
import { readShop } from "#kit/shop.js";
import { disagreements, remainsOf, takenByChannels, untold, waiting } from "./chaos-audit.js";
import { Crowd } from "./chaos-load.js";
import { type Blow, type How, plan, randomOf } from "./chaos-plan.js";
import { type Dump, type Facts, violations } from "./invariants.js";
import { TestShop, until } from "./shop.js";

export interface ChaosOptions {
  backend: string;
  minutes: number;
  seed: number;
  replicas: Record<string, number>;
  ports: number;
}

/** How a blow was got over. */
export interface Struck extends Blow {
  kind: ProcessInfo["kind"];
  /** performance.now() */
  began: number;
  /** when the victim did its work again, performance.now(); undefined: not yet */
  ready: number | undefined;
}

/** How processes of a kind were hit, and how long it took each time, in ms. */
export interface Recovery {
  counts: Record<How, number>;
  /** until the victim did its work again */
  up: number[];
  /** until an order that was asked for after the blow was answered with 201 */
  ordering: number[];
}

export interface Report {
  crowd: Crowd;
  struck: readonly Struck[];
  /** how long people could order, in ms */
  lasted: number;
  /** longest time without an order being answered with 201, in ms */
  longestGap: number;
  /** the same, of the times when every process did its work */
  longestIdle: number;
  /** by the victim's kind, a server by its name */
  recoveries: ReadonlyMap<string, Recovery>;
  /** how long it took until all was quiet, in ms */
  quietAfter: number;
  /** what lies in the stores */
  counted: Record<string, number>;
  /** every rule that does not hold, and everything that people should not have seen; [] when nothing was lost, nothing is there twice */
  wrong: string[];
  /** where data and logs are kept; undefined where all was well and they are gone */
  kept: string | undefined;
}

const SHOP = join(root, "tests", "fixtures", "chaos.yaml");
const PEOPLE = 12;
/** Longest wait for all to be quiet, in ms. */
const QUIET_WITHIN_MS = 180_000;
/** How long after its end a gateway may still refuse connections: until its next process listens. */
const LISTENS_AGAIN_MS = 1_000;

/**
 * Runs one disaster. Its data directory is removed at the end if all was well.
 * @param tell hears what happens, in lines for people
 * @throws StartError if the shop does not start
 */
export async function chaos(options: ChaosOptions, tell: (line: string) => void): Promise<Report> {
  const { backend, replicas, ports } = options;
  const data = await mkdtemp(join(tmpdir(), "jangteo-chaos-"));
  const clear = () => rmSync(data, { recursive: true, force: true, maxRetries: 10 });
  process.once("exit", clear); // a signal ends this process before it comes to its end
  let keep = false;
  try {
    const shop = await TestShop.open(ports, { data, backend, replicas, shop: SHOP });
    keep = true; // whatever goes wrong from here on is to be looked at
    const report = await disaster(shop, options, tell);
    keep = report.kept !== undefined;
    return report;
  } catch (error) {
    throw keep ? new Error(`chaos ended early; data and logs: ${data}`, { cause: error }) : error;
  } finally {
    process.off("exit", clear);
    if (!keep) clear();
  }
}

async function disaster(
  shop: TestShop,
  { backend, minutes, seed, ports }: ChaosOptions,
  tell: (line: string) => void,
): Promise<Report> {
  const { data } = shop;
  const struck: Struck[] = [];
  const crowd = new Crowd(shop.system.gateway, randomOf(seed), (from, to) =>
    struck.some((blow) => isGatewayAway(blow, from, to)),
  );
  const rules = readShop(SHOP);
  const factsOf = (): Facts => ({
    ...{ shop: rules, promised: crowd.promised, cancelled: crowd.cancelled },
    ...{ done: crowd.done, given: crowd.given, everyoneAnswered: true },
  });
  const wrong: string[] = [];
  const began = performance.now();
  let lasted = 0;
  let quietAfter = 0;
  try {
    const withinMs = minutes * 60_000;
    const using = crowd.run(PEOPLE);
    await strikeAll(shop.system, plan(seed, withinMs, shop.system.processes()), struck, wrong, tell);
    await delay(Math.max(0, began + withinMs - performance.now()));
    crowd.stop();
    await using;
    lasted = performance.now() - began;
    tell("nobody is hit any more; waiting until all is quiet");
    wrong.push(...(await quiet(shop, factsOf())));
    quietAfter = performance.now() - began - lasted;
  } finally {
    await shop.close(true);
  }
  tell("the shop is closed; opening its stores");
  const { dump, left = [], events } = await remainsOf(backend, data, ports);
  const channels = new Set(rules.notifications.map(({ channel }) => channel));
  const facts = { ...factsOf(), sent: takenByChannels(data, channels), rested: true };
  wrong.push(
    ...crowd.findings,
    ...violations(dump, facts),
    ...(events === undefined ? [] : untold(dump, events, facts)),
    ...left.map(({ name, messages, waiting }) => `${name}: ${messages} messages, ${waiting} of them wait`),
  );
  return {
    ...{ crowd, struck, lasted, quietAfter, wrong },
    longestGap: longestGap(crowd, began, began + lasted),
    longestIdle: longestIdle(crowd, struck, began + lasted),
    recoveries: recoveriesOf(struck, crowd),
    counted: countedIn(dump, events),
    kept: wrong.length === 0 ? undefined : data,
  };
}

/** A gateway that is hit answers nobody until it listens, or goes on, again. */
function isGatewayAway({ victim, began, ready }: Struck, from: number, to: number): boolean {
  const isBack = (ready ?? Number.POSITIVE_INFINITY) + LISTENS_AGAIN_MS;
  return /^gateway-\d+$/.test(victim) && began <= to && isBack >= from;
}

/** Deals the blows of a plan at their times. Resolves when all victims do their work again. */
async function strikeAll(
  system: System,
  blows: readonly Blow[],
  struck: Struck[],
  wrong: string[],
  tell: (line: string) => void,
): Promise<void> {
  const began = performance.now();
  await Promise.all(
    blows.map(async (blow) => {
      await delay(blow.at - (performance.now() - began));
      const { kind, pid } = system.processes().find(({ name }) => name === blow.victim) ?? {};
      if (kind === undefined || pid === undefined) return; // it is down already
      const one: Struck = { ...blow, kind, began: performance.now(), ready: undefined };
      struck.push(one);
      tell(`${(blow.at / 1000).toFixed(1).padStart(6)} s  ${toldOf(blow)}`);
      try {
        await strike(system, one);
        await system.waitReady(one.victim);
        one.ready = performance.now();
      } catch (error) {
        wrong.push(`${toldOf(blow)} at ${Math.round(blow.at / 1000)} s: ${(error as Error).message}`);
      }
    }),
  );
}

const WORDS: Record<How, string> = { kill: "kill -9", stop: "kill -STOP", restart: "kill -TERM" };
const toldOf = ({ victim, how, forMs }: Blow) =>
  `${WORDS[how]} ${victim}${how === "stop" ? ` for ${(forMs / 1000).toFixed(1)} s` : ""}`;

async function strike(system: System, { victim, how, forMs }: Blow): Promise<void> {
  // Between its end and the runner's hearing of it there is nobody to be hit.
  const send = (signal: NodeJS.Signals) =>
    system.kill(victim, signal).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ESRCH") throw error;
    });
  switch (how) {
    case "kill":
      return send("SIGKILL");
    case "restart":
      return send("SIGTERM");
    case "stop":
      await send("SIGSTOP");
      await delay(forMs);
      return send("SIGCONT");
  }
}

/** Waits until nothing is under way any more; answers what is still wrong then. */
async function quiet(shop: TestShop, facts: Facts): Promise<string[]> {
  let wrong: string[] = [];
  const look = async () => {
    wrong =
      (await waiting(shop.system.components))?.map(({ name, waiting }) =>
        waiting > 0 ? `${name}: ${waiting} messages wait` : `${name} is there`,
      ) ?? [];
    if (wrong.length > 0) return false;
    const pending = [...(await shop.recorded())].filter(([, status]) => status === "Pending");
    wrong = [...pending.map(([id]) => `order ${id} is Pending`), ...(await disagreements(shop, facts))];
    return wrong.length === 0;
  };
  const closely = async () => {
    try {
      return await look();
    } catch (error) {
      wrong = [(error as Error).message];
      return false;
    }
  };
  return until("all is quiet", QUIET_WITHIN_MS, closely).then(
    () => [],
    () => wrong.map((one) => `not quiet after ${QUIET_WITHIN_MS / 1000} s: ${one}`),
  );
}

function longestGap({ created }: Crowd, began: number, end: number): number {
  const within = created.map(({ ended }) => ended).filter((at) => at > began && at < end);
  const times = [began, ...within.sort((a, b) => a - b), end];
  return Math.max(...times.slice(1).map((time, i) => time - (times[i] ?? time)));
}

/** From when the last victim is up again to when the next one is hit. */
function longestIdle(crowd: Crowd, struck: readonly Struck[], end: number): number {
  const [first, ...others] = struck.toSorted((one, other) => one.began - other.began);
  let longest = 0;
  let up = first?.ready ?? end;
  for (const { began, ready } of [...others, { began: end, ready: end }]) {
    if (began > up) longest = Math.max(longest, longestGap(crowd, up, began));
    up = Math.max(up, ready ?? end);
  }
  return longest;
}

function recoveriesOf(struck: readonly Struck[], { created }: Crowd): Report["recoveries"] {
  const recoveries = new Map<string, Recovery>();
  for (const { kind, victim, how, began, ready } of struck) {
    const name = kind === "server" ? victim : `${kind}s`;
    const counts = { kill: 0, stop: 0, restart: 0 };
    const known = recoveries.get(name) ?? { counts, up: [], ordering: [] };
    known.counts[how]++;
    if (ready !== undefined) known.up.push(ready - began);
    const next = created.filter(({ asked }) => asked > began).map(({ ended }) => ended);
    if (next.length > 0) known.ordering.push(next.reduce((a, b) => Math.min(a, b)) - began);
    recoveries.set(name, known);
  }
  return recoveries;
}

/** How many records of each kind there are, and how many events. */
function countedIn(dump: Dump, events: readonly unknown[] | undefined): Record<string, number> {
  const counted: Record<string, number> = {};
  for (const kind of [
    "order",
    "payment",
    "reservation",
    "ticket",
    "delivery",
    "row",
    "message",
    "card",
    "grant",
  ])
    counted[kind] = [...dump.values()].flatMap((rows) =>
      [...rows.keys()].filter((key) => key.startsWith(`${kind}:`)),
    ).length;
  return events === undefined ? counted : { ...counted, event: events.length };
}
