/** The rules of docs/architecture.md that code can break without anything else noticing. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { readDialects } from "#kit/dialects.js";
import { catalogue, type Subscription } from "#kit/events.js";
import { readShop, type Shop } from "#kit/shop.js";

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

const shops = list("shops")
  .filter((name) => name !== "dialects.yaml")
  .map((name) => readShop(join(root, "shops", name)));

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
      "loyalty",
      "notification",
      "order",
      "orderview",
      "payment",
      "store",
    ]);
    assert.ok(production.length > 60 && production.includes("kit/dapr.ts"), `${production.length} files`);
    const known = imports("services/inventory/src/app.ts");
    assert.ok(known.some(({ from, typeOnly }) => from === "./domain.js" && !typeOnly));
    assert.ok(known.some(({ from, typeOnly }) => from === "#kit/shop.js" && typeOnly));
  });

  it("speaks to Dapr in one place", () => {
    assert.deepEqual(importers(/^@dapr\//), ["kit/dapr.ts"]);
    assert.deepEqual(importers(/^(node:)?undici$/), [
      ...["kit/dapr.ts", "services/gateway/src/http.ts", "services/gateway/src/letters.ts"],
    ]);
    const codeOf = (path: string) => read(path).replace(/^import type .*$/gm, "");
    const callers = production.filter((path) => /(?<!["'\w./-])fetch\(|node:https?["']/.test(codeOf(path)));
    assert.deepEqual(callers, ["kit/limits.ts"], "nobody calls anyone else directly; one listens");
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

  it("names no shop, no dialect and no dialect's path: that is YAML's business too", () => {
    const shops = list("shops").map((file) => basename(file, ".yaml"));
    const dialects = readDialects(join(root, "shops", "dialects.yaml"), "fashion");
    const looks = dialects.looks().map(([path]) => path);
    assert.ok(shops.length > 5 && looks.length > 5);
    const name = new RegExp(`["'\`/](${[...shops, ...looks].join("|")})(["'\`/]|\\.yaml)`);
    // A start without settings needs some shop, and a shop without a dialect some words.
    const defaults = new Map([
      ["kit/config.ts", ['"shops/fashion.yaml"', '"shops/dialects.yaml"']],
      ["kit/shop.ts", ['dialect: z.string().default("fashion")']],
    ]);
    const rest = (path: string) =>
      (defaults.get(path) ?? []).reduce((text, known) => {
        assert.equal(text.split(known).length, 2, `${path} has ${known}, once`);
        return text.replace(known, "");
      }, withoutComments(path));
    const naming = production.flatMap((path) => {
      const [found] = name.exec(rest(path)) ?? [];
      return found === undefined ? [] : [`${path}: ${found}`];
    });
    assert.deepEqual(naming, []);
  });

  it("follows a shop's rules, and never asks which shop it is", () => {
    // kit/service.ts logs the one and looks the other up.
    const asks = /\b(shop|Shop>?\(\w*\))\.(name|dialect)\b|\bdialect\s*[!=]==|[!=]==\s*[\w.]*\bdialect\b/;
    const asking = production.filter((path) => path !== "kit/service.ts" && asks.test(withoutComments(path)));
    assert.deepEqual(asking, []);
    assert.doesNotMatch(withoutComments("kit/service.ts"), /shop\.(name|dialect)\s*[!=?]|switch \(shop/);
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

/** Files of one service only: its ports to the outside, and what has nothing to do with the rest. */
const MORE: Record<string, readonly string[]> = {
  gateway: ["letters.ts"], // what no service could handle, as one list
  notification: ["channel.ts"], // one place per channel for what waits to be sent
  payment: ["pg.ts"], // the gateway that takes the money
};

for (const service of services)
  describe(`services/${service}`, () => {
    const files = ofService(service);
    const isGateway = service === "gateway";

    it("has the files that every service has, and none below them", () => {
      const has = list(`services/${service}/src`);
      const wanted = isGateway
        ? ["http.ts", "main.ts", "service.test.ts"]
        : ["app.ts", "domain.test.ts", "domain.ts", "events.ts", "http.ts", "main.ts", "service.test.ts"];
      const more = MORE[service] ?? [];
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

  for (const service of services.filter((name) => name !== "gateway"))
    it(`holds all that ${service} listens to, and it listens to nothing twice, whatever the shop`, async () => {
      const { subscriptions } = (await import(`../services/${service}/src/events.js`)) as {
        subscriptions(app: object, shop: Shop): Subscription[];
      };
      const ofShops = shops.map((shop) => subscriptions({}, shop).map(({ topic }) => topic));
      assert.ok(
        ofShops.some((topics) => topics.length > 0),
        "some shop has something for it to do",
      );
      for (const topics of ofShops) {
        assert.deepEqual(topics, [...new Set(topics)]);
        for (const topic of topics) assert.ok(Object.hasOwn(catalogue, topic), topic);
      }
      if (service !== "notification") return;
      for (const [i, { notifications }] of shops.entries())
        assert.deepEqual(new Set(ofShops[i]), new Set(notifications.map(({ on }) => on)));
    });
});

describe("each components/ folder", () => {
  const names = (folder: string) =>
    list(`components/${folder}`).map((file) => {
      const [, name] = /^metadata:\n {2}name: (\S+)$/m.exec(read(`components/${folder}/${file}`)) ?? [];
      assert.equal(basename(file, ".yaml"), name, "a file is called what it is");
      return name;
    });

  const stores = services.flatMap((service) => {
    const [, store] = /\bstore: "(\w+)"/.exec(read(`services/${service}/src/main.ts`)) ?? [];
    return store === undefined ? [] : [store];
  });
  const channels = shops.flatMap(({ notifications }) => notifications.map(({ channel }) => channel));
  const gateways = shops.map(({ payment }) => payment.gateway).filter((name) => name !== "demo");
  const whole = [...new Set(["events", "secrets", ...stores, ...channels, ...gateways])].sort();

  for (const folder of list("components"))
    it(`${folder} has all the components that the services and the shops name, or all of the stores, or the bus`, () => {
      const wholes = [whole, stores.sort(), ["events"]];
      assert.ok(
        wholes.some((one) => isDeepStrictEqual(one, names(folder))),
        `${folder}: ${names(folder)}`,
      );
    });

  it("embedded and polyglot are whole", () => {
    for (const folder of ["embedded", "polyglot"]) assert.deepEqual(names(folder), whole);
  });
});
