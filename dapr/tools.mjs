/**
 * The programs that are no npm packages: Dapr's sidecar, and the servers of the backends that a command names. Which
 * ones are needed, where they are, and how they come here. A part of the set-up (./setup.mjs), with nothing installed yet.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, delimiter, join, resolve } from "node:path";
import { build, firstMatch, goFacts, helm, newEnough, oldestGo, sentry, sidecar, standIn } from "./go.mjs";
import { alone, root, run, SetupError, step } from "./steps.mjs";

const oldestNode = 20;
const oldestDaprd = "1.17";

const homebrew = ["/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"];

/**
 * The kinds of servers, as in dapr/servers.ts, and siege.
 *
 * - `type`: a component of this type uses one; `address`: the metadata items that say where it is
 * - `variable`: names the program, and is where the runner finds it; `names`: what it is called
 * - `places`: directories beside PATH; a `*` stands for versions, and the newest is taken
 * - `packages`: what each package manager calls it. Tried: apt-get. Looked up: the others.
 * - `services`: what Debian's package would start and enable
 */
export const servers = {
  redis: {
    type: /\.redis$/,
    address: ["redisHost"],
    variable: "REDIS_SERVER",
    title: "redis-server",
    names: ["redis-server", "valkey-server"],
    places: [],
    packages: {
      "apt-get": "redis-server",
      dnf: "redis",
      yum: "redis",
      apk: "redis",
      pacman: "valkey",
      brew: "redis",
    },
    services: ["redis-server"],
    byHand: "Redis 6 or newer, https://redis.io/docs/latest/operate/oss_and_stack/install",
  },
  mysql: {
    type: /\.mysql$/,
    address: ["connectionString"],
    variable: "MYSQL_SERVER",
    title: "mariadbd or mysqld",
    names: ["mariadbd", "mysqld"],
    places: [
      ...["/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/mysql/bin"],
      ...homebrew.flatMap((prefix) => [`${prefix}/opt/mariadb*/bin`, `${prefix}/opt/mysql*/bin`]),
    ],
    packages: {
      "apt-get": "mariadb-server-core", // mariadb-server would start a service
      dnf: "mariadb-server",
      yum: "mariadb-server",
      apk: "mariadb",
      pacman: "mariadb",
      brew: "mariadb",
    },
    services: [],
    byHand: "MariaDB, https://mariadb.org/download, or MySQL 8 or newer, https://dev.mysql.com/downloads",
  },
  postgresql: {
    type: /\.postgresql$/,
    address: ["connectionString"],
    variable: "POSTGRES_BIN",
    title: "PostgreSQL's initdb and postgres",
    names: ["initdb", "postgres"],
    isDirectory: true, // with all of `names`
    places: [
      ...["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*"],
      ...homebrew.map((prefix) => `${prefix}/opt/postgresql*/bin`),
      "/Applications/Postgres.app/Contents/Versions/*/bin",
    ],
    packages: {
      "apt-get": "postgresql",
      dnf: "postgresql-server",
      yum: "postgresql-server",
      apk: "postgresql",
      pacman: "postgresql",
      brew: "postgresql@17",
    },
    services: ["postgresql"],
    byHand: "PostgreSQL, https://www.postgresql.org/download",
  },
  rabbitmq: {
    type: /\.rabbitmq$/,
    address: ["hostname"],
    variable: "RABBITMQ_SERVER",
    title: "rabbitmq-server",
    names: ["rabbitmq-server"],
    places: [
      ...["/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"],
      ...homebrew.map((prefix) => `${prefix}/opt/rabbitmq/sbin`),
    ],
    // There packages put a script that serves root and the system's own broker only.
    lastPlaces: /^(\/usr)?\/s?bin$/,
    packages: {
      "apt-get": "rabbitmq-server",
      dnf: "rabbitmq-server",
      yum: "rabbitmq-server",
      apk: "rabbitmq-server",
      pacman: "rabbitmq",
      brew: "rabbitmq",
    },
    services: ["rabbitmq-server", "epmd"],
    byHand: "RabbitMQ, https://www.rabbitmq.com/docs/download",
  },
  mongodb: {
    type: /\.mongodb$/,
    address: ["host"],
    variable: "MONGOD",
    title: "mongod",
    names: ["mongod"],
    places: homebrew.map((prefix) => `${prefix}/opt/mongodb-community*/bin`),
    // Distributions have no package of it: where it is not there, a stand-in is built.
    packages: {},
    services: [],
    byHand: "MongoDB, https://www.mongodb.com/docs/manual/installation",
  },
  // No server: the seeds' load tester, for `npm run proof`. No component uses it.
  siege: {
    type: /(?!)/,
    address: [],
    variable: "SIEGE",
    title: "siege",
    names: ["siege"],
    places: homebrew.map((prefix) => `${prefix}/opt/siege/bin`),
    packages: {
      "apt-get": "siege",
      dnf: "siege",
      yum: "siege",
      apk: "siege",
      pacman: "siege",
      brew: "siege",
    },
    services: [],
    byHand: "siege, https://www.joedog.org/siege-home",
  },
};

// --- which are needed ----------------------------------------------------------------------------------------------

/**
 * The kinds of servers that the runner would start for some backends, each as in `--backend`; undefined if a backend is
 * not there. A look at the lines of the files has to do, as there is no YAML reader yet: a component counts if its
 * address is a loopback one, or a secret that the environment doesn't set.
 */
export function serversOf(backends, { env = process.env, components = join(root, "components") } = {}) {
  const kinds = new Set();
  for (const backend of backends) {
    const files = filesOf(backend, components);
    if (!files) return undefined;
    for (const file of files) {
      const text = readFileSync(file, "utf8").replace(/(^|\s)#.*$/gm, "");
      for (const document of text.split(/^---/m)) {
        const type = firstMatch(document, /^\s*type:\s*["']?([\w.-]+)/m) ?? "";
        const kind = Object.keys(servers).find((name) => servers[name].type.test(type));
        if (kind && isRunHere(document, servers[kind].address, env)) kinds.add(kind);
      }
    }
  }
  return Object.keys(servers).filter((name) => kinds.has(name));
}

/** As the runner does: of files with one name in several layers, the last one counts. */
function filesOf(backend, components) {
  const files = new Map();
  for (const layer of backend.split(",").map((name) => name.trim())) {
    if (layer === "") continue;
    const ours = join(components, layer);
    const path = !/^[./]/.test(layer) && existsSync(ours) ? ours : resolve(root, layer);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) return undefined;
    const names = stat.isFile() ? [""] : readdirSync(path).filter((name) => /\.ya?ml$/.test(name));
    for (const name of names) files.set(name || basename(path), join(path, name));
  }
  return [...files.values()];
}

function isRunHere(document, address, env) {
  for (const item of document.split(/^\s*-\s+(?=\{?\s*name:)/m)) {
    if (!address.includes(firstMatch(item, /^\{?\s*name:\s*["']?([\w.-]+)/))) continue;
    const variable = firstMatch(item, /\bkey:\s*["']?([\w.-]+)/);
    return variable
      ? env[variable] === undefined
      : /(127\.0\.0\.1|localhost)(:\d|\/)|\bhost\s*=\s*(127\.0\.0\.1|localhost)/.test(item);
  }
  return false;
}

// --- what is there, and what is to be done -------------------------------------------------------------------------

/** How each package manager installs packages. */
const packageManagers = {
  "apt-get": {
    install: "apt-get install -y --no-install-recommends",
    refresh: "apt-get update",
  },
  dnf: { install: "dnf install -y" },
  yum: { install: "yum install -y" },
  apk: { install: "apk add", refresh: "apk update" },
  pacman: { install: "pacman -S --noconfirm", refresh: "pacman -Sy" },
  brew: { install: "brew install", asUser: true },
};

/**
 * Decides from facts alone how to get the programs: for `daprd` and for each key of `facts.servers` a path, "build" or
 * "install". Throws one SetupError that names everything that is missing and how to get it.
 */
export function plan(facts) {
  const { servers: found = {}, wrong = {}, go, goNeeded = {}, packageManager } = facts;
  const problems = [];
  if (Number.parseInt(facts.node, 10) < oldestNode)
    problems.push(
      `Node.js ${facts.node} is too old: install version ${oldestNode} or newer, https://nodejs.org`,
    );
  const canBuild = (name) => !!go && newEnough(go, goNeeded[name] ?? oldestGo);
  const whyNot = (name) => (go ? `Go ${go} is older than ${goNeeded[name] ?? oldestGo}` : "there is no Go");

  // Our own before one that is installed: it has the patches (dapr/tools/patches).
  const decided = { daprd: facts.daprd ?? (canBuild("daprd") ? "build" : (facts.installedDaprd ?? "build")) };
  if (wrong.daprd) problems.push(wrong.daprd);
  else if (decided.daprd === "build" && !canBuild("daprd"))
    problems.push(
      `The Dapr sidecar, daprd ${oldestDaprd} or newer, was not found, and it can't be built without Go:\n` +
        `  ${whyNot("daprd")}. Either install Dapr\n` +
        "    wget -q https://raw.githubusercontent.com/dapr/cli/master/install/install.sh -O - | /bin/bash\n" +
        "    dapr init --slim\n" +
        "  or install Go from https://go.dev/dl (this project then builds daprd by itself),\n" +
        "  or set DAPRD to the path of a daprd.",
    );

  if (facts.wantsSentry) {
    decided.sentry = facts.sentry ?? (canBuild("sentry") ? "build" : (facts.installedSentry ?? "build"));
    if (wrong.sentry) problems.push(wrong.sentry);
    else if (decided.sentry === "build" && !canBuild("sentry"))
      problems.push(
        "Dapr's certificate authority, sentry, was not found, and it can't be built without Go:\n" +
          `  ${whyNot("sentry")}. Install Go from https://go.dev/dl, or set SENTRY to the path of one\n` +
          "  from https://github.com/dapr/dapr/releases, or leave out --mtls.",
      );
  }

  if (facts.wantsHelm) {
    decided.helm = facts.helm ?? "build";
    if (wrong.helm) problems.push(wrong.helm);
    else if (decided.helm === "build" && !canBuild("helm"))
      problems.push(
        "helm, which renders the chart for its tests, was not found, and it can't be built without Go:\n" +
          `  ${whyNot("helm")}. Install helm (https://helm.sh/docs/intro/install) or Go (https://go.dev/dl),\n` +
          "  or set HELM to the path of a helm.",
      );
  }

  const manager = packageManagers[packageManager];
  const withoutRoot = [];
  for (const [name, path] of Object.entries(found)) {
    const { title, variable, packages, byHand } = servers[name];
    decided[name] = path ?? (name === "mongodb" ? "build" : "install");
    if (wrong[name]) problems.push(wrong[name]);
    else if (path) continue;
    else if (name === "mongodb") {
      if (!canBuild(name))
        problems.push(
          `${title} was not found, and a stand-in for development and tests can't be built without Go:\n` +
            `  ${whyNot(name)}. Install ${byHand},\n` +
            `  or Go from https://go.dev/dl, or set ${variable} to the path of a mongod.`,
        );
    } else if (!manager || !packages[packageManager])
      problems.push(
        `${title} was not found, nor a package manager that could install it. Install ${byHand},\n  or set ${setting(name)}.`,
      );
    else if (!facts.isRoot && !facts.canSudo && !manager.asUser) withoutRoot.push(name);
  }
  if (withoutRoot.length > 0) {
    const [were, them] = withoutRoot.length > 1 ? ["were", "them"] : ["was", "it"];
    const titles = withoutRoot.map((name) => servers[name].title).join(", ");
    const packages = withoutRoot.map((name) => servers[name].packages[packageManager]).join(" ");
    problems.push(
      `${titles} ${were} not found, and installing ${them} takes root:\n    sudo ${manager.install} ${packages}\n` +
        `  Or set ${withoutRoot.map(setting).join(", ")}.`,
    );
  }
  if (problems.length > 0) throw new SetupError(problems.map((problem) => `- ${problem}`).join("\n"));
  return decided;
}

const setting = (name) =>
  `${servers[name].variable} to ${servers[name].isDirectory ? "the directory that has them" : "its path"}`;

/** Looks around on this machine, for daprd, for these kinds of servers, and for what else is wanted. */
function gatherFacts(kinds, { wantsSentry, wantsHelm }) {
  const wrong = {};
  const givenSentry = process.env.SENTRY && resolve(process.env.SENTRY);
  if (wantsSentry && givenSentry && !isProgram(givenSentry))
    wrong.sentry = `SENTRY is set to ${givenSentry}, which is no program.`;
  const givenHelm = process.env.HELM && resolve(process.env.HELM);
  if (wantsHelm && givenHelm && !isProgram(givenHelm))
    wrong.helm = `HELM is set to ${givenHelm}, which is no program.`;
  const given = process.env.DAPRD?.includes("/") ? resolve(process.env.DAPRD) : process.env.DAPRD;
  const envVersion = given && daprdVersion(given);
  if (given && !(envVersion && newEnough(envVersion, oldestDaprd)))
    wrong.daprd = `DAPRD is set to ${given}, ${
      envVersion ? `version ${envVersion}; ${oldestDaprd} is needed` : "which doesn't run"
    }.`;
  const daprd = given || (existsSync(sidecar.target()) ? sidecar.target() : undefined);
  const found = {};
  for (const name of kinds) {
    const { variable, isDirectory } = servers[name];
    const value = process.env[variable];
    found[name] = locate(name);
    if (value && !found[name])
      wrong[name] =
        `${variable} is set to ${value}, which ${isDirectory ? "has no initdb and postgres" : "is no program"}.`;
    else if (name === "mongodb" && existsSync(standIn.target())) found[name] ??= standIn.target();
  }
  const isMissing = (name) => !found[name] && !wrong[name];
  const toInstall = kinds.filter((name) => name !== "mongodb" && isMissing(name));
  const foundSentry = givenSentry || (existsSync(sentry.target()) ? sentry.target() : undefined);
  const foundHelm = givenHelm || onPath("helm") || (existsSync(helm.target()) ? helm.target() : undefined);
  const toBuild = [
    ...(daprd ? [] : [sidecar]),
    ...(wantsSentry && !foundSentry ? [sentry] : []),
    ...(wantsHelm && !foundHelm ? [helm] : []),
    ...(kinds.includes("mongodb") && isMissing("mongodb") ? [standIn] : []),
  ];
  const packageManager =
    toInstall.length > 0 ? Object.keys(packageManagers).find((program) => onPath(program)) : undefined;
  const isRoot = process.getuid?.() === 0;
  return {
    node: process.versions.node,
    daprd,
    installedDaprd: daprd ? undefined : installedDaprd(),
    wantsSentry,
    sentry: foundSentry,
    // Not on PATH: there are other programs of that name.
    installedSentry: [join(homedir(), ".dapr", "bin", "sentry")].find(isProgram),
    wantsHelm,
    helm: foundHelm,
    servers: found,
    wrong,
    ...(toBuild.length > 0 ? goFacts(toBuild) : {}),
    packageManager,
    isRoot,
    canSudo: !!packageManager && !isRoot && spawnSync("sudo", ["-n", "true"]).status === 0,
  };
}

const installedDaprd = () =>
  [onPath("daprd"), join(homedir(), ".dapr", "bin", "daprd")].find(
    (path) => path && existsSync(path) && newEnough(daprdVersion(path) ?? "0", oldestDaprd),
  );

/**
 * Where a server's program is (PostgreSQL's directory): where its variable says, and only there if it is set, else on
 * PATH or in the usual places.
 * @param machine for tests: another environment, and a directory in place of the root directory
 */
export function locate(name, { env = process.env, machine = "" } = {}) {
  const { variable, names, places, lastPlaces, isDirectory } = servers[name];
  const path = (env.PATH ?? "").split(delimiter).filter((directory) => directory !== "");
  const given = env[variable];
  const programs = (directory) => names.map((program) => join(directory, program));
  const inDirectory = (directory) =>
    isDirectory ? programs(directory).every(isProgram) && directory : programs(directory).find(isProgram);
  if (given) {
    // Absolute: the runner starts servers in their own directories.
    if (isDirectory) return inDirectory(resolve(given)) || undefined;
    return given.includes("/") ? [resolve(given)].find(isProgram) : onPath(given, path);
  }
  const usual = places.flatMap((place) => expand(machine + place));
  const isLast = (directory) =>
    lastPlaces?.test(directory.slice(directory.startsWith(machine) ? machine.length : 0));
  const directories = [...path, ...usual];
  return (
    [...directories.filter((one) => !isLast(one)), ...directories.filter(isLast)]
      .map(inDirectory)
      .find(Boolean) || undefined
  );
}

/** The directories that a path with at most one `*` stands for, the newest version first. */
function expand(pattern) {
  const parts = pattern.split("/");
  const star = parts.findIndex((part) => part.includes("*"));
  if (star < 0) return [pattern];
  const parent = parts.slice(0, star).join("/");
  const [before, after] = parts[star].split("*");
  const names = existsSync(parent) ? readdirSync(parent) : [];
  return names
    .filter((name) => name.startsWith(before) && name.endsWith(after))
    .sort((one, other) => other.localeCompare(one, "en", { numeric: true }))
    .map((name) => join(parent, name, ...parts.slice(star + 1)));
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

const onPath = (program, path = (process.env.PATH ?? "").split(delimiter)) =>
  path.map((directory) => join(directory, program)).find(isProgram);

const daprdVersion = (path) =>
  firstMatch(spawnSync(path, ["--version"], { encoding: "utf8" }).stdout, /(\d+\.\d+\S*)/);

// --- programs that are installed -----------------------------------------------------------------------------------

/**
 * The shell script that installs the packages given as its arguments: at once, or after fetching the lists of packages.
 * Debian's packages start their servers and have them started at every boot. We start our own, on private ports, so both
 * are kept from happening, by the file that Debian's policy gives for that.
 * @param services that were not there before
 * @param policy Debian's file
 */
export function installScript(manager, services, policy = "/usr/sbin/policy-rc.d") {
  const { install, refresh } = packageManagers[manager];
  if (manager !== "apt-get")
    return `${install} "$@"${refresh ? ` || { ${refresh} && ${install} "$@"; }` : ""}`;
  const patient = install.replace("apt-get", "apt-get -o DPkg::Lock::Timeout=120"); // another one may be at work
  return `
export DEBIAN_FRONTEND=noninteractive
fresh=
for service in ${services.join(" ")}; do
  systemctl --quiet is-enabled $service >/dev/null 2>&1 || fresh="$fresh $service"
done
if [ ! -e ${policy} ]; then
  trap 'rm -f ${policy}' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\\nexit 101\\n' >${policy} && chmod 755 ${policy}
fi
${patient} "$@" || { ${refresh} && ${patient} "$@"; } || exit
for service in $fresh; do systemctl --quiet disable $service >/dev/null 2>&1; done
exit 0`;
}

/** Installs servers with the package manager, and answers where they are. */
async function install(names, { packageManager, isRoot }) {
  const { install, asUser } = packageManagers[packageManager];
  const missing = names.filter((name) => !locate(name)); // another set-up may have been faster
  if (missing.length > 0) {
    const packages = missing.map((name) => servers[name].packages[packageManager]);
    const titles = missing.map((name) => servers[name].title).join(", ");
    console.log(
      `not here: ${titles}; installing ${packages.join(", ")} with ${packageManager}${
        packageManager === "apt-get" ? " (as programs: no service of the system is started)" : ""
      }`,
    );
    const script = installScript(
      packageManager,
      missing.flatMap((name) => servers[name].services),
    );
    const command = ["/bin/sh", "-c", script, "sh", ...packages];
    const [program, ...args] = isRoot || asUser ? command : ["sudo", "-n", ...command];
    const title = `${install} ${packages.join(" ")}`;
    const byHand = missing.map((name) => `\n  ${servers[name].byHand}; set ${setting(name)}`).join("");
    try {
      await step(`installing ${packages.join(", ")}`, () => run(program, args, { title }));
    } catch (error) {
      throw new SetupError(`${error.message}\nWhat can't be had this way can be installed by hand:${byHand}`);
    }
    const lost = missing.filter((name) => !locate(name));
    if (lost.length > 0)
      throw new SetupError(
        `"${title}" succeeded, but there is no ${lost.map((name) => `${servers[name].title} (set ${setting(name)})`).join(", no ")}.`,
      );
  }
  return Object.fromEntries(names.map((name) => [name, locate(name)]));
}

// -------------------------------------------------------------------------------------------------------------------

/**
 * Looks for daprd and for these kinds of servers. The function answered provides what is to be built or installed, and
 * gives the environment that tells where all of them are. @throws SetupError if some can't be had
 * @param wanted `wantsSentry`: sidecars are to have certificates; `wantsHelm`: the chart is to be rendered
 */
export function prepareTools(kinds, wanted = {}) {
  const facts = gatherFacts(kinds, wanted);
  const decided = plan(facts);
  return async () => {
    const toInstall = kinds.filter((name) => decided[name] === "install");
    // First what takes least, and fails most.
    if (toInstall.length > 0)
      Object.assign(decided, await alone("packages", () => install(toInstall, facts)));
    if (decided.daprd === "build") decided.daprd = await build(sidecar);
    else if (decided.daprd === facts.installedDaprd)
      console.log(
        `using ${decided.daprd}: without Go it can't be built with our patch, so a message may be lost when a service is killed (docs/operations.md)`,
      );
    if (decided.sentry === "build") decided.sentry = await build(sentry);
    if (decided.helm === "build") decided.helm = await build(helm);
    if (decided.mongodb === "build") decided.mongodb = await build(standIn);
    const env = kinds.map((name) => [servers[name].variable, decided[name]]);
    return {
      DAPRD: decided.daprd,
      ...(decided.sentry && { SENTRY: decided.sentry }),
      ...(decided.helm && { HELM: decided.helm }),
      ...Object.fromEntries(env),
    };
  };
}
