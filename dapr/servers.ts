/** The servers that a backend needs on this machine, derived from its Dapr components. */
import { connect } from "node:net";
import { join } from "node:path";
import type { Component } from "./topology.js";

/** A server process to start before the sidecars. */
export interface Server {
  name: string;
  port: number;
  command: string;
  args: string[];
  /** Its private data directory, to be made. */
  directory: string;
  ready: () => Promise<boolean>;
}

/** How a kind of server is recognised in a component and how it is run. A new backend adds its rows here. */
interface ServerKind {
  name: string;
  /** A component of this type uses such a server … */
  type: RegExp;
  /** … at the address in this metadata item. Only a loopback address is ours to start. */
  address: string;
  command: () => string;
  args: (port: number, directory: string) => string[];
  ready: (port: number) => Promise<boolean>;
}

const kinds: ServerKind[] = [
  {
    name: "redis",
    type: /\.redis$/,
    address: "redisHost",
    command: () => process.env.REDIS_SERVER ?? "redis-server",
    // Durability: docs/decisions/0002-redis-durability.md
    args: (port, directory) => [
      ...["--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""],
      ...["--appendonly", "yes", "--appendfsync", "always"],
    ],
    ready: pings,
  },
];

/** One server per distinct loopback address that the components name. */
export function serversFor(components: Component[], data: string): Server[] {
  const servers = new Map<number, Server>();
  for (const { type, metadata } of components) {
    const kind = kinds.find((candidate) => candidate.type.test(type));
    const port = Number(/^(?:127\.0\.0\.1|localhost):(\d+)$/.exec(metadata[kind?.address ?? ""] ?? "")?.[1]);
    if (!kind || !port || servers.has(port)) continue;
    const sameKind = [...servers.values()].filter((server) => server.name.startsWith(kind.name)).length;
    const name = sameKind ? `${kind.name}-${sameKind + 1}` : kind.name;
    const directory = join(data, name);
    servers.set(port, {
      name,
      port,
      command: kind.command(),
      args: kind.args(port, directory),
      directory,
      ready: () => kind.ready(port),
    });
  }
  return [...servers.values()];
}

/** Whether a Redis server answers PING: it doesn't while it still loads its data. */
function pings(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write("PING\r\n"));
    const finish = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1000, () => finish(false));
    socket.on("error", () => finish(false));
    socket.once("data", (reply) => finish(reply.toString().startsWith("+PONG")));
  });
}
