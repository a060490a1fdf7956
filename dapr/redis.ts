/** Redis, for state and for events. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { firstReply } from "./probe.js";
import type { Account, ServerKind, Site } from "./servers.js";

export const redis: ServerKind = {
  name: "redis",
  port: 6389,
  type: /\.redis$/,
  addressItems: ["redisHost"],
  read: ({ name, metadata }) => ({
    address: metadata.redisHost,
    user: metadata.redisUsername ?? name,
    password: metadata.redisPassword ?? "",
    database: name,
  }),
  command: () => process.env.REDIS_SERVER ?? "redis-server",
  // Durability: docs/decisions/0002-redis-durability.md
  args: ({ port, directory, accounts }) => [
    ...["--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""],
    ...["--appendonly", "yes", "--appendfsync", "always"],
    ...(accounts.length === 0 ? [] : ["--aclfile", aclFile(directory)]),
  ],
  async setUp({ directory, accounts }) {
    if (accounts.length === 0) return;
    const users = accounts.map((account) => `user ${account.user} on ${rights(account)} #${hash(account)}`);
    // Nobody can log in as default, but Redis reads its own file of writes as that user: without rights it would leave out every
    // transaction and script in it, which is all that Dapr writes, and start empty.
    const nobody = "user default off ~* &* +@all";
    writeFileSync(aclFile(directory), `${nobody}\n${users.join("\n")}\n`, { mode: 0o600 });
  },
  ready: answersPing,
};

const aclFile = (directory: string) => join(directory, "users.acl");

const hash = ({ password }: Account) => createHash("sha256").update(password).digest("hex");

/**
 * A store sees its own keys (`keyPrefix: name`), the bus its streams: they are called like events, or dead-letters-….
 * What could harm the others (FLUSHALL knows no keys) is left out; Dapr's components ask for INFO.
 */
const rights = ({ user, type }: Account) =>
  `${type.startsWith("pubsub.") ? "~[A-Z]* ~dead-letters-*" : `~${user}||*`} +@all -@dangerous +info`;

/** Whether it answers PING: it does not while it still loads its data, to one who has logged in. */
async function answersPing({ port, accounts: [account] }: Site): Promise<boolean> {
  const login = account === undefined ? "" : `AUTH ${account.user} ${account.password}\r\n`;
  const reply = await firstReply(port, `${login}PING\r\n`);
  return reply?.toString().endsWith("+PONG\r\n") ?? false;
}
