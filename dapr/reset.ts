/** `npm run reset`: forgets everything that a system has stored, logs included. */
import { existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { endLeftovers, lock } from "./lock.js";
import { root } from "./runner.js";

try {
  const { values } = parseArgs({ options: { data: { type: "string", default: join(root, "data") } } });
  const data = resolve(values.data);
  if (!existsSync(data)) {
    console.log(`${data}: nothing to remove`);
  } else {
    // Every data directory has run/: a mistyped path is not emptied.
    if (!existsSync(join(data, "run")))
      throw new Error(`${data} is not a data directory of ours; it is kept.`);
    lock(data);
    await endLeftovers(data);
    rmSync(data, { recursive: true });
    console.log(`${data}: removed`);
  }
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
