import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { createLogger, currentTrace, inTrace } from "#kit/log.js";

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

describe("a log file", () => {
  const directory = mkdtempSync(join(tmpdir(), "jangteo-log-"));
  after(() => rmSync(directory, { recursive: true }));
  const messages = (file: string) =>
    readFileSync(file, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));

  it("gets what the level lets through, behind what is there already", () => {
    const file = join(directory, "logs", "order-0.log");
    for (const replica of ["order-a", "order-b"]) {
      const log = createLogger("order", replica, "warn", file);
      log.info("not this");
      log.warn({ orderId: 7 }, "this");
    }
    const common = { level: "warn", service: "order", orderId: 7, msg: "this" };
    assert.deepEqual(
      messages(file).map(({ time, ...line }) => line),
      [
        { ...common, replica: "order-a" },
        { ...common, replica: "order-b" },
      ],
    );
  });

  it("that can't be written keeps nobody from going on", () => {
    const file = join(directory, "no-directory");
    writeFileSync(file, "");
    createLogger("order", "order-0", "error", join(file, "order-0.log")).error("said on standard output");
  });
});
