/** Servers and sidecars of a backend, without the services: their place is taken by the test itself. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { isAbsolute, join } from "node:path";
import { guard, unguard } from "#dapr/guard.js";
import { type ProcessSpec, Supervised, until } from "#dapr/processes.js";
import { root } from "#dapr/runner.js";
import { environmentOf, Passwords, type Resolved, resolve } from "#dapr/secrets.js";
import { kindOf, type Server, serversFor } from "#dapr/servers.js";
import {
  type Instance,
  instances,
  type Rendered,
  readTopology,
  render,
  sidecarArgs,
} from "#dapr/topology.js";

type Spec = Omit<ProcessSpec, "log">;

export class Installation {
  private readonly processes = new Map<string, Supervised>();
  private readonly specs = new Map<string, Spec>();

  private constructor(
    /** the working directory of its processes */
    readonly data: string,
    readonly instances: Instance[],
    private readonly rendered: Rendered,
    /** with their secrets */
    readonly components: Resolved[],
    private readonly servers: Server[],
  ) {}

  /**
   * Starts the servers, and a sidecar for each replica named.
   * @param backend folders of components/, or paths, in layers
   */
  static async start(names: readonly string[], backend: string, ports: number): Promise<Installation> {
    assert.ok(
      process.env.DAPRD,
      "DAPRD does not say where daprd is: run this with npm test, which finds or builds it",
    );
    const data = mkdtempSync(join(tmpdir(), "jangteo-conformance-"));
    const layers = backend
      .split(",")
      .map((layer) => (isAbsolute(layer) ? layer : join(root, "components", layer)));
    const topology = readTopology(join(root, "dapr", "dapr.yaml"), layers);
    const list = instances(topology, { store: 2 }, ports).filter(({ name }) => names.includes(name));
    assert.deepEqual(list.map(({ name }) => name).sort(), [...names].sort());
    const rendered = render(topology, join(data, "run"), ports);
    const passwords = new Passwords(data);
    const components = resolve(rendered.components, passwords, ports);
    const started = new Installation(
      ...([data, list, rendered, components] as const),
      serversFor(components, data, passwords, ports),
    );
    guard(started);
    try {
      await started.startAll();
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  }

  instance(name: string): Instance {
    const found = this.instances.find((instance) => instance.name === name);
    assert.ok(found, name);
    return found;
  }

  component(name: string): Resolved {
    const found = this.components.find((component) => component.name === name);
    assert.ok(found, name);
    return found;
  }

  /** The process that holds what this component stores: a server, or the only sidecar. */
  holder(component: string): string {
    const { address } = kindOf(this.component(component))?.read(this.component(component)) ?? {};
    const server = this.servers.find(({ port }) => address?.endsWith(`:${port}`));
    return server?.name ?? this.instances[0]?.name ?? "";
  }

  /** Ends a process with SIGKILL, and starts it again. Resolves when it works again, unless it is told to stay away. */
  async kill(name: string): Promise<void> {
    await this.away(name);
    await this.back(name);
  }

  /** Ends a process with SIGKILL. */
  async away(name: string): Promise<void> {
    await this.processes.get(name)?.stop(0);
  }

  /** Starts a process that was ended. */
  async back(name: string): Promise<void> {
    const spec = this.specs.get(name);
    assert.ok(spec, name);
    this.run(spec);
    await this.ready(name);
  }

  pids(): number[] {
    return [...this.processes.values()].flatMap(({ pid }) => pid ?? []);
  }

  async stop(): Promise<void> {
    for (const process of [...this.processes.values()].reverse()) await process.stop(3_000);
    unguard(this);
    // Of a server that was killed, a part may still write for a moment.
    rmSync(this.data, { recursive: true, force: true, maxRetries: 10 });
  }

  private async startAll(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.setUp()));
    for (const server of this.servers) this.run(server.spec());
    for (const server of this.servers) await this.ready(server.name);
    await Promise.all(this.servers.map((server) => server.prepare()));
    for (const instance of this.instances) this.run(this.sidecar(instance));
    for (const { name } of this.instances) await this.ready(name);
  }

  private sidecar(instance: Instance): Spec {
    const { name, app, ports } = instance;
    return {
      ...{ name, kind: "sidecar", command: process.env.DAPRD ?? "", cwd: this.data, port: ports.http },
      args: sidecarArgs(instance, this.rendered),
      env: () => ({ ...environmentOf(app.appID, this.components), DAPR_HOST_IP: "127.0.0.1" }),
      ready: () =>
        fetch(`http://127.0.0.1:${ports.http}/v1.0/healthz/outbound`).then(
          ({ ok }) => ok,
          () => false,
        ),
    };
  }

  private run(spec: Spec): void {
    const nothing = () => undefined;
    const process = new Supervised({ ...spec, log: join(this.data, `${spec.name}.log`) }, nothing, nothing);
    this.specs.set(spec.name, spec);
    this.processes.set(spec.name, process);
    process.start();
  }

  private async ready(name: string): Promise<void> {
    const process = this.processes.get(name);
    assert.ok(process, name);
    const ready = await until(() => process.failedStarts > 2 || process.ready(), 30_000);
    const ok = ready && process.failedStarts <= 2;
    assert.ok(ok, ok ? "" : `${name} does not start:\n${process.lastLines()}`);
  }
}
