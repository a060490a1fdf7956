/** MongoDB, for state: a mongod, or the stand-in for machines without one (dapr/tools/mongodb). */
import { randomBytes } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { firstReply } from "./probe.js";
import { pathOf, until } from "./processes.js";
import type { Account, Administrator, ServerKind, Site } from "./servers.js";
import { type Component, StartError } from "./topology.js";

const administrator = "root";
const replicaSet = "jangteo";

export const mongodb: ServerKind = {
  name: "mongodb",
  port: 7027,
  type: /\.mongodb$/,
  addressItems: ["host", "server", "connectionString"],
  read: ({ name, metadata }) => ({
    address: metadata.host,
    user: metadata.username ?? name,
    password: metadata.password ?? "",
    database: metadata.databaseName ?? name,
  }),
  command,
  args: (site) => argsOf(site, isStandIn()),
  async setUp({ directory, accounts, rootPassword }) {
    if (isStandIn()) writeFileSync(usersFile(directory), usersJson(accounts, rootPassword), { mode: 0o600 });
    // With a login, the members of a replica set know each other by a key, even if there is but one.
    else if (!existsSync(keyFile(directory)))
      writeFileSync(keyFile(directory), randomBytes(96).toString("base64"), { mode: 0o400 });
  },
  ready: async ({ port }) => (await firstReply(port, hello)) !== undefined,
  async prepare(site) {
    if (!isStandIn()) await prepareMongod(site);
  },
};

function command(): string {
  return process.env.MONGOD ?? "mongod";
}

const isStandIn = () => basename(pathOf(command())).includes("standin");
const usersFile = (directory: string) => join(directory, "users.json");
const keyFile = (directory: string) => join(directory, "key");

/** The command line. A mongod is a replica set of one: only there are its transactions to be had. */
export const argsOf = ({ port, directory }: Site, standIn: boolean): string[] => [
  ...["--port", String(port), "--bind_ip", "127.0.0.1", "--dbpath", directory],
  ...(standIn
    ? ["--users", usersFile(directory)]
    : [
        "--replSet",
        replicaSet,
        "--keyFile",
        keyFile(directory),
        "--nounixsocket",
        "--wiredTigerCacheSizeGB",
        "0.25",
      ]),
];

const usersJson = (accounts: readonly Account[], rootPassword: string) =>
  JSON.stringify([
    { user: administrator, password: rootPassword, database: "admin", roles: ["root"] },
    ...accounts.map(({ user, password, database }) => ({ user, password, database })),
  ]);

/** `{hello: 1, $db: "admin"}` as an OP_MSG, which is answered to anybody. */
const hello = (() => {
  const document = Buffer.from("\0\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0", "latin1");
  document.writeInt32LE(document.length);
  const head = Buffer.alloc(21);
  head.writeInt32LE(head.length + document.length);
  head.writeInt32LE(1, 4); // request id
  head.writeInt32LE(2013, 12); // OP_MSG; behind it flags, and the kind of the one section: 0
  return Buffer.concat([head, document]);
})();

/** How the members of the replica set must be changed: it knows itself by its address, and `--ports` may have moved it. */
export function reconfigured<C extends { version: number; members: { host: string }[] }>(
  config: C,
  address: string,
): C | undefined {
  const [member] = config.members;
  if (member === undefined || member.host === address) return undefined;
  return { ...config, version: config.version + 1, members: [{ ...member, host: address }] };
}

const [authenticationFailed, alreadyInitialized, notYetInitialized, userNotFound] = [18, 23, 94, 11];

/** What a mongod can only be told when it runs. Not tried on a real one yet: where this was written there is none. */
async function prepareMongod({ port, accounts, rootPassword }: Site): Promise<void> {
  const { MongoClient } = (await import("mongoose")).default.mongo;
  const address = `127.0.0.1:${port}`;
  const connect = (options = {}) =>
    new MongoClient(`mongodb://${address}/`, {
      ...{ directConnection: true, serverSelectionTimeoutMS: 5000 },
      ...options,
    }).connect();
  const login = () =>
    connect({ auth: { username: administrator, password: rootPassword }, authSource: "admin" });
  const becomesPrimary = async (client: Client) => {
    if (!(await until(async () => (await admin(client, { hello: 1 })).isWritablePrimary === true, 20_000)))
      throw new StartError(`mongodb on port ${port} does not become the primary of its replica set`);
  };

  /** As long as it knows no user, it lets whoever is on its machine make the first one. */
  const begin = async () => {
    const client = await connect();
    try {
      const config = { _id: replicaSet, members: [{ _id: 0, host: address }] };
      // Initiated, and without a user: an earlier start was killed in between.
      await admin(client, { replSetInitiate: config }).catch(unless(alreadyInitialized));
      await becomesPrimary(client);
      await admin(client, { createUser: administrator, pwd: rootPassword, roles: ["root"] });
    } finally {
      await client.close();
    }
  };

  const client = await login().catch(async (error) => {
    unless(authenticationFailed)(error);
    await begin();
    return login();
  });
  try {
    const { config } = await admin(client, { replSetGetConfig: 1 });
    const changed = reconfigured(config, address);
    if (changed !== undefined) await admin(client, { replSetReconfig: changed, force: true });
    await becomesPrimary(client);
    await setAccounts(client, accounts);
  } finally {
    await client.close();
  }
}

/**
 * At servers that run already: makes a replica set of them where they are none yet, and each component's user in its own
 * database.
 * @param address HOST:PORT, or those of all members with commas between
 */
export async function prepareReplicaSet(
  address: string,
  components: readonly Component[],
  { user = administrator, password }: Administrator,
): Promise<void> {
  const { MongoClient } = (await import("mongoose")).default.mongo;
  const members = address.split(",");
  const connect = (to: string, options: object) =>
    new MongoClient(`mongodb://${to}/`, {
      ...{ auth: { username: user, password }, authSource: "admin", serverSelectionTimeoutMS: 5_000 },
      ...options,
    }).connect();
  const set = replicaSetOf(components);
  if (set !== undefined) {
    const first = await connect(members[0] ?? address, { directConnection: true });
    try {
      const isNew = await admin(first, { replSetGetConfig: 1 }).then(
        () => false,
        ({ code }: { code?: number }) => code === notYetInitialized,
      );
      const config = { _id: set, members: members.map((host, _id) => ({ _id, host })) };
      if (isNew) await admin(first, { replSetInitiate: config }).catch(unless(alreadyInitialized));
    } finally {
      await first.close();
    }
  }
  // Waits for its primary.
  const client = await connect(address, {
    ...(set === undefined ? {} : { replicaSet: set }),
    serverSelectionTimeoutMS: 20_000,
  });
  try {
    await setAccounts(client, components.map(mongodb.read));
  } finally {
    await client.close();
  }
}

/** What the components say of it: `params: ?replicaSet=rs0`. */
const replicaSetOf = (components: readonly Component[]): string | undefined =>
  components
    .map(({ metadata }) => new URLSearchParams(metadata.params ?? "").get("replicaSet"))
    .find((set) => set !== null) ?? undefined;

type Client = Awaited<ReturnType<InstanceType<typeof import("mongoose").mongo.MongoClient>["connect"]>>;

const admin = (client: Client, command: object) => client.db("admin").command(command);

/** Each component's user, in a database of its own. */
async function setAccounts(
  client: Client,
  accounts: readonly Pick<Account, "user" | "password" | "database">[],
): Promise<void> {
  for (const { user, password, database } of accounts) {
    const own = client.db(database);
    const rights = { pwd: password, roles: [{ role: "readWrite", db: database }] };
    const updated = await own.command({ updateUser: user, ...rights }).catch(unless(userNotFound));
    if (updated === undefined) await own.command({ createUser: user, ...rights });
  }
}

/** Lets one error of MongoDB pass, by its code. */
const unless =
  (code: number) =>
  (error: { code?: number }): undefined => {
    if (error.code !== code) throw error;
  };
