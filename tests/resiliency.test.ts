/** What sidecars do when something fails is said for everything that may fail (dapr/resiliency*.yaml). */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { asComponent, readTopology } from "#dapr/topology.js";

/** The repository's root, seen from dist/tests/. */
const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (...path: string[]) => readFileSync(join(root, ...path), "utf8");
const apps = readTopology(join(root, "dapr", "dapr.yaml")).apps.map(({ appID }) => appID);

const policy = z.object({
  timeout: z.string().optional(),
  retry: z.string().optional(),
  circuitBreaker: z.string().optional(),
});
const directions = z.object({ inbound: policy.optional(), outbound: policy.optional() });
const KINDS = { timeout: "timeouts", retry: "retries", circuitBreaker: "circuitBreakers" } as const;
const named = z.record(z.string(), z.unknown()).default({});
const schema = z.object({
  kind: z.literal("Resiliency"),
  spec: z.object({
    policies: z.object({ timeouts: named, retries: named, circuitBreakers: named }),
    targets: z.object({
      apps: z.record(z.string(), policy).default({}),
      components: z.record(z.string(), directions).default({}),
    }),
  }),
  scopes: z.array(z.string()).default([]),
});

/** In the order in which a sidecar reads them. */
const files = readdirSync(join(root, "dapr"))
  .filter((file) => /^resiliency.*\.yaml$/.test(file))
  .sort()
  .map((file) => schema.parse(parse(read("dapr", file))));
const filesOf = (app: string) => files.filter(({ scopes }) => scopes.length === 0 || scopes.includes(app));

const components = readdirSync(join(root, "components")).flatMap((folder) =>
  readdirSync(join(root, "components", folder)).flatMap((file) =>
    parseAllDocuments(read("components", folder, file)).flatMap((document) => {
      const component = asComponent(document.toJS());
      return component === undefined ? [] : [{ where: `${folder}/${file}`, ...component }];
    }),
  ),
);

const twice = (names: string[]) => names.filter((name, i) => names.indexOf(name) !== i);

for (const app of apps)
  describe(`the sidecar of ${app}`, () => {
    const specs = filesOf(app).map(({ spec }) => spec);

    it("knows what to do when a service does not answer, for each of them", () => {
      const targets = specs.flatMap(({ targets }) => Object.keys(targets.apps));
      assert.deepEqual(targets.sort(), apps.toSorted());
      for (const { targets } of specs)
        for (const [name, { timeout }] of Object.entries(targets.apps))
          assert.ok(timeout, `${name}: for ever is too long`);
    });

    it("knows what to do when a component fails, for each that it may use, on any backend", () => {
      const targets = new Map(specs.flatMap(({ targets }) => Object.entries(targets.components)));
      const used = components.filter(({ scopes }) => scopes.length === 0 || scopes.includes(app));
      assert.ok(used.length > 0);
      const without = used.filter(({ name }) => targets.get(name)?.outbound?.timeout === undefined);
      assert.deepEqual(
        without.map(({ where }) => where),
        [],
      );
      // Redis Streams drops a message whose retries are used up.
      const retries = new Map(specs.flatMap(({ policies }) => Object.entries(policies.retries)));
      const deliver = retries.get(targets.get("events")?.inbound?.retry ?? "none");
      assert.ok(typeof deliver === "object" && deliver !== null && !("maxRetries" in deliver));
    });

    it("finds each policy that a target names, once", () => {
      for (const [use, kind] of Object.entries(KINDS) as [keyof typeof KINDS, keyof Named][]) {
        const known = specs.flatMap(({ policies }) => Object.keys(policies[kind]));
        assert.deepEqual(twice(known), [], `${kind}: the later one would count, in both files`);
        const wanted = specs.flatMap(({ targets }) => [
          ...Object.values(targets.apps).map((one) => one[use]),
          ...Object.values(targets.components).flatMap((one) => [one.inbound?.[use], one.outbound?.[use]]),
        ]);
        assert.deepEqual(
          wanted.filter((name) => name !== undefined && !known.includes(name)),
          [],
        );
      }
    });
  });

type Named = z.infer<typeof schema>["spec"]["policies"];
