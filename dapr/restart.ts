/** `npm run restart`: replaces the processes of services by new ones, one after another, while the shop goes on. */
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { command } from "./command.js";
import { ask } from "./control.js";
import { root } from "./runner.js";

const usage = `Usage: npm run restart -- SERVICE,...|all [options]

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
    const apps = positionals.flatMap((list) => list.split(",")).filter((app) => app !== "");
    if (apps.length === 0) throw new Error("Which services? Name them, or all.");
    return { data: resolve(values.data), apps };
  },
  ({ data, apps }) => ask(data, { kind: "restart", apps }, (message) => console.log(message)),
);
