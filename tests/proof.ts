/** `npm run proof`: performs what the seeds show of their systems, and puts their numbers beside ours. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { styleText } from "node:util";
import Table from "cli-table3";
import { command } from "#dapr/command.js";
import { type Choice, readChoice } from "./choice.js";
import { PROOFS, type Proof } from "./proofs.js";
import { TestShop } from "./shop.js";
import { aimedAt, LINES, type Line, type Siege, siege } from "./siege.js";

/** Beside `npm start` and the tests, which have other ports. */
const PORTS = 13_000;

const usage = `Usage: npm run proof -- NAME... [options]

  NAME                   what is shown, one after the other, or all; --list names them
  --backend NAME|DIR     where state and messages live meanwhile, as for npm start (embedded)
  --list                 show which proofs there are, and for which items of the seeds
  --ports N              add N to every port (${PORTS})
  --help                 show this`;

const listing = (): string =>
  PROOFS.map(({ name, title, items }) => `${name.padEnd(6)}  ${title} (${items.join(", ")})`).join("\n");

/** siege's table, with the seed's numbers in a column of their own. */
export function beside(ours: Siege, seed: Partial<Siege> | undefined): string {
  const table = new Table({ head: ["", "seed", "here", ""], style: { head: [], border: [], compact: true } });
  for (const [line, unit] of Object.entries(LINES) as [Line, string][])
    table.push([line, seed?.[line] ?? "–", ours[line], unit]);
  return table.toString();
}

/**
 * Performs one proof on a shop of its own.
 * @param say told, line by line, what happens and what is found
 * @returns what is not as it should be
 */
export async function prove(
  proof: Proof,
  { ports, backend, short = false }: { ports: number; backend?: string | undefined; short?: boolean },
  say: (line: string) => void,
): Promise<string[]> {
  const wrong: string[] = [];
  const home = await mkdtemp(join(tmpdir(), "jangteo-siege-"));
  const onEvent = (message: string) => say(`  … ${message.replace(/;? log: .*/, "")}`);
  const shop = await TestShop.open(ports, { ...proof.start, ...(backend ? { backend } : {}), onEvent });
  try {
    await proof.perform({
      ...{ shop, short },
      say: (line) => say(`  ${line}`),
      check: (holds, found) => {
        if (!holds) wrong.push(found);
        say(`  ${holds ? "✔" : "✘"} ${found}`);
      },
      siege: async () => {
        const asked = proof.command ?? "";
        const aimed = aimedAt(short ? asked.replace(/-t\d+S/, "-t4S") : asked, shop.system.gateway);
        say(`  $ ${aimed}`);
        const table = await siege(aimed, home);
        say(beside(table, proof.seed));
        return table;
      },
    });
  } finally {
    await shop.close();
    await rm(home, { recursive: true, force: true });
  }
  return wrong;
}

async function run({ names, list, ports, backend }: Choice): Promise<void> {
  const proofs = PROOFS.filter(({ name }) => names.includes(name));
  if (list) return console.log(listing());
  const colours = process.stdout.isTTY && !process.env.NO_COLOR;
  const styled = (style: Parameters<typeof styleText>[0], text: string) =>
    colours ? styleText(style, text) : text;
  const results: string[] = [];
  for (const proof of proofs) {
    console.log(`\n${styled("bold", `${proof.name}  ${proof.title}`)}`);
    console.log(`  shows ${proof.items.join(", ")}`);
    if (proof.command !== undefined) console.log(`  the seed: ${proof.command}`);
    const wrong = await prove(proof, { ports, backend }, console.log);
    const verdict = wrong.length === 0 ? styled("green", "shown") : styled("red", "NOT SHOWN");
    results.push(`${proof.name.padEnd(6)}  ${verdict}${wrong.length === 0 ? "" : `: ${wrong.join("; ")}`}`);
    console.log(`  ${verdict}`);
    if (wrong.length > 0) process.exitCode = 1;
  }
  if (proofs.length > 1) console.log(`\n${results.join("\n")}`);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href)
  await command(
    usage,
    (args) =>
      readChoice(
        args,
        PROOFS.map(({ name }) => name),
        "proof",
        PORTS,
      ),
    run,
    "stopping",
  );
