/** `npm run rebuild-view`: makes the view of a running shop anew from what its services have on record. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Presets, SingleBar } from "cli-progress";
import { z } from "zod";
import { command } from "./command.js";
import { identity } from "./processes.js";
import { root } from "./runner.js";
import { headersFor } from "./tokens.js";
import { readTopology, StartError } from "./topology.js";

const usage = `Usage: npm run rebuild-view -- [options]

  --data DIR   the data directory of the shop (data, or that of the one shop below it that runs)
  --ports N    the shop's --ports, instead of looking for it by its data directory; that is then asked for its token only
  --wait S     how long to wait for a service that does not answer, in seconds (60)
  --help       show this`;

/** A reason to give up that a person can do something about: shown as it is. */
class RebuildError extends StartError {}

interface Options {
  data: string;
  ports: number | undefined;
  waitMs: number;
}

/** The options of the command line. Throws, with a sentence for people, if they can't be understood. */
function parseOptions(args: string[]): Options | "help" {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: "string", default: join(root, "data") },
      ports: { type: "string" },
      wait: { type: "string", default: "60" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return "help";
  const whole = (option: string, value: string) => {
    if (!/^\d{1,9}$/.test(value)) throw new Error(`--${option}: "${value}" is not a whole number`);
    return Number(value);
  };
  return {
    data: resolve(values.data),
    ports: values.ports === undefined ? undefined : whole("ports", values.ports),
    waitMs: whole("wait", values.wait) * 1000,
  };
}

/** The shop that runs: its data directory, and the base URLs of the view's replicas. */
interface Shop {
  directory: string;
  urls: string[];
}

async function findShop({ data, ports }: Options): Promise<Shop> {
  // Below it there may be those of shops that were named (data/coffee).
  const named = existsSync(data) ? readdirSync(data).map((name) => join(data, name)) : [];
  const running = [data, ...named].flatMap((directory) => {
    const urls = replicasOf(directory);
    return urls.length === 0 ? [] : [{ directory, urls }];
  });
  if (ports !== undefined) {
    const app = readTopology(join(root, "dapr", "dapr.yaml")).apps.find(({ appID }) => appID === "orderview");
    if (app === undefined) throw new Error("dapr/dapr.yaml has no orderview");
    const [own, sidecar] = [app.appPort + ports, app.daprHTTPPort + ports];
    // Either may be about to be started again.
    if (own > 65_535 || !((await listens(own)) || (await listens(sidecar))))
      throw new RebuildError(`No shop runs with --ports ${ports}: its view would listen on port ${own}.`);
    const url = `http://127.0.0.1:${own}`;
    const { directory } = running.find(({ urls }) => urls.includes(url)) ?? { directory: data };
    return { directory, urls: [url] };
  }
  const [shop, ...more] = running;
  if (shop === undefined)
    throw new RebuildError(
      `No shop runs on ${data}. Start it (npm start), or say which one is meant: --data DIR or --ports N.`,
    );
  if (more.length > 0) {
    const directories = running.map(({ directory }) => `  --data ${directory}`).join("\n");
    throw new RebuildError(`Several shops run; say which one is meant:\n${directories}`);
  }
  return shop;
}

function listens(port: number): Promise<boolean> {
  return new Promise((answer) => {
    const socket = connect(port, "127.0.0.1", () => answer(true));
    socket.once("error", () => answer(false));
    socket.once("connect", () => socket.destroy());
  });
}

const known = z.array(z.object({ name: z.string(), pid: z.number(), identity: z.string().optional() }));

/** A sidecar says in its arguments where its app listens; and it is there while its app is being restarted. */
function replicasOf(directory: string): string[] {
  let list: z.output<typeof known>;
  try {
    list = known.parse(JSON.parse(readFileSync(join(directory, "run", "pids.json"), "utf8")));
  } catch {
    return []; // no data directory, or nothing runs there
  }
  return list.flatMap(({ name, pid, identity: known }) => {
    if (!/^orderview-\d+-sidecar$/.test(name) || known === undefined || identity(pid) !== known) return [];
    const [, port] = /--app-port[ \0](\d+)/.exec(argumentsOf(pid)) ?? [];
    return port === undefined ? [] : [`http://127.0.0.1:${port}`];
  });
}

function argumentsOf(pid: number): string {
  const file = `/proc/${pid}/cmdline`;
  try {
    return existsSync(file)
      ? readFileSync(file, "utf8")
      : execFileSync("ps", ["-ww", "-o", "args=", "-p", String(pid)], { encoding: "utf8" });
  } catch {
    return ""; // it has ended meanwhile
  }
}

const rebuilt = z.object({
  ...{ rows: z.number(), missing: z.number(), differed: z.number() },
  ...{ removed: z.number(), unlisted: z.number(), last: z.number() },
});
type Rebuilt = z.output<typeof rebuilt>;

/** What a try came to: an answer, or why there is none yet and when to ask again. */
type Answer = Rebuilt | { reason: string; afterMs: number };

async function ask(directory: string, url: string, from: number, to: number): Promise<Answer> {
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(`${url}/rebuilds`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headersFor(directory, "orderview") },
      body: JSON.stringify({ from, to }),
      signal: AbortSignal.timeout(60_000),
    });
    body = await response.json().catch(() => undefined);
  } catch {
    return { reason: `The orderview service does not answer at ${url}.`, afterMs: 500 };
  }
  const { detail } = z.object({ detail: z.string() }).catch({ detail: "" }).parse(body);
  if (response.status === 404)
    throw new RebuildError(`What runs at ${url} can't rebuild a view: stop the shop and start this version.`);
  if (response.status === 503 || (response.ok && !rebuilt.safeParse(body).success)) {
    const seconds = Number(response.headers.get("retry-after") ?? 1);
    return {
      reason: detail || "The orderview service is not ready.",
      afterMs: 1000 * (Number.isFinite(seconds) ? seconds : 1),
    };
  }
  if (response.status === 401)
    throw new RebuildError(
      `What runs at ${url} demands the token of its data directory, and ${directory} is not that: add --data DIR.`,
    );
  if (!response.ok)
    throw new RebuildError(
      `The orderview service answered ${response.status} for the orders from ${from} to ${to}: ${detail}\n` +
        "Its log says more: logs/orderview-0.log in the data directory.",
    );
  return rebuilt.parse(body);
}

/** Asks until there is an answer. Part of a rebuild may be repeated as often as one likes. */
async function insist(
  directory: string,
  url: string,
  [from, to]: [number, number],
  waitMs: number,
  tell: (sentence: string) => void,
): Promise<Rebuilt> {
  const end = performance.now() + waitMs;
  for (let told = ""; ; ) {
    const answer = await ask(directory, url, from, to);
    if (!("reason" in answer)) return answer;
    if (performance.now() + answer.afterMs > end)
      throw new RebuildError(
        `${answer.reason} It was tried for ${waitMs / 1000} s.\n` +
          (from === 1
            ? "Nothing has been rebuilt. Is the shop running? Try again when it is."
            : `The rows of the orders below ${from} are rebuilt; try again, and all is gone through once more.`),
      );
    if (told !== answer.reason) tell(`${answer.reason} Trying again.`);
    told = answer.reason;
    await delay(answer.afterMs);
  }
}

/** How many orders one request is about: the most that it may be, so that each is answered within a moment. */
const STEP = 128;

async function rebuild({ directory, urls }: Shop, waitMs: number): Promise<string> {
  const began = performance.now();
  const [url = "", ...others] = urls;
  const sum = { rows: 0, missing: 0, differed: 0, removed: 0, unlisted: 0 };
  const bar = new SingleBar(
    {
      format: "rebuilding {bar} {value} of {total} order numbers",
      noTTYOutput: true,
      stream: process.stdout,
    },
    Presets.shades_classic,
  );
  const tell = (sentence: string) => console.log(sentence);
  let started = false;
  try {
    for (let from = 1, last = 1; from <= last; from += STEP) {
      const range: [number, number] = [from, from + STEP - 1];
      const part = await insist(directory, url, range, waitMs, tell);
      // A row that is gone is still counted by the lists of replicas that have not heard so.
      if (part.removed > 0) for (const other of others) await insist(directory, other, range, waitMs, tell);
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += part[name];
      last = Math.max(last, part.last);
      if (!started) bar.start(last, 0);
      started = true;
      bar.setTotal(last);
      bar.update(Math.min(range[1], last));
    }
  } finally {
    if (started) bar.stop();
  }
  const seconds = (performance.now() - began) / 1000;
  const number = (n: number) => n.toLocaleString("en");
  const { rows, missing, differed, removed, unlisted } = sum;
  return [
    `rebuilt ${number(rows)} rows in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s: `,
    `${number(missing)} missing, ${number(differed)} differed`,
    removed > 0 ? `, ${number(removed)} without an order removed` : "",
    unlisted > 0 ? `, ${number(unlisted)} entries of customers' lists missing` : "",
  ].join("");
}

await command(usage, parseOptions, async (options) => {
  console.log(await rebuild(await findShop(options), options.waitMs));
});
