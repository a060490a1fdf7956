/** RabbitMQ, for events. */
import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { firstReply } from "./probe.js";
import { pathOf } from "./processes.js";
import type { Account, ServerKind } from "./servers.js";

/** Part of the data, so it stays the same when `--ports` moves the server. Nobody else hears of it. */
const node = "jangteo@127.0.0.1";

export const rabbitmq: ServerKind = {
  name: "rabbitmq",
  port: 5682,
  type: /\.rabbitmq$/,
  addressItems: ["hostname", "connectionString", "host"],
  read: ({ name, metadata }) => ({
    address: metadata.hostname,
    user: metadata.username ?? name,
    password: metadata.password ?? "",
    database: "",
  }),
  command: () => scriptOf(pathOf(process.env.RABBITMQ_SERVER ?? "rabbitmq-server")),
  args: () => [],
  env: ({ port, directory }) => ({
    // Settings of another RabbitMQ or Erlang on this machine.
    ...Object.fromEntries(
      Object.keys(process.env)
        .filter((name) => /^(RABBITMQ|ERL)_/.test(name))
        .map((name) => [name, undefined]),
    ),
    HOME: directory, // .erlang.cookie
    RUNNING_UNDER_SYSTEMD: "true", // the script becomes the server, rather than its parent, which would leave it behind when killed
    RABBITMQ_NODENAME: node,
    RABBITMQ_USE_LONGNAME: "true",
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-name ${node} -kernel inet_dist_use_interface {127,0,0,1}`,
    // No other node ever connects: no listener for them, and no epmd, a daemon that would stay behind. RabbitMQ looks
    // after epmd once a minute by running another Erlang, which has to know this as well: hence by the environment.
    // Erlang before 25 does not know dist_listen and listens on the next port.
    ERL_FLAGS: `-start_epmd false -erl_epmd_port ${port + 1} -dist_listen false`,
    RABBITMQ_CONF_ENV_FILE: join(directory, "rabbitmq-env.conf"),
    RABBITMQ_CONFIG_FILE: join(directory, "rabbitmq.conf"),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(directory, "advanced.config"),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, "enabled_plugins"),
    RABBITMQ_MNESIA_BASE: directory,
    RABBITMQ_MNESIA_DIR: join(directory, "mnesia"),
    RABBITMQ_LOG_BASE: directory,
    RABBITMQ_LOGS: "-",
    RABBITMQ_PID_FILE: join(directory, "pid"),
    ERL_CRASH_DUMP: join(directory, "erl_crash.dump"),
  }),
  async setUp({ port, directory, accounts }) {
    const write = (name: string, text: string) => writeFileSync(join(directory, name), text, { mode: 0o600 });
    write("enabled_plugins", "[].\n");
    write("rabbitmq-env.conf", "");
    write("definitions.json", definitions(accounts));
    write(
      "rabbitmq.conf",
      [
        `listeners.tcp.1 = 127.0.0.1:${port}`,
        `load_definitions = ${join(directory, "definitions.json")}`,
        "log.console.level = warning",
        "",
      ].join("\n"),
    );
  },
  // It answers the head of its protocol with a method (1) when it has loaded its definitions.
  ready: async ({ port }) => (await firstReply(port, "AMQP\0\0\x09\x01"))?.[0] === 1,
};

/** Packages put a wrapper on PATH that runs the server as a user of its own, in a directory of its own. */
const scriptOf = (path: string) =>
  basename(path) === "rabbitmq-script-wrapper" ? join(dirname(path), "rabbitmq-server") : path;

/**
 * Read at every start: the accounts, which are all there are (where definitions are given, RabbitMQ makes no guest), and a
 * queue for what each app's sidecar sets aside by itself. The app subscribes to that topic with a queue of its own; without this
 * one, the broker would throw away what comes before that.
 */
export function definitions(accounts: readonly Account[]): string {
  const deadLetters = [...new Set(accounts.flatMap(({ scopes }) => scopes))].map(
    (app) => `dead-letters-${app}`,
  );
  const lasting = { vhost: "/", durable: true, auto_delete: false, arguments: {} };
  return JSON.stringify({
    exchanges: deadLetters.map((name) => ({ name, type: "fanout", internal: false, ...lasting })),
    queues: deadLetters.map((name) => ({ name, ...lasting })),
    bindings: deadLetters.map((name) => ({
      ...{ vhost: "/", source: name, destination: name, destination_type: "queue" },
      ...{ routing_key: "", arguments: {} },
    })),
    vhosts: [{ name: "/" }],
    users: accounts.map(({ user, password }) => ({
      ...{ name: user, tags: "", hashing_algorithm: "rabbit_password_hashing_sha256" },
      password_hash: hash(password),
    })),
    permissions: accounts.map(({ user }) => ({
      ...{ user, vhost: "/", configure: ".*", write: ".*", read: ".*" },
    })),
  });
}

/** A salt of four bytes, and the digest of it and the password. */
function hash(password: string): string {
  const salt = randomBytes(4);
  const digest = createHash("sha256").update(salt).update(password).digest();
  return Buffer.concat([salt, digest]).toString("base64");
}
