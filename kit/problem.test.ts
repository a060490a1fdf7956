import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { conflict, invalid, notFound, Problem, tryLater } from "#kit/problem.js";

/** As it arrives at another service. */
const sent = (problem: Problem, instance = "/orders/7") =>
  JSON.parse(JSON.stringify({ ...problem.toJSON(), instance })) as unknown;

describe("a problem that another service answered", () => {
  it("is passed on in the same words, with all that it carries", () => {
    for (const problem of [
      conflict("order-closed", "The making of order 7 has begun.", { begun: "making" }),
      invalid([{ field: "totalPrice", reason: "is 4000" }]),
      notFound("order", 7),
      new Problem(402, "payment-declined", "The payment was declined", "No funds.", { reason: "no funds" }),
    ]) {
      const passed = Problem.from(problem.status, sent(problem));
      assert.ok(passed instanceof Problem);
      assert.deepEqual(passed.toJSON(), problem.toJSON());
      assert.equal(passed.message, problem.message);
    }
  });

  it("says where it shows now, not where it was first", () => {
    const passed = Problem.from(409, sent(conflict("order-closed", "Too late."), "/closings/7"));
    assert.deepEqual(Object.keys(passed.extra), []);
    assert.equal("instance" in passed.toJSON(), false);
  });

  it("has the status that it came with, whatever its body claims", () => {
    assert.equal(Problem.from(409, { ...notFound("order", 7).toJSON() }).status, 409);
  });

  it("that is asked to be tried later says when in its body", () => {
    const passed = Problem.from(503, sent(tryLater("pg-unavailable", "Not now.", 5)));
    assert.equal(passed.extra.retryAfter, 5);
  });
});
