/** Every shop loses every part that it can do without, and goes on; real sidecars, real Redis and SQLite files. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { readShop, type Shop } from "#kit/shop.js";
import { TestShop, until } from "./shop.js";

const shops = fileURLToPath(new URL("../../shops", import.meta.url));
const all = readdirSync(shops)
  .filter((file) => file !== "dialects.yaml")
  .map((file) => readShop(join(shops, file)));

const QTY = 2;

/** A shop of any kind, as its customers use it. */
class Customers {
  private phones = 0;

  constructor(
    readonly open: TestShop,
    readonly rules: Shop,
  ) {}

  /** A phone number that nobody has used. */
  phone(): string {
    return `0109999${String(++this.phones).padStart(4, "0")}`;
  }

  order(phoneNumber: string): ReturnType<TestShop["http"]> {
    const priced = this.rules.payment.price === "order" ? { cost: 7_000 } : {};
    const body = { productId: 1, productName: "Thing", qty: QTY, phoneNumber, customerId: "c1", ...priced };
    return this.open.http("POST", "/orders", body);
  }

  /** Orders and, where the shop has that as a step of its own, pays. */
  async buy(phoneNumber: string): Promise<number> {
    const { status, body } = await this.order(phoneNumber);
    assert.equal(status, 201, JSON.stringify(body));
    const id = body.id as number;
    if (this.rules.payment.when === "later") {
      const paid = await this.open.http("PUT", `/payments/${id}/pay`, { method: "cash" });
      assert.equal(paid.status, 200, JSON.stringify(paid.body));
    }
    await this.open.shows(`/payments/${id}`, { state: "PaymentApproved" });
    return id;
  }

  /** Waits until all that follows from a paid order has happened, once. */
  async settled(id: number, phoneNumber: string): Promise<void> {
    const { rules, open } = this;
    await open.shows(`/orders/${id}`, { state: "OrderPlaced", paid: true }, 40_000);
    const accepted = rules.store.making === "acceptance" ? "MakeStarted" : "StoreAccepted";
    const store = rules.store.accept === "owner" ? "Received" : accepted;
    await open.shows(`/storeOrders/${id}`, { state: store }, 40_000);
    if (rules.delivery !== "none") {
      const delivery = rules.delivery === "made" ? "DeliveryPrepared" : "DeliveryStarted";
      await open.shows(`/deliveries/${id}`, { state: delivery }, 40_000);
    }
    const row = { orderStatus: "OrderPlaced", paymentStatus: "PaymentApproved" };
    await open.shows(`/orderStatuses/${id}`, row, 40_000);
    if (rules.loyalty.stampsPerItem > 0) {
      const stampQty = QTY * rules.loyalty.stampsPerItem;
      await open.shows(`/stamps/${phoneNumber}`, { stampQty }, 40_000);
    }
    const happened = new Set<string>(["OrderPlaced", "OrderPaid", "PaymentApproved"]);
    if (rules.store.accept === "automatic")
      for (const event of ["StoreAccepted", accepted]) happened.add(event);
    if (rules.delivery === "acceptance") happened.add("DeliveryStarted");
    const expected = rules.notifications
      .filter(({ on }) => happened.has(on))
      .map(({ on, channel }) => `${on} ${channel}`);
    let told: string[] = [];
    await until(`order ${id} has its messages: ${expected}`, 40_000, async () => {
      const { body } = await open.http("GET", `/messages/search/findByOrderId?orderId=${id}`);
      const messages = (body._embedded?.messages ?? []) as {
        event: string;
        channel: string;
        state: string;
      }[];
      told = messages
        .filter(({ state }) => state === "Sent")
        .map(({ event, channel }) => `${event} ${channel}`);
      return told.length >= expected.length;
    }).catch((error: Error) => assert.fail(`${error.message}; told: ${told}`));
    assert.deepEqual(told.sort(), expected.sort());
  }
}

function withoutParts(rules: Shop, ports: number): void {
  describe(`${rules.name} without one of its parts`, { concurrency: 1 }, () => {
    let open: TestShop;
    let customers: Customers;
    before(async () => {
      open = await TestShop.open(ports, { shop: rules.name, drills: true });
      customers = new Customers(open, rules);
    });
    after(() => open?.close());

    /** The app doesn't answer meanwhile; afterwards it is killed and started again. */
    const without = async <T>(app: string, then: () => Promise<T>): Promise<T> => {
      await open.system.kill(`${app}-0`, "SIGSTOP");
      try {
        return await then();
      } finally {
        await open.system.kill(`${app}-0`, "SIGKILL");
        await open.system.waitReady(`${app}-0`);
      }
    };

    for (const part of ["loyalty", "notification", "store", "delivery"])
      it(`${rules.name}: ${part} away: ordering and paying go on, and everything is caught up once`, async () => {
        const bought = await without(part, async () => {
          const list: [number, string][] = [];
          for (let n = 0; n < 3; n++) {
            const phone = customers.phone();
            list.push([await customers.buy(phone), phone]);
          }
          return list;
        });
        for (const [id, phone] of bought) await customers.settled(id, phone);
      });

    it(`${rules.name}: payment away: ${rules.payment.unreachable === "refuse" ? "503 and Retry-After, and nothing stands" : "the order stands, and is paid when payment is back, once"}`, async () => {
      const phone = customers.phone();
      const before = await open.all("orders");
      const reply = await without("payment", () => customers.order(phone));
      if (rules.payment.unreachable === "refuse") {
        assert.deepEqual([reply.status, reply.body.type], [503, "urn:jangteo:problem:payment-unavailable"]);
        assert.ok(Number(reply.headers.get("retry-after")) > 0);
        assert.equal((await open.all("orders")).length, before.length);
        // The breaker that spared payment lets orders through again after a while.
        await until(
          "orders are taken again",
          30_000,
          async () => (await customers.order(phone)).status === 201,
        );
        const other = customers.phone();
        await customers.settled(await customers.buy(other), other);
      } else {
        assert.deepEqual([reply.status, reply.body.paid], [201, false], JSON.stringify(reply.body));
        await customers.settled(reply.body.id, phone);
        const { body } = await open.http("GET", `/payments/${reply.body.id}/history`);
        const approved = (body._embedded.history as { what: string }[]).map(({ what }) => what);
        assert.deepEqual(approved, ["PaymentApproved"]);
      }
    });

    if (rules.store.accept === "owner" && rules.cancel.customer === "making")
      it(`${rules.name}: the shop begins to make it while the customer cancels: exactly one of them is true (S4-F4, S4-T1)`, async () => {
        const ids = await Promise.all(
          Array.from(
            { length: 24 },
            async () => (await customers.order(customers.phone())).body.id as number,
          ),
        );
        for (const id of ids) await open.shows(`/storeOrders/${id}`, { state: "Received" });
        const answers = await Promise.all(
          ids.map((id, n) => {
            const begin = () => open.http("PUT", `/storeOrders/${id}/accept`);
            const cancel = () => open.http("DELETE", `/orders/${id}`);
            const both = n % 2 === 0 ? [begin(), cancel()] : [cancel(), begin()].reverse();
            return Promise.all(both);
          }),
        );
        for (const [n, [began, cancelled]] of answers.entries()) {
          const statuses = [began?.status, cancelled?.status];
          assert.deepEqual(statuses.toSorted(), [200, 409], `order ${ids[n]}: ${statuses}`);
          const made = began?.status === 200;
          await open.shows(`/orders/${ids[n]}`, { state: made ? "OrderPlaced" : "OrderCancelled" });
          await open.shows(`/storeOrders/${ids[n]}`, { state: made ? "MakeStarted" : "StoreCancelled" });
          await open.shows(`/payments/${ids[n]}`, { state: made ? "PaymentApproved" : "PaymentCancelled" });
        }
      });

    it(`${rules.name}: inventory away: ${rules.stock === "reserve" ? "refused, since the stock is checked" : "nobody asks it"}`, async () => {
      const phone = customers.phone();
      const reply = await without("inventory", () => customers.order(phone));
      if (rules.stock === "none") assert.equal(reply.status, 201, JSON.stringify(reply.body));
      else
        assert.deepEqual([reply.status, reply.body.type], [503, "urn:jangteo:problem:inventory-unavailable"]);
    });
  });
}

// Mostly they wait, so two of them run at the same time.
describe("every shop", { concurrency: 2 }, () => {
  for (const [n, rules] of all.entries()) withoutParts(rules, 16_000 + 20 * n);
});
