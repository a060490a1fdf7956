/** `npm start`: runs the whole system in the foreground until Ctrl-C. */
import { existsSync } from "node:fs";
import { delimiter, join, relative } from "node:path";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { command } from "./command.js";
import { type StartOptions, type System, startSystem } from "./runner.js";
import { readCounts } from "./topology.js";

const usage = `Usage: npm start -- [options]

  --backend NAME,...     where state and messages live: folders under components/, or paths of folders or files; of
                         files with one name the last counts, as in polyglot,postgresql/deliveries.yaml (embedded)
  --shop NAME|FILE       how the business runs: a file under shops/ (fashion)
  --replicas APP=N,...   run more than one of a service, as in order=3,delivery=2
  --data DIR             where state and logs are kept (data; data/NAME for a shop that is named)
  --ports N              add N, as in 10000 or 20000, to every port, to run beside another system
  --drills               let faults be triggered by requests, for drills
  --help                 show this`;

/** The options of the command line. Throws, with a sentence for people, if they can't be understood. */
function parseOptions(args: string[]): StartOptions | "help" {
  const { values } = parseArgs({
    args,
    options: {
      backend: { type: "string" },
      shop: { type: "string" },
      replicas: { type: "string", multiple: true },
      data: { type: "string" },
      ports: { type: "string" },
      drills: { type: "boolean" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return "help";
  let replicas: Record<string, number>;
  try {
    replicas = readCounts(values.replicas ?? []);
  } catch (error) {
    throw new Error(`--replicas: ${(error as Error).message}`);
  }
  if (values.ports !== undefined && !/^\d+$/.test(values.ports))
    throw new Error(`--ports: "${values.ports}" is not a whole number`);
  return { ...values, replicas, ports: Number(values.ports ?? 0) };
}

/** One row per service replica and server: where it listens, its process id and its log. */
function table(system: System): string {
  const rows = new Table({
    head: ["service", "port", "sidecar", "pid", "log"],
    style: { head: [], border: [] },
    chars: { mid: "", "left-mid": "", "mid-mid": "", "right-mid": "" }, // no lines between rows
  });
  const all = system.processes();
  const servers = all.filter(({ kind }) => kind === "server");
  const apps = all.filter(({ kind }) => kind === "app").sort((one, other) => one.port - other.port);
  for (const { name, port, pid, log } of [...servers, ...apps]) {
    const sidecar = all.find((candidate) => candidate.name === `${name}-sidecar`);
    rows.push([name, port, sidecar?.port ?? "", pid ?? "", relative(process.cwd(), log)]);
  }
  return rows.toString();
}

/** Three commands that show what the system does, for the HTTP client that is installed. */
function commands({ gateway }: System): string {
  const address = gateway.replace(/.*:/, ":");
  const lines = onPath("http")
    ? [
        `http ${address}/orders productId=1 productName="Outwear-1" qty=1`,
        `http ${address}/orderStatuses/1`,
        `http DELETE ${address}/orders/1`,
      ]
    : [
        `curl localhost${address}/orders -H content-type:application/json -d '{"productId":1,"productName":"Outwear-1","qty":1}'`,
        `curl localhost${address}/orderStatuses/1`,
        `curl -X DELETE localhost${address}/orders/1`,
      ];
  const purposes = ["place an order", "see it", "cancel it"];
  const width = Math.max(...lines.map((line) => line.length));
  return lines.map((line, index) => `  ${line.padEnd(width)}   # ${purposes[index]}`).join("\n");
}

const onPath = (program: string) =>
  (process.env.PATH ?? "").split(delimiter).some((directory) => existsSync(join(directory, program)));

await command(
  usage,
  parseOptions,
  async (options) => {
    const began = performance.now();
    const system = await startSystem({ ...options, onEvent: (message) => console.log(message) });
    console.log(table(system));
    console.log(`\nTry, in another terminal:\n${commands(system)}\n`);
    console.log(`ready in ${((performance.now() - began) / 1000).toFixed(1)} s; Ctrl-C stops`);
  },
  "stopping …",
);
