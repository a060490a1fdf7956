/** The chart as helm renders it. */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseAllDocuments } from "yaml";
import { root } from "#dapr/runner.js";

/** A Kubernetes object. What it holds differs from kind to kind. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  // biome-ignore lint/suspicious/noExplicitAny: each kind has another shape, and a test looks into all of them
  [field: string]: any;
}

export const chart = join(root, "helm", "jangteo");
const fixtures = join(root, "tests", "fixtures", "chart");

/** Every values file: the chart's own, and those that try what these leave out. By a name for people. */
export const VALUES: Readonly<Record<string, string[]>> = {
  small: [],
  production: [join(chart, "values-production.yaml")],
  ...Object.fromEntries(
    readdirSync(fixtures)
      .filter((file) => file.endsWith(".yaml"))
      .map((file) => [file.replace(".yaml", ""), [join(fixtures, file)]]),
  ),
};

/** Charts are made for this version and newer ones; a helm that asks no cluster would take its own. */
export const KUBERNETES = "1.34.1";

/** Runs helm to its end. @throws Error with what it printed */
export async function helm(...args: string[]): Promise<string> {
  const options = { maxBuffer: 64 * 1024 * 1024 };
  const { stdout } = await promisify(execFile)(process.env.HELM ?? "helm", args, options).catch(
    (error: { stderr?: string; message: string }) => {
      throw new Error(withoutLinks(error.stderr ?? error.message));
    },
  );
  return stdout;
}

/** It remarks on each link in the chart that it is one. */
export const withoutLinks = (text: string): string =>
  text.replace(/^.*found symbolic link in path.*\n?/gm, "");

/** @throws Error where one says a thing twice, which Kubernetes would take one or the other of */
export const documents = (text: string): Manifest[] =>
  parseAllDocuments(text, { uniqueKeys: true })
    .map((document) => {
      if (document.errors[0]) throw document.errors[0];
      return document.toJS() as Manifest | null;
    })
    .filter((document) => document !== null);

/** What the chart makes with some values. @throws Error with helm's words */
export async function render(
  values: readonly string[],
  {
    release = "shop",
    set = [],
    path = chart,
    namespace = "market",
  }: { release?: string; set?: string[]; path?: string; namespace?: string } = {},
): Promise<Manifest[]> {
  const files = values.flatMap((file) => ["--values", file]);
  const settings = set.flatMap((setting) => ["--set-json", setting]);
  const args = [release, path, "--namespace", namespace, "--kube-version", KUBERNETES];
  return documents(await helm("template", ...args, ...files, ...settings));
}

/** The pods that an object makes, if it makes any. */
export function podOf(manifest: Manifest): Manifest["spec"] | undefined {
  if (manifest.kind === "Pod") return manifest.spec;
  return manifest.spec?.template?.spec;
}
