/** kill -9, and counting afterwards. Real sidecars, real Redis, SQLite files. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TestShop } from "./shop.js";

/**
 * Places where a process dies: before its write, between its write and its publication, before the next step.
 * "@2": the second time that it passes, so that one order has gone before.
 */
const DEATHS: [app: string, fault: string][] = [
  ["order", "before-save:order"],
  ["order", "after-save:order"],
  ["order", "after-save:order@2"],
  ["order", "before-publish:OrderPlaced"],
  ["inventory", "after-save:product@6"], // the first five put the catalogue on the shelves
  ["inventory", "after-save:reservation"],
  ["payment", "before-save:payment"],
  ["payment", "before-publish:PaymentApproved"],
  ["store", "before-publish:StoreAccepted"],
  ["delivery", "after-save:delivery"],
];

describe("a process that dies half-way through an order", () => {
  for (const [app, fault] of DEATHS) {
    it(`${app} at ${fault}: what was promised stands, what was not leaves nothing`, async () => {
      const shop = await TestShop.open(16_000, { faults: { [app]: fault } });
      try {
        const promised: number[] = [];
        for (let i = 0; i < 4; i++) {
          const { status, body } = await shop
            .http("POST", "/orders", { productId: 1, qty: 1 })
            .catch(() => ({ status: 0, body: {} }));
          if (status === 201) promised.push(body.id);
          else assert.ok(status === 503 || status === 0, `${status} ${JSON.stringify(body)}`);
          await shop.system.waitReady(`${app}-0`);
        }
        await shop.audit(promised, 1_000_000);
        const died = shop.system.processes().find((one) => one.name === `${app}-0`);
        assert.equal(died?.restarts, 1, "the fault point was passed");
      } finally {
        await shop.close();
      }
    });
  }
});

describe("1,000 orders from 16 clients", () => {
  it("survive kill -9 of the order service, its sidecar and Redis: nothing lost, nothing twice", async () => {
    const shop = await TestShop.open(16_000);
    try {
      const promised: number[] = [];
      let asked = 0;
      const victims = new Map([
        [250, "order-0"],
        [500, "order-0-sidecar"],
        [750, "redis"],
      ]);
      const killed: Promise<void>[] = [];
      const client = async () => {
        while (asked < 1_000) {
          const victim = victims.get(++asked);
          if (victim !== undefined) killed.push(shop.system.kill(victim, "SIGKILL"));
          const { status, body } = await shop.http("POST", "/orders", { productId: 1, qty: 1 });
          if (status === 201) promised.push(body.id);
          else {
            assert.equal(status, 503, JSON.stringify(body));
            await shop.system.waitReady();
          }
        }
      };
      await Promise.all(Array.from({ length: 16 }, client));
      await Promise.all(killed);
      assert.equal(killed.length, 3);
      await shop.system.waitReady();
      await shop.audit(promised, 1_000_000);
      assert.ok(promised.length > 800, `${promised.length} of 1000 were promised`);
    } finally {
      await shop.close();
    }
  });
});
