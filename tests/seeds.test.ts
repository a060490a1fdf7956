/** Keeps docs/seeds.md true: it leaves out no item of a seed, and what it names exists. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { catalogue } from "#kit/events.js";
import { readScenario, scenarioNames } from "./scenario.js";

/** The repository's root, seen from dist/tests/. */
const root = fileURLToPath(new URL("../../", import.meta.url));
const page = readFileSync(join(root, "docs", "seeds.md"), "utf8");
const services = readdirSync(join(root, "services"));

/** How many items of each kind a seed has; their numbers have no gaps. */
const ITEMS: Record<string, Record<string, number>> = {
  S0: { F: 7, N: 4, D: 8, E: 6, P: 7, C: 2, R: 1, V: 3, H: 9, G: 2, O: 9, X: 1, T: 8 },
  S1: { F: 9, N: 14, D: 3, E: 4, P: 3, C: 2, R: 2, H: 5, G: 1, O: 6, X: 2, K: 34, T: 5 },
  S2: { F: 7, N: 3, D: 5, E: 8, P: 12, C: 1, R: 2, V: 1, H: 3, G: 2, O: 5, X: 2, T: 7 },
  S3: { F: 8, N: 6, D: 5, E: 6, P: 7, C: 1, R: 1, V: 4, H: 9, G: 3, O: 8, X: 3, T: 10 },
  S4: { F: 11, N: 5, D: 4, E: 9, P: 6, C: 2, R: 1, V: 1, H: 2, G: 1, O: 6, X: 3, T: 8 },
};

interface Row {
  item: string;
  done: string;
  /** the tests that show it; the name is absent where a step of a scenario does */
  shown: { file: string; name?: string }[];
}

const cellsOf = (line: string): string[] =>
  line
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

const rows: Row[] = page
  .split("\n")
  .filter((line) => /^\| S\d-/.test(line))
  .map((line) => {
    const [item = "", , done = "", shown = ""] = cellsOf(line);
    const tests = shown === "–" ? [] : shown.split("<br>");
    return { item, done, shown: tests.map(testOf) };
  });

function testOf(text: string): Row["shown"][number] {
  const [, file, name] = /^`([^`]+)`(?:: (.+))?$/.exec(text) ?? [];
  assert.ok(file !== undefined, `"${text}" names no test`);
  return name === undefined ? { file } : { file, name };
}

/** `order/app.ts` is short for services/order/src/app.ts. */
function pathOf(file: string): string {
  const [first = "", ...rest] = file.split("/");
  const path = services.includes(first) ? join("services", first, "src", ...rest) : file;
  return join(root, path);
}

/** What a test file calls its tests; "…" in our text stands for what a name is put together of. */
function isNamed(file: string, name: string): boolean {
  const parts = name.split("…").map((part) => part.trim().replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pattern = new RegExp(`[("'\`: }]${parts.join(".*")}`);
  return readFileSync(pathOf(file), "utf8")
    .split("\n")
    .some((line) => pattern.test(line.replaceAll('\\"', '"')));
}

describe("docs/seeds.md", () => {
  it("has every item of every seed, once and in order", () => {
    const expected = Object.entries(ITEMS).flatMap(([seed, kinds]) =>
      Object.entries(kinds).flatMap(([kind, count]) =>
        Array.from({ length: count }, (_, i) => `${seed}-${kind}${i + 1}`),
      ),
    );
    assert.deepEqual(
      rows.map(({ item }) => item),
      expected,
    );
  });

  it("says where each item is done, and names a test or says plainly that there is none", () => {
    const silent = rows.filter(
      ({ done, shown }) => shown.length === 0 && !/Not yet|Not done|Nothing to run/.test(done),
    );
    assert.deepEqual(
      silent.map(({ item }) => item),
      [],
    );
  });

  it("names files that there are", () => {
    const named = [...page.matchAll(/`([\w./-]+\/[\w.-]+\.(?:ts|yaml|md))`/g)].map(([, file = ""]) => file);
    assert.deepEqual(
      [...new Set(named)].filter((file) => !existsSync(pathOf(file))),
      [],
    );
  });

  it("names tests that there are", () => {
    const missing = rows.flatMap(({ item, shown }) =>
      shown
        .filter(({ file, name }) => name !== undefined && !isNamed(file, name))
        .map(({ file, name }) => `${item}: ${file}: ${name}`),
    );
    assert.deepEqual(missing, []);
  });

  it("names the scenarios that show an item, and no others", () => {
    const byDocument = rows.flatMap(({ item, shown }) =>
      shown.filter(({ name }) => name === undefined).map(({ file }) => `${item} ${file}`),
    );
    const byScenario = scenarioNames().flatMap((name) =>
      readScenario(name).steps.flatMap(({ proves }) =>
        proves.map((item) => `${item} scenarios/${name}.yaml`),
      ),
    );
    assert.deepEqual(byDocument.sort(), [...new Set(byScenario)].sort());
  });

  it("has every item that a test's name mentions", () => {
    const known = new Set(rows.map(({ item }) => item));
    const folders = ["kit", "tests", ...services.map((service) => `services/${service}/src`)];
    const mentioned = folders.flatMap((folder) =>
      readdirSync(join(root, folder))
        .filter((file) => file.endsWith(".test.ts"))
        .flatMap((file) => readFileSync(join(root, folder, file), "utf8").match(/\bS[0-4]-[A-Z]\d+/g) ?? []),
    );
    assert.ok(mentioned.length > 0);
    assert.deepEqual(
      mentioned.filter((item) => !known.has(item)),
      [],
    );
  });

  it("translates into each event that there is", () => {
    const [, table = ""] = page.split(/^## Events$/m);
    const ours = table
      .split("\n## ")[0]
      ?.split("\n")
      .flatMap((line) => cellsOf(line).slice(0, 1))
      .filter((cell) => /^[A-Z]\w+$/.test(cell));
    assert.deepEqual(ours?.sort(), Object.keys(catalogue).sort());
  });
});
