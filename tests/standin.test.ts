/** The stand-in for mongod has tests of its own, in Go: they run with ours. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const directory = fileURLToPath(new URL("../../dapr/tools/mongodb", import.meta.url));
const hasGo = spawnSync("go", ["version"]).status === 0;

// Who has a mongod needs no Go; in CI nothing is left out.
test("the stand-in for mongod", { skip: !hasGo && !process.env.CI && "there is no Go" }, () => {
  const env = { ...process.env, CGO_ENABLED: "0" };
  const { status, stdout, stderr, error } = spawnSync("go", ["test", "./..."], {
    cwd: directory,
    env,
    encoding: "utf8",
  });
  assert.equal(status, 0, error?.message ?? stdout + stderr);
});
