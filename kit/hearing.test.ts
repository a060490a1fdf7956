import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { keepHearing } from "#kit/hearing.js";
import { Unavailable } from "#kit/sidecar.js";
import { silent as log } from "#kit/testing.js";

const times = { every: 5, patience: 30 };

/** A sidecar that answers these in turn, the last one for ever, and tells how often it was ended after how many answers. */
function sidecar(...answers: (string[] | Error)[]) {
  const seen = { asked: 0, endedAfter: [] as number[] };
  return {
    seen,
    async heard() {
      const answer = answers[Math.min(seen.asked++, answers.length - 1)] ?? [];
      if (answer instanceof Error) throw answer;
      return new Set(answer);
    },
    async restart() {
      seen.endedAfter.push(seen.asked);
    },
  };
}

async function asked(one: ReturnType<typeof sidecar>, times: number): Promise<void> {
  const enough = one.seen.asked + times;
  while (one.seen.asked < enough) await new Promise((resolve) => setTimeout(resolve, 2));
}

describe("a sidecar that does not listen", () => {
  it("is ended once its time to begin has passed, and again if the next one is deaf too", async () => {
    const deaf = sidecar(["A"]);
    const stop = keepHearing(deaf, ["A", "B"], log, times);
    while (deaf.seen.endedAfter.length < 2) await asked(deaf, 1);
    stop();
    const [first = 0, second = 0] = deaf.seen.endedAfter;
    assert.ok(first >= 3, `it was given time: ended after ${first} looks`);
    assert.ok(second - first >= 3, "and so was the next one");
  });

  it("is left alone when it listens to all of it", async () => {
    const listening = sidecar(["A", "B", "C"]);
    const stop = keepHearing(listening, ["A", "B"], log, times);
    await asked(listening, 30);
    stop();
    assert.deepEqual(listening.seen.endedAfter, []);
  });

  it("is left alone while it is away, or still beginning", async () => {
    const starting = sidecar([], [], new Unavailable("away"), [], ["A"]);
    const stop = keepHearing(starting, ["A"], log, times);
    await asked(starting, 30);
    stop();
    assert.deepEqual(starting.seen.endedAfter, []);
  });

  it("is asked no more after the service stopped", async () => {
    const one = sidecar(["A"]);
    keepHearing(one, ["A"], log, times)();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(one.seen.asked, 0);
  });
});
