/**
 * `npm run bench`: what an order costs here, beside its floor (the same sidecar calls without our code), in one run.
 * Options: --seconds N per measurement (default 10), --rounds N (default 2), --ports N, --json FILE.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { Pool } from "undici";
import { root, type System, startSystem } from "#dapr/runner.js";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "10" },
    rounds: { type: "string", default: "2" },
    ports: { type: "string", default: "10000" },
    json: { type: "string" },
  },
});
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);

/** State writes that one order waits for: its key and itself, the stock, the reservation, the payment, the order again. */
const WRITES = 6;
const CLIENTS = [1, 16];

interface Run {
  perSecond: number;
  p50: number;
  p99: number;
  failed: number;
}

const data = await mkdtemp(join(tmpdir(), "jangteo-bench-"));
const system = await startSystem({ data: join(data, "shop"), ports: Number(values.ports) });
const floor = await startSystem({
  topology: join(root, "bench/floor/dapr.yaml"),
  data: join(data, "floor"),
  ports: Number(values.ports) + 10_000,
});
try {
  await main();
} finally {
  await Promise.all([system.stop(), floor.stop()]);
  await rm(data, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const gateway = new Pool(system.gateway, { connections: 64 });
  const sidecar = new Pool(floor.sidecarUrl("order"), { connections: 64 });
  const order = () => placeOrder(gateway).then(() => undefined);
  const bare = floorOf(sidecar, floor.headersFor(floor.sidecarUrl("order")));
  console.log("warming up");
  await load(order, 4, 3);
  await load(bare, 4, 1);

  const result: Record<string, Run> = {};
  for (const clients of CLIENTS) {
    const ours: Run[] = [];
    const floors: Run[] = [];
    // Turn and turn about, so that a noisy moment of the machine hits both.
    for (let round = 0; round < rounds; round++) {
      floors.push(await load(bare, clients, seconds / 2));
      ours.push(await load(order, clients, seconds));
      await settled(gateway);
    }
    result[`order, ${clients}`] = best(ours);
    result[`floor, ${clients}`] = best(floors);
  }
  const { posts, view } = await followed(gateway, 300);
  result["order, 1, at rest"] = posts;
  const memory = await rss(system);
  report(result, view, memory);
  if (values.json !== undefined)
    await writeFile(values.json, JSON.stringify({ result, view, memory }, null, 2));
  await Promise.all([gateway.close(), sidecar.close()]);
}

async function placeOrder(gateway: Pool): Promise<number> {
  const answer = await gateway.request({
    method: "POST",
    path: "/orders",
    headers: { "content-type": "application/json" },
    body: '{"productId":1,"productName":"Outwear-1","qty":1}',
  });
  const body = (await answer.body.json()) as { id: number };
  if (answer.statusCode !== 201) throw new Error(`${answer.statusCode} ${JSON.stringify(body)}`);
  return body.id;
}

/** Two invocations, the state writes and one publish, one after another as an order needs them. */
function floorOf(sidecar: Pool, token: Record<string, string>): () => Promise<void> {
  let n = 0;
  const call = async (path: string, body: unknown) => {
    const headers = { "content-type": "application/json", ...token };
    const answer = await sidecar.request({ method: "POST", path, headers, body: JSON.stringify(body) });
    await answer.body.dump();
    if (answer.statusCode >= 300) throw new Error(`${path}: ${answer.statusCode}`);
  };
  const value = { state: "x".repeat(300), outbox: ["y".repeat(300)] };
  return async () => {
    n++;
    for (let i = 0; i < WRITES; i++)
      await call("/v1.0/state/orders", [{ key: `${process.pid}-${n}-${i}`, value }]);
    await call("/v1.0/invoke/inventory/method/x", { productId: 1, qty: 1 });
    await call("/v1.0/invoke/payment/method/x", { orderId: n, amount: 1 });
    await call("/v1.0/publish/events/floor", { orderId: n });
  };
}

/** Runs `task` in `clients` loops for so many seconds. */
async function load(task: () => Promise<void>, clients: number, forSeconds: number): Promise<Run> {
  const times: number[] = [];
  let failed = 0;
  const started = performance.now();
  const until = started + forSeconds * 1000;
  const client = async () => {
    while (performance.now() < until) {
      const before = performance.now();
      try {
        await task();
        times.push(performance.now() - before);
      } catch {
        failed++;
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const elapsed = (performance.now() - started) / 1000;
  return { perSecond: times.length / elapsed, failed, ...percentiles(times) };
}

function percentiles(times: number[]): { p50: number; p99: number } {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

/** The round that the rest of the machine disturbed least. */
function best(runs: Run[]): Run {
  const [first] = runs.toSorted((a, b) => a.p50 - b.p50);
  if (first === undefined) throw new Error("nothing was measured");
  return { ...first, failed: runs.reduce((sum, run) => sum + run.failed, 0) };
}

/** Waits until the view shows as many deliveries as there are orders. */
async function settled(gateway: Pool): Promise<void> {
  const total = async (name: string) => {
    const answer = await gateway.request({ method: "GET", path: `/${name}?size=1` });
    return ((await answer.body.json()) as { page: { totalElements: number } }).page.totalElements;
  };
  const orders = await total("orders");
  while ((await total("deliveries")) < orders || (await total("orderStatuses")) < orders) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Orders one at a time, the next when the view has followed, so that no order competes with what the last one has set
 * going. `view` is the time from the answer to a POST until the view says DeliveryStarted, in ms. The view is asked at its own port, a few
 * hundred times a second: asked through the gateway without a pause, the asking would be the load.
 */
async function followed(
  gateway: Pool,
  orders: number,
): Promise<{ posts: Run; view: { p50: number; p99: number } }> {
  const posts: number[] = [];
  const times: number[] = [];
  const started = performance.now();
  const view = new Pool(system.url("orderview"));
  const headers = system.headersFor(system.url("orderview"));
  for (let i = 0; i < orders; i++) {
    const asked = performance.now();
    const id = await placeOrder(gateway);
    const placed = performance.now();
    posts.push(placed - asked);
    for (;;) {
      const answer = await view.request({ method: "GET", path: `/orderStatuses/${id}`, headers });
      const row = (await answer.body.json()) as { deliveryStatus?: string };
      if (row.deliveryStatus === "DeliveryStarted") break;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    times.push(performance.now() - placed);
  }
  await view.close();
  const perSecond = (orders / (performance.now() - started)) * 1000;
  return { posts: { perSecond, failed: 0, ...percentiles(posts) }, view: percentiles(times) };
}

/** Resident memory of each process, in MiB. */
async function rss(of: System): Promise<Record<string, number>> {
  const sizes: Record<string, number> = {};
  for (const { name, pid } of of.processes()) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    const kib = /VmRSS:\s+(\d+)/.exec(status)?.[1];
    if (kib !== undefined) sizes[name] = Math.round(Number(kib) / 1024);
  }
  return sizes;
}

function report(
  result: Record<string, Run>,
  view: { p50: number; p99: number },
  memory: Record<string, number>,
): void {
  const ms = (n: number) => n.toFixed(1);
  const table = new Table({ head: ["what, clients", "per s", "p50 ms", "p99 ms", "failed"] });
  for (const [name, run] of Object.entries(result)) {
    table.push([name, run.perSecond.toFixed(0), ms(run.p50), ms(run.p99), run.failed]);
  }
  console.log(table.toString());
  for (const clients of CLIENTS) {
    const [ours, bare] = [result[`order, ${clients}`], result[`floor, ${clients}`]];
    if (ours !== undefined && bare !== undefined) {
      console.log(`order ÷ floor at ${clients}: ${(ours.p50 / bare.p50).toFixed(2)} (p50)`);
    }
  }
  const [rest, bare] = [result["order, 1, at rest"], result["floor, 1"]];
  if (rest && bare) console.log(`order ÷ floor at 1, at rest: ${(rest.p50 / bare.p50).toFixed(2)} (p50)`);
  console.log(`POST answered → DeliveryStarted in the view: p50 ${ms(view.p50)} ms, p99 ${ms(view.p99)} ms`);
  const sizes = Object.entries(memory);
  const total = sizes.reduce((sum, [, size]) => sum + size, 0);
  console.log(`RSS, MiB: ${sizes.map(([name, size]) => `${name} ${size}`).join(", ")}; total ${total}`);
}
