import { simulate } from "./simulation.js";

const from = Number(process.argv[2] ?? 1),
  runs = Number(process.argv[3] ?? 1);
const began = performance.now();
let steps = 0,
  faults = 0,
  bad = 0;
const trace = process.argv.includes("--trace") ? (l: string) => console.log(l) : undefined;
for (let seed = from; seed < from + runs; seed++) {
  const outcome = await simulate(seed, { trace });
  steps += outcome.steps;
  faults += outcome.faults;
  if (outcome.violations.length) {
    bad++;
    console.log(seed, outcome.plan, outcome.violations);
  }
}
const cpu = process.cpuUsage();
console.log({
  perCpuSecond: runs / ((cpu.user + cpu.system) / 1e6),
  runs,
  bad,
  steps,
  faults,
  perSecond: (runs / (performance.now() - began)) * 1000,
});
