import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import type { Shop } from "#kit/shop.js";
import type { Call, Reply } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  deadLetters,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  info,
  listen,
  settled,
  shopWith,
  until,
} from "#kit/testing.js";
import { payment } from "./main.js";
import { DemoPaymentGateway } from "./pg.js";

const hosts: Host[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
});

const now = "2026-11-21T00:00:01.000Z";
const due = { ...info, amount: 30_000 };
const ended = { ...info, id: 7, reason: "changed my mind" };
const orderCancelled = (id?: string) =>
  cloudEvent("OrderCancelled", { ...ended, price: 10_000, amount: 30_000, at: now }, id);
const orderAborted = () => cloudEvent("OrderAborted", ended);
const orderPlaced = (more: object = {}) =>
  cloudEvent("OrderPlaced", {
    ...{ ...info, id: 7, price: 10_000, amount: 30_000, paymentId: 7, approvalCode: null, paid: false },
    ...more,
  });
const yes = { approved: true, approvalCode: "4711" };

type Payments = Partial<Shop["payment"]>;

async function start(rules: Payments = {}, options: HostOptions & { dialect?: string } = {}) {
  const { dialect = "fashion", ...rest } = options;
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  /** what the order service was asked, and what it answers */
  const asked: Call[] = [];
  const order = { answer: { status: 200, headers: {}, body: { id: 7 } } as Reply };
  dapr.join("order", {
    topics: [],
    call: async (call) => {
      asked.push(call);
      return order.answer;
    },
    deliver: async () => "SUCCESS",
  });
  const shop = shopWith({ dialect, payment: rules });
  const replica = async (slot: string) => {
    const one = await hostInMemory(dapr, payment, {
      ...{ drills: true, shop, slot, now: () => new Date(now) },
      ...rest,
    });
    hosts.push(one);
    return one;
  };
  const host = await replica("payment-0");
  const told = async () => {
    await settled(dapr);
    return heard
      .filter(({ source }) => source === "payment")
      .map(({ type, data }) =>
        [type, data.orderId, ...(type === "PaymentCancelled" ? [data.refunded] : [data.amount])].join(" "),
      );
  };
  return {
    ...{ dapr, heard, host, replica, asked, order, told },
    http: host.http,
    post: (body: object = {}) => host.http("POST", "/payments", { ...due, ...body }),
    put: (body: object, id = 7) => host.http("PUT", `/payments/${id}`, body),
    drill: (body: object) => host.http("PUT", "/drill", body),
    cancelled: () => dapr.accept("OrderCancelled", orderCancelled()),
    aborted: () => dapr.accept("OrderAborted", orderAborted()),
    placed: (more = {}) => dapr.accept("OrderPlaced", orderPlaced(more)),
    get: async () => (await host.http("GET", "/payments/7")).body,
    state: async () => (await host.http("GET", "/payments/7")).body.state,
    steps: async () =>
      embedded(await host.http("GET", "/payments/7/history"), "history").map(
        ({ what, amount, method }) => `${what} ${amount} ${method}`,
      ),
    /** what the gateway behind the binding was told */
    bound: () =>
      dapr.bound.map(({ data, metadata }) => {
        const { action, method = "" } = data as { action: string; method?: string };
        return `${action} ${method} ${metadata["Idempotency-Key"]}`.replace("  ", " ");
      }),
  };
}

/** With a gateway behind the binding `pg`, whose calls are counted. */
async function startWithGateway(rules: Payments = {}) {
  const shop = await start({ gateway: "pg", ...rules });
  const answers = (answer: unknown) => shop.dapr.bindings.set("pg", () => answer);
  answers(yes);
  /** The gateway takes its time over what it is asked next. */
  const thinking = () => {
    let answer: (answer: unknown) => void = () => {};
    const answered = new Promise((resolve) => {
      answer = resolve;
    });
    const asked = new Promise<void>((resolve) =>
      shop.dapr.bindings.set("pg", () => {
        resolve();
        return answered;
      }),
    );
    return { asked, answer: (said: unknown) => answer(said) };
  };
  return { ...shop, answers, thinking };
}

/** What a client of S3 sends to pay (S3-H4), as httpie sends it: text, and with all that it knows. */
const H4 = {
  ...{ cost: "30000", orderId: "2", paymentStatus: "END", paymentType: "cash" },
  ...{ productId: "1", productName: "coffee", qty: "1" },
};

describe("payment with the order", () => {
  it("takes the payment of an order and tells of it (S0-F3, S1-F3, S4-F2)", async () => {
    const { post, http, told, heard } = await start();
    const paid = await post();
    assert.deepEqual([paid.status, paid.headers.location], [201, "/payments/7"]);
    const { approvalCode, ...body } = paid.body;
    assert.match(String(approvalCode), /^\d{8}$/);
    assert.deepEqual(body, {
      ...{ ...info, id: 7, amount: 30_000, type: "card", quantity: 3, reason: null },
      ...{ state: "PaymentApproved", paymentStatus: "PaymentApproved", approveDate: now, cancelDate: null },
      _links: {
        self: { href: "/payments/7" },
        payment: { href: "/payments/7" },
        order: { href: "/orders/7" },
        history: { href: "/payments/7/history" },
      },
    });
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    const { eventType, timestamp, ...data } = heard[0]?.data ?? {};
    assert.deepEqual(data, { ...info, id: 7, amount: 30_000, approvalCode, at: now });
    assert.equal(eventType, "PaymentApproved");
    assert.match(String(timestamp), /^\d{14}$/);
    assert.deepEqual((await http("GET", "/payments/7")).body, paid.body);
  });

  it("takes it once, however often and at once it is asked", async () => {
    const { post, told } = await start();
    const answers = await Promise.all([post(), post(), post({ orderId: "7", amount: "30000" })]);
    answers.push(await post());
    assert.equal(new Set(answers.map(({ body }) => body.approvalCode)).size, 1);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    assertProblem(await post({ amount: 1 }), 409, "payment-differs");
  });

  it("answers that it is declined, the same the next time", async () => {
    const { post, drill, told, state } = await start();
    await drill({ declineRate: 1 });
    const first = await post();
    await drill({});
    for (const { status, body } of [first, await post()])
      assert.deepEqual(
        [status, body.state, body.approvalCode, body.reason],
        [201, "PaymentFailed", null, "declined by the card issuer"],
      );
    assert.deepEqual(await told(), ["PaymentFailed 7 30000"]);
    assert.equal(await state(), "PaymentFailed");
  });

  it("says when the payment gateway does not answer, and takes nothing (S0-N3)", async () => {
    const { post, drill, told, http } = await start();
    await drill({ failureRate: 1 });
    const answer = await post();
    assertProblem(answer, 503, "pg-unavailable");
    assert.equal(answer.headers["retry-after"], "2");
    assertProblem(await http("GET", "/payments/7"), 404, "not-found");
    await drill({});
    assert.equal((await post()).status, 201);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
  });

  for (const why of ["cancelled", "aborted"] as const)
    it(`gives the money back when the order is ${why}, once, and says so (S4-F7; not S2-T2)`, async () => {
      const shop = await start();
      await shop.post();
      shop[why]();
      shop[why]();
      assert.deepEqual(await shop.told(), ["PaymentApproved 7 30000", "PaymentCancelled 7 30000"]);
      assert.equal(await shop.state(), "PaymentCancelled");
      assertProblem(await shop.post(), 409, "payment-voided");
    });

  it("takes none for an order that was given up before, and shows nothing of that", async () => {
    const { post, aborted, told, http } = await start();
    aborted();
    assert.deepEqual(await told(), []);
    assertProblem(await post(), 409, "payment-voided");
    for (const path of ["/payments/7", "/payments/7/history"])
      assertProblem(await http("GET", path), 404, "not-found");
    assertProblem(await http("DELETE", "/payments/7"), 404, "not-found");
    assert.deepEqual(embedded(await http("GET", "/payments"), "payments"), []);
    assert.deepEqual(await told(), []);
  });

  it("takes none for an order that is given up while the gateway is thinking", async () => {
    const { dapr, host, replica, thinking, answers, post, aborted, told, bound } = await startWithGateway();
    const gateway = thinking();
    const paying = post();
    await gateway.asked;
    answers({});
    // Another replica hears of the order's end.
    await replica("payment-1");
    host.leave();
    aborted();
    await until(() => dapr.stores.get("payments")?.has("payment:7"), "the tombstone is there");
    gateway.answer(yes);
    assertProblem(await paying, 409, "payment-voided");
    assert.deepEqual(await told(), []);
    assert.equal(bound().at(-1), "void void-7", "what was approved meanwhile goes back");
  });

  it("checks what it is sent", async () => {
    const { post, http } = await start();
    for (const [body, field] of [
      [{ orderId: undefined }, "orderId"],
      [{ amount: undefined }, "amount"],
      [{ productName: undefined }, "productName"],
      [{ amount: -1 }, "amount"],
      [{ amount: 0.5 }, "amount"],
      [{ orderId: 0 }, "orderId"],
      [{ method: "shells" }, "method"],
      [{ when: "never" }, "when"],
    ] as const) {
      const problem = assertProblem(await post(body), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, field);
    }
    assertProblem(await http("POST", "/payments/7/pay", {}), 405, "method-not-allowed");
  });

  it("lists payments, newest first", async () => {
    const { post, http } = await start();
    for (const orderId of [7, 40, 8]) await post({ orderId, amount: orderId });
    const listed = embedded(await http("GET", "/payments"), "payments");
    assert.deepEqual(
      listed.map(({ id, amount }) => [id, amount]),
      [
        [40, 40],
        [8, 8],
        [7, 7],
      ],
    );
  });

  it("opens its drills only where that is wanted, and only over the demo gateway", async () => {
    const shut = await start({}, { drills: false });
    assertProblem(await shut.http("GET", "/drill"), 404, "no-such-route");
    assertProblem(await shut.drill({}), 404, "no-such-route");
    assertProblem(await (await startWithGateway()).drill({}), 404, "no-such-route");
    const { drill, http } = await start();
    const set = await drill({ declineRate: "0.5", delayMs: "10" });
    assert.deepEqual(set.body, { declineRate: 0.5, delayMs: 10, failureRate: 0, jitterMs: 0 });
    assert.deepEqual((await http("GET", "/drill")).body, set.body);
    assertProblem(await drill({ declineRate: 2 }), 422, "invalid-field");
  });

  it("leaves no money taken at a gateway that says no first and yes to the repeat", async () => {
    const { drill, post, state } = await start();
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
      await post();
      await drill({});
      await post();
      assert.deepEqual([await state(), [...standing]], ["PaymentFailed", []]);
      await post({ orderId: 8 });
      assert.deepEqual([...standing], [8]);
    } finally {
      Object.assign(DemoPaymentGateway.prototype, { approve, void: giveBack });
    }
  });
});

describe("payment that follows later", () => {
  it("is announced with the order and waits; nobody is told of it yet (S3-N6)", async () => {
    const { post, told, steps } = await start({ when: "later" });
    const announced = await post({ when: "later" });
    const { status, headers, body } = announced;
    assert.deepEqual([status, headers.location, body.state], [201, "/payments/7", "PaymentRequested"]);
    assert.deepEqual([body.approvalCode, body.approveDate], [null, null]);
    assert.deepEqual((await post({ when: "later" })).body, body);
    assertProblem(await post({ when: "later", amount: 1 }), 409, "payment-differs");
    assert.deepEqual(await told(), []);
    assert.deepEqual(await steps(), ["PaymentRequested 0 card"]);
  });

  it("is paid with the body of S3-H4, of which only state, method and amount count (S3-F2, F3)", async () => {
    const { post, put, told, bound, steps } = await startWithGateway({ when: "later" });
    await post({ when: "later" });
    const paid = await put(H4);
    assert.deepEqual([paid.status, paid.body.state, paid.body.method], [200, "PaymentApproved", "cash"]);
    assert.deepEqual(
      [paid.body.orderId, paid.body.productName, paid.body.qty, paid.body.approveDate],
      [7, "Outwear-1", 3, now],
    );
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    assert.deepEqual(
      bound(),
      ["void void-7"],
      "cash needs no approval, and no card is charged for it any more",
    );
    assert.deepEqual(await steps(), ["PaymentRequested 0 card", "PaymentApproved 30000 cash"]);
  });

  it("counts as paid once, whatever is updated afterwards (S3-T2), and never as cancelled (S4-T5)", async () => {
    const { post, put, http, told } = await start({ when: "later" });
    await post({ when: "later" });
    for (const answer of [
      ...(await Promise.all([put(H4), put(H4)])),
      await put(H4),
      await put({ ...H4, paymentType: "card" }),
      await http("PUT", "/payments/7/pay", { method: "card" }),
      await post({ when: "later" }),
      await post(),
    ])
      assert.deepEqual([answer.body.state, answer.body.method], ["PaymentApproved", "cash"]);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
  });

  it("is paid in every dialect's words, by PUT, PATCH or the command", async () => {
    const { post, http, asked } = await start({ when: "later" });
    const ways: [string, string, object][] = [
      ["PUT", "", { state: "PaymentApproved" }],
      ["PUT", "", { paymentStatus: "END", paymentType: "card" }],
      ["PATCH", "", { status: "SUCCESS" }],
      ["PATCH", "", { status: "Paid", totalPrice: 30_000 }],
      ["PUT", "/pay", { method: "card" }],
      ["PUT", "/pay", { paymentType: "card", amount: "30000" }],
      ["PUT", "/pay", {}],
    ];
    for (const [i, [method, command, body]] of ways.entries()) {
      const orderId = i + 1;
      await post({ orderId, when: "later" });
      const { status, body: said } = await http(method, `/payments/${orderId}${command}`, body);
      const about = `${method} ${command} ${JSON.stringify(body)}`;
      assert.deepEqual([status, said.state, said.method], [200, "PaymentApproved", "card"], about);
    }
    for (const [i, word] of ["PaymentCancelled", "CANCELLED", "CANCEL", "PaymentCanceled"].entries()) {
      const { status, body } = await http("PUT", `/payments/${i + 1}`, { status: word });
      assert.deepEqual([status, body.state], [200, "PaymentCancelled"], word);
    }
    assert.equal(asked.length, 4, "a cancellation cancels the order first");
  });

  it("understands no other word, amount or method, and changes nothing for it", async () => {
    const { post, put, told, state } = await startWithGateway({ when: "later" });
    await post({ when: "later" });
    const wrong: [object, string][] = [
      [{ ...H4, cost: 1000 }, "cost"],
      [{ ...H4, cost: "a lot" }, "cost"],
      [{ ...H4, paymentType: "shells" }, "paymentType"],
      [{ ...H4, paymentStatus: "Not Pay" }, "paymentStatus"],
      [{ ...H4, paymentStatus: "FAIL" }, "paymentStatus"],
      [{ ...H4, paymentStatus: "hello" }, "paymentStatus"],
      [{ cost: 30_000 }, "state"],
      [{}, "state"],
    ];
    for (const [body, field] of wrong) {
      const problem = assertProblem(await put(body), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, field, JSON.stringify(body));
    }
    assert.deepEqual([await state(), await told()], ["PaymentRequested", []]);
    assertProblem(await put(H4, 8), 404, "not-found");
    assertProblem(await put({ paymentStatus: "END" }, 8), 404, "not-found");
    assertProblem(await put({ paymentStatus: "CANCEL" }, 8), 404, "not-found");
  });

  it("is refused when the card is declined, and can be tried again, in cash or with another card", async () => {
    const { post, answers, http, told, steps, state, bound } = await startWithGateway({ when: "later" });
    const pay = (id: number, method: string) => http("PUT", `/payments/${id}/pay`, { method });
    for (const orderId of [7, 8]) await post({ orderId, when: "later" });
    answers({ approved: false, reason: "no money" });
    for (const id of [7, 8]) {
      const problem = assertProblem(await pay(id, "card"), 402, "payment-declined");
      assert.equal(problem.reason, "no money");
    }
    assert.equal(await state(), "PaymentRequested");
    assert.deepEqual(await told(), []);
    assert.equal((await pay(7, "cash")).body.state, "PaymentApproved");
    assert.deepEqual(await steps(), [
      ...["PaymentRequested 0 card", "PaymentDeclined 0 card", "PaymentApproved 30000 cash"],
    ]);
    answers(yes);
    const { state: paid, reason, approvalCode } = (await pay(8, "card")).body;
    assert.deepEqual([paid, reason, approvalCode], ["PaymentApproved", null, "4711"]);
    assert.deepEqual(bound(), [
      "approve card approve-7",
      "approve card approve-8",
      "void void-7", // paid in cash by now
      "approve card approve-8-2", // the same key again would have to be declined again
    ]);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000", "PaymentApproved 8 30000"]);
  });

  it("waits on when the gateway does not answer (S3-N3)", async () => {
    const { dapr, post, put, state, bound } = await startWithGateway({ when: "later" });
    await post({ when: "later" });
    dapr.down.add("pg");
    assertProblem(await put({ paymentStatus: "END" }), 503, "pg-unavailable");
    assert.equal(await state(), "PaymentRequested");
    dapr.down.delete("pg");
    assert.equal((await put({ paymentStatus: "END" })).body.state, "PaymentApproved");
    assert.deepEqual(bound(), ["approve card approve-7"]);
  });

  it("takes the money once when one replica asks for the card and another takes cash", async () => {
    const { replica, thinking, answers, post, http, told, bound } = await startWithGateway({ when: "later" });
    const other = await replica("payment-1");
    await post({ when: "later" });
    const gateway = thinking();
    const byCard = http("PUT", "/payments/7/pay", { method: "card" });
    await gateway.asked;
    answers({});
    const inCash = await other.http("PUT", "/payments/7/pay", { method: "cash" });
    assert.equal(inCash.body.method, "cash");
    gateway.answer(yes);
    assert.deepEqual(
      [(await byCard).status, (await byCard).body.state, (await byCard).body.method],
      [200, "PaymentApproved", "cash"],
    );
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    assert.deepEqual(
      [bound().filter((one) => one.startsWith("approve")).length, bound().at(-1)],
      [1, "void void-7"],
    );
  });

  it("by card stays no charge beside cash, when the answer of the gateway was lost", async () => {
    const charged = new Set<number>();
    const { dapr, post, http, told } = await startWithGateway({ when: "later" });
    let lost = true;
    dapr.bindings.set("pg", ({ data }) => {
      const { action, orderId } = data as { action: "approve" | "void"; orderId: number };
      if (action === "void") return void charged.delete(orderId);
      charged.add(orderId);
      if (lost) throw new Error("the answer is lost");
      return yes;
    });
    await post({ when: "later" });
    assertProblem(await http("PUT", "/payments/7/pay", { method: "card" }), 503, "pg-unavailable");
    assert.deepEqual([...charged], [7]);
    lost = false;
    assert.equal((await http("PUT", "/payments/7/pay", { method: "cash" })).body.method, "cash");
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    await until(() => charged.size === 0, "the card is charged no more");
  });

  it("cannot be paid once it has failed or was given back", async () => {
    const { post, put, http, answers } = await startWithGateway();
    answers({ approved: false });
    assert.equal((await post()).body.reason, "declined");
    assertProblem(await put(H4), 409, "payment-closed");
    answers(yes);
    await post({ orderId: 8 });
    await http("DELETE", "/payments/8");
    assertProblem(await put(H4, 8), 409, "payment-closed");
    assertProblem(await post({ orderId: 8 }), 409, "payment-voided");
  });
});

describe("money back", () => {
  const refunds: [string, string, object][] = [
    ["DELETE", "/payments/7", {}],
    ["PUT", "/payments/7/cancel", {}],
    ["PUT", "/payments/7", { paymentStatus: "CANCEL" }],
  ];
  for (const [method, path, body] of refunds)
    it(`cancels the order first (${method} ${path}), and tells what went back, once (S3-T5)`, async () => {
      const { post, http, asked, told, cancelled, bound, steps } = await startWithGateway();
      await post();
      const answer = await http(method, path, body);
      assert.deepEqual(
        [answer.status, answer.body.state, answer.body.cancelDate, answer.body.reason],
        [200, "PaymentCancelled", now, "cancelled by the customer"],
      );
      assert.deepEqual(asked, [
        { method: "DELETE", path: "/orders/7", headers: { "idempotency-key": "refund:7" } },
      ]);
      cancelled();
      assert.equal((await http(method, path, body)).body.state, "PaymentCancelled");
      assert.equal(asked.length, 1, "what is cancelled asks no more");
      assert.deepEqual(await told(), ["PaymentApproved 7 30000", "PaymentCancelled 7 30000"]);
      assert.deepEqual(bound(), ["approve card approve-7", "void void-7"]);
      assert.deepEqual(await steps(), ["PaymentApproved 30000 card", "PaymentCancelled -30000 card"]);
    });

  it("goes back through the gateway only where it came through it", async () => {
    const shop = await startWithGateway({ when: "later" });
    const { post, put, told, cancelled, bound } = shop;
    await post({ when: "later", method: "cash" });
    await put(H4);
    cancelled();
    assert.deepEqual(await told(), ["PaymentApproved 7 30000", "PaymentCancelled 7 30000"]);
    assert.deepEqual(bound(), ["void void-7"], "of no card, when it was paid in cash; and not again");
  });

  it("is none where nothing had been paid; the gateway drops what it may know all the same", async () => {
    const { post, cancelled, told, bound, get, steps } = await startWithGateway({ when: "later" });
    await post({ when: "later" });
    cancelled();
    assert.deepEqual(await told(), ["PaymentCancelled 7 0"]);
    assert.deepEqual(bound(), ["void void-7"]);
    assert.deepEqual(await steps(), ["PaymentRequested 0 card", "PaymentCancelled 0 card"]);
    assert.equal((await get()).state, "PaymentCancelled");
  });

  it("is refused as the order refuses to be cancelled, and then nothing changes", async () => {
    const { post, order, http, told, state, bound } = await startWithGateway();
    await post();
    order.answer = {
      status: 409,
      headers: {},
      body: {
        ...{ type: "urn:jangteo:problem:order-closed", title: "No", status: 409 },
        ...{ detail: "The making has begun.", begun: "making" },
      },
    };
    const problem = assertProblem(await http("DELETE", "/payments/7"), 409, "order-closed");
    assert.deepEqual([problem.detail, problem.begun], ["The making has begun.", "making"]);
    assert.deepEqual([await state(), await told()], ["PaymentApproved", ["PaymentApproved 7 30000"]]);
    assert.deepEqual(bound(), ["approve card approve-7"]);
  });

  it("waits while the order service is away, and then nothing changes", async () => {
    const { dapr, post, order, http, told, state } = await start();
    await post();
    dapr.down.add("order");
    assertProblem(await http("DELETE", "/payments/7"), 503, "unavailable");
    dapr.down.delete("order");
    for (const answer of [
      { status: 500, headers: {}, body: {} },
      { status: 200, headers: {}, body: undefined }, // a sidecar that was cut off half-way
    ]) {
      order.answer = answer;
      assertProblem(await http("DELETE", "/payments/7"), 503, "unavailable");
    }
    assert.deepEqual([await state(), await told()], ["PaymentApproved", ["PaymentApproved 7 30000"]]);
  });

  it("needs no order service where the payment has failed", async () => {
    const { dapr, post, answers, http, asked } = await startWithGateway();
    answers({ approved: false });
    await post();
    dapr.down.add("order");
    const { status, body } = await http("DELETE", "/payments/7");
    assert.deepEqual([status, body.state, asked.length], [200, "PaymentFailed", 0]);
  });

  it("is on record only once the gateway has it, and the message comes again until then", async () => {
    const { dapr, host, post, state } = await startWithGateway();
    await post();
    dapr.down.add("pg");
    const event = orderCancelled("order/7");
    assert.equal(await host.composed.deliver(event), "RETRY");
    assert.equal(await state(), "PaymentApproved");
    dapr.down.delete("pg");
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.equal(await state(), "PaymentCancelled");
    assert.equal(dapr.bound.filter(({ data }) => (data as { action: string }).action === "void").length, 1);
  });
});

describe("an order that stands before its payment was heard of (S2-P1)", () => {
  it("is heard of only in a shop that lets it stand", async () => {
    const topics = async (rules: Payments) =>
      (await start(rules)).host.composed.subscriptions.map(({ topic }) => topic);
    const always = ["OrderCancelled", "OrderAborted"];
    assert.deepEqual(await topics({}), always);
    assert.deepEqual(await topics({ when: "later" }), always);
    assert.deepEqual(await topics({ unreachable: "register" }), [...always, "OrderPlaced"]);
  });

  it("is paid at once where the customer pays with the order, once", async () => {
    const { dapr, placed, told, bound, state } = await startWithGateway({ unreachable: "register" });
    const event = orderPlaced();
    dapr.accept("OrderPlaced", event);
    dapr.accept("OrderPlaced", event);
    placed();
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
    assert.equal(await state(), "PaymentApproved");
    assert.deepEqual(bound(), ["approve card approve-7"]);
  });

  it("fails where the gateway declines, and says so", async () => {
    const { placed, answers, told } = await startWithGateway({ unreachable: "register" });
    answers({ approved: false, reason: "no money" });
    placed();
    assert.deepEqual(await told(), ["PaymentFailed 7 30000"]);
  });

  it("waits for a gateway that does not answer", async () => {
    const { dapr, host, state } = await startWithGateway({ unreachable: "register" });
    dapr.down.add("pg");
    const event = orderPlaced();
    assert.equal(await host.composed.deliver(event), "RETRY");
    assert.equal(await state(), undefined, "nothing is there");
    dapr.down.delete("pg");
    assert.equal(await host.composed.deliver(event), "SUCCESS");
    assert.equal(await state(), "PaymentApproved");
  });

  it("is announced where the customer pays later", async () => {
    const { placed, told, bound, state, put } = await startWithGateway({
      ...{ when: "later", unreachable: "register" },
    });
    placed();
    placed();
    assert.deepEqual([await told(), bound(), await state()], [[], [], "PaymentRequested"]);
    await put(H4);
    placed();
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
  });

  it("is left alone where it has been paid", async () => {
    const { post, placed, told, bound, state } = await startWithGateway({ unreachable: "register" });
    placed({ paid: true });
    assert.deepEqual([await told(), bound()], [[], []]);
    await post();
    placed();
    assert.deepEqual([await told(), await state()], [["PaymentApproved 7 30000"], "PaymentApproved"]);
  });

  for (const when of ["order", "later"] as const)
    it(`takes nothing after the order's end (${when}), and is no poison`, async () => {
      const { dapr, cancelled, placed, told, http, bound } = await startWithGateway({
        ...{ when, unreachable: "register" },
      });
      cancelled();
      await settled(dapr);
      placed();
      assert.deepEqual(await told(), []);
      assert.deepEqual(deadLetters(dapr), []);
      assertProblem(await http("GET", "/payments/7"), 404, "not-found");
      assert.deepEqual(bound(), ["void void-7"]);
    });
});

describe("a payment gateway behind an output binding", () => {
  it("is told what it is about, with a key that makes it repeatable", async () => {
    const { dapr, post, answers } = await startWithGateway();
    answers({ approved: true, approvalCode: 4711, more: "of this" });
    const { body } = await post();
    assert.deepEqual([body.state, body.approvalCode], ["PaymentApproved", "4711"]);
    assert.deepEqual(dapr.bound, [
      {
        binding: "pg",
        data: {
          ...{ action: "approve", orderId: 7, amount: 30_000, method: "card", productName: "Outwear-1" },
          ...{ customerId: "cust1", customerName: "jang", phoneNumber: "01012341234" },
        },
        metadata: { "Idempotency-Key": "approve-7" },
      },
    ]);
    await post();
    await post();
    assert.equal(dapr.bound.length, 1, "a repeat needs no gateway");
  });

  it("declines, with or without a reason", async () => {
    const { post, answers } = await startWithGateway();
    answers({ approved: false, reason: "stolen" });
    assert.deepEqual((await post()).body.reason, "stolen");
    answers({ approved: false });
    assert.deepEqual((await post({ orderId: 8 })).body.reason, "declined");
  });

  it("is not believed when it talks nonsense", async () => {
    const { post, answers, http, told } = await startWithGateway();
    for (const nonsense of [
      ...[undefined, null, "", "yes", 42, {}, { approved: "true", approvalCode: "1" }],
      ...[{ approved: true }, { approved: true, approvalCode: null }, { approved: true, approvalCode: "" }],
      { approved: false, reason: 42 },
    ]) {
      answers(nonsense);
      assertProblem(await post(), 503, "pg-unavailable");
    }
    assertProblem(await http("GET", "/payments/7"), 404, "not-found");
    assert.deepEqual(await told(), []);
    answers(yes);
    assert.equal((await post()).body.approvalCode, "4711");
  });

  it("may be away for a while", async () => {
    const { dapr, post, told } = await startWithGateway();
    dapr.down.add("pg");
    assertProblem(await post(), 503, "pg-unavailable");
    dapr.down.delete("pg");
    assert.equal((await post()).status, 201);
    assert.deepEqual(await told(), ["PaymentApproved 7 30000"]);
  });
});

describe("a payment in the words of", () => {
  const words = async (dialect: string) => {
    const { post, put, http, get, drill } = await start({ when: "later" }, { dialect });
    const seen = [];
    await post({ when: "later", method: "cash" });
    seen.push(await get());
    await put(H4);
    seen.push(await get());
    await http("DELETE", "/payments/7");
    seen.push(await get());
    await drill({ declineRate: 1 });
    await post({ orderId: 8 });
    seen.push((await http("GET", "/payments/8")).body);
    return seen;
  };

  it("coffee: Not Pay, END, and ORDER CANCEL as its type (S3-V2, S3-P1)", async () => {
    assert.deepEqual(
      (await words("coffee")).map(({ paymentStatus, paymentType, cost }) => [
        ...[paymentStatus, paymentType, cost],
      ]),
      [
        ["Not Pay", "cash", 30_000],
        ["END", "cash", 30_000],
        ["CANCEL", "ORDER CANCEL", 30_000],
        ["FAIL", "card", 30_000],
      ],
    );
  });

  it("flower: SUCCESS and CANCELLED (S2-V1), with S2-D2's fields", async () => {
    const seen = await words("flower");
    assert.deepEqual(
      seen.map(({ status }) => status),
      ["REQUESTED", "SUCCESS", "CANCELLED", "FAILED"],
    );
    const { id, orderid, cost, approveDate, cancelDate, address, productId, phoneNumber, qty } =
      seen[2] ?? {};
    assert.deepEqual(
      [id, orderid, cost, approveDate, cancelDate, address, productId, phoneNumber, qty],
      [7, 7, 30_000, now, now, "seoul", 1, "01012341234", 3],
    );
  });

  it("cafe: Initial, Paid and PaymentCanceled (S4-V1), with S4-D2's fields", async () => {
    const seen = await words("cafe");
    assert.deepEqual(
      seen.map(({ status }) => status),
      ["Initial", "Paid", "PaymentCanceled", "PaymentFailed"],
    );
    const { paymentId, customerId, cafeId, menuId, qty, totalPrice, orderDate, approvalCode, orderId } =
      seen[1] ?? {};
    assert.deepEqual(
      [paymentId, customerId, cafeId, menuId, qty, totalPrice, orderDate, approvalCode, orderId],
      [7, "cust1", null, 1, 3, 30_000, info.orderDate, null, 7],
    );
  });

  for (const dialect of ["fashion", "bookstore"])
    it(`${dialect}: our own`, async () => {
      assert.deepEqual(
        (await words(dialect)).map(({ paymentStatus, state }) => [paymentStatus, state]),
        ["PaymentRequested", "PaymentApproved", "PaymentCancelled", "PaymentFailed"].map((one) => [one, one]),
      );
    });
});
