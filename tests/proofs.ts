/** What the seeds show of their systems under load and when parts fail, shown of this one: `npm run proof`. */
import { setTimeout as delay } from "node:timers/promises";
import type { StartOptions } from "#dapr/runner.js";
import { type Reply, type TestShop, until } from "./shop.js";
import type { Siege } from "./siege.js";

/** Where a proof is performed, and seen. */
export interface Stage {
  shop: TestShop;
  /** Whether it is to take less time than the seed's own does (in a test). */
  short: boolean;
  /** Tells what happens. */
  say(line: string): void;
  /** Tells what was found, and whether it is as it should be. */
  check(holds: boolean, found: string): void;
  /** Runs the proof's command, and shows its table beside the seed's. */
  siege(): Promise<Siege>;
}

export interface Proof {
  /** as typed behind `npm run proof --` */
  name: string;
  /** the items of the seeds that it shows */
  items: string[];
  title: string;
  start: StartOptions;
  /** the seed's own, where it is one of siege; aimed at our gateway */
  command?: string;
  /** what the seed's README shows of it; absent where that is a picture */
  seed?: Partial<Siege>;
  perform(stage: Stage): Promise<void>;
}

const JSON_POST = '--content-type "application/json"';
const PHONE = "01012341234";
const seconds = (since: number) => `${Math.round((performance.now() - since) / 100) / 10} s`;

/** Nobody was refused. */
async function allServed(stage: Stage): Promise<Siege> {
  const table = await stage.siege();
  const [served, failed] = [table["Successful transactions"], table["Failed transactions"]];
  stage.check(served > 0 && failed === 0, `${served} served, ${failed} failed`);
  return table;
}

const ordering =
  (body: object) =>
  (shop: TestShop): Promise<Reply> =>
    shop.http("POST", "/orders", body);

const drill = (shop: TestShop, body: object): Promise<Reply> =>
  shop.http("PUT", "/drill", body, {}, shop.system.url("payment"));

/** S3-O4's payment: 400 ms and up to 220 more, while the order service waits 610. */
const SLOW = { delayMs: 400, jitterMs: 220 };

/** What was ordered stands everywhere, and what was refused nowhere: in no list, with no payment, in no row of the view. */
async function nothingLeft({ shop, check }: Stage): Promise<void> {
  const ids = async (name: string, stands: (item: Reply["body"]) => boolean) =>
    new Set((await shop.all(name)).filter(stands).map((item) => Number(item.orderId ?? item.id)));
  const differs = async (): Promise<string> => {
    const recorded = [...(await shop.recorded())];
    if (recorded.some(([, status]) => status === "Pending")) return "an order is pending";
    const standing = recorded.filter(([, status]) => status === "OrderPlaced").map(([id]) => id);
    const lists = {
      orders: await ids("orders", () => true),
      payments: await ids("payments", ({ state }) => /^Payment(Requested|Approved)$/.test(state)),
      orderStatuses: await ids("orderStatuses", () => true),
    };
    for (const [name, found] of Object.entries(lists))
      if (found.size !== standing.length || standing.some((id) => !found.has(id)))
        return `${name} has ${found.size}, and ${standing.length} orders stand`;
    return "";
  };
  let wrong = "";
  await until("all books agree", 60_000, async () => {
    wrong = await differs();
    return wrong === "";
  }).catch(() => undefined);
  check(
    wrong === "",
    wrong || "what was refused has left nothing behind: orders, payments and the view agree",
  );
}

/** Payment gets so slow that all attempts fail: the breaker opens, refuses at once, and closes when payment is well. */
async function opensAndCloses(stage: Stage, order: (shop: TestShop) => Promise<Reply>): Promise<void> {
  const { shop, say, check, short } = stage;
  say("payment takes 5 s for each order now, and 20 customers order, again and again");
  await drill(shop, { delayMs: 5_000 });
  const refused: { reply: Reply; ms: number }[] = [];
  const end = performance.now() + (short ? 3_000 : 8_000);
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      while (performance.now() < end) {
        const began = performance.now();
        refused.push({ reply: await order(shop), ms: performance.now() - began });
        await delay(50); // a customer who tries again at once is no customer
      }
    }),
  );
  const advised = refused.every(
    ({ reply }) =>
      reply.status === 503 &&
      /:payment-unavailable$/.test(reply.body.type) &&
      Number(reply.headers.get("retry-after")) > 0,
  );
  check(
    advised,
    `${refused.length} orders were answered with 503, Retry-After and "${refused[0]?.reply.body.detail}"`,
  );
  const quick = refused.map(({ ms }) => ms).sort((a, b) => a - b);
  const median = Math.round(quick[Math.floor(quick.length / 2)] ?? 0);
  check(median < 600, `the breaker is open: half of them were refused within ${median} ms`);
  await drill(shop, {});
  const well = performance.now();
  await until("orders are taken again", 20_000, async () => (await order(shop)).status === 201);
  check(true, `payment is well again: the first order was taken after ${seconds(well)}`);
  const after = await Promise.all(Array.from({ length: 20 }, () => order(shop)));
  check(
    after.every(({ status }) => status === 201),
    "the breaker is closed: 20 orders at once are all taken",
  );
}

/** A service is replaced under siege. */
function rolling(
  about: Pick<Proof, "name" | "items" | "title" | "command" | "seed"> & { shop: string; app: string },
  readiness: boolean,
): Proof {
  const { shop, app, ...rest } = about;
  return {
    ...rest,
    start: { shop },
    async perform(stage) {
      const { system } = stage.shop;
      const under = stage.siege();
      await delay(1_500);
      stage.say(`${app} is deployed anew, ${readiness ? "and" : "but nobody waits until it is"} ready`);
      await system.roll(app, { readiness });
      const table = await under;
      const [served, failed] = [table["Successful transactions"], table["Failed transactions"]];
      const longest = table["Longest transaction"];
      const found = `${served} served, ${failed} failed (${table.Availability} %), and the longest wait was ${longest} s`;
      // Without readiness the gateway's sidecar asks again and again for 1.6 s, which hides most of it, but takes time.
      const noticed = failed > 0 || longest >= 0.4;
      stage.check(served > 0 && (readiness ? failed === 0 : noticed), found);
      await system.waitReady();
    },
  };
}

export const PROOFS: readonly Proof[] = [
  {
    name: "s0-n2",
    items: ["S0-N2", "S1-N2", "S4-N2"],
    title: "without the store service orders are taken, and caught up",
    start: { shop: "fashion" },
    async perform({ shop, say, check }) {
      await shop.system.scale("store", 0);
      say("the store service is stopped");
      const placed = await Promise.all(
        Array.from({ length: 20 }, () => ordering({ productId: 1, qty: 1 })(shop)),
      );
      const ids = placed.filter(({ status }) => status === 201).map(({ body }) => body.id as number);
      check(ids.length === 20, `${ids.length} of 20 orders are taken`);
      check((await shop.http("GET", "/storeOrders")).status === 503, "the store's list says 503");
      await shop.system.scale("store", 1);
      const back = performance.now();
      for (const id of ids) await shop.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
      check(
        true,
        `the store service is started: after ${seconds(back)} all of them are accepted and shipped`,
      );
    },
  },
  {
    name: "s0-o2",
    items: ["S0-O1", "S0-O2", "S0-H8", "S0-H9"],
    title: "one of three replicas is set down: the others answer",
    start: { shop: "fashion", replicas: { delivery: 3 } },
    async perform({ shop, say, check }) {
      const { system } = shop;
      const echo = () =>
        shop.http(
          "GET",
          "/v1.0/invoke/delivery/method/actuator/echo",
          undefined,
          {},
          system.sidecarUrl("gateway"),
        );
      const who = async (times: number) => {
        const answers: Reply[] = [];
        for (let i = 0; i < times; i++) answers.push(await echo());
        const good = answers.filter(({ status }) => status === 200);
        return { replicas: [...new Set(good.map(({ body }) => String(body)))].sort(), good: good.length };
      };
      const before = await who(60);
      check(before.replicas.length === 3, `60 calls are answered by ${before.replicas.join(", ")}`);
      const [leaving = ""] = before.replicas;
      const number = before.replicas.map((text) => text.split("/")[0]).indexOf(leaving.split("/")[0]);
      await shop.http("PUT", "/actuator/down", undefined, {}, system.url("delivery", number));
      say(`http PUT …/actuator/down at ${leaving}`);
      const down = performance.now();
      let customers = 0;
      let failed = 0;
      await until("its sidecar passes on nothing any more", 20_000, async () => {
        customers++;
        if ((await shop.http("GET", "/deliveries")).status !== 200) failed++;
        return (await who(12)).good === 12;
      });
      say(`after ${seconds(down)} nobody is sent to it any more`);
      check(failed === 0, `${customers} customers asked for their deliveries meanwhile, ${failed} in vain`);
      const after = await who(60);
      check(
        after.good === 60 && after.replicas.length === 2 && !after.replicas.includes(leaving),
        `60 calls are answered by ${after.replicas.join(", ")}, ${after.good} of them with 200`,
      );
      await shop.http("PUT", "/actuator/up", undefined, {}, system.url("delivery", number));
    },
  },
  {
    name: "s0-o5",
    items: ["S0-O5"],
    title: "the list of products under siege",
    start: { shop: "fashion" },
    command: "siege -c1 -t10S -v http://fashion-store:8080/products",
    seed: {
      ...{ Transactions: 688, Availability: 100, "Elapsed time": 9.1, "Data transferred": 1.71 },
      ...{ "Response time": 0.01, "Transaction rate": 75.6, Throughput: 0.19, Concurrency: 0.99 },
      ...{ "Successful transactions": 688, "Failed transactions": 0 },
      ...{ "Longest transaction": 0.58, "Shortest transaction": 0 },
    },
    perform: async (stage) => void (await allServed(stage)),
  },
  {
    name: "s0-o6",
    items: ["S0-O6", "S1-O3", "S3-O3", "S4-O4"],
    title: "a process that hangs, and one that does not get up, are started again",
    start: { shop: "fashion", liveness: "timeout=1,period=1,failures=3,delay=5" },
    async perform({ shop, say, check }) {
      const { system } = shop;
      const restarts = () => system.processes().find(({ name }) => name === "store-0")?.restarts ?? 0;
      const stopped = performance.now();
      await system.kill("store-0", "SIGSTOP");
      say("store-0 hangs (SIGSTOP); it is asked each second, and given up after three");
      await until("it is started again", 30_000, async () => restarts() === 1);
      await system.waitReady("store-0");
      check(true, `RESTARTS 1: killed, started and ready again after ${seconds(stopped)}`);
      say("store-0 is killed as soon as it is started, as one with a bad setting ends");
      const times: string[] = [];
      for (let n = 2; n <= 6; n++) {
        const killed = performance.now();
        await system.kill("store-0", "SIGKILL");
        await until("it is started again", 30_000, async () => restarts() === n);
        times.push(seconds(killed));
      }
      check(restarts() === 6, `RESTARTS 6, with longer and longer waits: ${times.join(", ")}`);
      const left = performance.now();
      await system.waitReady("store-0");
      const id = await shop.order();
      await shop.shows(`/storeOrders/${id}`, { state: "StoreAccepted" });
      check(true, `left alone, it is ready after ${seconds(left)}, and accepts order ${id}`);
    },
  },
  rolling(
    {
      ...{ name: "s0-o7", items: ["S0-O7"], shop: "fashion", app: "inventory" },
      title: "the product service is deployed anew under siege, without readiness",
      command: "siege -c1 -t10S -v http://fashion-store:8080/products",
      seed: {
        ...{ Transactions: 215, Availability: 75.44, "Elapsed time": 9.33, "Data transferred": 0.54 },
        ...{ "Response time": 0.04, "Transaction rate": 23.04, Throughput: 0.06, Concurrency: 0.99 },
        ...{ "Successful transactions": 215, "Failed transactions": 70, "Longest transaction": 0.42 },
      },
    },
    false,
  ),
  rolling(
    {
      ...{ name: "s0-o8", items: ["S0-O8"], shop: "fashion", app: "inventory" },
      title: "the same with readiness: nobody notices",
      command: "siege -c1 -t10S -v http://fashion-store:8080/products",
      seed: {
        ...{ Transactions: 680, Availability: 100, "Elapsed time": 9.02, "Data transferred": 1.71 },
        ...{ "Response time": 0.01, "Transaction rate": 75.6, Throughput: 0.19 },
        ...{ "Successful transactions": 680, "Failed transactions": 0, "Longest transaction": 0.58 },
      },
    },
    true,
  ),
  {
    name: "s1-h3",
    items: ["S1-H3"],
    title: "two customers order books for ten seconds",
    start: { shop: "bookstore" },
    // In the README the closing quotation mark is missing.
    command: `siege -c2 -t10S -v ${JSON_POST} 'http://localhost:8081/orders POST {"productId":2, "quantity":1}'`,
    async perform(stage) {
      const table = await allServed(stage);
      const { length } = await stage.shop.all("orders");
      const served = table["Successful transactions"];
      // Of a request that siege breaks off at the end nobody knows whether it was an order.
      stage.check(length >= served && length <= served + 2, `${length} orders stand`);
      await nothingLeft(stage);
    },
  },
  {
    name: "s1-h4",
    items: ["S1-H4"],
    title: "the profile of products under siege",
    start: { shop: "bookstore" },
    command: "siege -c1 -t10S -v http://team4-store:8080/profile/products",
    perform: async (stage) => void (await allServed(stage)),
  },
  rolling(
    {
      ...{ name: "s1-o4", items: ["S1-O4"], shop: "bookstore", app: "inventory" },
      title: "the product service is deployed anew under siege, without readiness",
      command: "siege -c1 -t10S -v http://team4-store:8080/profile/products",
      seed: { Availability: 69.94 },
    },
    false,
  ),
  rolling(
    {
      ...{ name: "s1-o5", items: ["S1-O5"], shop: "bookstore", app: "inventory" },
      title: "the same with readiness: nobody notices",
      command: "siege -c1 -t10S -v http://team4-store:8080/profile/products",
      seed: { Availability: 100 },
    },
    true,
  ),
  {
    name: "s3-h6",
    items: ["S3-H6"],
    title: "200 users post stamps for one phone number",
    start: { shop: "coffee" },
    command: `siege -c200 -t10S -v ${JSON_POST} 'http://20.200.224.94:8080/stamps POST { "phoneNumber": "${PHONE}", "stampQty": 2 }'`,
    async perform(stage) {
      const table = await allServed(stage);
      const served = table["Successful transactions"];
      let stamps = 0;
      await until("all are on the card", 30_000, async () => {
        stamps = (await stage.shop.http("GET", `/stamps/${PHONE}`)).body.stampQty;
        return stamps >= 2 * served;
      }).catch(() => undefined);
      // Requests that siege breaks off at the end may still be served: one of each user at most.
      const counted = stamps >= 2 * served && stamps <= 2 * (served + 200);
      stage.check(counted, `${served} times two stamps were given; the card has ${stamps}`);
    },
  },
  {
    name: "s3-h7",
    items: ["S3-H7"],
    title: "the list of deliveries under siege",
    start: { shop: "coffee" },
    command: "siege -c1 -t2S -v http://delivery:8080/deliveries",
    perform: async (stage) => void (await allServed(stage)),
  },
  {
    name: "s3-h8",
    items: ["S3-H8"],
    title: "the same for a minute, once a second",
    start: { shop: "coffee" },
    command: "siege -c1 -t60S -v http://delivery:8080/deliveries --delay=1S",
    perform: async (stage) => void (await allServed(stage)),
  },
  rolling(
    {
      ...{ name: "s3-o2", items: ["S3-O2"], shop: "coffee", app: "delivery" },
      title: "the delivery service is deployed anew under siege, with readiness: nobody notices",
      command: "siege -c1 -t10S -v http://delivery:8080/deliveries",
    },
    true,
  ),
  {
    name: "s3-o5",
    items: ["S3-O4", "S3-O5", "S3-H9", "S3-N3", "S0-N3", "S1-O6"],
    title: "payment is slow at random: 50 customers order for half a minute; then it is overloaded",
    start: { shop: "coffee", drills: true },
    command:
      `siege -c50 -t30S -r10 -v ${JSON_POST} 'http://20.200.224.94:8080/orders POST ` +
      `{ "productId": 1, "qty": 1, "paymentType": "cash", "cost": 1000, "productName": "Coffee"}'`,
    seed: { Availability: 97.9 },
    async perform(stage) {
      const { shop, say, check } = stage;
      const order = ordering({ productId: 1, qty: 1, paymentType: "cash", cost: 1000 });
      // Fresh processes are slow at first, which on a busy machine looks like an overload and is not what is shown here.
      for (let round = 0; round < 12; round++)
        await Promise.all(Array.from({ length: 10 }, () => order(shop)));
      await drill(shop, SLOW);
      say("payment takes 400 ms and up to 220 more; order waits 610 ms for one attempt");
      const table = await stage.siege();
      check(table.Availability >= 97.9, `${table.Availability} % served normally (the seed: about 97.9 %)`);
      await opensAndCloses(stage, order);
      await nothingLeft(stage);
    },
  },
  {
    name: "s4-n5",
    items: ["S4-N5", "S3-N6"],
    title: "payment is stopped: ordering fails; it is started: ordering succeeds",
    start: { shop: "cafe" },
    async perform(stage) {
      const { shop, say, check } = stage;
      const order = ordering({ customerId: "kim", cafeId: 1, menuId: 1, qty: 1, totalPrice: 4000 });
      await shop.system.scale("payment", 0);
      say("step 1: the payment service is stopped");
      const began = performance.now();
      const failed = await order(shop);
      const after = failed.headers.get("retry-after");
      check(
        failed.status === 503 && Number(after) > 0,
        `step 2: ordering fails after ${seconds(began)}: ${failed.status}, Retry-After: ${after}, "${failed.body.detail}"`,
      );
      await shop.system.scale("payment", 1);
      const started = performance.now();
      let status = 0;
      await until("an order is taken", 20_000, async () => {
        status = (await order(shop)).status;
        return status === 201;
      }).catch(() => undefined);
      check(
        status === 201,
        `step 3: payment is started, and after ${seconds(started)} an order succeeds: ${status}`,
      );
      await nothingLeft(stage);
    },
  },
  {
    name: "s4-o5",
    items: ["S4-O5", "S4-N3"],
    title: "payment is slow at random, and two customers order",
    start: { shop: "cafe", drills: true },
    // The README names users and seconds only.
    command:
      `siege -c2 -t20S -v ${JSON_POST} 'http://order:8080/orders POST ` +
      `{"customerId": "kim", "cafeId": 1, "menuId": 1, "qty": 1, "totalPrice": 4000}'`,
    seed: {
      ...{ Transactions: 36, Availability: 69.44 },
      ...{ "Successful transactions": 25, "Failed transactions": 11 },
    },
    async perform(stage) {
      await drill(stage.shop, SLOW);
      stage.say("payment takes 400 ms and up to 220 more");
      const table = await stage.siege();
      stage.check(table.Availability > 69.44, `${table.Availability} % served (the seed: 69.44 %)`);
      await nothingLeft(stage);
    },
  },
];
