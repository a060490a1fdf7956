import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { currentTrace, inTrace } from "#kit/log.js";

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

describe("a trace", () => {
  it("is the caller's, through everything that the work waits for", async () => {
    const seen = await inTrace(parent, async () => {
      await Promise.resolve();
      return currentTrace();
    });
    assert.deepEqual(seen, { traceparent: parent, traceId: "0af7651916cd43dd8448eb211c80319c" });
  });

  it("begins here where the caller names none, or nonsense", () => {
    for (const none of [undefined, "", "nonsense", parent.slice(1), `${parent}\n`]) {
      const trace = inTrace(none, currentTrace);
      assert.match(trace?.traceparent ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
      assert.notEqual(trace?.traceId, inTrace(none, currentTrace)?.traceId);
    }
  });

  it("ends with its work", () => {
    inTrace(parent, () => undefined);
    assert.equal(currentTrace(), undefined);
  });
});
