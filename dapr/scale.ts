/** `npm run scale`: changes how often services run, while the shop goes on. */
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { command } from "./command.js";
import { ask } from "./control.js";
import { root } from "./runner.js";
import { readCounts } from "./topology.js";

const usage = `Usage: npm run scale -- SERVICE=N,... [options]

  --data DIR             the data directory of the shop that runs (data)
  --help                 show this`;

await command(
  usage,
  (args) => {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { data: { type: "string", default: join(root, "data") }, help: { type: "boolean" } },
    });
    if (values.help) return "help";
    const counts = readCounts(positionals);
    if (Object.keys(counts).length === 0) throw new Error("How many of which? As in order=3,delivery=1");
    return { data: resolve(values.data), counts };
  },
  ({ data, counts }) => ask(data, { kind: "scale", counts }, (message) => console.log(message)),
);
