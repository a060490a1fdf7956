/** dapr/access.yaml against the code: every call between services is in it, and nothing else. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { accessControl, readAccess } from "#dapr/access.js";
import { root } from "#dapr/runner.js";
import { readDialects } from "#kit/dialects.js";
import { APPS, openings } from "../services/gateway/src/http.js";

const access = readAccess(join(root, "dapr/access.yaml"));
const services = readdirSync(join(root, "services")).sort();

/** One line per permission: `order DELETE /orders/* of payment`. */
const permissions = (of: (caller: string) => boolean) =>
  Object.entries(access)
    .flatMap(([callee, callers]) =>
      Object.entries(callers)
        .filter(([caller]) => of(caller))
        .flatMap(([caller, operations]) =>
          operations.flatMap(({ path, verbs }) =>
            verbs.map((verb) => `${callee} ${verb} ${path} of ${caller}`),
          ),
        ),
    )
    .sort();

/** `/orders/${id}?x=${y}` → `/orders/*` */
const pattern = (template: string) => template.replace(/\?.*$/, "").replace(/\$\{[^}]*\}/g, "*");

/** What the code of a service asks of others. Each way in which a call is written is known here; see the test of that. */
function calls(service: string, source: string): string[] {
  const found = [
    // this.sidecar.invoke("order", { method: "DELETE", path: `/orders/${id}` …
    ...source.matchAll(/\.invoke\(\s*"(\w+)",\s*\{\s*method: "(\w+)",\s*path: [`"]([^`"]+)[`"]/g),
    // order: this.call("inventory", "PUT", `/reservations/${id}` …
    ...source.matchAll(/this\.call\(\s*"(\w+)", "(\w+)", [`"]([^`"]+)[`"]/g),
  ].map(([, app, verb, path = ""]) => `${app} ${verb} ${pattern(path)} of ${service}`);
  // orderview: get("order", …), which asks all of them the same.
  const [, verb, path = ""] =
    /\.invoke\(app, \{ method: "(\w+)", path: [`"]([^`"]+)[`"] \}/.exec(source) ?? [];
  const asked = verb === undefined ? [] : [...source.matchAll(/\bget\("(\w+)", /g)];
  return [...found, ...asked.map(([, app]) => `${app} ${verb} ${pattern(path)} of ${service}`)];
}

describe("the table of who may call whom", () => {
  const sources = services
    .filter((service) => service !== "gateway")
    .flatMap((service) =>
      readdirSync(join(root, "services", service, "src"))
        .filter((file) => !file.endsWith(".test.ts"))
        .map((file) => ({
          ...{ service, file },
          text: readFileSync(join(root, "services", service, "src", file), "utf8"),
        })),
    );

  it("names every service as callee, and nobody else", () => {
    assert.deepEqual(Object.keys(access).sort(), services);
    for (const callers of Object.values(access))
      for (const caller of Object.keys(callers)) assert.ok(services.includes(caller), caller);
    assert.deepEqual(access.gateway, {});
  });

  it("permits what the services' code asks of each other, and no more", () => {
    const asked = sources.flatMap(({ service, text }) => calls(service, text)).sort();
    assert.ok(asked.length >= 11, `${asked.length} calls`);
    assert.deepEqual(
      permissions((caller) => caller !== "gateway"),
      [...new Set(asked)],
    );
  });

  it("is compared with calls that are written in ways which this test knows", () => {
    const written = sources.flatMap(({ service, file, text }) =>
      [...text.matchAll(/\.invoke\(\s*([^\s,]+)/g)].map(([, app]) => `${service}/${file} ${app}`),
    );
    assert.deepEqual(written.sort(), [
      'delivery/app.ts "order"',
      "order/app.ts app",
      "orderview/app.ts app",
      'payment/app.ts "order"',
      'store/app.ts "order"',
    ]);
    const through = sources.find(({ service, file }) => service === "order" && file === "app.ts");
    assert.equal(through?.text.match(/this\.call\(/g)?.length, calls("order", through?.text ?? "").length);
  });

  it("permits the gateway what it opens, and no more", () => {
    const open = openings(readDialects(join(root, "shops/dialects.yaml"), "fashion"));
    const collections = [...open].flatMap(([name, { app, methods = ["*"] }]) =>
      methods.flatMap((verb) => [
        `${app} ${verb} /${name}/** of gateway`,
        `${app} ${verb} /profile/* of gateway`,
      ]),
    );
    const letters = APPS.flatMap((app) =>
      ["GET", "PUT", "POST", "DELETE"].map((verb) => `${app} ${verb} /deadLetters/** of gateway`),
    );
    const expected = [...collections, ...letters];
    assert.deepEqual(
      permissions((caller) => caller === "gateway"),
      [...new Set(expected)].sort(),
    );
    const inside = /records|reservations|closings|actuator|drill|events|rebuilds|POST \/payments/;
    for (const one of expected) assert.doesNotMatch(one, inside);
  });

  it("becomes what Dapr understands: refused unless permitted", () => {
    assert.deepEqual((accessControl(access, "gateway") as { spec: unknown }).spec, {
      accessControl: { defaultAction: "deny", trustDomain: "public", policies: [] },
    });
    const { spec } = accessControl(access, "inventory") as {
      spec: { accessControl: { policies: { appId: string }[] } };
    };
    assert.deepEqual(
      spec.accessControl.policies.find(({ appId }) => appId === "order"),
      {
        ...{ appId: "order", trustDomain: "public", namespace: "default", defaultAction: "deny" },
        operations: [
          { name: "/reservations/*", httpVerb: ["PUT"], action: "allow" },
          { name: "/products/*", httpVerb: ["GET"], action: "allow" },
        ],
      },
    );
  });

  it("is refused with a reason where it can't be understood", () => {
    const directory = mkdtempSync(join(tmpdir(), "jangteo-access-"));
    const file = join(directory, "access.yaml");
    writeFileSync(file, "order:\n  payment:\n    - { path: orders, verbs: [FETCH] }\n");
    assert.throws(() => readAccess(file), /access\.yaml: .*path.*verbs/s);
    rmSync(directory, { recursive: true });
  });
});
