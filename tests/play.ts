/** `npm run scenario`: performs scenarios for a person who watches. */
import { join } from "node:path";
import { styleText } from "node:util";
import { command } from "#dapr/command.js";
import { StartError } from "#dapr/runner.js";
import { type Choice, readChoice } from "./choice.js";
import { nameOf, Performance, readScenario, type Scenario, scenarioNames } from "./scenario.js";

/** Beside `npm start` and the tests, which have other ports. */
const PORTS = 23_000;

const usage = `Usage: npm run scenario -- SHOP... [options]

  SHOP                   whose scenario is shown, one after the other, or all; --list names them
  --backend NAME|DIR     where state and messages live meanwhile, as for npm start (embedded)
  --list                 show which scenarios there are
  --ports N              add N to every port (${PORTS})
  --help                 show this`;

type Style = Parameters<typeof styleText>[0];
const colours = process.stdout.isTTY && !process.env.NO_COLOR;
const styled = (style: Style, text: string) => (colours ? styleText(style, text) : text);

function listing(): string {
  const all = scenarioNames().map((name) => ({ name, ...readScenario(name) }));
  const width = Math.max(...all.map(({ name }) => name.length));
  return all
    .map(({ name, title, steps }) => `${name.padEnd(width)}  ${title} (${steps.length} steps)`)
    .join("\n");
}

/** Performs one to its end, or to the first step that goes wrong; answers whether all went well. */
async function play(scenario: Scenario, { ports, backend }: Choice): Promise<boolean> {
  const { title, shop, steps } = scenario;
  console.log(styled("bold", `${title} (shops/${shop}.yaml)`));
  const began = performance.now();
  const performing = await Performance.open(
    scenario,
    ports,
    { onEvent: (message) => console.log(styled("dim", `     ${message}`)), ...(backend ? { backend } : {}) },
    (line) => console.log(styled("dim", `     ${line}`)),
  );
  console.log(`the shop is open after ${seconds(began)}\n`);
  const shown = new Set<string>();
  let wrong = false;
  try {
    for (const [i, step] of steps.entries()) {
      console.log(`${String(i + 1).padStart(3)}. ${step.say}`);
      try {
        await performing.perform(step);
      } catch (error) {
        wrong = true;
        console.log(
          `     ${styled("red", "✗")} ${step.proves.join(" ")}\n${indented((error as Error).message)}\n`,
        );
        console.log(styled("red", `${shop}: step ${i + 1} of ${steps.length} went wrong: ${nameOf(step)}`));
        console.log(`what its services said: ${join(performing.data, "logs")}`);
        return false;
      }
      console.log(`     ${styled("green", "✓")} ${step.proves.join(" ")}`);
      for (const item of step.proves) shown.add(item);
    }
    console.log(
      styled(
        "green",
        `\n${shop}: all ${steps.length} steps as told, ${shown.size} items shown, ${seconds(began)}`,
      ),
    );
    return true;
  } finally {
    await performing.close(wrong);
  }
}

const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const indented = (text: string) => text.replace(/^/gm, "     ");

await command(
  usage,
  (args) => readChoice(args, scenarioNames(), "scenario", PORTS),
  async (options) => {
    if (options.list) return console.log(listing());
    try {
      const scenarios = options.names.map(readScenario); // what is wrong in any of them is said before one begins
      for (const scenario of scenarios) if (!(await play(scenario, options))) process.exitCode = 1;
    } catch (error) {
      throw new StartError((error as Error).message); // whatever it is, it is for who wrote the scenario
    }
  },
  "stopping …",
);
