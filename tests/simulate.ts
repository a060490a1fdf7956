/** `npm run simulate`: plays schedules of the simulation, as many as one has time for, or one with all its steps. */
import { parseArgs } from "node:util";
import { command } from "#dapr/command.js";
import { GUARDS, type Guard } from "./sabotage.js";
import { simulate } from "./simulation.js";

const usage = `Usage: npm run simulate -- [options]

  --runs N          play N schedules, each with a seed of its own (1000)
  --from N          the seed of the first one (1)
  --seconds N       begin no more of them after N seconds
  --seed N          play the schedule of this seed, and print everything that happens in it
  --without GUARD   take a guard away first, to see what it is good for:
                    ${Object.keys(GUARDS).join(" ")}
  --help            show this`;

interface Options {
  runs: number;
  from: number;
  seconds: number;
  seed: number | undefined;
  guard: Guard | undefined;
}

/** How often it is said how far it has come, in ms. */
const PROGRESS_MS = 10_000;
/** So many seeds are named. */
const NAMED = 20;

/** The options of the command line. Throws, with a sentence for people, if they can't be understood. */
function parseOptions(args: string[]): Options | "help" {
  const { values } = parseArgs({
    args,
    options: {
      runs: { type: "string" },
      from: { type: "string" },
      seconds: { type: "string" },
      seed: { type: "string" },
      without: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help) return "help";
  const { without } = values;
  if (without !== undefined && !Object.hasOwn(GUARDS, without))
    throw new Error(`There is no guard "${without}"; there are ${Object.keys(GUARDS).join(", ")}.`);
  return {
    runs: whole("--runs", values.runs) ?? 1_000,
    from: whole("--from", values.from) ?? 1,
    seconds: whole("--seconds", values.seconds) ?? Number.POSITIVE_INFINITY,
    seed: whole("--seed", values.seed),
    guard: without as Guard | undefined,
  };
}

function whole(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new Error(`${option}: "${text}" is not a whole number above 0`);
  return Number(text);
}

const tamperingOf = (guard: Guard | undefined) => (guard === undefined ? undefined : GUARDS[guard]);

async function playOne(seed: number, guard: Guard | undefined): Promise<void> {
  const trace = (line: string) => console.log(line);
  const { violations } = await simulate(seed, { tampering: tamperingOf(guard), trace });
  if (violations.length === 0) return console.log(`\nseed ${seed}: every rule holds`);
  console.log(`\nseed ${seed}: what does not hold\n${violations.map((one) => `  ${one}`).join("\n")}`);
  process.exitCode = 1;
}

async function playMany({ runs, from, seconds, guard }: Options): Promise<void> {
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  let said = began;
  let steps = 0;
  let faults = 0;
  const failed: number[] = [];
  let played = 0;
  for (let seed = from; seed < from + runs && passed() < seconds; seed++) {
    played++;
    const outcome = await simulate(seed, { tampering: tamperingOf(guard) });
    steps += outcome.steps;
    faults += outcome.faults;
    if (outcome.violations.length > 0) {
      failed.push(seed);
      if (failed.length <= NAMED)
        console.log(
          `seed ${seed} (${outcome.plan})\n${outcome.violations.map((one) => `  ${one}`).join("\n")}`,
        );
    }
    if (performance.now() - said > PROGRESS_MS) {
      said = performance.now();
      console.log(`${played} of ${runs} schedules, ${failed.length} failed`);
    }
  }
  console.log(
    `${played} schedules in ${passed().toFixed(1)} s (${(played / passed()).toFixed(1)}/s): ${steps} steps, ${faults} faults; ` +
      (failed.length === 0 ? "every rule holds" : `${failed.length} failed`),
  );
  if (failed.length === 0) return;
  console.log(
    `To see one of them: npm run simulate -- ${guard ? `--without ${guard} ` : ""}--seed ${failed[0]}`,
  );
  process.exitCode = 1;
}

await command(usage, parseOptions, (options) =>
  options.seed === undefined ? playMany(options) : playOne(options.seed, options.guard),
);
