import { hostname } from "node:os";
import proxyAddr from "proxy-addr";
import { z } from "zod";

const port = z.coerce.number().int().min(1).max(65535);

function areNetworks(list: string[]): boolean {
  try {
    if (list.length > 0) proxyAddr.compile(list);
    return true;
  } catch {
    return false;
  }
}

const schema = z.object({
  /** app-id of this service, as Dapr knows it; `dapr run` and the runner set it */
  APP_ID: z.string().optional(),
  APP_PORT: port,
  /** HTTP port of this replica's own sidecar */
  DAPR_HTTP_PORT: port.default(3500),
  /** what the sidecar demands of whoever calls it; without one it demands nothing */
  DAPR_API_TOKEN: z.string().optional(),
  /** what the sidecar shows when it calls the service; without one the service asks nobody for it */
  APP_API_TOKEN: z.string().optional(),
  /** the slot that this process fills, unique among the replicas of its service */
  REPLICA: z.string().default(hostname()),
  /** path of the shop's YAML file */
  SHOP: z.string().default("shops/fashion.yaml"),
  /** path of the table of dialects */
  DIALECTS: z.string().default("shops/dialects.yaml"),
  LOG_LEVEL: z.enum(["trace", "debug", "info", "warn", "error", "fatal"]).default("info"),
  /** a file to which log lines are appended, beside standard output */
  LOG_FILE: z.string().optional(),
  /** which settings these are, in words, such as "dev,k8s"; shown in the first log line */
  PROFILE: z.string().optional(),
  /** "1" opens the drills: switches that make parts fail on purpose */
  DRILLS: z.enum(["0", "1"]).default("0"),
  /** address to listen on; the sidecar is on the same machine */
  APP_HOST: z.string().default("127.0.0.1"),
  /** number of a socket, handed down to this process, to listen at as well */
  APP_FD: z.coerce.number().int().min(3).optional(),
  /** requests per second that the gateway takes from one client; 0: as many as come */
  RATE_LIMIT: z.coerce.number().int().min(0).default(1_000),
  /** addresses and networks of proxies in front of the gateway, with commas between */
  TRUSTED_PROXIES: z
    .string()
    .default("")
    .transform((text) => text.split(/[\s,]+/).filter((one) => one !== ""))
    .refine(areNetworks, "must be addresses or networks, such as 10.0.0.0/8"),
});

export interface Config {
  app: string;
  port: number;
  host: string;
  fd?: number | undefined;
  daprPort: number;
  /** shown to the sidecar with every call */
  sidecarToken?: string | undefined;
  /** demanded of callers; see kit/token.ts */
  appToken?: string | undefined;
  slot: string;
  shop: string;
  dialects: string;
  logLevel: z.infer<typeof schema>["LOG_LEVEL"];
  /** log lines are appended to it, beside standard output */
  logFile?: string | undefined;
  /** what is said of these settings in the first log line */
  profile?: string | undefined;
  drills: boolean;
  /** requests per second of one client; 0: any number */
  rateLimit: number;
  /** addresses and networks (CIDR) whose X-Forwarded-For is believed */
  trustedProxies: readonly string[];
}

/** Reads the environment. @throws Error that names every variable that is wrong */
export function readConfig(app: string, env: NodeJS.ProcessEnv = process.env): Config {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const wrong = parsed.error.issues
      .map((issue) => `  ${issue.path.join(".")}: ${issue.message}`)
      .join("\n");
    throw new Error(`${app} cannot start, its environment is not complete:\n${wrong}`);
  }
  const got = parsed.data;
  return {
    app: got.APP_ID ?? app,
    port: got.APP_PORT,
    host: got.APP_HOST,
    fd: got.APP_FD,
    daprPort: got.DAPR_HTTP_PORT,
    // Set but empty is how compose files and charts say "none".
    sidecarToken: got.DAPR_API_TOKEN || undefined,
    appToken: got.APP_API_TOKEN || undefined,
    slot: got.REPLICA,
    shop: got.SHOP,
    dialects: got.DIALECTS,
    logLevel: got.LOG_LEVEL,
    logFile: got.LOG_FILE || undefined,
    profile: got.PROFILE || undefined,
    drills: got.DRILLS === "1",
    rateLimit: got.RATE_LIMIT,
    trustedProxies: got.TRUSTED_PROXIES,
  };
}
