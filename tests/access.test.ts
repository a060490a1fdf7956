/** The inside of a running shop: who gets in, who may call whom, what is kept secret. With certificates (`--mtls`). */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { connect } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Supervised } from "#dapr/processes.js";
import { Sentry } from "#dapr/sentry.js";
import { listenersOf } from "./listeners.js";
import { TestShop, until } from "./shop.js";

const PORTS = 12_510;
const HEADER = "dapr-api-token";
const linux = process.platform === "linux";

describe("the inside of a shop with certificates", () => {
  let shop: TestShop;
  before(async () => {
    shop = await TestShop.open(PORTS, { mtls: true, drills: true, env: { LOG_LEVEL: "trace" } });
  });
  after(() => shop?.close());

  /** What the sidecar of `caller` answers when `caller` asks another service. */
  const asks = (caller: string, callee: string, method: string, path: string, body?: object) =>
    shop.http(method, `/v1.0/invoke/${callee}/method${path}`, body, {}, shop.system.sidecarUrl(caller));

  /** Without the token that TestShop.http shows. */
  const without = (method: string, url: string, headers: Record<string, string> = {}) =>
    fetch(url, { method, headers });

  const started = { deliveryStatus: "DeliveryStarted", paymentStatus: "PaymentApproved" };
  const placed = async () => {
    const id = await shop.order();
    await shop.shows(`/orderStatuses/${id}`, started);
    return id;
  };

  it("does business as without: an order is delivered, another one cancelled and its money given back", async () => {
    await placed();
    const id = await placed();
    assert.equal((await shop.http("DELETE", `/payments/${id}`)).status, 200, "payment asks order");
    await shop.shows(`/payments/${id}`, { state: "PaymentCancelled" });
    await shop.shows(`/deliveries/${id}`, { state: "DeliveryCancelled" });
  });

  it("a service may ask another one what the table says, and hears its answer", async () => {
    const product = await asks("order", "inventory", "GET", "/products/1");
    assert.deepEqual([product.status, product.body.id], [200, 1]);
    const records = await asks("orderview", "store", "GET", "/records?from=1&to=2");
    assert.deepEqual([records.status, records.body.records.length], [200, 2]);
    // To Dapr, a path without a star is all that is below it, too: what there is not, the service says.
    assert.equal((await asks("order", "payment", "POST", "/payments/1/nothing", {})).status, 404);
    const late = await asks("delivery", "order", "PUT", "/closings/999", { by: "making" });
    assert.equal(late.status, 404);
    const rebuilt = { from: 1, to: 2 };
    const view = await shop.http("POST", "/rebuilds", rebuilt, {}, shop.system.url("orderview"));
    assert.deepEqual([view.status, view.body.rows], [200, 2], "which asks five services");
  });

  it("a service that asks for anything else is refused with 403, and nothing happens", async () => {
    const id = await placed();
    for (const [caller, callee, method, path, body] of [
      ["loyalty", "order", "DELETE", `/orders/${id}`],
      ["store", "order", "DELETE", `/orders/${id}`],
      ["payment", "order", "GET", `/orders/${id}`], // of its path the verb only
      ["payment", "order", "PUT", `/closings/${id}`, { by: "making" }],
      ["store", "payment", "DELETE", `/payments/${id}`],
      ["order", "payment", "DELETE", `/payments/${id}`],
      ["order", "inventory", "DELETE", "/products/1"],
      ["order", "inventory", "GET", "/products/1/productOptions"],
      ["loyalty", "notification", "GET", "/records?from=1&to=9"],
      ["orderview", "order", "POST", "/orders", { productId: 1, qty: 1 }],
      ["notification", "gateway", "GET", "/"],
    ] as const) {
      const { status, body: said } = await asks(caller, callee, method, path, body);
      assert.equal(status, 403, `${caller} → ${callee} ${method} ${path}: ${JSON.stringify(said)}`);
      assert.equal(said.errorCode, "ERR_DIRECT_INVOKE");
    }
    await shop.shows(`/orderStatuses/${id}`, { ...started, orderStatus: "OrderPlaced" });
  });

  it("the gateway's sidecar gets through to what the gateway opens, and to nothing else", async () => {
    for (const [callee, path] of [
      ["order", "/orders"],
      ["inventory", "/products/1/productOptions"],
      ["inventory", "/menus"],
      ["payment", "/profile/payments"],
    ] as const)
      assert.equal((await asks("gateway", callee, "GET", path)).status, 200, path);
    for (const [callee, method, path] of [
      ["order", "GET", "/records?from=1&to=2"],
      ["order", "PUT", "/closings/1"],
      ["order", "PUT", "/actuator/down"],
      ["order", "GET", "/dapr/subscribe"],
      ["delivery", "POST", "/events/StoreAccepted"],
      ["inventory", "PUT", "/reservations/1"],
      ["orderview", "POST", "/rebuilds"],
      ["payment", "POST", "/payments"],
      ["payment", "PUT", "/drill"],
    ] as const) {
      const { status } = await asks("gateway", callee, method, path, method === "GET" ? undefined : {});
      assert.equal(status, 403, `${method} ${path}`);
    }
  });

  it("a sidecar answers only who shows its token", async () => {
    const token = (url: string) => shop.system.headersFor(url)[HEADER] ?? assert.fail(url);
    const { system } = shop;
    const url = system.sidecarUrl("order");
    const wrong = ["", "x", token(system.url("order")), token(system.sidecarUrl("payment"))];
    for (const path of ["/v1.0/metadata", "/v1.0/state/orders/order:1", "/v1.0/invoke/payment/method/readyz"])
      for (const shown of wrong)
        assert.equal((await without("GET", url + path, { [HEADER]: shown })).status, 401, path);
    assert.equal((await without("POST", `${url}/v1.0/shutdown`)).status, 401);
    assert.equal((await without("GET", `${url}/v1.0/healthz`)).status, 204, "health is no secret");
    assert.equal((await shop.http("GET", "/v1.0/metadata", undefined, {}, url)).status, 200);
  });

  it("nor does its gRPC API answer anybody else; and between sidecars nobody without a certificate is heard", async () => {
    const metadata = "/dapr.proto.runtime.v1.Dapr/GetMetadata";
    const api = `http://127.0.0.1:${PORTS + 4_501}`;
    const token = shop.system.headersFor(shop.system.sidecarUrl("order"));
    assert.equal(await grpc(api, metadata, {}), "16", "unauthenticated");
    assert.equal(await grpc(api, metadata, { [HEADER]: "x" }), "16");
    assert.equal(await grpc(api, metadata, token), "0");

    const call = "/dapr.proto.internals.v1.ServiceInvocation/CallLocal";
    const between = `127.0.0.1:${PORTS + 5_501}`;
    await assert.rejects(grpc(`http://${between}`, call, {}), "in the clear");
    await assert.rejects(grpc(`https://${between}`, call, {}), /certificate required|ECONNRESET|hang up/);
  });

  it("a service answers only its sidecar, and everybody about its health", async () => {
    const { system } = shop;
    const url = system.url("payment");
    const wrong = ["", "x", ...Object.values(system.headersFor(system.sidecarUrl("payment")))];
    for (const shown of wrong)
      for (const [method, path] of [
        ["GET", "/payments"],
        ["PUT", "/drill"],
        ["PUT", "/actuator/down"],
        ["POST", "/events/OrderPlaced"],
      ] as const) {
        const answer = await without(method, url + path, { [HEADER]: shown });
        assert.equal(answer.status, 401, `${method} ${path}`);
        const { type } = (await answer.json()) as { type: string };
        assert.equal(type, "urn:jangteo:problem:not-through-the-sidecar");
      }
    for (const path of ["/healthz", "/readyz", "/actuator/health", "/actuator/echo"])
      assert.equal((await without("GET", url + path)).status, 200, path);
  });

  it("customers need no token, and one that they send is nothing to anybody", async () => {
    const { gateway } = shop.system;
    for (const headers of [{}, { [HEADER]: "x" }, shop.system.headersFor(shop.system.url("order"))])
      assert.equal((await without("GET", `${gateway}/orders`, headers)).status, 200);
    assert.equal((await without("GET", `${gateway}/dapr/subscribe`)).status, 401);
  });

  it("listens on the loopback interface only, every process of it", { skip: !linux }, () => {
    const kinds = new Map<string, number>();
    for (const { name, kind, pid } of shop.system.processes()) {
      const addresses = listenersOf(pid ?? assert.fail(name));
      assert.ok(addresses.length > 0, name);
      // 127.0.0.1 as the kernel writes it, also within an IPv6 address; or ::1
      for (const address of addresses)
        assert.match(
          address,
          /^((0000000000000000FFFF0000)?0100007F|00000000000000000000000001000000):/,
          `${name} listens on ${address}`,
        );
      kinds.set(kind, (kinds.get(kind) ?? 0) + addresses.length);
    }
    // HTTP, gRPC, sidecar to sidecar and metrics of each sidecar; Redis, and two of Sentry.
    assert.deepEqual(Object.fromEntries(kinds), { server: 3, app: 9, sidecar: 36 });
  });

  it("writes its tokens nowhere but into files for its owner", { skip: !linux }, async () => {
    const directory = join(shop.data, "run", "tokens");
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    const files = readdirSync(directory);
    const tokens = files.map((file) => {
      assert.equal(statSync(join(directory, file)).mode & 0o777, 0o600);
      return readFileSync(join(directory, file), "utf8").trim().split(":")[1] ?? "";
    });
    const sentry = join(shop.data, "run", "sentry");
    for (const file of ["order.jwt", "issuer/issuer.key", "config.yaml"])
      assert.equal(statSync(join(sentry, file)).mode & 0o077, 0, file);
    tokens.push(readFileSync(join(sentry, "order.jwt"), "utf8"));
    assert.equal(new Set(tokens).size, 19, "each has its own");
    for (const token of tokens) assert.ok(token.length >= 32);

    const places = new Map<string, string>();
    for (const file of readdirSync(join(shop.data, "logs")))
      places.set(file, readFileSync(join(shop.data, "logs", file), "utf8"));
    assert.match(places.get("order-0.log") ?? "", /"level":"debug"/, "the logs tell all they can");
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
      try {
        places.set(`arguments of ${pid}`, readFileSync(`/proc/${pid}/cmdline`, "utf8"));
      } catch {
        // It has ended meanwhile.
      }
    for (const { name, kind } of shop.system.processes())
      if (kind === "sidecar") {
        const url = shop.system.sidecarUrl(name.replace(/-0-sidecar$/, ""));
        const { status, body } = await shop.http("GET", "/v1.0/metadata", undefined, {}, url);
        assert.equal(status, 200);
        places.set(`metadata of ${name}`, JSON.stringify(body));
      }
    for (const [place, text] of places)
      for (const token of tokens) assert.ok(!text.includes(token), `a token is in ${place}`);
  });

  /** A daprd of a stranger's, who can read everything of the shop but its certificates. */
  class Stranger {
    readonly directory = mkdtempSync(join(tmpdir(), "jangteo-stranger-"));
    readonly url = `http://127.0.0.1:${PORTS + 3_500}`;
    said = "";
    private readonly process: ChildProcess;

    constructor(app: string, args: string[], env: Record<string, string>) {
      // A copy, for its own address is not to be found by others.
      for (const file of readdirSync(shop.data).filter((name) => name.startsWith("nameresolution.db")))
        cpSync(join(shop.data, file), join(this.directory, file));
      const ports = ["--dapr-grpc-port", `${PORTS + 4_500}`, "--dapr-internal-grpc-port", `${PORTS + 5_510}`];
      const all = [
        ...["--app-id", app, "--dapr-http-port", `${PORTS + 3_500}`, ...ports, "--enable-metrics=false"],
        ...["--dapr-listen-addresses", "127.0.0.1", "--dapr-internal-grpc-listen-address", "127.0.0.1"],
        ...["--config", join(shop.data, "run/config.yaml"), "--enable-mtls", ...args],
      ];
      this.process = spawn(process.env.DAPRD ?? "daprd", all, {
        cwd: this.directory,
        env: { ...process.env, ...env, DAPR_HOST_IP: "127.0.0.1" },
      });
      for (const stream of [this.process.stdout, this.process.stderr])
        stream?.on("data", (text) => {
          this.said += text;
        });
    }

    async end(): Promise<void> {
      if (this.process.exitCode === null && this.process.signalCode === null) {
        this.process.kill("SIGKILL");
        await once(this.process, "exit");
      }
      rmSync(this.directory, { recursive: true, force: true });
    }
  }

  it("a sidecar whose certificate is of another authority reaches nobody, whatever it calls itself", async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), "jangteo-elsewhere-"));
    mkdirSync(join(elsewhere, "run"));
    const other = new Sentry(elsewhere, PORTS + 20, {}, ["order"]);
    await other.setUp();
    const running = new Supervised(
      { ...other.spec(), log: join(elsewhere, "log") },
      () => {},
      () => {},
    );
    running.start();
    let stranger: Stranger | undefined;
    try {
      await until("the other authority is ready", 10_000, () => running.ready());
      stranger = new Stranger("order", other.argsFor("order"), other.environmentOf("order"));
      const { url } = stranger;
      await until("the stranger runs", 10_000, async () => (await fetch(`${url}/v1.0/healthz/outbound`)).ok);
      // What order itself may ask.
      const asked = await fetch(`${url}/v1.0/invoke/inventory/method/products/1`);
      const said = await asked.text();
      assert.equal(asked.status, 500, said);
      assert.match(said, /ERR_DIRECT_INVOKE.*authentication handshake failed/s);
    } finally {
      await stranger?.end();
      await running.stop(1000);
      rmSync(elsewhere, { recursive: true, force: true });
    }
  });

  it("nobody is given a certificate with another one's name", async () => {
    const sentry = join(shop.data, "run", "sentry");
    const stranger = new Stranger("order", ["--sentry-address", `127.0.0.1:${PORTS + 5_500}`], {
      DAPR_TRUST_ANCHORS: readFileSync(join(sentry, "issuer/ca.crt"), "utf8"),
      DAPR_SENTRY_TOKEN_FILE: join(sentry, "loyalty.jwt"),
    });
    try {
      const refusal = /error from sentry SignCertificate: .*PermissionDenied/;
      await until("it is refused", 15_000, async () => refusal.test(stranger.said));
    } catch (error) {
      throw new Error(`${(error as Error).message}: ${stranger.said}`);
    } finally {
      await stranger.end();
    }
  });

  it("goes on while no certificates are to be had, and without those that died", async () => {
    const { system } = shop;
    await system.kill("sentry", "SIGSTOP");
    try {
      await placed();
      await system.kill("loyalty-0-sidecar");
      await placed();
    } finally {
      await system.kill("sentry", "SIGCONT");
    }
    await system.waitReady();
    await Promise.all(["sentry", "order-0-sidecar", "payment-0-sidecar"].map((name) => system.kill(name)));
    await system.waitReady();
    await placed();
  });
});

/** The status of a gRPC call with an empty message. @throws Error if there is no connection */
function grpc(origin: string, path: string, headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const session = connect(origin, { rejectUnauthorized: false });
    const finish = (end: () => void) => {
      session.destroy();
      end();
    };
    session.once("error", (error) => finish(() => reject(error)));
    const request = session.request({
      ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
      ...headers,
    });
    const status = (answer: { "grpc-status"?: string | string[] | undefined }) => {
      const code = answer["grpc-status"];
      if (code !== undefined) finish(() => resolve(String(code)));
    };
    request.once("response", status).once("trailers", status);
    request.once("error", (error) => finish(() => reject(error)));
    request.once("close", () => finish(() => reject(new Error("it was closed"))));
    request.resume().end(Buffer.alloc(5)); // not compressed, of length 0
  });
}
