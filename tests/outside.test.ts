/** What is outside is a Dapr binding: a payment gateway and channels for messages, in a test's hands; the rest is real. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TestShop, until } from "./shop.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const PORTS = 16_000;
/** What the components below name, before --ports is added. */
const PG = 6_501;
const HOOK = 6_502;

const component = (name: string, scope: string, port: number) => `apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: ${name}
spec:
  type: bindings.http
  version: v1
  metadata:
    - name: url
      value: http://127.0.0.1:${port}/${name}
scopes: [${scope}]
`;

const SHOP = `name: outside
title: { en: Outside, ko: 바깥 }
language: en
payment: { gateway: pg }
notifications:
  - on: OrderPaid
    channel: kakao
    text: { en: "paid {orderId}", ko: "결제 {orderId}" }
  - on: OrderPaid
    channel: sms
    text: { en: "paid {orderId}", ko: "결제 {orderId}" }
catalogue:
  - { id: 1, name: Thing, price: 1000, stock: 100000 }
`;

interface Received {
  headers: IncomingHttpHeaders;
  // What an outsider receives is the very thing under test.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  body: any;
}

/** A server that can be closed and opened again on its port. */
class Outsider {
  readonly received: Received[] = [];
  private server: Server | undefined;

  constructor(
    private readonly port: number,
    private readonly answer: (received: Received) => [status: number, body: object],
  ) {}

  open(): Promise<void> {
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const received = { headers: request.headers, body: JSON.parse(Buffer.concat(chunks).toString()) };
      this.received.push(received);
      const [status, body] = this.answer(received);
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
    this.server = server;
    return new Promise((resolve) => server.listen(this.port, "127.0.0.1", resolve));
  }

  close(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    server?.closeAllConnections();
    return new Promise((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
  }

  keys(): string[] {
    return this.received.map(({ headers }) => String(headers["idempotency-key"]));
  }
}

describe("the outside", () => {
  let shop: TestShop;
  let folder: string;
  let pgAnswers: (body: { orderId: number }) => [number, object];
  const approving = ({ orderId }: { orderId: number }): [number, object] => [
    200,
    { approved: true, approvalCode: `PG-${orderId}` },
  ];
  const pg = new Outsider(PG + PORTS, ({ body }) => (body.action === "void" ? [200, {}] : pgAnswers(body)));
  const hook = new Outsider(HOOK + PORTS, () => [200, {}]);

  before(async () => {
    pgAnswers = approving;
    await Promise.all([pg.open(), hook.open()]);
    folder = mkdtempSync(join(tmpdir(), "jangteo-outside-"));
    const backend = join(folder, "outside");
    cpSync(join(root, "components", "embedded"), backend, { recursive: true });
    writeFileSync(join(backend, "pg.yaml"), component("pg", "payment", PG));
    writeFileSync(join(backend, "kakao.yaml"), component("kakao", "notification", HOOK));
    writeFileSync(join(folder, "outside.yaml"), SHOP);
    shop = await TestShop.open(PORTS, { shop: join(folder, "outside.yaml"), backend });
  });
  after(async () => {
    await shop?.close();
    await Promise.all([pg.close(), hook.close()]);
    rmSync(folder, { recursive: true, force: true });
  });

  const order = () => shop.http("POST", "/orders", { productId: 1, qty: 1, phoneNumber: "01012345678" });
  const filesOfSms = () => readdirSync(join(shop.data, "outbox", "sms"));

  describe("an external payment gateway (S4-D2)", () => {
    it("gives the approval code, is asked with a key of its own for each order, and hears of the cancellation", async () => {
      const { status, body } = await order();
      assert.equal(status, 201, JSON.stringify(body));
      assert.equal(body.approvalCode, `PG-${body.id}`);
      const asked = pg.received.find((one) => one.body.orderId === body.id);
      assert.deepEqual(
        [asked?.body.action, asked?.body.amount, asked?.headers["idempotency-key"]],
        ["approve", 1000, `approve-${body.id}`],
      );
      assert.equal((await shop.http("DELETE", `/orders/${body.id}`)).status, 200);
      await shop.shows(`/payments/${body.id}`, { state: "PaymentCancelled" });
      assert.deepEqual(
        pg.received.filter((one) => one.body.orderId === body.id).map((one) => one.body.action),
        ["approve", "void"],
      );
    });

    it("declines: 402, and nothing stands", async () => {
      const stock = await shop.stock();
      pgAnswers = () => [200, { approved: false, reason: "no such card" }];
      const { status, body } = await order();
      pgAnswers = approving;
      assert.deepEqual([status, body.reason], [402, "no such card"]);
      await shop.shows("/products/1", { stock });
    });

    it("is away, or answers nonsense: 503 and Retry-After, nothing stands, and it goes on when it is back", async () => {
      const stock = await shop.stock();
      pgAnswers = () => [200, { hello: "world" }];
      assert.equal((await order()).status, 503);
      pgAnswers = approving;
      await pg.close();
      const refused = await order();
      await pg.open();
      assert.equal(refused.status, 503);
      assert.ok(Number(refused.headers.get("retry-after")) > 0);
      await shop.shows("/products/1", { stock });
      await until("the gateway is asked again", 15_000, async () => (await order()).status === 201);
    });
  });

  describe("a channel that is down (S4-N2)", () => {
    it("delays its own messages and nothing else; each is sent once when it is back", async () => {
      await hook.close();
      const ids: number[] = [];
      for (let n = 0; n < 8; n++) ids.push(await shop.order());
      await until("the other channel has them all", 20_000, async () =>
        ids.every((id) => filesOfSms().some((file) => readSms(file).orderId === id)),
      );
      const { body } = await shop.http("GET", "/messages?size=500");
      const waiting = body._embedded.messages.filter(
        (one: { orderId: number; state: string }) => ids.includes(one.orderId) && one.state === "Waiting",
      );
      assert.deepEqual(new Set(waiting.map((one: { channel: string }) => one.channel)), new Set(["kakao"]));
      assert.equal(waiting.length, ids.length);
      await hook.open();
      await sentTo(ids);
      assert.equal(new Set(hook.keys()).size, hook.keys().length, "none twice");
    });

    it("notification is killed while its messages wait, and after: none is lost", async () => {
      await hook.close();
      const ids: number[] = [];
      for (let n = 0; n < 5; n++) ids.push(await shop.order());
      await until("they wait", 20_000, async () => {
        const { body } = await shop.http("GET", "/messages?size=500");
        const of = body._embedded.messages.filter((one: { orderId: number }) => ids.includes(one.orderId));
        return of.length === 2 * ids.length;
      });
      await shop.system.kill("notification-0");
      await hook.open();
      await shop.system.waitReady("notification-0");
      await sentTo(ids);
      assert.equal(new Set(hook.keys()).size, hook.keys().length, "none twice");
    });

    it("messages are sent while notification and its sidecar are killed again and again: none is lost, and a repeat has the same key", async () => {
      const ids: number[] = [];
      for (let round = 0; round < 4; round++) {
        ids.push(...(await Promise.all(Array.from({ length: 10 }, () => shop.order()))));
        await shop.system.kill(round % 2 === 0 ? "notification-0" : "notification-0-sidecar");
      }
      await shop.system.waitReady("notification-0");
      await sentTo(ids);
      const texts = new Map(
        hook.received.map(({ headers, body }) => [headers["idempotency-key"], body.orderId]),
      );
      for (const id of ids)
        assert.equal([...texts.values()].filter((one) => one === id).length, 1, `order ${id}: one key`);
      const sms = filesOfSms().map((file) => readSms(file).orderId);
      for (const id of ids) assert.equal(sms.filter((one) => one === id).length, 1, `order ${id}: one file`);
    });
  });

  const readSms = (file: string) => JSON.parse(readFileSync(join(shop.data, "outbox", "sms", file), "utf8"));

  async function sentTo(ids: readonly number[]): Promise<void> {
    await until(`kakao has told of ${ids.length} orders`, 60_000, async () =>
      ids.every((id) => hook.received.some(({ body }) => body.orderId === id)),
    );
    await until("no message waits", 60_000, async () => {
      const { body } = await shop.http("GET", "/messages?size=500");
      return body._embedded.messages.every((one: { state: string }) => one.state === "Sent");
    });
  }
});
