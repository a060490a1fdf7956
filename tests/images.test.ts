/** `npm run images` with builders that only note how they are called. docs/kubernetes.md says what was seen with a real one. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it, mock } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { buildImages, type Options, readOptions } from "#dapr/images.js";
import { StartError } from "#dapr/topology.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), "jangteo-test-"));
after(() => rmSync(temporary, { recursive: true, force: true }));
const read = (path: string) => readFileSync(join(root, path), "utf8");

const service = `jangteo-service:${(JSON.parse(read("package.json")) as { version: string }).version}`;
const dapr = /github\.com\/dapr\/dapr v(\S+)/.exec(read("dapr/tools/go.mod"))?.[1] ?? "";
const daprd = `jangteo-daprd:${dapr}`;

describe("the command line of images", () => {
  const none = { builder: undefined, buildArgs: [], load: [], push: undefined };

  it("builds both images, or the one that is named", () => {
    assert.deepEqual(readOptions([]), { kinds: ["service", "daprd"], ...none });
    assert.deepEqual(readOptions(["daprd", "service"]), { kinds: ["service", "daprd"], ...none });
    assert.deepEqual(readOptions(["daprd"]), { kinds: ["daprd"], ...none });
    assert.deepEqual(readOptions(["tools", "mysql"]), { kinds: ["mysql", "tools"], ...none });
    assert.throws(() => readOptions(["sidecar"]), /There is no image "sidecar"; there are service, daprd,/);
  });

  it("takes words for the builder, also such as begin with a dash", () => {
    const expected = {
      ...none,
      kinds: ["service"],
      builder: "buildah",
      buildArgs: ["--isolation", "chroot"],
    };
    for (const args of [["--build-args", "--isolation  chroot"], ["--build-args=--isolation chroot"]])
      assert.deepEqual(readOptions(["--builder", "buildah", ...args, "service"]), expected);
  });

  it("takes a command that loads, and a registry with or without a slash at its end", () => {
    const options = readOptions(["--load", "kind load docker-image", "--push", "registry.example.com/shop/"]);
    assert.deepEqual(options, {
      ...none,
      kinds: ["service", "daprd"],
      load: ["kind", "load", "docker-image"],
      push: "registry.example.com/shop",
    });
  });

  it("explains itself, and refuses what it does not know", () => {
    assert.equal(readOptions(["--push", "x", "--help"]), "help");
    assert.throws(() => readOptions(["--tag", "latest"]), /--tag/);
  });
});

describe("images", { skip: process.platform !== "linux" && "the sidecar's image is built on Linux" }, () => {
  /** A directory of programs that write down their arguments, and keep what they are given to build. */
  const programs = (name: string, ...names: string[]) => {
    const bin = join(temporary, name);
    mkdirSync(bin);
    const script = `#!/bin/sh
echo "\${0##*/} $*" >>${bin}/calls
for last; do :; done
case "$*" in
  *--wrong*) exit 3 ;;
  build*" .") ;;
  build*) /bin/cp -R "$last" ${bin}/context ;;
esac
`;
    for (const program of names) writeFileSync(join(bin, program), script, { mode: 0o755 });
    return bin;
  };
  /** What it says, and its failure. */
  const run = async (bin: string, args: string[], env: Record<string, string> = { DAPRD: program }) => {
    const options = readOptions(args);
    assert.notEqual(options, "help");
    const said: string[] = [];
    const log = mock.method(console, "log", (line: string) => said.push(line));
    try {
      await buildImages(options as Options, { PATH: bin, ...env });
      return { said: said.join("\n"), failure: "" };
    } catch (error) {
      assert.ok(error instanceof StartError, String(error));
      return { said: said.join("\n"), failure: error.message };
    } finally {
      log.mock.restore();
    }
  };
  const callsOf = (bin: string) => readFileSync(join(bin, "calls"), "utf8").trimEnd().split("\n");
  const program = join(temporary, "daprd-of-the-set-up");

  before(() => {
    writeFileSync(program, "the sidecar", { mode: 0o755 });
    process.env.TMPDIR = temporary; // to see what is left there
  });

  it("builds with Docker before others, loads and pushes", async () => {
    const bin = programs("all", "buildah", "podman", "docker", "kind");
    const args = ["--load", "kind load docker-image", "--push", "registry.example.com/shop"];
    const { said, failure } = await run(bin, args);
    assert.equal(failure, "");
    const [first, ...rest] = callsOf(bin);
    assert.equal(first, `docker build --tag ${service} --target service .`);
    const [second] = rest.splice(3, 1);
    assert.match(second ?? "", new RegExp(`^docker build --tag ${daprd} \\S+/jangteo-images-\\w+$`));
    const after = (image: string) => [
      `kind load docker-image ${image}`,
      `docker tag ${image} registry.example.com/shop/${image}`,
      `docker push registry.example.com/shop/${image}`,
    ];
    assert.deepEqual(rest, [...after(service), ...after(daprd)]);
    const names = [service, daprd].flatMap((image) => [image, `registry.example.com/shop/${image}`]);
    assert.ok(said.endsWith(`ready:\n${names.map((name) => `  ${name}`).join("\n")}`), said);
    // The injector gives "/daprd" as the first argument, so an entrypoint would make it the second.
    const file = readFileSync(join(bin, "context/Dockerfile"), "utf8");
    assert.match(file, /^FROM scratch$[\s\S]*^USER 65532:65532$\n^CMD \["\/daprd"\]$/m);
    assert.doesNotMatch(file, /ENTRYPOINT/);
    assert.equal(readFileSync(join(bin, "context/files/daprd"), "utf8"), "the sidecar");
    assert.match(
      readFileSync(join(bin, "context/files/etc/ssl/certs/ca-certificates.crt"), "utf8"),
      /^-----BEGIN CERTIFICATE-----/,
    );
  });

  it("gives images of Podman and Buildah the name that Kubernetes looks for", async () => {
    const bin = programs("without-docker", "buildah", "podman", "load");
    const options = ["service", "--builder", join(bin, "buildah"), "--build-args", "--isolation chroot"];
    assert.equal((await run(bin, [...options, "--load", "load"])).failure, "");
    assert.equal((await run(bin, ["daprd"])).failure, "");
    const full = `docker.io/library/${service}`;
    const calls = callsOf(bin);
    assert.ok(calls.includes(`buildah build --tag ${full} --isolation chroot --target service .`));
    assert.ok(calls.includes(`load ${full}`));
    assert.ok(calls.some((call) => call.startsWith(`podman build --tag docker.io/library/${daprd} `)));
  });

  it("builds stand-ins under the names that the chart has for what they stand for", async () => {
    const bin = programs("stand-ins", "buildah");
    const { failure } = await run(bin, ["nginx", "redis", "mysql", "tools"]);
    assert.equal(failure, "");
    const values = parse(read("helm/jangteo/values.yaml"));
    const { mysql, redis } = values.servers;
    const { nginx } = values.ingress;
    assert.deepEqual(
      callsOf(bin),
      [
        [mysql.image, "mysql"],
        [redis.image, "redis"],
        [nginx.image, "nginx"],
        ["docker.io/library/jangteo-tools:test", "tools"],
      ].map(
        ([image, target]) => `buildah build --tag ${image} --target ${target} tests/kubernetes/stand-ins`,
      ),
    );
    const file = read("tests/kubernetes/stand-ins/Dockerfile");
    for (const target of ["mysql", "redis", "nginx", "tools", "mongo"])
      assert.match(
        file,
        new RegExp(`^FROM docker\\.io/library/(debian:bookworm-slim|node:\\S+) AS ${target}$`, "m"),
      );
  });

  it("says what is missing, and what failed, and leaves nothing behind", async () => {
    const bin = programs("only", "docker");
    const failing = async (...given: Parameters<typeof run>) => (await run(...given)).failure;
    assert.match(
      await failing(programs("empty"), []),
      /Docker, Podman or Buildah, and none of them is on PATH/,
    );
    assert.equal(await failing(bin, ["--builder", "kaniko"]), "--builder: there is no program kaniko");
    assert.match(await failing(bin, ["daprd"], {}), /^DAPRD does not say where daprd is: use npm run images/);
    const wrong = await failing(bin, ["daprd", "--build-args", "--wrong"]);
    assert.equal(wrong, "docker build ended with exit code 3");
    assert.deepEqual(
      readdirSync(temporary).filter((name) => /^jangteo-images-\w{6}$/.test(name)),
      [],
    );
  });
});
