/**
 * The chart, rendered with every values file: it says what the repository's own files say, and nothing in it asks for more than it
 * needs. No cluster takes part; `npm run test:kubernetes` has one.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parse } from "yaml";
import { accessControl, readAccess } from "#dapr/access.js";
import { root } from "#dapr/runner.js";
import { readTopology } from "#dapr/topology.js";
import { chart, helm, type Manifest, podOf, render, VALUES } from "./chart.js";

const temporary = mkdtempSync(join(tmpdir(), "jangteo-chart-"));
after(() => rmSync(temporary, { recursive: true, force: true }));
const read = (path: string) => readFileSync(join(root, path), "utf8");

const rendered = new Map<string, Manifest[]>();
before(async () => {
  for (const [name, files] of Object.entries(VALUES)) rendered.set(name, await render(files));
});
const of = (name: string) => rendered.get(name) ?? [];
const small = () => of("small");
const kind = (manifests: Manifest[], ...kinds: string[]) =>
  manifests.filter((manifest) => kinds.includes(manifest.kind));
const find = (manifests: Manifest[], what: string, name: string): Manifest => {
  const found = manifests.find((one) => one.kind === what && one.metadata.name === name);
  assert.ok(found, `${what} ${name}`);
  return found;
};
const everywhere = (look: (manifest: Manifest, where: string) => void) => {
  for (const [name, manifests] of rendered)
    for (const manifest of manifests) look(manifest, `${name}: ${manifest.kind} ${manifest.metadata.name}`);
};

const topology = readTopology(join(root, "dapr", "dapr.yaml"));
const access = readAccess(join(root, "dapr", "access.yaml"));
const apps = topology.apps.map(({ appID }) => appID);

describe("every values file", () => {
  it("passes helm's own check", async () => {
    for (const files of [VALUES.small, VALUES.production])
      await helm(
        "lint",
        chart,
        "--strict",
        "--quiet",
        ...(files ?? []).flatMap((file) => ["--values", file]),
      );
  });

  it("gives each object a name of its own and the labels that tools look for", () => {
    for (const [name, manifests] of rendered) {
      const names = manifests.map((one) => `${one.kind} ${one.metadata.name}`);
      assert.equal(new Set(names).size, names.length, name);
    }
    everywhere(({ metadata }, where) => {
      for (const label of ["app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "helm.sh/chart"])
        assert.ok(metadata.labels?.[label], `${where}: ${label}`);
      assert.equal(metadata.labels?.["app.kubernetes.io/part-of"], "jangteo", where);
    });
  });

  it("asks for no more rights than a pod needs", () => {
    everywhere((manifest, where) => {
      const pod = podOf(manifest);
      if (pod === undefined) return;
      for (const field of ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"])
        assert.equal(pod[field], undefined, `${where}: ${field}`);
      assert.equal(pod.automountServiceAccountToken, false, where);
      assert.equal(pod.securityContext.runAsNonRoot, true, where);
      assert.ok(pod.securityContext.runAsUser > 0, where);
      assert.deepEqual(pod.securityContext.seccompProfile, { type: "RuntimeDefault" }, where);
      for (const volume of pod.volumes ?? []) assert.equal(volume.hostPath, undefined, where);
      for (const container of [...pod.containers, ...(pod.initContainers ?? [])]) {
        assert.deepEqual(
          container.securityContext,
          {
            ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
            capabilities: { drop: ["ALL"] },
          },
          `${where}: ${container.name}`,
        );
        for (const of of ["requests", "limits"])
          for (const what of ["cpu", "memory"])
            assert.ok(container.resources?.[of]?.[what], `${where}: ${container.name}: ${of}.${what}`);
        const [, tag] = /:([^:/]+)$/.exec(container.image) ?? [];
        assert.ok(tag && tag !== "latest", `${where}: ${container.image}`);
        assert.equal(/\s/.test(container.image), false, where);
      }
    });
  });

  it("asks each process that goes on whether it lives, and sends nobody to one that is not ready", () => {
    everywhere((manifest, where) => {
      if (!["Deployment", "StatefulSet"].includes(manifest.kind)) return;
      for (const container of podOf(manifest).containers)
        for (const probe of ["startupProbe", "readinessProbe", "livenessProbe"])
          assert.ok(container[probe], `${where}: ${probe}`);
    });
  });

  it("keeps secrets in Secrets", () => {
    for (const [name, manifests] of rendered) {
      const secrets = kind(manifests, "Secret").flatMap(({ stringData }) =>
        Object.values<string>(stringData),
      );
      assert.ok(secrets.length > 0, name);
      const others = JSON.stringify(manifests.filter((one) => one.kind !== "Secret"));
      for (const secret of secrets) {
        assert.ok(secret.length >= 12, `${name}: ${secret}`);
        assert.equal(others.includes(secret), false, `${name}: a secret stands outside of a Secret`);
      }
    }
    assert.match(JSON.stringify(kind(of("edges"), "Secret")), /tell-nobody-1.*tell-nobody-2/);
  });

  it("tells nobody a secret when it is installed", () => {
    assert.doesNotMatch(read("helm/jangteo/templates/NOTES.txt"), /jangteo\.kept|\.values|lookup/);
  });
});

describe("the service table", () => {
  it("becomes a Deployment each, as dapr/dapr.yaml says", () => {
    for (const { appID, appPort, command, ...common } of topology.apps) {
      const { spec } = find(small(), "Deployment", `shop-${appID}`);
      const { annotations } = spec.template.metadata;
      const [container] = spec.template.spec.containers;
      assert.deepEqual(container.args, command, appID);
      assert.deepEqual(container.ports, [{ name: "http", containerPort: appPort }], appID);
      const env = Object.fromEntries(
        container.env.map((one: { name: string; value: string }) => [one.name, one.value]),
      );
      assert.deepEqual([env.APP_ID, env.APP_PORT], [appID, String(appPort)]);
      const said = {
        ...{ "dapr.io/enabled": "true", "dapr.io/app-id": appID, "dapr.io/app-port": String(appPort) },
        "dapr.io/config": `shop-${appID}`,
        "dapr.io/app-health-check-path": common.appHealthCheckPath,
        "dapr.io/app-health-probe-interval": String(common.appHealthProbeInterval),
        "dapr.io/app-health-probe-timeout": String(common.appHealthProbeTimeout),
        "dapr.io/app-health-threshold": String(common.appHealthThreshold),
        "dapr.io/enable-app-health-check": String(common.enableAppHealthCheck),
        "dapr.io/max-body-size": common.maxBodySize,
        "dapr.io/read-buffer-size": common.readBufferSize,
        "dapr.io/log-level": common.logLevel,
        "dapr.io/api-token-secret": `shop-${appID}-sidecar-token`,
        "dapr.io/app-token-secret": `shop-${appID}-app-token`,
        "dapr.io/enable-native-sidecar": "true",
      };
      for (const [name, value] of Object.entries(said))
        assert.equal(annotations[name], value, `${appID}: ${name}`);
    }
    assert.equal(kind(small(), "Deployment").length, apps.length);
  });

  it("leaves a process until nobody is sent to it, and its sidecar longer than that", () => {
    everywhere((manifest, where) => {
      if (manifest.kind !== "Deployment" || manifest.metadata.labels?.app === "ingress") return;
      const { metadata, spec } = manifest.spec.template;
      const preStop = Number(spec.containers[0].lifecycle.preStop.exec.command[1]);
      assert.ok(preStop > 20 + 5, `${where}: sidecars remember addresses for 20 s, DNS for 5`);
      const block = Number.parseInt(metadata.annotations["dapr.io/block-shutdown-duration"], 10);
      const native = metadata.annotations["dapr.io/enable-native-sidecar"] === "true";
      assert.ok(native || block > preStop + 6, where);
      const inAll = preStop + 6 + (native ? block : 0) + 3;
      assert.ok(spec.terminationGracePeriodSeconds > inAll, where);
    });
  });

  it("has the seeds' numbers", () => {
    const [container] = find(small(), "Deployment", "shop-store").spec.template.spec.containers;
    const { httpGet: readiness, ...often } = container.readinessProbe;
    assert.deepEqual(often, {
      ...{ initialDelaySeconds: 10, timeoutSeconds: 2, periodSeconds: 5, failureThreshold: 10 },
    });
    const { httpGet: liveness, ...seldom } = container.livenessProbe;
    assert.deepEqual(seldom, {
      ...{ initialDelaySeconds: 120, timeoutSeconds: 2, periodSeconds: 5, failureThreshold: 5 },
      terminationGracePeriodSeconds: 5,
    });
    assert.deepEqual([readiness.path, liveness.path], ["/readyz", "/healthz"]);
    const targets = kind(of("edges"), "HorizontalPodAutoscaler");
    assert.deepEqual(
      targets.map(({ metadata }) => metadata.labels?.app),
      ["notification", "gateway"],
      "where messages scale, processor time does not",
    );
    const about = parse(read("helm/jangteo/values.yaml")).services;
    assert.deepEqual(
      ["order", "payment", "store", "inventory", "loyalty"].map((app) =>
        ["request", "target", "max"].map((field) => about[app].autoscaling[field]),
      ),
      [
        ["300m", 30, 2],
        ["500m", 50, 2],
        ["200m", 20, 3],
        ["200m", 20, 3],
        ["250m", 15, 5],
      ],
    );
  });

  it("asks for the processor time that its target is a share of", () => {
    for (const scaler of kind(of("production"), "HorizontalPodAutoscaler")) {
      const { scaleTargetRef, metrics, minReplicas, maxReplicas } = scaler.spec;
      const { spec } = find(of("production"), "Deployment", scaleTargetRef.name);
      const [container] = spec.template.spec.containers;
      assert.equal(metrics[0].containerResource.container, container.name);
      assert.equal(spec.replicas, undefined, "an upgrade would undo what was scaled");
      assert.deepEqual([minReplicas, maxReplicas], [3, 10]);
      find(of("production"), "PodDisruptionBudget", scaler.metadata.name);
    }
    const loyalty = find(of("production"), "Deployment", "shop-loyalty").spec.template.spec.containers[0];
    assert.equal(loyalty.resources.requests.cpu, "250m");
  });

  it("scales by streams that the service listens to", () => {
    const { streams } = parse(read("helm/jangteo/values.yaml")).keda as { streams: Record<string, string[]> };
    assert.deepEqual(Object.keys(streams).sort(), apps.filter((app) => app !== "gateway").sort());
    for (const [app, names] of Object.entries(streams)) {
      const heard = [...read(`services/${app}/src/events.ts`).matchAll(/\bon\("(\w+)"/g)].map(
        ([, event]) => event,
      );
      for (const name of names) assert.ok(heard.includes(name), `${app}: ${name}`);
    }
    const { spec } = find(of("edges"), "ScaledObject", "shop-store");
    assert.deepEqual(spec.triggers[0].metadata, {
      ...{ address: "shop-redis:6379", username: "events", stream: "OrderPaid" },
      ...{ consumerGroup: "store", lagCount: "100" },
    });
  });
});

describe("who talks to whom", () => {
  const name = (peer: { podSelector: { matchLabels: Record<string, string> } }) =>
    peer.podSelector.matchLabels["app.kubernetes.io/name"] ?? "";

  it("is what dapr/access.yaml says, in the sidecars' lists", () => {
    for (const app of apps) {
      const { spec } = accessControl(access, app) as {
        spec: { accessControl: { policies: { appId: string }[] } };
      };
      const ours = find(small(), "Configuration", `shop-${app}`).spec.accessControl;
      const sorted = (policies: { appId: string }[]) =>
        [...policies].sort((one, other) => one.appId.localeCompare(other.appId));
      assert.deepEqual(
        sorted(ours.policies),
        sorted(spec.accessControl.policies.map((policy) => ({ ...policy, namespace: "market" }))),
      );
      assert.equal(ours.defaultAction, "deny");
    }
  });

  it("is what dapr/access.yaml says, on the network", () => {
    const all = find(small(), "NetworkPolicy", "shop-deny-all");
    assert.deepEqual([all.spec.ingress, all.spec.egress], [undefined, undefined]);
    const pairs = (from: "ingress" | "egress") =>
      apps.flatMap((app) => {
        const rules = find(small(), "NetworkPolicy", `shop-${app}`).spec[from] ?? [];
        const peers = rules
          .filter((rule: { ports?: { port: number }[] }) => rule.ports?.some(({ port }) => port === 50002))
          .flatMap((rule: Record<string, Parameters<typeof name>[0][]>) =>
            (rule[from === "ingress" ? "from" : "to"] ?? []).map(name),
          );
        return peers.map((peer: string) => (from === "ingress" ? `${peer} → ${app}` : `${app} → ${peer}`));
      });
    const table = Object.entries(access).flatMap(([callee, callers]) =>
      Object.keys(callers).map((caller) => `${caller} → ${callee}`),
    );
    assert.deepEqual(pairs("ingress").sort(), table.sort());
    assert.deepEqual(pairs("egress").sort(), table.sort());
  });

  it("lets to a server those whose components use it, and the set-up", () => {
    const of = (server: string) =>
      find(small(), "NetworkPolicy", `shop-${server}`).spec.ingress[0].from.map(name).sort();
    assert.deepEqual(of("mysql"), ["inventory", "order", "payment", "setup"]);
    assert.deepEqual(of("mongodb"), ["delivery", "mongodb", "notification", "setup", "store"]);
    assert.deepEqual(
      of("redis"),
      apps
        .filter((app) => app !== "gateway")
        .concat("setup")
        .sort(),
    );
  });

  it("ends at the gateway: nothing else has a Service that others reach", () => {
    const services = kind(small(), "Service").map(({ metadata }) => metadata.name);
    assert.deepEqual(services.sort(), ["shop-gateway", "shop-mongodb", "shop-mysql", "shop-redis"]);
  });
});

describe("components", () => {
  const files = (folder: string) =>
    readdirSync(join(root, "components", folder)).map(
      (file) => parse(read(`components/${folder}/${file}`)) as Manifest,
    );
  interface Item {
    name: string;
    value?: string;
    secretKeyRef?: { name: string; key: string };
  }
  const items = (component: Manifest): Record<string, Item> =>
    Object.fromEntries(component.spec.metadata.map((item: Item) => [item.name, item]));

  it("are those of the backend, but for addresses, paths and where secrets are", () => {
    const rendered = kind(small(), "Component");
    const originals = files("polyglot").filter(({ spec }) => spec.type !== "secretstores.local.env");
    assert.deepEqual(
      rendered.map(({ metadata }) => metadata.name).sort(),
      originals.map(({ metadata }) => metadata.name).sort(),
    );
    for (const original of originals) {
      const ours = find(small(), "Component", original.metadata.name);
      assert.deepEqual([ours.spec.type, ours.scopes], [original.spec.type, original.scopes]);
      assert.deepEqual(ours.auth, { secretStore: "kubernetes" });
      const [before, after] = [items(original), items(ours)];
      for (const [name, { value, secretKeyRef }] of Object.entries(before)) {
        if (secretKeyRef)
          assert.deepEqual(after[name]?.secretKeyRef, { name: "shop-stores", key: secretKeyRef.key });
        else if (/127\.0\.0\.1/.test(value ?? ""))
          assert.match(
            after[name]?.value ?? "",
            /^shop-(redis|mongodb-0\.shop-mongodb\.market\.svc\.cluster\.local):\d+$/,
          );
        else if (name === "rootPath") assert.equal(after[name]?.value, `/data/${value}`);
        else assert.equal(after[name]?.value, String(value), `${original.metadata.name}: ${name}`);
      }
      const added = Object.keys(after).filter((name) => !(name in before));
      assert.deepEqual(
        added,
        original.spec.type === "state.mongodb" ? ["params"] : [],
        original.metadata.name,
      );
    }
    assert.doesNotMatch(JSON.stringify(rendered), /127\.0\.0\.1|localhost/);
  });

  it("come in layers, and may be said otherwise item by item or as a whole", () => {
    const edges = of("edges");
    assert.equal(find(edges, "Component", "deliveries").spec.type, "state.postgresql");
    assert.equal(
      items(find(edges, "Component", "deliveries")).connectionString?.value,
      "postgres://deliveries@postgres.example.com:5432/deliveries?sslmode=disable",
    );
    assert.equal(items(find(edges, "Component", "stamps")).connectionString?.value, "/data/stamps.db");
    assert.equal(
      find(edges, "Deployment", "shop-loyalty").spec.template.metadata.annotations[
        "dapr.io/volume-mounts-rw"
      ],
      "files:/data",
    );
    find(edges, "PersistentVolumeClaim", "shop-loyalty-files");
    assert.equal(find(edges, "Component", "kakao").spec.type, "bindings.http");
    assert.equal(
      kind(edges, "Component").some(({ metadata }) => metadata.name === "sms"),
      false,
    );
    const events = items(find(edges, "Component", "events"));
    assert.deepEqual(
      [events.queueDepth?.value, events.streamTTL, events.maxLenApprox?.value],
      ["128", undefined, "100000"],
    );
    const members = [0, 1, 2].map((i) => `shop-mongodb-${i}.shop-mongodb.market.svc.cluster.local:27017`);
    assert.equal(items(find(edges, "Component", "tickets")).host?.value, members.join(","));
  });

  it("find each secret that they name, and so does who prepares their stores", () => {
    for (const name of ["small", "edges", "nginx", "canary"]) {
      const known = Object.keys(find(of(name), "Secret", "shop-stores").stringData);
      const wanted = kind(of(name), "Component").flatMap((component) =>
        Object.values(items(component)).flatMap(({ secretKeyRef }) => secretKeyRef?.key ?? []),
      );
      for (const key of wanted) assert.ok(known.includes(key), `${name}: ${key}`);
    }
    const [setup] = kind(small(), "Job");
    assert.ok(setup);
    const [{ env }] = setup.spec.template.spec.containers;
    const { components } = JSON.parse(env[0].value) as { components: Manifest[] };
    assert.deepEqual(components.map(({ metadata }) => metadata.name).sort(), [
      "deliveries",
      "inventory",
      "messages",
      "orders",
      "orderview",
      "payments",
      "stamps",
      "tickets",
    ]);
  });

  it("have connections to Redis for every topic that a service listens to, however few processors there are", () => {
    // Each topic keeps one; without a number there are ten for each processor that a sidecar may use.
    for (const backend of ["embedded", "polyglot"]) {
      const bus = files(backend).find(({ metadata }) => metadata.name === "events");
      assert.ok(bus);
      const connections = Number(items(bus).poolSize?.value);
      for (const app of apps.filter((name) => name !== "gateway")) {
        const topics = read(`services/${app}/src/events.ts`).match(/\bon\("/g) ?? [];
        assert.ok(connections >= 2 * (topics.length + 1), `${backend}: ${app}: ${topics.length} topics`);
      }
    }
  });

  it("and what sidecars do about failures are the repository's files", () => {
    for (const file of readdirSync(join(root, "dapr")).filter((name) => /^resiliency.*\.yaml$/.test(name))) {
      const original = parse(read(`dapr/${file}`)) as Manifest;
      const ours = find(small(), "Resiliency", original.metadata.name);
      assert.deepEqual([ours.spec, ours.scopes], [original.spec, original.scopes]);
    }
  });
});

describe("another file in the repository", () => {
  it("is another chart, without a change to a template", async () => {
    const copy = join(temporary, "clone");
    mkdirSync(copy);
    for (const folder of ["helm", "components", "shops"])
      cpSync(join(root, folder), join(copy, folder), { recursive: true, verbatimSymlinks: true });
    mkdirSync(join(copy, "dapr"));
    for (const file of readdirSync(join(root, "dapr")).filter((name) => name.endsWith(".yaml")))
      cpSync(join(root, "dapr", file), join(copy, "dapr", file));
    const change = (file: string, from: string | RegExp, to: string) => {
      const before = readFileSync(join(copy, file), "utf8");
      assert.notEqual(before.replace(from, to), before, file);
      writeFileSync(join(copy, file), before.replace(from, to));
    };
    change("components/polyglot/events.yaml", 'value: "64"', 'value: "99"');
    writeFileSync(
      join(copy, "components", "polyglot", "routes.yaml"),
      read("components/redis/orders.yaml")
        .replaceAll("orders", "routes")
        .replaceAll("ORDERS", "ROUTES")
        .replace("[order]", "[courier]"),
    );
    change(
      "dapr/dapr.yaml",
      "  - appID: loyalty",
      '  - appID: courier\n    appPort: 8090\n    command: ["node", "dist/services/courier/src/main.js"]\n  - appID: loyalty',
    );
    change(
      "dapr/access.yaml",
      "gateway: {}",
      "courier:\n  delivery:\n    - { path: /routes/*, verbs: [PUT] }\ngateway: {}",
    );
    change("dapr/resiliency.yaml", "store: 5s", "store: 6s");
    change("shops/fashion.yaml", "customer: completion", "customer: delivery");
    const manifests = await render([], { path: join(copy, "helm", "jangteo") });
    const text = JSON.stringify(manifests);
    assert.match(text, /"name":"queueDepth","value":"99"/);
    find(manifests, "Deployment", "shop-courier");
    assert.equal(
      find(manifests, "Configuration", "shop-courier").spec.accessControl.policies[0].appId,
      "delivery",
    );
    assert.match(JSON.stringify(find(manifests, "NetworkPolicy", "shop-courier").spec.ingress), /"delivery"/);
    assert.ok(find(manifests, "Secret", "shop-stores").stringData.ROUTES_PASSWORD);
    assert.match(find(manifests, "ConfigMap", "shop-redis").data["redis.sh"], /user routes on ~routes\|\|\*/);
    assert.equal(find(manifests, "Resiliency", "resiliency").spec.policies.timeouts.store, "6s");
    assert.match(find(manifests, "ConfigMap", "shop-shop").data["shop.yaml"], /customer: delivery/);
    const mark = (of: Manifest[]) => find(of, "Deployment", "shop-order").spec.template.metadata.annotations;
    assert.notEqual(
      mark(manifests)["checksum/shop"],
      mark(small())["checksum/shop"],
      "its processes are replaced",
    );
    assert.notEqual(mark(manifests)["checksum/dapr"], mark(small())["checksum/dapr"]);
  });

  it("is also in what helm packs", async () => {
    await helm("package", chart, "--destination", temporary);
    const [archive = ""] = readdirSync(temporary).filter((name) => name.endsWith(".tgz"));
    const packed = await render([], { path: join(temporary, archive) });
    const steady = (manifests: Manifest[]) => manifests.filter((one) => one.kind !== "Secret");
    assert.deepEqual(steady(packed), steady(small()));
  });
});

describe("the way in", () => {
  it("is an Ingress to the gateway", () => {
    const { spec } = find(of("edges"), "Ingress", "shop");
    assert.deepEqual(
      spec.rules.map(({ host }: { host: string }) => host),
      ["shop.example.com", "www.example.com"],
    );
    const [{ path, backend }] = spec.rules[0].http.paths;
    assert.deepEqual(
      [path, backend.service],
      ["/api/fashion-order", { name: "shop-gateway", port: { number: 8088 } }],
    );
    assert.equal(spec.ingressClassName, "nginx");
  });

  it("is an HTTPRoute that gives the canary its share", () => {
    const [rule] = find(of("canary"), "HTTPRoute", "shop").spec.rules;
    assert.deepEqual(rule.backendRefs, [
      { name: "shop-gateway", port: 8088, weight: 75 },
      { name: "shop-gateway-canary", port: 8088, weight: 25 },
    ]);
    assert.equal(rule.filters[0].urlRewrite.path.replacePrefixMatch, "/");
    const stable = find(of("canary"), "Deployment", "shop-gateway").spec;
    const canary = find(of("canary"), "Deployment", "shop-gateway-canary").spec;
    assert.equal(canary.template.spec.containers[0].image, "jangteo-service:0.2.0");
    assert.equal(stable.template.spec.containers[0].image, "jangteo-service:0.1.0");
    assert.notDeepEqual(stable.selector, canary.selector);
    for (const [track, name] of [
      ["stable", "shop-gateway"],
      ["canary", "shop-gateway-canary"],
    ] as const)
      assert.equal(find(of("canary"), "Service", name).spec.selector["jangteo/track"], track);
    assert.deepEqual(
      find(of("canary"), "Gateway", "shop").spec.listeners.map(({ port }: { port: number }) => port),
      [80, 443],
    );
  });

  it("is an nginx that shows what is named, and nothing of its sidecar", () => {
    const text: string = find(of("nginx"), "ConfigMap", "shop-ingress").data["nginx.conf"];
    const [, routes = ""] = /\(\?:profile\/\)\?\(\?:([\w|]+)\)/.exec(text) ?? [];
    const shown = Object.values(access)
      .flatMap((callers) => callers.gateway ?? [])
      .map(({ path }) => path.split("/")[1] ?? "")
      .filter((name) => name !== "deadLetters" && name !== "profile");
    assert.deepEqual(routes.split("|").sort(), [...new Set(shown)].sort());
    assert.match(text, /location \/ \{\s+default_type application\/problem\+json;\s+return 403/);
    const passed = [...text.matchAll(/rewrite .* (\/v1\.0\S*) break/g)].map(([, target]) => target);
    assert.deepEqual([...new Set(passed)], ["/v1.0/invoke/gateway/method/", "/v1.0/invoke/gateway/method$1"]);
    const policies = find(of("nginx"), "Configuration", "shop-gateway").spec.accessControl.policies;
    assert.deepEqual(
      policies.map(({ appId }: { appId: string }) => appId),
      ["ingress"],
    );
    assert.deepEqual(find(small(), "Configuration", "shop-gateway").spec.accessControl.policies, []);
  });
});

describe("a mistake", () => {
  const mistakes: [string, string[], RegExp][] = [
    ["another word for a setting", ["replicas=3"], /additional properties 'replicas' not allowed/],
    [
      "a service that is not there",
      ['services={"shipping":{}}'],
      /services\.shipping: there is no such service; there are delivery, gateway/,
    ],
    [
      "a shop that is not there",
      ['shop="shoes"'],
      /there is no shop "shoes"; there are bookstore, cafe, coffee, fashion, flower/,
    ],
    ["a backend that is not there", ['backend="oracle"'], /backend: components\/oracle is not there/],
    [
      "a server that nobody runs",
      ['servers={"mysql":{"enabled":false}}'],
      /wants INVENTORY_MYSQL.*secrets\.stores\.existing/,
    ],
    [
      "a bus without a server",
      ['backend="polyglot,kafka/events.yaml"'],
      /events \(pubsub\.kafka\) wants a server.*servers\.kafka\.address/,
    ],
    ["a store whose server lets nobody in without a password", ['backend="embedded"'], /events.*password/],
    ["the image that is newest at the moment", ['image={"tag":"latest"}'], /image\/tag/],
    ["an unknown way in", ['ingress={"kind":"istio"}'], /ingress\/kind.*none.*ingress.*gateway-api.*nginx/],
    [
      "a canary where nobody can give it a share",
      ['ingress={"kind":"nginx","canary":{"enabled":true}}'],
      /gateway-api/,
    ],
    ["a share of more than all", ['ingress={"canary":{"weight":101}}'], /canary\/weight/],
    ["a Gateway that nobody names", ['ingress={"kind":"gateway-api"}'], /parentRefs/],
    [
      "streams where there are none",
      [
        'backend="polyglot,rabbitmq/events.yaml"',
        'keda={"enabled":true}',
        'servers={"rabbitmq":{"address":"rabbit:5672"}}',
        'secrets={"stores":{"values":{"EVENTS_PASSWORD":"1234567890123"}}}',
      ],
      /keda\.enabled: .*Redis Streams only/,
    ],
  ];
  for (const [what, set, words] of mistakes)
    it(`is told: ${what}`, async () => {
      await assert.rejects(render([], { set }), ({ message }: Error) => {
        assert.match(message, words);
        return true;
      });
    });
});
