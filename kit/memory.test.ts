import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import { Unavailable } from "#kit/sidecar.js";

/** What every sidecar does with a binding is in tests/suites.ts; this is what a test can see and set here. */
describe("an output binding of the twin", () => {
  it("takes everything unless it is told otherwise, and shows what it took, in order", async () => {
    const dapr = new MemoryDapr();
    const { bind } = dapr.sidecar("none");
    const data = { n: 1 };
    assert.equal(await bind("sms", data, { to: "010" }), undefined);
    data.n = 2;
    await bind("email", "text");
    assert.deepEqual(dapr.bound, [
      { binding: "sms", data: { n: 1 }, metadata: { to: "010" } },
      { binding: "email", data: "text", metadata: {} },
    ]);
  });

  it("answers what a test says, by what it was given", async () => {
    const dapr = new MemoryDapr();
    dapr.bindings.set("pg", async ({ data, metadata }) => ({ heard: data, key: metadata.key }));
    assert.deepEqual(await dapr.sidecar("none").bind("pg", [1], { key: "a" }), { heard: [1], key: "a" });
  });

  it("has taken nothing when it is down or fails, and the others are not touched by that", async () => {
    const dapr = new MemoryDapr();
    const { bind } = dapr.sidecar("none");
    dapr.down.add("sms");
    dapr.bindings.set("email", () => {
      throw new Unavailable("not now");
    });
    await assert.rejects(bind("sms", 1), Unavailable);
    await assert.rejects(bind("email", 2), Unavailable);
    await bind("kakao", 3);
    dapr.down.delete("sms");
    await bind("sms", 4);
    assert.deepEqual(
      dapr.bound.map(({ binding, data }) => [binding, data]),
      [
        ["kakao", 3],
        ["sms", 4],
      ],
    );
  });
});
