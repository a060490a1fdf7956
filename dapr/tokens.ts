/**
 * The tokens by which a service and its sidecar know each other: Dapr's API token, which the sidecar demands, and its app
 * token, which the service demands. Made up at each start, one pair per service; they travel in the environment.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TOKEN_HEADER } from "#kit/token.js";

const made = () => randomBytes(24).toString("base64url");

const directoryOf = (data: string) => join(data, "run", "tokens");
/** @param name of a service, or `<service>-sidecar` */
const fileOf = (data: string, name: string) => join(directoryOf(data), name);

export class Tokens {
  readonly #pairs: Map<string, { app: string; sidecar: string }>;

  /** @param data the data directory, whose run/ exists: there they are written for who operates the shop */
  constructor(
    apps: Iterable<string>,
    private readonly data: string,
  ) {
    this.#pairs = new Map([...apps].map((app) => [app, { app: made(), sidecar: made() }]));
    this.remove();
    mkdirSync(directoryOf(data), { mode: 0o700 });
    for (const [app, pair] of this.#pairs) {
      // As headers: `curl -H @data/run/tokens/store` keeps a token out of the list of processes.
      writeFileSync(fileOf(data, app), `${TOKEN_HEADER}:${pair.app}\n`, { mode: 0o600 });
      writeFileSync(fileOf(data, `${app}-sidecar`), `${TOKEN_HEADER}:${pair.sidecar}\n`, { mode: 0o600 });
    }
  }

  /** For both, the service and its sidecar. */
  environmentOf(app: string): Record<string, string> {
    const pair = this.#pairs.get(app);
    return pair === undefined ? {} : { DAPR_API_TOKEN: pair.sidecar, APP_API_TOKEN: pair.app };
  }

  /** What a call to a service, or to its sidecar, shows. */
  headersFor(app: string, of: "app" | "sidecar"): Record<string, string> {
    const token = this.#pairs.get(app)?.[of];
    return token === undefined ? {} : { [TOKEN_HEADER]: token };
  }

  /** Nobody who starts later knows them. */
  remove(): void {
    rmSync(directoryOf(this.data), { recursive: true, force: true });
  }
}

/** What a call to a service of the shop that runs on a data directory shows; empty where none runs. */
export function headersFor(data: string, app: string): Record<string, string> {
  try {
    const [name = "", token = ""] = readFileSync(fileOf(data, app), "utf8").trim().split(":");
    return { [name]: token };
  } catch {
    return {};
  }
}
