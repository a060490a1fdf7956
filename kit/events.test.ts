import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { catalogue, orderData, orderInfo } from "#kit/events.js";
import { info } from "#kit/testing.js";

describe("what travels in every event about an order", () => {
  it("is picked out of anything that carries it, and nothing else", () => {
    const more = { ...info, id: 7, status: "Pending", amount: 3 };
    assert.deepEqual(orderInfo(more), info);
    assert.deepEqual(Object.keys(orderInfo(info)).sort(), Object.keys(orderData.shape).sort(), "all of it");
  });

  it("is in every event that is about one order's business", () => {
    const about = Object.entries(catalogue).filter(([, { shape }]) => "customerName" in shape);
    for (const [event, { shape }] of about)
      for (const field of Object.keys(orderData.shape)) assert.ok(field in shape, `${event} has no ${field}`);
    assert.ok(about.length >= 14, `${about.length}`);
  });

  it("may be younger than the message: one that was written before a field was there is understood", () => {
    const { phoneNumber, storeId, note, method, orderDate, ...then } = info;
    const placed = { ...then, id: 7, price: 1, amount: 3, paymentId: 7, approvalCode: "1" };
    const { paid, ...order } = catalogue.OrderPlaced.parse(placed);
    assert.equal(paid, true, "when there was no paying later");
    assert.deepEqual(orderInfo(order), {
      ...info,
      phoneNumber: null,
      orderDate: "",
      ...{ storeId, note, method },
    });
  });
});
