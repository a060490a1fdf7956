/** The frame of the programs for operators of a running shop. */
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { command } from "./command.js";
import { ask, type Order } from "./control.js";
import { root } from "./runner.js";

/**
 * The program of an operator: asks the shop that runs on a data directory, and says what it does.
 * @param read what is asked, from the arguments that are no options; throws, with a sentence for people
 */
export const operate = (usage: string, read: (args: string[]) => Order): Promise<void> =>
  command(
    usage,
    (args) => {
      const { values, positionals } = parseArgs({
        args,
        allowPositionals: true,
        options: { data: { type: "string", default: join(root, "data") }, help: { type: "boolean" } },
      });
      return values.help ? "help" : { data: resolve(values.data), order: read(positionals) };
    },
    ({ data, order }) => ask(data, order, (message) => console.log(message)),
  );
