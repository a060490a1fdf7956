/** The simulation: that it repeats itself, that it finds what is wrong, and that it finds nothing. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { GUARDS, type Guard } from "./sabotage.js";
import { simulate } from "./simulation.js";

const program = fileURLToPath(new URL("simulate.js", import.meta.url));

/** How many seeds it takes at most to notice that a guard is missing. */
const WITHIN: Record<Guard, number> = {
  ...{ pending: 5, etag: 5, tombstones: 5, idempotency: 20, closing: 20 },
  ...{ journal: 100, outbox: 100, open: 150, seen: 300 },
};

/** Schedules that CI plays, in two processes, and for how long at most, in seconds. */
const SCHEDULES = 3_000;
const SECONDS = 45;
/** On a machine that is busy with other things it may play fewer, but not as few as this. */
const LEAST = 100;

/** `npm run simulate` with these options: what it says, and its exit code. */
async function run(...options: (string | number)[]): Promise<{ said: string; code: number | null }> {
  const child = spawn(process.execPath, ["--enable-source-maps", program, ...options.map(String)]);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { said, code };
}

describe("the simulation", () => {
  it("makes the same world of the same seed, to the last step", async () => {
    for (const seed of [1, 2, 3]) {
      const traces = [[], []] as [string[], string[]];
      const outcomes = [];
      for (const trace of traces) outcomes.push(await simulate(seed, { trace: (line) => trace.push(line) }));
      assert.ok(traces[0].length > 500, `${traces[0].length} steps`);
      assert.deepEqual(traces[0], traces[1]);
      assert.deepEqual(outcomes[0], outcomes[1]);
    }
  });

  it("repeats what it has found when it is asked for the seed, with every step", async () => {
    const seed = await firstSeed("open");
    const [one, two] = [
      await run("--without", "open", "--seed", seed),
      await run("--without", "open", "--seed", seed),
    ];
    assert.equal(one.code, 1);
    assert.match(one.said, /what does not hold/);
    assert.equal(one.said, two.said);
    assert.equal((await run("--seed", seed)).code, 0, "and with the guard it does not happen");
  });

  for (const guard of Object.keys(GUARDS) as Guard[])
    it(`finds that the guard "${guard}" is missing, within ${WITHIN[guard]} schedules`, async () => {
      await firstSeed(guard);
    });

  it("finds nothing in thousands of schedules", async (t) => {
    const half = (from: number) => run("--from", from, "--runs", SCHEDULES / 2, "--seconds", SECONDS);
    const halves = await Promise.all([half(1), half(1_000_001)]);
    const played = halves.map(({ said }) => Number(/^(\d+) schedules in /m.exec(said)?.[1]));
    for (const { said, code } of halves) assert.equal(code, 0, said);
    for (const { said } of halves) t.diagnostic(said.trimEnd().split("\n").at(-1) ?? "");
    assert.ok((played[0] ?? 0) + (played[1] ?? 0) >= LEAST, `only ${played.join(" and ")} schedules`);
  });

  it("explains its options, and refuses others", async () => {
    assert.match((await run("--help")).said, /npm run simulate/);
    const { said, code } = await run("--without", "luck");
    assert.match(said, /There is no guard "luck"/);
    assert.equal(code, 2);
  });
});

const found = new Map<Guard, number>();

/** The first seed whose schedule goes wrong without this guard. */
async function firstSeed(guard: Guard): Promise<number> {
  for (let seed = found.get(guard) ?? 1; seed <= WITHIN[guard]; seed++) {
    const { violations } = await simulate(seed, { tampering: GUARDS[guard] });
    if (violations.length === 0) continue;
    found.set(guard, seed);
    return seed;
  }
  return assert.fail(`nothing goes wrong in ${WITHIN[guard]} schedules without ${guard}`);
}
