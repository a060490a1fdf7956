/** What is shown on a cluster: what the seeds showed of theirs, and that nothing is lost. */
import { setTimeout as delay } from "node:timers/promises";
import {
  get,
  type Killer,
  knows,
  kubectl,
  type Ordered,
  type Release,
  seconds,
  until,
} from "./kubernetes-cluster.js";
import type { Siege } from "./siege.js";

/** Where a proof is performed. */
export interface Stage {
  /** two shops, each in a namespace of its own */
  fashion: Release;
  coffee: Release;
  killer: Killer;
  /** where Dapr's control plane is */
  controlPlane: string;
  /** where the cluster's own controller of Ingress and Gateway API answers, as seen from a pod */
  ingressUrl: string | undefined;
  say(line: string): void;
  /** Notes what was found, and whether it is as it should be. */
  check(holds: boolean, found: string): void;
  /** A figure for the table: what was measured, the seed's number, ours. */
  figure(what: string, seed: string, here: string): void;
}

export interface Proof {
  name: string;
  /** wants a controller of Ingress and Gateway API on the cluster */
  wantsController?: true;
  /** items of the seeds */
  items: string[];
  title: string;
  perform(stage: Stage): Promise<void>;
}

const per = (table: Siege) =>
  `${table["Successful transactions"]} served, ${table["Failed transactions"]} failed, ${table.Availability} %, longest ${table["Longest transaction"]} s`;

/** Nothing is lost, nothing is there twice: what customers were told against all books. */
async function audit(
  stage: Stage,
  release: Release,
  before: readonly number[],
  stock: number,
  seen: Ordered,
): Promise<void> {
  const { check } = stage;
  check(
    new Set(seen.ids).size === seen.ids.length,
    `${seen.ids.length} orders were answered with 201, each with an id of its own`,
  );
  check(
    seen.odd.length === 0,
    `nothing but 201 and honest 503 was answered${seen.odd.length ? `: ${seen.odd.slice(0, 3).join("; ")}` : ""}`,
  );
  await release.shop(async (shop) => {
    const standing = async () =>
      (await shop.all("orders")).filter(({ state }) => state === "OrderPlaced").map(({ id }) => id as number);
    const placed = await standing();
    const lost = [...before, ...seen.ids].filter((id) => !placed.includes(id));
    check(lost.length === 0, `all of them stand${lost.length ? `, but ${lost}` : ""}`);
    const balanced = await shop.balances(await standing(), stock, 120_000).then(
      () => "",
      (error: Error) => error.message,
    );
    check(
      balanced === "",
      `orders, payments, store orders, deliveries, view and stock agree${balanced && `: ${balanced.slice(0, 400)}`}`,
    );
    const letters = (await shop.http("GET", "/deadLetters")).body;
    check(letters.page.totalElements === 0, `${letters.page.totalElements} dead letters`);
  });
}

/** The stock that there would be if nobody had ordered, and the orders that stand. */
const beginning = (release: Release) =>
  release.shop(async (shop) => {
    const placed = (await shop.all("orders"))
      .filter(({ state }) => state === "OrderPlaced")
      .map(({ id }) => id as number);
    return { before: placed, stock: (await shop.stock()) + placed.length };
  });

/** How many of a service are ready. */
const ready = async (release: Release, app: string): Promise<number> =>
  (await release.get("deployment", `${release.name}-${app}`)).status.readyReplicas ?? 0;

const WITHOUT_READINESS = [
  "services.inventory.probes.readiness.enabled=false",
  "services.inventory.probes.startup.enabled=false",
  "services.inventory.preStopSeconds=0",
];

async function rollUnder(stage: Stage, command: string): Promise<Siege> {
  const { fashion, say } = stage;
  say(`$ ${command}`);
  const under = fashion.siege(command);
  await delay(3_000); // siege is at work
  const began = performance.now();
  await fashion.kubectl("rollout", "restart", `deployment/${fashion.name}-inventory`);
  await fashion.rolledOut("inventory");
  say(`deployed anew within ${seconds(began)}`);
  return under;
}

export const PROOFS: readonly Proof[] = [
  {
    name: "two-shops",
    items: ["S0-H1", "S0-H4", "S3-H1", "S3-H4", "S0-G1", "S2-G2", "S2-H1", "S2-O5", "S3-O8"],
    title: "two shops on one cluster: orders through the ingress, and taken back",
    async perform({ fashion, coffee, check, say }) {
      for (const release of [fashion, coffee]) {
        const { items } = await release.get("deployments");
        const up = items.filter((one: { status: { readyReplicas?: number } }) => one.status.readyReplicas);
        check(
          up.length === items.length,
          `${release.name}: ${up.length} of ${items.length} deployments are up`,
        );
      }
      await fashion.reached(`${fashion.name}-ingress`, 80, async (shop) => {
        const stock = await shop.stock();
        const placed = await shop.http("POST", "/orders", { productId: 1, productName: "Outwear-1", qty: 1 });
        check(
          placed.status === 201,
          `fashion: POST /orders: ${placed.status} ${JSON.stringify(placed.body)}`,
        );
        const { id } = placed.body;
        const row = await shop.shows(`/orderStatuses/${id}`, {
          orderStatus: "OrderPlaced",
          deliveryStatus: "DeliveryStarted",
        });
        say(`/orderStatuses/${id}: ${JSON.stringify({ ...row, _links: undefined })}`);
        const gone = await shop.http("DELETE", `/orders/${id}`);
        await shop.shows(`/orderStatuses/${id}`, {
          orderStatus: "OrderCancelled",
          deliveryStatus: "DeliveryCancelled",
          paymentStatus: "PaymentCancelled",
        });
        check(
          gone.status < 300 && (await shop.stock()) === stock,
          "fashion: cancelled, delivery and payment too, and the stock is back",
        );
        const prefixed = await shop.http("GET", "/api/fashion-order/products");
        check(prefixed.status === 200, `S0-G1: /api/fashion-order/products: ${prefixed.status}`);
      });
      await coffee.reached(`${coffee.name}-ingress`, 80, async (shop) => {
        const placed = await shop.http("POST", "/orders", {
          productId: 1,
          productName: "Coffee",
          qty: 2,
          cost: 2000,
          phoneNumber: "01012341234",
        });
        const { id } = placed.body;
        check(
          placed.status === 201 && placed.body.orderStatus === "Order complete",
          `coffee: POST /orders: ${placed.status}, ${placed.body.orderStatus}`,
        );
        await shop.shows(`/payments/${id}`, { orderId: id });
        const paid = await shop.http("PUT", `/payments/${id}`, { paymentStatus: "END", paymentType: "cash" });
        check(paid.status === 200, `coffee: paid: ${paid.status}`);
        await shop.shows("/stamps/01012341234", { stampQty: 2 });
        await until(
          "the kitchen has it",
          20_000,
          async () => (await shop.http("PUT", `/storeOrders/${id}/complete`)).status < 300,
        );
        await shop.shows(`/orderTraces/${id}`, { status: "DELEVERY START" });
        await shop.http("DELETE", `/orders/${id}`);
        await shop.shows(`/orderTraces/${id}`, { status: "DELIVERY CANCEL" });
        await shop.shows("/stamps/01012341234", { stampQty: 0 });
        check(true, "coffee: paid, stamped, made, on its way; cancelled, the stamps are gone");
      });
    },
  },
  {
    name: "named-routes",
    items: ["S0-G2", "S1-K27"],
    title: "the ingress shows what is named and refuses the rest",
    async perform({ fashion, check }) {
      const at = `http://${fashion.name}-ingress`;
      for (const path of [
        "/orders",
        "/products/1",
        "/orderStatuses?size=1",
        "/",
        "/api/fashion-order/products",
        "/profile/products",
      ]) {
        const { status } = await fashion.curl(at + path);
        check(status === 200, `${path}: ${status}`);
      }
      for (const [path, ...args] of [
        ["/v1.0/metadata"],
        ["/v1.0/invoke/order/method/orders"],
        ["/v1.0/state/orders/order:1"],
        ["/v1.0/publish/events/OrderPlaced", "-X", "POST", "-d", "{}"],
        ["/v1.0/secrets/kubernetes/admin"],
        ["/v1.0/shutdown", "-X", "POST"],
        ["/orders/..%2f..%2f..%2f..%2fv1.0/metadata", "--path-as-is"],
        ["/deadLetters"],
        ["/events/OrderPlaced", "-X", "POST", "-d", "{}"],
        ["/dapr/subscribe"],
        ["/anything", "-H", "dapr-app-id: order"],
        ["/actuator/health"],
      ] as const) {
        const { status, type } = await fashion.curl(at + path, ...args);
        const holds = status === 403 && type.startsWith("application/problem+json");
        check(holds || (path.includes("%2f") && status >= 400 && status < 500), `${path}: ${status}`);
      }
    },
  },
  {
    name: "controllers",
    wantsController: true,
    items: ["S0-G1", "S0-G2"],
    title: "an Ingress, an HTTPRoute, and a canary that gets its share",
    async perform({ fashion, ingressUrl = "", check, figure, say }) {
      const named = async (kind: string) => (await get([kind])).items[0]?.metadata.name as string;
      const [ingressClass, gatewayClass] = [await named("ingressclasses"), await named("gatewayclasses")];
      const host = "fashion.example.com";
      const asked = (path: string, ...args: string[]) =>
        fashion.curl(ingressUrl + path, "-H", `host: ${host}`, ...args);
      const orders = async (way: string, prefix: string) => {
        await until(
          "the controller has taken it",
          60_000,
          async () => (await asked(`${prefix}/orders`)).status === 200,
        );
        const order = ["-H", "content-type: application/json", "-d", '{"productId":1,"qty":1}'];
        const placed = await asked(`${prefix}/orders`, ...order);
        const { id } = JSON.parse(placed.body) as { id: number };
        const gone = await asked(`${prefix}/orders/${id}`, "-X", "DELETE");
        check(
          placed.status === 201 && gone.status === 200,
          `${way}: order ${id} placed (${placed.status}) and cancelled (${gone.status})`,
        );
        const other = await fashion.curl(`${ingressUrl}${prefix}/orders`, "-H", "host: other.example.com");
        check(other.status === 404, `${way}: another host: ${other.status}`);
      };
      const ingress = [
        `ingress={"kind":"ingress","className":"${ingressClass}","hosts":["${host}"],"path":"/api/fashion-order"}`,
      ];
      await fashion.install(ingress);
      await orders(`Ingress of class ${ingressClass}`, "/api/fashion-order");
      fashion.forget(...ingress);
      const canary = [
        `ingress={"kind":"gateway-api","hosts":["${host}"],"path":"/shop","gatewayApi":{"gateway":{"create":true,"className":"${gatewayClass}"}},"canary":{"enabled":true,"weight":25}}`,
      ];
      await fashion.install(canary);
      await orders(`HTTPRoute of class ${gatewayClass}`, "/shop");
      const script = `for i in $(seq 200); do curl -s -H 'host: ${host}' ${ingressUrl}/shop/actuator/echo; echo; done`;
      const answers = (await fashion.kubectl("exec", "tools", "--", "bash", "-c", script)).trim().split("\n");
      const [new_, old] = ["-gateway-canary-", "-gateway-"].map(
        (part) => answers.filter((one) => one.includes(part)).length,
      );
      const ofCanary = new_ ?? 0;
      check(
        ofCanary >= 30 && ofCanary <= 70 && (old ?? 0) === 200,
        `of 200 requests the canary answered ${ofCanary} (its share: 25 %), all were answered`,
      );
      figure("canary by weight (Gateway API)", "–", `25 %: ${ofCanary} of 200`);
      say("back to nginx");
      fashion.forget(...canary);
      await fashion.install();
    },
  },
  {
    name: "s0-o8",
    items: ["S0-O8", "S1-O5", "S2-O2", "S3-O2", "S4-O2", "S1-K33"],
    title: "the product service is deployed anew under siege, with readiness: nobody notices",
    async perform(stage) {
      const table = await rollUnder(stage, "siege -c1 -t40S -v http://fashion-store:8080/products");
      stage.check(table["Failed transactions"] === 0 && table["Successful transactions"] > 0, per(table));
      stage.figure(
        "rolling update with readiness (S0-O8)",
        "680 served, 0 failed, 100.00 %, longest 0.58 s",
        per(table),
      );
    },
  },
  {
    name: "s0-o7",
    items: ["S0-O7", "S1-O4", "S3-O2"],
    title: "the same without readiness",
    async perform(stage) {
      const { fashion, check, figure } = stage;
      const command = "siege -c1 -t40S -v http://fashion-store:8080/products";
      await fashion.install(WITHOUT_READINESS);
      await fashion.rolledOut("inventory");
      const table = await rollUnder(stage, command);
      check(
        table["Successful transactions"] > 0,
        `${per(table)}: the sidecar's own readiness, and what sidecars try again, hide it`,
      );
      // So nobody is ready at all for a while, which is what the seeds' clients met.
      const strategy = JSON.stringify({ spec: { strategy: { type: "Recreate", rollingUpdate: null } } });
      await fashion.kubectl("patch", "deployment", `${fashion.name}-inventory`, "-p", strategy);
      const gap = await rollUnder(stage, command);
      check(gap["Failed transactions"] > 0, `the old one ended before the new one is there: ${per(gap)}`);
      fashion.forget(...WITHOUT_READINESS);
      await fashion.install();
      figure(
        "the same without readiness (S0-O7)",
        "215 served, 70 failed, 75.44 %",
        `${per(table)}; without any overlap ${per(gap)}`,
      );
    },
  },
  {
    name: "s4-o4",
    items: ["S4-O4", "S1-K29"],
    title: "a liveness probe that fails heals: cat /tmp/healthy",
    async perform({ fashion, check, figure, say }) {
      const probes = [
        'services.store.probes.startup.exec={"command":["touch","/tmp/healthy"]}',
        'services.store.probes.liveness={"enabled":true,"exec":{"command":["cat","/tmp/healthy"]},"initialDelaySeconds":1,"periodSeconds":2,"failureThreshold":2}',
      ];
      await fashion.install(probes);
      await fashion.rolledOut("store");
      const name = (await fashion.pod("store")).metadata.name;
      check((await fashion.restarts("store")) === 0, `${name} runs, RESTARTS 0`);
      await fashion.exec("store", ["rm", "/tmp/healthy"]);
      const began = performance.now();
      await until("it is started again", 120_000, async () => (await fashion.restarts("store")) >= 1);
      say(`its file was removed; RESTARTS 1 after ${seconds(began)}`);
      await until("it is ready again", 120_000, async () => (await ready(fashion, "store")) === 1);
      const took = seconds(began);
      check(
        (await fashion.pod("store")).metadata.name === name,
        `${name} is ready again after ${took}, in the same pod`,
      );
      figure(
        "liveness by a file (S4-O4)",
        "the probe fails after 90 s and the container is restarted",
        `RESTARTS 1, ready again ${took} after the file was removed`,
      );
      fashion.forget(...probes);
      await fashion.install();
    },
  },
  {
    name: "s0-o6",
    items: ["S0-O6", "S1-O3", "S3-O3"],
    title: "a liveness probe at a wrong port: CrashLoopBackOff; righted, a new pod comes",
    async perform({ fashion, check, figure }) {
      const wrong =
        'services.store.probes.liveness={"enabled":true,"httpGet":{"path":"/healthz","port":80},"initialDelaySeconds":1,"periodSeconds":1,"timeoutSeconds":2,"failureThreshold":2}';
      await fashion.install([wrong], { wait: false });
      const began = performance.now();
      let restarts = 0;
      await until("CrashLoopBackOff", 300_000, async () => {
        const { items } = await fashion.get("pods", "-l", "app.kubernetes.io/name=store");
        return items.some(
          ({
            status,
          }: {
            status: {
              containerStatuses?: {
                name: string;
                restartCount: number;
                state: { waiting?: { reason: string } };
              }[];
            };
          }) =>
            status.containerStatuses?.some((one) => {
              if (one.name === "store") restarts = Math.max(restarts, one.restartCount);
              return one.state.waiting?.reason === "CrashLoopBackOff";
            }),
        );
      });
      const took = seconds(began);
      check(restarts >= 1, `CrashLoopBackOff, RESTARTS ${restarts} at ${took}`);
      const id = await fashion.shop(
        async (shop) => (await shop.http("POST", "/orders", { productId: 1, qty: 1 })).body.id,
      );
      check(Number.isInteger(id), `meanwhile orders are taken: order ${id}`);
      fashion.forget(wrong);
      await fashion.install();
      await fashion.shop((shop) => shop.shows(`/storeOrders/${id}`, { state: "StoreAccepted" }, 60_000));
      check((await fashion.restarts("store")) === 0, `righted: a new pod, and order ${id} is accepted`);
      figure(
        "liveness at a wrong port (S0-O6, S3-O3)",
        "CrashLoopBackOff, RESTARTS 5 at 5m14s",
        `CrashLoopBackOff, RESTARTS ${restarts} at ${took} (shorter probe); healed by the upgrade`,
      );
    },
  },
  {
    name: "hpa",
    items: ["S0-O4", "S0-O5", "S1-O1", "S2-O1", "S3-O1", "S4-O1", "S1-K31"],
    title: "processes are added under load, and taken away after it",
    async perform({ fashion, coffee, check, figure, say }) {
      await kubernetesMetrics();
      const on = (app: string) => [
        `services.${app}.autoscaling.enabled=true`,
        "autoscaling.scaleDownAfterSeconds=30",
      ];
      await fashion.install(on("inventory"));
      await coffee.install(on("loyalty"));
      const scaled = async (
        release: Release,
        app: string,
        command: string,
        atLeast: number,
        seed: string,
      ) => {
        const began = performance.now();
        let most = 1;
        let at = "";
        const look = async () => {
          const { status } = await release.get("hpa", `${release.name}-${app}`);
          if (status.desiredReplicas > most) {
            most = status.desiredReplicas;
            at = seconds(began);
            say(`${release.name}-${app}: ${most} processes at ${at}`);
          }
          return status;
        };
        say(`$ ${command}`);
        const under = release.siege(command);
        let over = false;
        const table = under.finally(() => {
          over = true;
        });
        while (!over) {
          await look();
          await delay(2_000);
        }
        const result = await table;
        await until("the load is seen", 60_000, async () => {
          await look();
          return most >= atLeast;
        }).catch(() => undefined);
        check(most >= atLeast, `${release.name}-${app}: 1 → ${most} processes at ${at}; ${per(result)}`);
        const quiet = performance.now();
        await until(
          "they are taken away",
          420_000,
          async () => (await release.get("deployment", `${release.name}-${app}`)).spec.replicas === 1,
        );
        check(true, `${release.name}-${app}: ${most} → 1, ${seconds(quiet)} after the load`);
        figure(
          `HPA of ${app}`,
          seed,
          `1 → ${most} at ${at}, → 1 ${seconds(quiet)} after the load; ${result["Transaction rate"]}/s, ${result.Availability} %`,
        );
      };
      await scaled(
        fashion,
        "inventory",
        "siege -c1 -t60S -v http://fashion-store:8080/products",
        3,
        "200m, 20 %, 1 → 3 under siege -c1 (75.6/s, 100 %)",
      );
      await scaled(
        coffee,
        "loyalty",
        `siege -c20 -t45S -v --content-type "application/json" 'http://20.200.224.94:8080/stamps POST { "phoneNumber": "01012341234", "stampQty": 2 }'`,
        2,
        "250m, 15 %, 1 → up to 5 under siege -c200 -t10S",
      );
      fashion.forget(...on("inventory"));
      coffee.forget(...on("loyalty"));
      await fashion.install();
      await coffee.install();
    },
  },
  {
    name: "s4-o3",
    items: ["S4-O3", "S3-O6"],
    title: "a log that one pod has written is read in another",
    async perform({ fashion, check, figure }) {
      const id = await fashion.shop(
        async (shop) => (await shop.http("POST", "/orders", { productId: 1, qty: 1 })).body.id,
      );
      const writer = (await fashion.pod("order")).metadata.name;
      const text = await fashion.exec("store", ["cat", `/mnt/logs/${writer}.log`]);
      const lines = text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as { service: string; msg: string; profile?: string });
      const first = lines.find(({ msg }) => msg === "listening");
      check(
        lines.every(({ service }) => service === "order") && first?.profile === "k8s",
        `in the pod of store, /mnt/logs/${writer}.log has ${lines.length} lines of order, profile ${first?.profile}`,
      );
      check(Number.isInteger(id), `order ${id}`);
      figure(
        "a log read in another pod (S4-O3, S3-O6)",
        "seen (a picture)",
        `${lines.length} lines of ${writer} read in the pod of store`,
      );
    },
  },
  {
    name: "kills",
    items: ["S1-K22", "S1-K23"],
    title: "node process, sidecar and pod are killed while customers order: nothing lost, nothing twice",
    async perform(stage) {
      const { fashion, killer, say, figure } = stage;
      const { before, stock } = await beginning(fashion);
      const under = fashion.ordering(8, 75);
      let over = false;
      const seen = under.finally(() => {
        over = true;
      });
      let killed = 0;
      const hit = async (what: string, work: () => Promise<unknown>) => {
        if (over) return;
        await work();
        killed++;
        say(what);
        await delay(4_500);
      };
      await delay(3_000);
      const app = (name: string) =>
        hit(`kill -9 of the process of ${name}`, async () => killer.kill(await fashion.pod(name), name));
      const sidecar = (name: string) =>
        hit(`kill -9 of the sidecar of ${name}`, async () => killer.kill(await fashion.pod(name), "daprd"));
      const pod = (name: string) =>
        hit(`pod of ${name} deleted by force`, async () =>
          fashion.kubectl(
            "delete",
            "pod",
            (await fashion.pod(name)).metadata.name,
            "--grace-period=0",
            "--force",
            "--wait=false",
          ),
        );
      const steps = [
        () => app("order"),
        () => sidecar("payment"),
        () => pod("store"),
        () => app("inventory"),
        () => sidecar("order"),
        () => app("delivery"),
        () => pod("payment"),
        () => sidecar("store"),
        () => app("orderview"),
        () => hit("kill -9 of Redis", async () => killer.kill(await fashion.pod("redis"), "redis")),
        () => hit("kill -9 of MySQL", async () => killer.kill(await fashion.pod("mysql"), "mysql")),
      ];
      for (const step of steps) await step().catch((error: Error) => say(error.message.split("\n")[0] ?? ""));
      const result = await seen;
      await audit(stage, fashion, before, stock, result);
      figure(
        `${killed} kills under 8 customers`,
        "–",
        `${result.ids.length} orders, 0 lost, 0 twice; ${result.refused} honest 503, ${result.unanswered} unanswered, all known after asking again; longest without an order ${(result.longestGap / 1000).toFixed(1)} s`,
      );
    },
  },
  {
    name: "mtls",
    items: ["S1-K28"],
    title: "sidecars speak mTLS, and who is not named is refused",
    async perform({ fashion, coffee, controlPlane, check, figure }) {
      const { spec } = await get(["configuration", "daprsystem", "-n", controlPlane]);
      check(spec.mtls.enabled === true, "Dapr's own configuration: mTLS is on");
      const call = (method: string, target: string) =>
        `fetch("http://127.0.0.1:3500/v1.0/invoke/${target}", { method: "${method}", headers: { "dapr-api-token": process.env.DAPR_API_TOKEN } }).then(async (a) => console.log(a.status, (await a.text()).slice(0, 300)))`;
      const asked = (release: Release, app: string, method: string, target: string) =>
        release.exec(app, ["node", "-e", call(method, target)]);
      const allowed = await asked(fashion, "orderview", "GET", "order/method/records?from=1&to=2");
      check(
        !/^(403|500)/.test(allowed),
        `orderview asks order for its records, as the table says: ${allowed.trim().slice(0, 120)}`,
      );
      for (const [release, app, method, target] of [
        [fashion, "loyalty", "DELETE", "order/method/orders/1"],
        [fashion, "delivery", "POST", "payment/method/payments"],
        [fashion, "order", "GET", "gateway/method/orders"],
        [coffee, "order", "PUT", `inventory.${fashion.name}/method/reservations/1`],
      ] as const) {
        const refused = await asked(release, app, method, target);
        check(
          /^403/.test(refused),
          `${release.name}/${app}: ${method} ${target}: ${refused.trim().slice(0, 160)}`,
        );
      }
      const bare = await fashion.exec("loyalty", [
        "node",
        "-e",
        'fetch("http://127.0.0.1:3500/v1.0/metadata").then((a) => console.log(a.status))',
      ]);
      check(bare.trim() === "401", `without its token a sidecar answers ${bare.trim()}`);
      const ip = (await fashion.pod("order")).status.podIP;
      const look = `const t=require("node:tls").connect({host:"${ip}",port:50002,rejectUnauthorized:false,ALPNProtocols:["h2"]},()=>{console.log(t.getPeerCertificate().subjectaltname);t.end()});t.on("error",(e)=>console.log(e.message))`;
      const certificate = await fashion.kubectl("exec", "tools", "--", "node", "-e", look);
      check(
        certificate.includes(`spiffe://public/ns/${fashion.name}/order`),
        `the sidecar of order shows a certificate for ${certificate.trim()}`,
      );
      const plain = await fashion
        .kubectl(
          "exec",
          "tools",
          "--",
          "curl",
          "-sS",
          "-m",
          "5",
          "--http2-prior-knowledge",
          `http://${ip}:50002/`,
        )
        .then(
          () => "answered",
          (error: Error) => error.message.split("\n").at(-1),
        );
      check(plain !== "answered", `without TLS: ${plain}`);
      const direct = await fashion.curl(`http://${ip}:8081/orders`);
      check(direct.status === 401, `the service itself, past its sidecar: ${direct.status}`);
      figure(
        "mTLS and access control",
        "JWT (a heading)",
        "certificates of spiffe://public/ns/…, 4 calls that the table does not name: 403",
      );
    },
  },
  {
    name: "upgrade",
    items: ["S1-N9"],
    title: "helm upgrade and rollback, with customers: data and traffic stay",
    async perform(stage) {
      const { fashion, say, figure, check } = stage;
      const { before, stock } = await beginning(fashion);
      const setting = 'config.logLevel="debug"';
      let over = false;
      const waves: Ordered[] = [];
      const customers = (async () => {
        while (!over) waves.push(await fashion.ordering(2, 10));
      })();
      await delay(3_000);
      const began = performance.now();
      await fashion.install([setting, 'defaults.podLabels={"round":"two"}'], { keep: false });
      say(`helm upgrade: all nine services replaced after ${seconds(began)}`);
      const upgraded = seconds(began);
      const level = await fashion.exec("order", ["node", "-p", "process.env.LOG_LEVEL"]);
      check(level.trim() === "debug", `LOG_LEVEL is ${level.trim()}`);
      const back = performance.now();
      await fashion.helm("rollback", fashion.name, ["--wait", "--timeout", "12m"]);
      say(`helm rollback: replaced again after ${seconds(back)}`);
      const rolledBack = seconds(back);
      over = true;
      await customers;
      const level2 = await fashion.exec("order", ["node", "-p", "process.env.LOG_LEVEL"]);
      check(level2.trim() === "info", `LOG_LEVEL is ${level2.trim()} again`);
      const all: Ordered = waves.reduce((sum, wave) => ({
        ...{
          ids: [...sum.ids, ...wave.ids],
          refused: sum.refused + wave.refused,
          odd: [...sum.odd, ...wave.odd],
        },
        ...{
          unanswered: sum.unanswered + wave.unanswered,
          p50: Math.max(sum.p50, wave.p50),
          p99: Math.max(sum.p99, wave.p99),
        },
        ...{ longestGap: Math.max(sum.longestGap, wave.longestGap), seconds: sum.seconds + wave.seconds },
      }));
      check(
        all.unanswered === 0 && all.refused === 0,
        `${all.ids.length} orders meanwhile, ${all.refused} refused, ${all.unanswered} unanswered, longest wait for the next ${(all.longestGap / 1000).toFixed(1)} s`,
      );
      await audit(stage, fashion, before, stock, all);
      figure(
        "helm upgrade and rollback under 2 customers",
        "–",
        `${upgraded} and ${rolledBack}; ${all.ids.length} orders, ${all.refused + all.unanswered} failed, 0 lost`,
      );
    },
  },
  {
    name: "picture",
    items: ["S1-K32"],
    title: "what `dapr list -k` and the dashboard show",
    async perform({ fashion, coffee, check, say, controlPlane }) {
      const { items } = await get(["deployments", "--all-namespaces"]);
      const shown = items.filter(
        (one: { spec: { template: { metadata: { annotations?: Record<string, string> } } } }) =>
          one.spec.template.metadata.annotations?.["dapr.io/enabled"] === "true",
      );
      for (const { metadata, spec } of shown) {
        const annotations = spec.template.metadata.annotations;
        say(
          `${metadata.namespace.padEnd(16)} ${annotations["dapr.io/app-id"].padEnd(14)} ${(annotations["dapr.io/app-port"] ?? "").padEnd(6)} app:${metadata.labels.app}`,
        );
      }
      for (const release of [fashion, coffee]) {
        const ids = shown
          .filter(({ metadata }: { metadata: { namespace: string } }) => metadata.namespace === release.name)
          .map(
            (one: { spec: { template: { metadata: { annotations: Record<string, string> } } } }) =>
              one.spec.template.metadata.annotations["dapr.io/app-id"],
          );
        check(
          new Set(ids).size === 10 && ids.length === 10,
          `${release.name}: ten apps, each once: ${ids.sort().join(", ")}`,
        );
        const components = (await release.get("components.dapr.io")).items.map(
          ({ metadata, spec }: { metadata: { name: string }; spec: { type: string } }) =>
            `${metadata.name} (${spec.type})`,
        );
        check(components.length === 12, `components: ${components.join(", ")}`);
      }
      const metrics = await fashion.exec("order", [
        "node",
        "-e",
        'fetch("http://127.0.0.1:9090/").then(async (a) => console.log((await a.text()).split("\\n").filter((l) => /^dapr_http_server_request_count|^dapr_component_pubsub/.test(l)).length))',
      ]);
      check(
        Number(metrics) > 0,
        `the sidecar of order shows Prometheus ${Number(metrics)} counters of requests and messages`,
      );
      check(await knows("components.dapr.io"), `Dapr's control plane in ${controlPlane}`);
    },
  },
];

/** A HorizontalPodAutoscaler without a metrics server does nothing, and says so only in its events. */
async function kubernetesMetrics(): Promise<void> {
  await until("the metrics server", 60_000, async () => {
    const nodes = JSON.parse(await kubectl(["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"])) as {
      items: unknown[];
    };
    return nodes.items.length > 0;
  });
}
