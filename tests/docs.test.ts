/** Keeps the documents true: what can be derived from the code is compared with it. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { catalogue } from "#kit/events.js";
import { parseShop } from "#kit/shop.js";

/** The repository's root, seen from dist/tests/. */
const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (...path: string[]) => readFileSync(join(root, ...path), "utf8");
const services = readdirSync(join(root, "services")).sort();
const notOurs = new Set(["node_modules", "dist", "data", ".git"]);

/** All files below a folder whose name ends so, without what is installed, built or stored there. */
function files(suffix: string, folder = root): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (notOurs.has(entry.name)) return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return files(suffix, path);
    return entry.name.endsWith(suffix) ? [path] : [];
  });
}

/** The body rows of all tables whose first heading is this one. */
function tableRows(text: string, heading: string): string[][] {
  const rows: string[][] = [];
  let inside = false;
  for (const line of text.split("\n")) {
    const cells = line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (cells.length === 0) inside = false;
    else if (cells[0] === heading) inside = true;
    else if (inside && !/^-+$/.test(cells[0] ?? "")) rows.push(cells);
  }
  return rows;
}

const sorted = (words: Iterable<string>) => [...words].sort();
/** The words that stand in backticks. */
const quoted = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, word]) => word ?? "");

describe("the event table in docs/architecture.md", () => {
  const text = read("docs", "architecture.md");
  const rows = tableRows(text, "event");

  test("lists the catalogue's events", () => {
    assert.deepEqual(sorted(rows.map(([event]) => event ?? "")), sorted(Object.keys(catalogue)));
  });

  /** What a service's events.ts subscribes to by name, in whatever shop. */
  const heardBy = (service: string) =>
    new Set(
      [...read("services", service, "src", "events.ts").matchAll(/\bon\("(\w+)"/g)].map(([, event]) => event),
    );

  test("names the consumers that subscribe", () => {
    const consumers = services.filter((service) => service !== "gateway");
    for (const [event = "", , , , named = ""] of rows)
      assert.deepEqual(
        sorted(named === "–" ? [] : named.split(", ")),
        consumers.filter((service) => heardBy(service).has(event)),
        event,
      );
  });

  test("leaves out notification, which listens to what its shop names", () => {
    assert.deepEqual(heardBy("notification"), new Set());
  });

  test("names a producer that decides it", () => {
    for (const [event, producer = ""] of rows)
      assert.match(read("services", producer, "src", "domain.ts"), new RegExp(`"${event}"`), event);
  });

  test("names the fields of its data", () => {
    // "`order…` stands for `orderId` … ;": what such a word is short for.
    const short = new Map<string, string[]>();
    for (const [, word = "", meaning = ""] of text.matchAll(/`(\w+…)` (?:stands )?for ([^;.]+)[;.]/g))
      short.set(word, quoted(meaning));
    for (const [event = "", , , data = ""] of rows) {
      const fields = quoted(data).flatMap((word) => short.get(word) ?? [word]);
      const shape = Object.keys(catalogue[event as keyof typeof catalogue].shape);
      assert.deepEqual(
        sorted(new Set(fields)),
        sorted(shape.filter((field) => field !== "eventType" && field !== "timestamp")),
        event,
      );
    }
  });
});

test("docs/architecture.md lists the services with their state components and records", () => {
  const rows = tableRows(read("docs", "architecture.md"), "app-id");
  assert.deepEqual(sorted(rows.map(([app = ""]) => app)), services);
  for (const [app = "", store = "", records = ""] of rows) {
    const [, component] = /\bstore: "(\w+)"/.exec(read("services", app, "src", "main.ts")) ?? [];
    assert.equal(store, component === undefined ? "none" : `\`${component}\``, app);
    if (component === undefined) continue;
    const aggregates = read("services", app, "src", "domain.ts").matchAll(
      /: Aggregate<[^;]*?\bname: "(\w+)"/gs,
    );
    const names = [...aggregates].map(([, name = ""]) => name);
    assert.ok(names.length > 0, app);
    for (const name of names) assert.ok(quoted(records).includes(name), `${app}: ${name}`);
  }
});

test("docs/architecture.md lists the collections that the gateway opens", () => {
  const rows = tableRows(read("docs", "architecture.md"), "collection");
  const opened = read("services", "gateway", "src", "http.ts").matchAll(/^ {2}(\w+): \{ app: "(\w+)"/gm);
  assert.deepEqual(
    sorted(rows.map(([name = "", app]) => `${quoted(name)} ${app}`)),
    sorted([...opened].map(([, name, app]) => `/${name} ${app}`)),
  );
});

test("docs/shops.md lists the rules that a shop file may have", () => {
  const rulesOf = (of: object, above = ""): string[] =>
    Object.entries(of).flatMap(([rule, value]) =>
      typeof value === "object" && !Array.isArray(value)
        ? rulesOf(value, `${above}${rule}.`)
        : [above + rule],
    );
  const channels = "channels: { any: { form: text } }";
  const shop = parseShop(`name: x\ntitle: { en: x, ko: x }\n${channels}\ncatalogue: []`, "x.yaml");
  assert.deepEqual(
    sorted(tableRows(read("docs", "shops.md"), "rule").flatMap(([rule = ""]) => quoted(rule))),
    sorted(rulesOf(shop).map((rule) => rule.replace("channels.any", "channels.<name>"))),
  );
});

test("docs/problems.md lists the problems that the code has, with their status", () => {
  const code = [...files(".ts", join(root, "kit")), ...files(".ts", join(root, "services"))]
    .filter((path) => !path.endsWith(".test.ts"))
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  const found = new Set<string>();
  for (const [, status, name] of code.matchAll(/\bnew Problem\(\s*(\d+),\s*"([a-z-]+)"/g))
    found.add(`${name} ${status}`);
  for (const [, name] of code.matchAll(/\bconflict\(\s*"([a-z-]+)"/g)) found.add(`${name} 409`);
  for (const [, name] of code.matchAll(/\btryLater\(\s*"([a-z-]+)"/g)) found.add(`${name} 503`);
  const listed = tableRows(read("docs", "problems.md"), "code").map(([name = "", status]) =>
    [...quoted(name), status].join(" "),
  );
  assert.deepEqual(sorted(listed), sorted(found));
});

test("every relative link of a document leads somewhere", () => {
  /** A heading's anchor, as GitHub makes it. */
  const anchor = (heading: string) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");
  const broken: string[] = [];
  for (const path of files(".md")) {
    const text = readFileSync(path, "utf8").replace(/^```[\s\S]*?^```/gm, "");
    for (const [, link = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [file = "", fragment] = link.split("#");
      const target = file === "" ? path : join(dirname(path), file);
      const headings = () =>
        [...readFileSync(target, "utf8").matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => anchor(heading));
      if (!existsSync(target) || (fragment !== undefined && !headings().includes(fragment)))
        broken.push(`${relative(root, path)}: ${link}`);
    }
  }
  assert.deepEqual(broken, []);
});

test("README.ko.md shows the same code as README.md", () => {
  /** Comments are in the language of the text. */
  const blocks = (text: string) =>
    [...text.matchAll(/^```[\s\S]*?^```/gm)].map(([block]) => block.replace(/ +# .*$/gm, ""));
  assert.deepEqual(blocks(read("README.ko.md")), blocks(read("README.md")));
});

test("README.md shows the options of npm start", () => {
  const [, usage = ""] = /`Usage: ([^`]+)`/.exec(read("dapr", "start.ts")) ?? [];
  assert.ok(usage !== "" && read("README.md").includes(usage), usage);
});

test("docs/operations.md and README.md list the ports of the topology", () => {
  type App = Record<
    "appPort" | "daprHTTPPort" | "daprGRPCPort" | "daprInternalGRPCPort" | "metricsPort",
    number
  >;
  const { apps } = parse(read("dapr", "dapr.yaml")) as { apps: (App & { appID: string })[] };
  const rows = tableRows(read("docs", "operations.md"), "").filter(([name]) => services.includes(name ?? ""));
  assert.deepEqual(
    sorted(rows.map((cells) => cells.join(" "))),
    sorted(
      apps.map((app) =>
        [
          app.appID,
          app.appPort,
          app.daprHTTPPort,
          app.daprGRPCPort,
          app.daprInternalGRPCPort,
          app.metricsPort,
        ].join(" "),
      ),
    ),
  );
  for (const file of ["README.md", "README.ko.md"])
    for (const { appID, appPort } of apps)
      assert.match(read(file), new RegExp(`\\[${appID}\\].* ${appPort} `), file);
});

test("kit/README.md lists the files of the kit", () => {
  const named = tableRows(read("kit", "README.md"), "file").flatMap(([file = ""]) => quoted(file));
  const there = readdirSync(join(root, "kit")).filter((name) => /(?<!\.test)\.ts$/.test(name));
  assert.deepEqual(sorted(named), sorted(there));
});

test("each service has a README, which names its events and its state component", () => {
  for (const service of services) {
    const readme = read("services", service, "README.md");
    for (const source of ["events.ts", "main.ts"]) {
      if (!existsSync(join(root, "services", service, "src", source))) continue;
      const code = read("services", service, "src", source);
      for (const [, event = ""] of code.matchAll(/\bon\("(\w+)"/g)) assert.match(readme, new RegExp(event));
      for (const [, store = ""] of code.matchAll(/\bstore: "(\w+)"/g))
        assert.ok(readme.includes(`State component: \`${store}\``), service);
    }
  }
});
