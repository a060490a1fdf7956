/**
 * Certificates for the sidecars (`--mtls`): Dapr's certificate authority, Sentry, run beside them. Each sidecar shows it a
 * token of its own service's, signed with a key that only this run has, so that no service gets another one's certificate.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { stringify } from "yaml";
import { type Access, accessControl, namespace, trustDomain } from "./access.js";
import { answers } from "./probe.js";
import type { ProcessSpec } from "./processes.js";

/** Sentry's own trust domain, Dapr's default. */
const ownDomain = "localhost";
const ports = { sentry: 5500, health: 9500 };
const algorithm = "ES256";

export class Sentry {
  readonly name = "sentry";
  readonly port: number;
  readonly healthPort: number;
  readonly #directory: string;

  /**
   * @param data the data directory, whose run/ exists
   * @param offset as `--ports`
   */
  constructor(
    data: string,
    offset: number,
    private readonly access: Access,
    private readonly apps: readonly string[],
  ) {
    this.port = ports.sentry + offset;
    this.healthPort = ports.health + offset;
    this.#directory = join(data, "run", "sentry");
  }

  /** Writes what it and the sidecars read. Certificates of an earlier run are given up: its sidecars are gone. */
  async setUp(): Promise<void> {
    rmSync(this.#directory, { recursive: true, force: true });
    for (const path of [this.#directory, this.#issuer, join(this.#directory, "access")])
      mkdirSync(path, { mode: 0o700 });
    const { privateKey, publicKey } = await generateKeyPair(algorithm);
    const source = JSON.stringify({
      keys: [{ ...(await exportJWK(publicKey)), kid: "run", alg: algorithm }],
    });
    const config = {
      apiVersion: "dapr.io/v1alpha1",
      kind: "Configuration",
      metadata: { name: "sentry" },
      spec: { mtls: { enabled: true, tokenValidators: [{ name: "jwks", options: { source } }] } },
    };
    this.#write("config.yaml", stringify(config));
    for (const app of this.apps) {
      // Without an end: it is good for as long as this run's key.
      const token = await new SignJWT()
        .setProtectedHeader({ alg: algorithm, kid: "run" })
        .setSubject(`spiffe://${trustDomain}/ns/${namespace}/${app}`)
        .setAudience(`spiffe://${ownDomain}/ns/${namespace}/dapr-sentry`)
        .sign(privateKey);
      this.#write(`${app}.jwt`, token);
      this.#write(`access/${app}.yaml`, stringify(accessControl(this.access, app)));
    }
  }

  /** How it is started; only after {@link setUp}. */
  spec(): Omit<ProcessSpec, "log"> {
    return {
      ...{ name: this.name, kind: "server", command: process.env.SENTRY ?? "sentry", cwd: this.#directory },
      args: [
        ...["--port", String(this.port), "--listen-address", "127.0.0.1", "--log-level", "warn"],
        ...["--healthz-port", String(this.healthPort), "--healthz-listen-address", "127.0.0.1"],
        ...["--enable-metrics=false", "--trust-domain", ownDomain],
        ...["--issuer-credentials", this.#issuer, "--config", join(this.#directory, "config.yaml")],
      ],
      env: () => ({ NAMESPACE: namespace }),
      port: this.port,
      ready: () => answers(`http://127.0.0.1:${this.healthPort}/healthz`),
    };
  }

  async prepare(): Promise<void> {}

  /** For the command line of a sidecar; flags with values only. */
  argsFor(app: string): string[] {
    return [
      ...["--sentry-address", `127.0.0.1:${this.port}`, "--control-plane-trust-domain", ownDomain],
      ...["--control-plane-namespace", namespace, "--config", join(this.#directory, "access", `${app}.yaml`)],
    ];
  }

  /** For the environment of a sidecar; only once it is ready. */
  environmentOf(app: string): Record<string, string> {
    return {
      NAMESPACE: namespace,
      DAPR_TRUST_ANCHORS: readFileSync(join(this.#issuer, "ca.crt"), "utf8"),
      DAPR_SENTRY_TOKEN_FILE: join(this.#directory, `${app}.jwt`),
    };
  }

  get #issuer(): string {
    return join(this.#directory, "issuer");
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.#directory, name), text, { mode: 0o600 });
  }
}
