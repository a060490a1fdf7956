/**
 * `node dapr/compose/render.mjs BACKEND TARGET`: writes into TARGET what the sidecars of compose.yaml read, made of the same
 * files that `npm start` uses. Two things differ between one machine and containers, and only these are changed: a server
 * is reached by its name instead of a loopback address, and so is another sidecar. Run by the Dockerfile.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseDocument } from "yaml";

/** Where compose.yaml runs the server that a component of this type uses. */
const servers = [
  { type: /\.mysql$/, address: "mysql:3306" },
  { type: /\.mongodb$/, address: "mongo:27017" },
  { type: /\.redis$/, address: "redis:6379" },
];
const loopback = /\b(?:127\.0\.0\.1|localhost):\d+/g;

/** A component file with the addresses of compose.yaml, comments left alone. @throws Error if there is no such server */
export function inContainers(file, text) {
  const document = parseDocument(text);
  const type = document.getIn(["spec", "type"]);
  const server = servers.find((candidate) => candidate.type.test(type));
  for (const item of document.getIn(["spec", "metadata"]).items) {
    const value = String(item.get("value") ?? "");
    const moved = value.replace(loopback, (address) => {
      if (server) return server.address;
      throw new Error(
        `${file}: compose.yaml runs no server for ${type} at ${address}. ` +
          "Add one to it and to dapr/compose/render.mjs, or give an address that containers can reach.",
      );
    });
    if (moved !== value) item.set("value", moved);
  }
  return document.toString();
}

/** The configuration with a name resolution that suits containers. */
export function resolvingByName(text) {
  const config = parseDocument(text);
  config.setIn(
    ["spec", "nameResolution"],
    config.createNode({
      component: "nameformat",
      version: "v1",
      // The pod of an app has the app's name, and its sidecar always the same port (compose.yaml).
      configuration: { format: "{appid}-pod:5500" },
    }),
  );
  return config.toString();
}

/** Writes config.yaml and resources/ into `target`. `root` is the repository's. */
export function render(root, backend, target) {
  const resources = join(target, "resources");
  mkdirSync(resources, { recursive: true });
  const components = join(root, "components", backend);
  for (const file of readdirSync(components).filter((name) => /\.ya?ml$/.test(name)))
    writeFileSync(join(resources, file), inContainers(file, readFileSync(join(components, file), "utf8")));
  for (const file of readdirSync(join(root, "dapr")).filter((name) => /^resiliency.*\.yaml$/.test(name)))
    writeFileSync(join(resources, file), readFileSync(join(root, "dapr", file)));
  const config = readFileSync(join(root, "dapr", "config.yaml"), "utf8");
  writeFileSync(join(target, "config.yaml"), resolvingByName(config));
}

const [program, backend, target] = process.argv.slice(1);
if (program === fileURLToPath(import.meta.url)) {
  if (!backend || !target) throw new Error("usage: node dapr/compose/render.mjs BACKEND TARGET");
  render(fileURLToPath(new URL("../..", import.meta.url)), backend, target);
}
