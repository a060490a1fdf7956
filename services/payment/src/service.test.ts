import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import {
  assertProblem,
  cloudEvent,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  listen,
  settled,
  until,
} from "#kit/testing.js";
import { payment } from "./main.js";
import { DemoPaymentGateway } from "./pg.js";

let host: Host;
afterEach(() => host.stop());

async function start(options: HostOptions = {}) {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  host = await hostInMemory(dapr, payment, { drills: true, ...options });
  const order = { orderId: 7, id: 7, productId: 1, productName: "TV", qty: 1, customerId: null };
  const ended = { ...order, customerName: null, customerAddr: null, reason: "changed my mind" };
  return {
    dapr,
    pay: (body: object) => host.http("POST", "/payments", body),
    drill: (body: object) => host.http("PUT", "/drill", body),
    cancelled: () =>
      dapr.accept("OrderCancelled", cloudEvent("OrderCancelled", { ...ended, price: 1, amount: 1 })),
    aborted: () => dapr.accept("OrderAborted", cloudEvent("OrderAborted", ended)),
    status: async () => (await host.http("GET", "/payments/7")).body.paymentStatus,
    told: async () => {
      await settled(dapr);
      return heard
        .filter(({ type }) => type.startsWith("Payment"))
        .map(({ type, data }) => `${type} ${data.orderId} ${data.amount}`);
    },
  };
}

const pay = { orderId: 7, amount: 30_000 };

describe("payment", () => {
  it("takes the payment of an order and tells of it", async () => {
    const { pay: post, told } = await start();
    const paid = await post(pay);
    assert.deepEqual([paid.status, paid.headers.location], [201, "/payments/7"]);
    const { approvalCode, ...body } = paid.body;
    assert.match(String(approvalCode), /^\d{8}$/);
    assert.deepEqual(body, {
      ...{
        id: 7,
        orderId: 7,
        amount: 30_000,
        method: "card",
        reason: null,
        paymentStatus: "PaymentApproved",
      },
      _links: { self: { href: "/payments/7" } },
    });
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    const { _links, ...shown } = (await host.http("GET", "/payments/7")).body;
    const { _links: _, ...answered } = paid.body;
    assert.deepEqual(shown, answered);
    assert.equal(_links?.order?.href, "/orders/7");
  });

  it("takes it once, however often and at once it is asked", async () => {
    const { pay: post, told } = await start();
    const answers = await Promise.all([post(pay), post(pay), post({ orderId: "7", amount: "30000" })]);
    answers.push(await post(pay));
    assert.equal(new Set(answers.map(({ body }) => body.approvalCode)).size, 1);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    assertProblem(await post({ ...pay, amount: 1 }), 409, "payment-differs");
  });

  it("answers that it is declined, the same the next time", async () => {
    const { pay: post, drill, told, status } = await start();
    await drill({ declineRate: 1 });
    const first = await post(pay);
    await drill({});
    for (const { status, body } of [first, await post(pay)])
      assert.deepEqual(
        [status, body.paymentStatus, body.approvalCode, body.reason],
        [201, "PaymentFailed", null, "declined by the card issuer"],
      );
    assert.deepEqual(await told(), ["PaymentFailed 7 30000"]);
    assert.equal(await status(), "PaymentFailed");
  });

  it("says when the payment gateway does not answer, and takes nothing", async () => {
    const { pay: post, drill, told } = await start();
    await drill({ failureRate: 1 });
    const answer = await post(pay);
    assertProblem(answer, 503, "pg-unavailable");
    assert.equal(answer.headers["retry-after"], "2");
    assertProblem(await host.http("GET", "/payments/7"), 404, "not-found");
    await drill({});
    assert.equal((await post(pay)).status, 201);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
  });

  for (const why of ["cancelled", "aborted"] as const)
    it(`gives the money back when the order is ${why}, once`, async () => {
      const shop = await start();
      await shop.pay(pay);
      shop[why]();
      shop[why]();
      assert.deepEqual(await shop.told(), ["PaymentApproved 7 30000", "PaymentCancelled 7 30000"]);
      assert.equal(await shop.status(), "PaymentCancelled");
      assertProblem(await shop.pay(pay), 409, "payment-voided");
    });

  it("takes none for an order that was given up before, and shows nothing of that", async () => {
    const { pay: post, aborted, told } = await start();
    aborted();
    assert.deepEqual(await told(), []);
    assertProblem(await post(pay), 409, "payment-voided");
    assertProblem(await host.http("GET", "/payments/7"), 404, "not-found");
    assert.deepEqual(embedded(await host.http("GET", "/payments"), "payments"), []);
    assert.deepEqual(await told(), []);
  });

  it("takes none for an order that is given up while the gateway is thinking", async () => {
    const { dapr, pay: post, drill, aborted, told } = await start();
    await drill({ delayMs: 30 });
    const paying = post(pay);
    // Another replica hears of the order's end.
    const other = await hostInMemory(dapr, payment, { slot: "payment-1" });
    host.leave();
    aborted();
    await until(() => dapr.stores.get("payments")?.has("payment:7"), "the tombstone is there");
    assertProblem(await paying, 409, "payment-voided");
    await other.stop();
    assert.deepEqual(await told(), []);
  });

  it("checks what it is sent", async () => {
    const { pay: post } = await start();
    for (const [body, field] of [
      [{ amount: 1 }, "orderId"],
      [{ orderId: 7 }, "amount"],
      [{ orderId: 7, amount: -1 }, "amount"],
      [{ orderId: 7, amount: 0.5 }, "amount"],
      [{ orderId: 0, amount: 1 }, "orderId"],
      [{ ...pay, method: "shells" }, "method"],
    ] as const) {
      const problem = assertProblem(await post(body), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, field);
    }
  });

  it("lists payments, newest first", async () => {
    const { pay: post } = await start();
    for (const orderId of [7, 40, 8]) await post({ orderId, amount: orderId });
    const listed = embedded(await host.http("GET", "/payments"), "payments");
    assert.deepEqual(
      listed.map(({ id, amount }) => [id, amount]),
      [
        [40, 40],
        [8, 8],
        [7, 7],
      ],
    );
  });

  it("opens its drills only where that is wanted", async () => {
    await start({ drills: false });
    assertProblem(await host.http("GET", "/drill"), 404, "no-such-route");
    assertProblem(await host.http("PUT", "/drill", {}), 404, "no-such-route");
    await host.stop();
    const { drill } = await start();
    const set = await drill({ declineRate: "0.5", delayMs: "10" });
    assert.deepEqual(set.body, { declineRate: 0.5, delayMs: 10, failureRate: 0, jitterMs: 0 });
    assert.deepEqual((await host.http("GET", "/drill")).body, set.body);
    assertProblem(await drill({ declineRate: 2 }), 422, "invalid-field");
  });

  it("leaves no money taken at a gateway that says no first and yes to the repeat", async () => {
    const { drill, pay: post, status } = await start();
    const standing = new Set<number>();
    const { approve, void: giveBack } = DemoPaymentGateway.prototype;
    DemoPaymentGateway.prototype.approve = async function (asked) {
      const verdict = await approve.call(this, asked);
      if (verdict.approved) standing.add(asked.orderId);
      return verdict;
    };
    DemoPaymentGateway.prototype.void = async (orderId) => {
      standing.delete(orderId);
    };
    try {
      await drill({ declineRate: 1 });
      await post(pay);
      await drill({});
      await post(pay);
      assert.deepEqual([await status(), [...standing]], ["PaymentFailed", []]);
      await post({ ...pay, orderId: 8 });
      assert.deepEqual([...standing], [8]);
    } finally {
      Object.assign(DemoPaymentGateway.prototype, { approve, void: giveBack });
    }
  });
});
