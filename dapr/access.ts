/** Who may call whom: the table dapr/access.yaml, and what Dapr makes of it. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";
import { StartError } from "./topology.js";

const operation = z.strictObject({
  /** as Dapr reads it: `/orders/*`, `/orders/**`, `/records` */
  path: z.string().startsWith("/"),
  verbs: z.array(z.enum(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "*"])).min(1),
});
const schema = z.record(z.string(), z.record(z.string(), z.array(operation).min(1)));

export type Operation = z.output<typeof operation>;
/** By callee, then by caller: what the caller may ask for. */
export type Access = z.output<typeof schema>;

/** Where Dapr puts apps and their sidecars if nobody says otherwise: part of the names in their certificates. */
export const trustDomain = "public";
export const namespace = "default";

/** Reads the table. @throws StartError that says what is wrong in it */
export function readAccess(file: string): Access {
  const parsed = schema.safeParse(parse(readFileSync(file, "utf8")));
  if (!parsed.success) throw new StartError(`${file}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** The Dapr Configuration that makes the sidecar of a service refuse whom the table does not name. */
export function accessControl(access: Access, callee: string): object {
  const policies = Object.entries(access[callee] ?? {}).map(([appId, operations]) => ({
    ...{ appId, trustDomain, namespace, defaultAction: "deny" },
    operations: operations.map(({ path, verbs }) => ({ name: path, httpVerb: verbs, action: "allow" })),
  }));
  return {
    apiVersion: "dapr.io/v1alpha1",
    kind: "Configuration",
    metadata: { name: `access-${callee}` },
    spec: { accessControl: { defaultAction: "deny", trustDomain, policies } },
  };
}
