/** `npm run scale`: changes how often services run, while the shop goes on. */
import { operate } from "./operate.js";
import { readCounts } from "./topology.js";

const usage = `Usage: npm run scale -- SERVICE=N,... [options]

  --data DIR             the data directory of the shop that runs (data)
  --help                 show this`;

await operate(usage, (args) => {
  const counts = readCounts(args);
  if (Object.keys(counts).length === 0) throw new Error("How many of which? As in order=3,delivery=1");
  return { kind: "scale", counts };
});
