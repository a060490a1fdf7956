/**
 * Each shop's scenario on real sidecars, on every backend that a shop may run on, without a changed line: one test per step,
 * named after the items of the seed that it shows.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { differences, relevant } from "./expect.js";
import { parseHttpie, words } from "./httpie.js";
import { nameOf, Performance, parseScenario, readScenario, scenarioNames } from "./scenario.js";

/** Whose seed each shop is, and where its scenario listens. */
const SHOPS: Record<string, { seed: string; ports: number }> = {
  fashion: { seed: "S0", ports: 18_000 },
  bookstore: { seed: "S1", ports: 19_000 },
  flower: { seed: "S2", ports: 20_000 },
  coffee: { seed: "S3", ports: 21_000 },
  cafe: { seed: "S4", ports: 22_000 },
};

/** The two run at the same time; the second keeps this far from the first one's ports. */
const BACKENDS = { embedded: 0, polyglot: 20 };

it("every shop has its scenario", () => {
  assert.deepEqual(scenarioNames(), Object.keys(SHOPS).sort());
});

describe("scenarios", { concurrency: 2 }, () => {
  for (const [backend, beside] of Object.entries(BACKENDS))
    describe(`on ${backend}`, { concurrency: 1 }, () => {
      for (const [name, { seed, ports }] of Object.entries(SHOPS))
        perform(name, seed, ports + beside, backend);
    });
});

function perform(name: string, seed: string, ports: number, backend: string): void {
  const scenario = readScenario(name);
  describe(`${seed} on ${backend}: ${scenario.title}`, () => {
    let performing: Performance | undefined;
    let failed = false;
    before(async () => {
      performing = await Performance.open(scenario, ports, { backend });
    });
    after(async () => {
      if (failed) console.log(`what the services of ${name} said: ${performing?.data}/logs`);
      await performing?.close(failed);
    });

    it("shows only items of its own seed", () => {
      const others = scenario.steps
        .flatMap(({ proves }) => proves)
        .filter((item) => !item.startsWith(`${seed}-`));
      assert.deepEqual(others, []);
    });

    for (const step of scenario.steps)
      it(nameOf(step), async (t) => {
        if (failed) return t.skip("an earlier step failed, on which this one builds");
        failed = true;
        await performing?.perform(step);
        failed = false;
      });
  });
}

describe("a scenario file", () => {
  const parse = (...lines: string[]) =>
    parseScenario(["shop: x", "title: X", "steps:", ...lines].join("\n"), "x.yaml");

  it("may hold every kind of step", () => {
    const { steps } = parse(
      "  - { say: a, do: http /orders, save: { id: id } }",
      "  - { say: b, until: ['http DELETE /orders/{id}', http /orders], at: order }",
      "  - { say: c, pause: payment }",
      "  - { say: d, resume: [payment], proves: [S3-F1, S3-N2] }",
      "  - { say: e, kill: order-1 }",
      "  - { say: f, drill: { failureRate: 0.5 } }",
      "  - { say: g, outbox: kakao, expect: { body: [{ matches: '^\\d{8}$' }] } }",
    );
    assert.deepEqual(steps[0]?.do, ["http /orders"]);
    assert.equal(steps.map(nameOf)[3], "S3-F1, S3-N2: d");
  });

  for (const [what, line, message] of [
    ["an unknown key", "  - { say: a, does: http / }", /^x\.yaml:5: .*does/],
    [
      "two actions",
      "  - { say: a, do: http /, pause: order }",
      /^x\.yaml:5: steps\.1\.say: a step does one of/,
    ],
    ["no action", "  - { say: a }", /^x\.yaml:5: steps\.1\.say/],
    [
      "a name that nothing was saved as",
      "  - { say: a, do: 'http /orders/{id}' }",
      /^x\.yaml:5: steps\.1\.do: .*\{id\}/,
    ],
    ["a command that is none", "  - { say: a, do: curl / }", /^x\.yaml:5: steps\.1\.do: a command begins/],
    ["a field that is none", "  - { say: a, do: http /orders qty }", /^x\.yaml:5: .*"qty" is neither/],
    ["a place that is none", "  - { say: a, do: http /, at: 'order 1' }", /^x\.yaml:5: steps\.1\.at/],
    ["an item that is none", "  - { say: a, do: http /, proves: [F1] }", /^x\.yaml:5: steps\.1\.proves\.0/],
  ] as const)
    it(`with ${what} is refused, with its line`, () => {
      assert.throws(() => parse("  - { say: a, do: http / }", line), { message });
    });
});

describe("HTTPie's grammar", () => {
  for (const [command, call] of [
    ["http /orders", { method: "GET", path: "/orders", headers: {} }],
    ["http DELETE /orders/1", { method: "DELETE", path: "/orders/1", headers: {} }],
    [
      `http /orders a=1 b:=2 'c=x y' d="Prepare \\"it\\"..." e:='{"f":[1]}'`,
      {
        ...{ method: "POST", path: "/orders", headers: {} },
        body: { a: "1", b: 2, c: "x y", d: 'Prepare "it"...', e: { f: [1] } },
      },
    ],
    [
      "http PUT /p?x=1 y==2 Idempotency-Key:a:b @id=http://x=y",
      {
        method: "PUT",
        path: "/p?x=1&y=2",
        headers: { "idempotency-key": "a:b" },
        body: { "@id": "http://x=y" },
      },
    ],
  ] as const)
    it(command, () => assert.deepEqual(parseHttpie(command), call));

  it("leaves an empty word, and refuses an open quotation mark", () => {
    assert.deepEqual(words("a '' b"), ["a", "", "b"]);
    assert.throws(() => words("a 'b"), /not closed/);
  });
});

describe("what is expected of an answer", () => {
  const answer = {
    id: 1,
    name: "Rose",
    none: null,
    list: [
      { id: 1, qty: 2 },
      { id: 2, qty: 3 },
    ],
    deep: { a: { b: 1 } },
  };
  const holds: unknown[] = [
    {},
    { id: 1, none: null },
    { "deep.a.b": 1, "list.1.qty": 3, deep: { a: {} } },
    { other: { absent: true }, name: { matches: "^R.se$" }, id: { differs: 2 } },
    { list: { count: 2 }, id: { atLeast: 1 } },
    { list: [{ id: 1 }, { qty: 3 }] },
    { list: { contains: [{ qty: 3 }, { id: 1 }] } },
    { list: { contains: { id: 2 } } },
    { list: { lacks: { id: 2, qty: 2 } } },
    { list: { count: 2, contains: { id: 2 } } },
  ];
  const fails: [unknown, RegExp][] = [
    [{ id: "1" }, /id is 1, not "1"/],
    [{ none: { absent: true } }, /none is null/],
    [{ id: { absent: false }, other: { absent: false } }, /other is absent/],
    [{ other: null }, /other is absent, not null/],
    [{ name: { matches: "^ose" } }, /"Rose", which does not match/],
    [{ none: { matches: "" } }, /none is null/],
    [{ id: { differs: 1 } }, /id is 1/],
    [{ list: { count: 1 } }, /list has 2 items/],
    [{ id: { atLeast: 2 } }, /less than 2/],
    [{ list: [{ id: 1 }] }, /not a list of 1/],
    [{ list: { contains: [{ id: 1 }, { id: 1, qty: 3 }] } }, /list has no \{"id":1,"qty":3\}/],
    [{ list: { lacks: { id: 2 } } }, /list has \{"id":2/],
    [{ id: { lacks: { id: 2 } } }, /id is no list/],
    [{ list: { count: 2, contains: { id: 3 } } }, /list has no/],
    [{ list: { count: 3, contains: { id: 2 } } }, /2 items, not 3/],
    [{ list: { count: 2, id: 2 } }, /count is absent/],
    [{ "deep.a.c": 1 }, /deep\.a\.c is absent, not 1/],
  ];
  for (const expected of holds)
    it(`${JSON.stringify(expected)} holds`, () => assert.deepEqual(differences(answer, expected), []));
  for (const [expected, message] of fails)
    it(`${JSON.stringify(expected)} does not hold`, () =>
      assert.match(differences(answer, expected).join("\n"), message));

  it("is what is shown of it", () => {
    assert.deepEqual(
      relevant(answer, { name: { matches: "R" }, "deep.a": { b: 1 }, list: { contains: { id: 2 } } }),
      {
        name: "Rose",
        "deep.a": { b: 1 },
        list: [{ id: 2 }],
      },
    );
  });
});
