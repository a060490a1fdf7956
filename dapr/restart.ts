/** `npm run restart`: replaces the processes of services by new ones, one after another, while the shop goes on. */
import { operate } from "./operate.js";

const usage = `Usage: npm run restart -- SERVICE,...|all [options]

  --data DIR             the data directory of the shop that runs (data)
  --help                 show this`;

await operate(usage, (args) => {
  const apps = args.flatMap((list) => list.split(",")).filter((app) => app !== "");
  if (apps.length === 0) throw new Error("Which services? Name them, or all.");
  return { kind: "restart", apps };
});
