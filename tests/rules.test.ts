/**
 * Every combination of rules that a shop file may have, over the in-memory twin: an order of each kind of fate goes as
 * far as it can, and afterwards the books balance. (Real parts have the five shops: shops.test.ts and the scenarios.)
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import { parseShop, type Shop } from "#kit/shop.js";
import { deadLetters, embedded, type Host, hostInMemory, type Json, listen, settled } from "#kit/testing.js";
import { delivery } from "../services/delivery/src/main.js";
import { inventory } from "../services/inventory/src/main.js";
import { loyalty } from "../services/loyalty/src/main.js";
import { notification } from "../services/notification/src/main.js";
import { order } from "../services/order/src/main.js";
import { orderview } from "../services/orderview/src/main.js";
import { payment } from "../services/payment/src/main.js";
import { store } from "../services/store/src/main.js";

const services = { order, payment, inventory, store, delivery, orderview, loyalty, notification };
type Name = keyof typeof services;

const STOCK = 100;
const PRICE = 1_000;

/** One value of each rule. */
interface Rules {
  when: Shop["payment"]["when"];
  unreachable: Shop["payment"]["unreachable"];
  stock: Shop["stock"];
  accept: Shop["store"]["accept"];
  making: Shop["store"]["making"];
  confirmCancel: Shop["store"]["confirmCancel"];
  delivery: Shop["delivery"];
  customer: Shop["cancel"]["customer"];
  shop: Shop["cancel"]["shop"];
}

const values: { [Rule in keyof Rules]: Rules[Rule][] } = {
  when: ["order", "later"],
  unreachable: ["refuse", "register"],
  stock: ["reserve", "none"],
  accept: ["automatic", "owner"],
  making: ["none", "acceptance", "owner"],
  confirmCancel: ["automatic", "owner"],
  delivery: ["acceptance", "made", "none"],
  customer: ["acceptance", "making", "delivery", "completion"],
  shop: ["acceptance", "making", "delivery"],
};

const combinations = Object.entries(values).reduce<Partial<Rules>[]>(
  (all, [rule, some]) => all.flatMap((one) => some.map((value) => ({ ...one, [rule]: value }))),
  [{}],
) as Rules[];

/** The shop with these rules; undefined where they contradict each other, and a shop file says so. */
function shopOf(rules: Rules): Shop | undefined {
  const { when, unreachable, stock, accept, making, confirmCancel, delivery, customer, shop } = rules;
  const file = {
    name: "any",
    title: { en: "Any", ko: "아무" },
    payment: { when, unreachable },
    stock,
    store: { accept, making, confirmCancel },
    delivery,
    cancel: { customer, shop },
    loyalty: { stampsPerItem: 2 },
    notifications: [
      { on: "PaymentApproved", channel: "sms", text: { en: "paid", ko: "결제" } },
      { on: "OrderCancelled", channel: "sms", text: { en: "cancelled", ko: "취소" } },
    ],
    catalogue: [{ id: 1, name: "Thing", price: PRICE, stock: STOCK }],
  };
  try {
    return parseShop(JSON.stringify(file), "any.yaml");
  } catch {
    return undefined;
  }
}

/** What its people may do with an order, each as far as it goes; what comes too early or too late is refused. */
const STEPS = ["pay", "accept", "start", "complete", "deliver", "confirm"] as const;
type Step = (typeof STEPS)[number] | "cancel" | "reject";

async function play(shop: Shop, fates: Step[][]): Promise<void> {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  const hosts = {} as Record<Name, Host>;
  for (const [name, definition] of Object.entries(services))
    hosts[name as Name] = await hostInMemory(dapr, definition, { shop });
  try {
    const ids: number[] = [];
    for (const [i, fate] of fates.entries()) {
      const phoneNumber = `0100000000${i}`;
      const placed = await hosts.order.http("POST", "/orders", { productId: 1, qty: 1 + i, phoneNumber });
      assert.equal(placed.status, 201, JSON.stringify(placed.body));
      const id = Number(placed.body.id);
      ids.push(id);
      await settled(dapr);
      for (const step of fate) {
        await take(hosts, id, step);
        await settled(dapr);
      }
    }
    for (const [i, id] of ids.entries()) {
      const happened = heard.filter(({ data }) => data.orderId === id).map(({ type }) => type);
      await books(hosts, shop, { id, qty: 1 + i, phone: `0100000000${i}` }, new Set(happened));
    }
    const shelf = (await hosts.inventory.http("GET", "/products/1")).body.stock;
    const standing = await Promise.all(ids.map((id) => hosts.order.http("GET", `/orders/${id}`)));
    const taken = standing
      .filter(({ body }) => String(body.state) !== "OrderCancelled")
      .reduce((sum, { body }) => sum + Number(body.qty), 0);
    assert.equal(Number(shelf), shop.stock === "reserve" ? STOCK - taken : STOCK, "stock");
    assert.deepEqual(deadLetters(dapr), [], "nothing was set aside");
  } finally {
    await Promise.all(Object.values(hosts).map((host) => host.stop()));
  }
}

async function take(hosts: Record<Name, Host>, id: number, step: Step): Promise<void> {
  const { http: ordering } = hosts.order;
  const { http: keeping } = hosts.store;
  const { status } = await {
    pay: () => hosts.payment.http("PUT", `/payments/${id}/pay`, {}),
    accept: () => keeping("PUT", `/storeOrders/${id}/accept`),
    start: () => keeping("PUT", `/storeOrders/${id}/start`),
    complete: () => keeping("PUT", `/storeOrders/${id}/complete`),
    deliver: () => hosts.delivery.http("PUT", `/deliveries/${id}/complete`),
    confirm: () => keeping("PUT", `/storeOrders/${id}/confirmcancel`),
    reject: () => keeping("PUT", `/storeOrders/${id}/reject`),
    cancel: () => ordering("DELETE", `/orders/${id}`),
  }[step]();
  assert.ok([200, 404, 409].includes(status), `${step}: ${status}`);
}

/** What all services say of one order must fit together. */
async function books(
  hosts: Record<Name, Host>,
  shop: Shop,
  { id, qty, phone }: { id: number; qty: number; phone: string },
  happened: ReadonlySet<string>,
) {
  const state = async (name: Name, path: string) =>
    String((await hosts[name].http("GET", `/${path}/${id}`)).body.state ?? "none");
  const [ordered, paid, kept, delivered] = await Promise.all([
    state("order", "orders"),
    state("payment", "payments"),
    state("store", "storeOrders"),
    state("delivery", "deliveries"),
  ]);
  const row = (await hosts.orderview.http("GET", `/orderStatuses/${id}`)).body;
  const steps = embedded(await hosts.payment.http("GET", `/payments/${id}/history`), "history");
  const money = steps.reduce((sum, { amount }) => sum + Number(amount), 0);
  const stamps = Number((await hosts.loyalty.http("GET", `/stamps/${phone}`)).body.stampQty ?? 0);
  const messages = embedded(
    await hosts.notification.http("GET", `/messages/search/findByOrderId?orderId=${id}`),
    "messages",
  );
  const told = messages.map((one: Json) => `${one.event} ${one.state}`).sort();
  const seen = JSON.stringify({ id, ordered, paid, kept, delivered, row, money, stamps, told });

  const cancelled = ordered === "OrderCancelled";
  assert.equal(paid === "PaymentCancelled", cancelled, seen);
  assert.equal(money, paid === "PaymentApproved" ? qty * PRICE : 0, seen);
  assert.equal(stamps, paid === "PaymentApproved" ? qty * 2 : 0, seen);
  const wasPaid = steps.some(({ what }) => String(what) === "PaymentApproved");
  const expected = [
    ...(cancelled ? ["OrderCancelled Sent"] : []),
    ...(wasPaid ? ["PaymentApproved Sent"] : []),
  ];
  assert.deepEqual(told, expected, seen);

  // Nothing begins before it is paid; what is cancelled is stopped, or waits for its owner's word, or was delivered.
  if (!wasPaid) assert.ok(["none", "StoreCancelled"].includes(kept), seen);
  if (cancelled)
    assert.ok(["none", "StoreCancelled", "StoreRejected", "CancelRequested"].includes(kept), seen);
  else assert.ok(!["StoreCancelled", "StoreRejected", "CancelRequested"].includes(kept), seen);
  if (shop.delivery === "none") assert.equal(delivered, "none", seen);
  if (cancelled && kept !== "CancelRequested")
    assert.ok(["none", "DeliveryCancelled", "DeliveryCompleted"].includes(delivered), seen);
  if (ordered === "OrderDelivered") assert.equal(delivered, "DeliveryCompleted", seen);
  if (shop.store.making === "none") assert.doesNotMatch(kept, /^Make/, seen);
  // What ends the customer's right to cancel and a cancellation by the customer are never both true.
  const began = {
    ...{ acceptance: "StoreAccepted", making: "MakeStarted" },
    ...{ delivery: "DeliveryStarted", completion: "DeliveryCompleted" },
  } as const;
  if (cancelled && kept !== "StoreRejected") assert.ok(!happened.has(began[shop.cancel.customer]), seen);

  // The view says the same.
  assert.equal(row.orderStatus, cancelled ? "OrderCancelled" : "OrderPlaced", seen);
  assert.equal(row.paymentStatus, paid, seen);
}

/** A customer who cancels, or a shop, before each step that there may be. */
const fates: Step[][] = [
  [...STEPS],
  ...[0, 1, 2, 3, 4].map((after): Step[] => [...STEPS.slice(0, after), "cancel", ...STEPS.slice(after)]),
  ...[0, 1, 2, 3].map((after): Step[] => [...STEPS.slice(0, after), "reject", ...STEPS.slice(after)]),
];

describe("every combination of rules", () => {
  const shops = combinations.flatMap((rules) => {
    const shop = shopOf(rules);
    return shop === undefined ? [] : [{ rules, shop }];
  });
  const groups = new Map<string, typeof shops>();
  const before = new Map<string, number>();
  for (const one of shops) {
    const { when, unreachable, stock, ...rest } = one.rules;
    // Eight ways to pay and to keep stock: each of the others' combinations is played with one of them, in turn.
    const key = JSON.stringify(rest);
    const nth = before.get(key) ?? 0;
    before.set(key, nth + 1);
    if (nth !== [...before.keys()].indexOf(key) % 8) continue;
    const name = `paid ${when}, ${unreachable}; stock ${stock}`;
    groups.set(name, [...(groups.get(name) ?? []), one]);
  }
  it("is played: every one of the store's, the delivery's and the cancellation's rules", () => {
    const played = [...groups.values()].flat();
    assert.equal(played.length, before.size);
    assert.ok(played.length > 150 && shops.length === 8 * before.size && shops.length < combinations.length);
    assert.equal(groups.size, 8);
  });
  for (const [name, some] of groups)
    it(`${name}: whatever else, and however far an order comes, its books balance`, async () => {
      for (const { rules, shop } of some)
        await play(shop, fates).catch((error: Error) => {
          throw new Error(`${JSON.stringify(rules)}: ${error.message}`, { cause: error });
        });
    });
});
