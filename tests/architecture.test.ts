/** The rules of docs/architecture.md that code can break without anything else noticing. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { catalogue } from "#kit/events.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const list = (path: string) => readdirSync(join(root, path)).sort();
const services = list("services");
const isTest = (path: string) => path.endsWith(".test.ts");

const kit = list("kit")
  .filter((name) => name.endsWith(".ts"))
  .map((name) => `kit/${name}`);
const ofService = (service: string) =>
  list(`services/${service}/src`).map((name) => `services/${service}/src/${name}`);
const code = [...kit, ...services.flatMap(ofService)];
/** kit/testing.ts helps tests and runs nowhere else. */
const production = code.filter((path) => !isTest(path) && path !== "kit/testing.ts");

/** What a file imports; `typeOnly` where nothing of it is left at run time. */
function imports(path: string): { from: string; typeOnly: boolean }[] {
  const statement = /^(?:import|export)\s+(type\s)?(?:([^;"']*?)\sfrom\s)?["']([^"']+)["']/gm;
  const dynamic = /\bimport\(\s*["']([^"']+)["']/g;
  const text = read(path);
  return [
    ...[...text.matchAll(statement)].map(([, type, names, from]) => ({
      from: from ?? "",
      typeOnly:
        type !== undefined || (names !== undefined && /^\{(\s*type\s[^,}]+,?)+\s*\}$/.test(names.trim())),
    })),
    ...[...text.matchAll(dynamic)].map(([, from]) => ({ from: from ?? "", typeOnly: false })),
  ];
}

const importers = (of: RegExp) =>
  production.filter((path) => imports(path).some(({ from }) => of.test(from)));

/** The text of a file without comments and strings: what it does, not what it says. */
function statements(path: string): string {
  return read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/(["'`])(?:\\.|(?!\1).)*\1/gs, '""')
    .replace(/\/\/.*$/gm, "");
}

/** {@link statements} with the strings left in. */
const withoutComments = (path: string) =>
  read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$|\s\/\/ .*$/gm, "");

describe("the code", () => {
  it("is what this test thinks it is", () => {
    assert.deepEqual(services, [
      "delivery",
      "gateway",
      "inventory",
      "order",
      "orderview",
      "payment",
      "store",
    ]);
    assert.ok(production.length > 45 && production.includes("kit/dapr.ts"), `${production.length} files`);
    const known = imports("services/inventory/src/app.ts");
    assert.ok(known.some(({ from, typeOnly }) => from === "./domain.js" && !typeOnly));
    assert.ok(known.some(({ from, typeOnly }) => from === "#kit/shop.js" && typeOnly));
  });

  it("speaks to Dapr in one place", () => {
    assert.deepEqual(importers(/^@dapr\//), ["kit/dapr.ts"]);
    assert.deepEqual(importers(/^(node:)?undici$/), [
      ...["kit/dapr.ts", "services/gateway/src/http.ts", "services/gateway/src/main.ts"],
    ]);
    const callers = production.filter((path) => /(?<!["'\w./-])fetch\(|node:https?["']/.test(read(path)));
    assert.deepEqual(
      callers.filter((path) => !["kit/service.ts", "services/gateway/src/http.ts"].includes(path)),
      [],
      "nobody calls anyone else directly",
    );
  });

  it("names no backend: that is YAML's business", () => {
    for (const path of production)
      assert.doesNotMatch(
        withoutComments(path),
        /sqlite|redis|mysql|mariadb|mongo|postgres|rabbitmq|kafka/i,
        path,
      );
    assert.deepEqual(importers(/redis|mysql|mongo|sqlite|^pg$/), []);
  });

  it("uses what helps tests only in tests", () => {
    assert.deepEqual(importers(/testing\.js$|light-my-request|node:test|node:assert/), []);
  });

  it("has a kit without a second layer, which knows no service", () => {
    const folders = list("kit").filter((name) => statSync(join(root, "kit", name)).isDirectory());
    assert.deepEqual(folders, []);
    assert.deepEqual(
      kit.filter((path) => imports(path).some(({ from }) => !from.startsWith("#kit/") && /^[.#]/.test(from))),
      [],
    );
  });
});

for (const service of services)
  describe(`services/${service}`, () => {
    const files = ofService(service);
    const isGateway = service === "gateway";

    it("has the files that every service has, and none below them", () => {
      const has = list(`services/${service}/src`);
      const wanted = isGateway
        ? ["http.ts", "main.ts", "service.test.ts"]
        : ["app.ts", "domain.test.ts", "domain.ts", "events.ts", "http.ts", "main.ts", "service.test.ts"];
      // The one more: payment's port to the gateway that takes the money.
      const more = service === "payment" ? ["pg.ts"] : [];
      assert.deepEqual(has, [...wanted, ...more].sort());
      assert.deepEqual(list(`services/${service}`), ["README.md", "src"]);
      for (const path of files) assert.ok(statSync(join(root, path)).isFile(), path);
    });

    it("imports itself and the kit, and no other service", () => {
      for (const path of files.filter((path) => !isTest(path)))
        for (const { from } of imports(path)) {
          const ownFile = from.startsWith("./") && !from.slice(2).includes("/");
          const local = from.startsWith(".") || from.startsWith("#");
          assert.ok(ownFile || from.startsWith("#kit/") || !local, `${path} imports ${from}`);
        }
    });

    it("lets its tests alone reach into other services, and only for what these are made of", () => {
      for (const path of files.filter(isTest))
        for (const { from } of imports(path)) {
          if (!from.startsWith("..")) continue;
          const target = normalize(join(dirname(path), from));
          assert.match(target, /^services\/\w+\/src\/main\.js$/, `${path} imports ${from}`);
        }
    });

    if (isGateway) return;

    it("has a domain that is pure: no clock, no chance, no waiting, no outside", () => {
      const path = `services/${service}/src/domain.ts`;
      for (const { from, typeOnly } of imports(path))
        assert.ok(
          typeOnly || ["#kit/events.js", "#kit/problem.js"].includes(from),
          `${path} imports ${from}, which is more than a type`,
        );
      const impure =
        /\bDate\b|Math\.random|\bcrypto\b|\bprocess\b|\bawait\b|\basync\b|\bPromise\b|\bset(Timeout|Interval|Immediate)\b|\bperformance\b|\bconsole\b|\bglobalThis\b|\bfetch\b|\blet\b|\bvar\b/;
      assert.doesNotMatch(statements(path), impure, path);
    });

    it("keeps each file to its own business", () => {
      const from = (file: string) => imports(`services/${service}/src/${file}`).map((one) => one.from);
      assert.ok(
        !from("app.ts").some((one) => /http\.js$|events\.js$/.test(one) && one.startsWith("./")),
        "app.ts",
      );
      assert.ok(!from("domain.ts").some((one) => one.startsWith("./")), "domain.ts");
      assert.ok(!from("events.ts").some((one) => one === "./http.js" || one === "./domain.js"), "events.ts");
      assert.ok(!from("http.ts").some((one) => one === "./events.js"), "http.ts");
    });
  });

describe("the catalogue of events", () => {
  /** The services in whose domain an event is made: `type: "OrderPlaced"` with its data, not a case label. */
  const makers = (event: string) =>
    services.filter((service) => {
      if (service === "gateway") return false;
      const text = withoutComments(`services/${service}/src/domain.ts`);
      return new RegExp(`(type: |happened\\()"${event}"`).test(
        text.replace(/\| \{ type: "[^"]+"; data[^}]*\}/g, ""),
      );
    });

  for (const event of Object.keys(catalogue))
    it(`has a maker of ${event}, and one only`, () => {
      assert.equal(makers(event).length, 1, `made by ${makers(event).join(" and ") || "nobody"}`);
    });

  it("holds all that anyone listens to", () => {
    for (const service of services.filter((name) => name !== "gateway")) {
      const topics = [...read(`services/${service}/src/events.ts`).matchAll(/\bon\("(\w+)"/g)].map(
        ([, topic]) => topic,
      );
      assert.ok(topics.length > 0, service);
      assert.equal(new Set(topics).size, topics.length, `${service} listens to something twice`);
      for (const topic of topics)
        assert.ok(Object.hasOwn(catalogue, topic ?? ""), `${service} listens to ${topic}`);
    }
  });
});

describe("each components/ folder", () => {
  const names = (folder: string) =>
    list(`components/${folder}`).map((file) => {
      const [, name] = /^metadata:\n {2}name: (\S+)$/m.exec(read(`components/${folder}/${file}`)) ?? [];
      assert.equal(basename(file, ".yaml"), name, "a file is called what it is");
      return name;
    });

  for (const folder of list("components"))
    it(`${folder} has the components that the services name`, () => {
      const stores = services.flatMap((service) => {
        const [, store] = /\bstore: "(\w+)"/.exec(read(`services/${service}/src/main.ts`)) ?? [];
        return store === undefined ? [] : [store];
      });
      assert.deepEqual(names(folder), ["events", ...stores].sort());
    });
});
