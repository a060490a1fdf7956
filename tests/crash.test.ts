/** kill -9, and counting afterwards. Real sidecars, real Redis, SQLite files. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { TestShop, until } from "./shop.js";

/**
 * Places where processes die: before their write, between their write and its publication, before the next step. Those of one
 * line die in one shop. "@2": the second time that it passes, so that one order has gone before.
 */
const DEATHS: Record<string, string>[] = [
  { order: "before-save:order", store: "before-publish:StoreAccepted", delivery: "after-save:delivery" },
  { order: "after-save:order", inventory: "after-save:product@6" }, // the first five put the catalogue on the shelves
  { order: "after-save:order@2", inventory: "after-save:reservation" },
  { order: "before-publish:OrderPlaced", payment: "before-save:payment" },
  { payment: "before-publish:PaymentApproved" },
];

describe("a process that dies half-way through an order", { concurrency: 2 }, () => {
  for (const [n, faults] of DEATHS.entries()) {
    const places = Object.entries(faults).map(([app, fault]) => `${app} at ${fault}`);
    it(`${places.join(", ")}: what was promised stands, what was not leaves nothing`, async () => {
      const shop = await TestShop.open(16_000 + 20 * n, { faults });
      const restarts = () =>
        Object.keys(faults).map(
          (app) => shop.system.processes().find((one) => one.name === `${app}-0`)?.restarts,
        );
      try {
        const promised: number[] = [];
        for (let i = 0; i < 4 || (restarts().includes(0) && i < 20); i++) {
          const { status, body } = await shop
            .http("POST", "/orders", { productId: 1, qty: 1 })
            .catch(() => ({ status: 0, body: {} }));
          if (status === 201) promised.push(body.id);
          else assert.ok(status === 503 || status === 0, `${status} ${JSON.stringify(body)}`);
          await shop.system.waitReady();
        }
        await shop.audit(promised, 1_000_000);
        assert.deepEqual(new Set(restarts()), new Set([1]), "the fault points were passed");
      } finally {
        await shop.close();
      }
    });
  }
});

describe("a process that dies half-way through what follows from a payment", { concurrency: 2 }, () => {
  for (const [n, fault] of [
    "after-save:grant",
    "after-save:card",
    "after-save:card@2",
    "before-publish:StampsEarned",
  ].entries())
    it(`loyalty at ${fault}: each paid drink earns its stamps once, each cancelled one loses them once (S3-F8)`, async () => {
      const shop = await TestShop.open(16_000 + 20 * n, { shop: "coffee", faults: { loyalty: fault } });
      try {
        const phoneNumber = "01012341234";
        const ids: number[] = [];
        for (let qty = 1; qty <= 4; qty++) {
          const id = await shop.order({ qty, cost: 1000 * qty, phoneNumber });
          assert.equal((await shop.http("PUT", `/payments/${id}/pay`, { method: "cash" })).status, 200);
          ids.push(id);
        }
        await shop.shows(`/stamps/${phoneNumber}`, { stampQty: 1 + 2 + 3 + 4 }, 60_000);
        for (const id of [ids[1], ids[3]])
          assert.equal((await shop.http("DELETE", `/orders/${id}`)).status, 200);
        await shop.shows(`/stamps/${phoneNumber}`, { stampQty: 1 + 3 }, 60_000);
        const died = shop.system.processes().find((one) => one.name === "loyalty-0");
        assert.equal(died?.restarts, 1, "the fault point was passed");
      } finally {
        await shop.close();
      }
    });

  for (const [n, fault] of [
    "after-save:notice",
    "before-save:message",
    "after-save:message",
    "after-save:message@3",
  ].entries())
    it(`notification at ${fault}: each message is written and sent once (S1-F4)`, async () => {
      const shop = await TestShop.open(16_100 + 20 * n, {
        shop: "bookstore",
        faults: { notification: fault },
      });
      try {
        const ids: number[] = [];
        for (let n = 0; n < 4; n++) ids.push(await shop.order());
        const sent = async () => (await shop.all("messages")).filter(({ state }) => state === "Sent");
        const perOrder = ["DeliveryStarted kakao", "OrderPaid email", "OrderPaid kakao"];
        await until(
          "every order has its messages",
          60_000,
          async () => (await sent()).length >= ids.length * 3,
        );
        for (const id of ids) {
          const told = (await shop.all("messages")).filter(({ orderId }) => orderId === id);
          assert.deepEqual(told.map(({ event, channel }) => `${event} ${channel}`).sort(), perOrder);
        }
        const files = readdirSync(join(shop.data, "outbox", "kakao"));
        assert.equal(files.length, ids.length * 2);
        const died = shop.system.processes().find((one) => one.name === "notification-0");
        assert.equal(died?.restarts, 1, "the fault point was passed");
      } finally {
        await shop.close();
      }
    });
});
