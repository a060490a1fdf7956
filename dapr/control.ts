/** The door for operators of a running system: a socket in its data directory, open to its owner only. */
import { chmodSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { z } from "zod";
import { StartError } from "./topology.js";

/** What an operator may ask for. */
const orderSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("restart"), apps: z.array(z.string()) }),
  z.strictObject({ kind: z.literal("scale"), counts: z.record(z.string(), z.number()) }),
]);
export type Order = z.infer<typeof orderSchema>;

/** One line of the answer: what happens, and at the end how it went. */
type Line = { said: string } | { error: string } | { done: true };

const stopped = "The system stopped before it was done.";

/** Longest path that every system takes as the name of a socket. */
const longest = 100;
const socketOf = (data: string) => join(data, "run", "control.sock");

export interface Control {
  close(): void;
}

/**
 * Listens for orders; whatever a killed runner left there is replaced.
 * @param carryOut does what is asked, telling what happens; its StartErrors are told, too
 */
export async function openControl(
  data: string,
  carryOut: (order: Order, say: (message: string) => void) => Promise<void>,
): Promise<Control | undefined> {
  const socket = socketOf(data);
  if (socket.length > longest) return undefined;
  rmSync(socket, { force: true });
  const server = createServer(async (incoming, outgoing) => {
    const say = (line: Line) => outgoing.write(`${JSON.stringify(line)}\n`);
    outgoing.flushHeaders();
    try {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const order = orderSchema.parse(JSON.parse(Buffer.concat(chunks).toString()));
      await carryOut(order, (said) => say({ said }));
      say({ done: true });
    } catch (error) {
      say({ error: error instanceof StartError ? error.message : String(error) });
    }
    outgoing.end();
  });
  server.unref();
  const before = process.umask(0o177); // nobody else gets in, not even before the next line
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(socket, resolve);
      process.umask(before);
    });
  } finally {
    process.umask(before);
  }
  chmodSync(socket, 0o600);
  return {
    close() {
      server.close();
      server.closeAllConnections();
      rmSync(socket, { force: true });
    },
  };
}

/**
 * Gives an order to the system that runs on a data directory, and resolves when it is carried out.
 * @param say told what happens meanwhile
 * @throws StartError if no system runs there, or with the reason why it can't be done
 */
export function ask(data: string, order: Order, say: (message: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (message: string) => reject(new StartError(message));
    const outgoing = request({ socketPath: socketOf(data), method: "POST" }, (answer) => {
      let rest = "";
      answer.setEncoding("utf8").on("data", (text: string) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines.map((one) => JSON.parse(one) as Line)) {
          if ("said" in line) say(line.said);
          else if ("error" in line) fail(line.error);
          else resolve();
        }
      });
      answer.on("close", () => fail(stopped));
    });
    outgoing.on("error", ({ code = "" }: NodeJS.ErrnoException) =>
      fail(
        ["ENOENT", "ECONNREFUSED", "ENOTSOCK"].includes(code)
          ? `No system runs on ${data}. Start one with npm start, or name its directory: --data DIR`
          : stopped,
      ),
    );
    outgoing.end(JSON.stringify(order));
  });
}
