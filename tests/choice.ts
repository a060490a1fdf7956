/** The command line of the programs that perform what is named: scenarios, proofs. */
import { parseArgs } from "node:util";

export interface Choice {
  names: string[];
  list: boolean;
  ports: number;
  backend: string | undefined;
}

/**
 * Reads `NAME... [--list] [--ports N] [--backend NAME]`.
 * @param there what may be named; `all` names all of it
 * @param what one of it is called
 * @param usual the ports, where none are named
 * @throws Error, with a sentence for people, if they can't be understood
 */
export function readChoice(
  args: string[],
  there: readonly string[],
  what: string,
  usual: number,
): Choice | "help" {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      list: { type: "boolean" },
      ports: { type: "string" },
      backend: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return "help";
  const { list = false, ports = String(usual), backend } = values;
  if (!/^\d+$/.test(ports)) throw new Error(`--ports: "${ports}" is not a whole number`);
  const unknown = positionals.find((name) => name !== "all" && !there.includes(name));
  if (unknown !== undefined)
    throw new Error(`There is no ${what} "${unknown}"; there are ${there.join(", ")}.`);
  if (!list && positionals.length === 0) throw new Error(`Which one? There are ${there.join(", ")}, or all.`);
  const names = positionals.includes("all") ? [...there] : positionals;
  return { names, list, ports: Number(ports), backend };
}
