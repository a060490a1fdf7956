/**
 * A load of orders on a gateway, as a process of its own: what it asks for comes in as JSON in the first argument
 * ({@link Load}), what it saw goes out as one line of JSON ({@link Seen}). Kept cheap, for it competes with what it measures.
 */
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Pool } from "undici";

export interface Load {
  url: string;
  seconds: number;
  /** orders per second, on a clock, whether answers come or not */
  rate?: number;
  /** or so many clients, each of which waits for its answer before it asks again */
  clients?: number;
  /** the address that the client comes from; any of 127.0.0.0/8 */
  from?: string;
  /** instead of the usual order */
  body?: string;
}

export interface Seen {
  /** ids of the orders that were promised */
  ids: number[];
  /** 201 answers per second, of those that came while the load lasted */
  perSecond: number;
  /** how long a 201 took, in ms, in the order of arrival of the answers */
  served: number[];
  /** how long a proper refusal took, in ms: 429 or 503, problem+json, with Retry-After */
  refused: number[];
  /** these by what the problem says: "overloaded", "too-many-requests" … */
  codes: Record<string, number>;
  /** the longest of these by the second in which they were asked for */
  slowest: number[];
  /** what else came, and how often: "503 without Retry-After", "ECONNRESET" … */
  others: Record<string, number>;
  /** most requests that were under way at once */
  most: number;
  /** by how much the clock of this process lagged at worst, in ms: a load that lags is no open loop */
  lag: number;
}

const TICK_MS = 10;
/** What one address may have at the gateway. What is due beyond waits here for one of them, and its time runs. */
const CONNECTIONS = 1_000;

async function main(load: Load): Promise<Seen> {
  const seen: Seen = {
    ids: [],
    perSecond: 0,
    served: [],
    refused: [],
    codes: {},
    slowest: [],
    others: {},
    most: 0,
    lag: 0,
  };
  const pool = new Pool(load.url, {
    connections: CONNECTIONS,
    connectTimeout: 60_000,
    headersTimeout: 60_000,
    bodyTimeout: 60_000,
    ...(load.from === undefined ? {} : { localAddress: load.from }),
  });
  const body = load.body ?? '{"productId":1,"productName":"Outwear-1","qty":1}';
  const headers = { "content-type": "application/json" };
  const started = performance.now();
  const end = started + load.seconds * 1_000;
  let inTime = 0;
  let underWay = 0;
  const order = async () => {
    const asked = performance.now();
    seen.most = Math.max(seen.most, ++underWay);
    try {
      const answer = await pool.request({ method: "POST", path: "/orders", headers, body });
      const text = await answer.body.text();
      const now = performance.now();
      const what = judge(answer.statusCode, answer.headers, text);
      if (what === "served") {
        seen.served.push(now - asked);
        seen.ids.push(Number(/"id":(\d+)/.exec(text)?.[1]));
        if (now <= end) inTime++;
      } else if (what === "refused") {
        seen.refused.push(now - asked);
        const code = /"urn:jangteo:problem:([a-z-]+)"/.exec(text)?.[1] ?? "none";
        seen.codes[code] = (seen.codes[code] ?? 0) + 1;
        const second = Math.floor((asked - started) / 1_000);
        seen.slowest[second] = Math.max(seen.slowest[second] ?? 0, Math.round(now - asked));
      } else seen.others[what] = (seen.others[what] ?? 0) + 1;
    } catch (error) {
      const what = (error as { code?: string }).code ?? String(error);
      seen.others[what] = (seen.others[what] ?? 0) + 1;
    }
    underWay--;
  };

  const running = new Set<Promise<void>>();
  if (load.clients !== undefined) {
    const client = async () => {
      while (performance.now() < end) await order();
    };
    for (let i = 0; i < load.clients; i++) running.add(client());
  } else {
    for (let sent = 0, now = started; now < end; now = performance.now()) {
      const due = Math.floor(((now - started) / 1_000) * (load.rate ?? 0));
      for (; sent < due; sent++) {
        const one: Promise<void> = order().finally(() => running.delete(one));
        running.add(one);
      }
      await delay(TICK_MS);
      seen.lag = Math.max(seen.lag, performance.now() - now - TICK_MS);
    }
  }
  await Promise.all(running);
  await pool.close();
  seen.perSecond = inTime / load.seconds;
  return seen;
}

function judge(
  status: number,
  headers: Record<string, string | string[] | undefined>,
  text: string,
): "served" | "refused" | string {
  if (status === 201) return "served";
  if (status !== 429 && status !== 503) return `${status} ${text.slice(0, 200)}`;
  if (headers["content-type"] !== "application/problem+json") return `${status} without a problem`;
  if (!/^\d+$/.test(String(headers["retry-after"]))) return `${status} without Retry-After`;
  return "refused";
}

if (process.argv[1] !== undefined && pathToFileURL(process.argv[1]).href === import.meta.url) {
  const seen = await main(JSON.parse(process.argv[2] ?? "{}") as Load);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
}
