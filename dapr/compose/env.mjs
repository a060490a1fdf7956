/**
 * `node dapr/compose/env.mjs`: writes .env next to compose.yaml, with a password for each variable that compose.yaml
 * demands (`${NAME:?…}`). Passwords that are there are kept, so it may be run again when a variable is added. Runs before
 * anything is installed, so it uses nothing but Node's own modules.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const file = path(".env");

const wanted = new Set(
  [...readFileSync(path("compose.yaml"), "utf8").matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name),
);
const before = existsSync(file) ? readFileSync(file, "utf8") : "";
const known = new Set([...before.matchAll(/^(\w+)=./gm)].map(([, name]) => name));
const missing = [...wanted].filter((name) => !known.has(name));

if (missing.length === 0) {
  console.log(".env has all passwords already; it is kept as it is.");
} else {
  const start =
    before ||
    "# The passwords of compose.yaml. Without them the data in its volumes can't be read: keep a copy.\n";
  // Hexadecimal: a MongoDB key file takes no "-", a MySQL connection string of Dapr no "/".
  const lines = missing.map((name) => `${name}=${randomBytes(24).toString("hex")}\n`);
  writeFileSync(`${file}.new`, start.replace(/\n?$/, "\n") + lines.join(""), { mode: 0o600 });
  renameSync(`${file}.new`, file);
  console.log(`.env: ${missing.length} passwords made, for ${missing.join(", ")}`);
}
