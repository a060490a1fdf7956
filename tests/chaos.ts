/** `npm run chaos`: kills, stops and restarts everything at random under load, and counts afterwards. */
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { command } from "#dapr/command.js";
import { readCounts } from "#dapr/topology.js";
import { type ChaosOptions, chaos, type Report } from "./chaos-run.js";

/** Beside `npm start` and the tests, which have other ports. */
const PORTS = 20_540;

const usage = `Usage: npm run chaos -- [options]

  --backend NAME,...     where state and messages live meanwhile: as for npm start (embedded)
  --minutes N            how long things go wrong, as in 0.5 (10)
  --seed N               the same victims at the same times as in another run (a new one is made up, and said)
  --replicas APP=N,...   run more than one of a service: as for npm start
  --ports N              add N to every port (${PORTS})
  --help                 show this`;

/** The options of the command line. Throws, with a sentence for people, if they can't be understood. */
function parseOptions(args: string[]): ChaosOptions | "help" {
  const { values } = parseArgs({
    args,
    options: {
      backend: { type: "string", default: "embedded" },
      minutes: { type: "string", default: "10" },
      seed: { type: "string", default: String(Math.floor(Math.random() * 1_000_000)) },
      replicas: { type: "string", multiple: true, default: [] },
      ports: { type: "string", default: String(PORTS) },
      help: { type: "boolean" },
    },
  });
  if (values.help) return "help";
  const { backend, minutes, seed, ports } = values;
  const whole = { seed, ports };
  for (const [name, value] of Object.entries(whole))
    if (!/^\d+$/.test(value)) throw new Error(`--${name}: "${value}" is not a whole number`);
  if (!(Number(minutes) > 0)) throw new Error(`--minutes: "${minutes}" is not a number above 0`);
  return {
    ...{ backend, minutes: Number(minutes), seed: Number(seed), ports: Number(ports) },
    replicas: readCounts(values.replicas),
  };
}

const seconds = (ms: number) => (ms / 1000).toFixed(1);

const table = (...head: string[]) =>
  new Table({
    head,
    style: { head: [], border: [] },
    chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" }, // no lines between rows
    colAligns: ["left", ...head.slice(1).map(() => "right" as const)],
  });

/** The middle one and the longest, in seconds. */
function spread(times: readonly number[]): [median: string, most: string] {
  const sorted = times.toSorted((a, b) => a - b);
  return [seconds(sorted[sorted.length >> 1] ?? Number.NaN), seconds(sorted.at(-1) ?? Number.NaN)];
}

function tell({ crowd, recoveries, counted, ...times }: Report): void {
  const load = table("asked", "times", "done", "refused", "503", "no answer");
  for (const [deed, { done, refused, later, none }] of crowd.counts)
    load.push([deed, done + refused + later + none, done, refused, later, none]);
  console.log(`\n${load}`);
  const hit = table("hit", "kill -9", "stopped", "restarted", "up, p50 s", "max", "next 201, p50 s", "max");
  for (const [name, { counts, up, ordering }] of recoveries)
    hit.push([name, counts.kill, counts.stop, counts.restart, ...spread(up), ...spread(ordering)]);
  console.log(String(hit));
  const found = table("in the stores", "");
  for (const [kind, count] of Object.entries(counted)) found.push([kind, count]);
  console.log(String(found));
  const { longestGap, longestIdle, lasted, quietAfter } = times;
  console.log(
    `longest time without a 201: ${seconds(longestGap)} s of ${seconds(lasted)} s, ${seconds(longestIdle)} s of them with all up; ` +
      `quiet ${seconds(quietAfter)} s after the end`,
  );
}

await command(
  usage,
  parseOptions,
  async (options) => {
    console.log(`seed ${options.seed}, ${options.backend}, ${options.minutes} min`);
    const report = await chaos(options, console.log);
    tell(report);
    if (report.kept === undefined) return console.log("nothing lost, nothing twice");
    for (const one of report.wrong) console.log(`✗ ${one}`);
    console.log(`${report.wrong.length} things are wrong; data and logs: ${report.kept}`);
    process.exitCode = 1;
  },
  "stopping …",
);
