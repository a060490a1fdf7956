/** `npm run reset`: forgets everything that a system has stored, logs included. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { endLeftovers, lock } from "./lock.js";
import { root } from "./runner.js";

try {
  const { values } = parseArgs({ options: { data: { type: "string", default: join(root, "data") } } });
  const data = resolve(values.data);
  const isOurs = (directory: string) => existsSync(join(directory, "run"));
  // Below it there may be those of shops that were named (data/coffee).
  const named = existsSync(data) ? readdirSync(data).map((name) => join(data, name)) : [];
  const directories = [data, ...named].filter(isOurs);
  if (!existsSync(data)) {
    console.log(`${data}: nothing to remove`);
  } else {
    // Every data directory has run/: a mistyped path is not emptied.
    if (directories.length === 0) throw new Error(`${data} is not a data directory of ours; it is kept.`);
    for (const directory of directories) {
      lock(directory);
      await endLeftovers(directory);
    }
    rmSync(data, { recursive: true });
    console.log(`${data}: removed`);
  }
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
