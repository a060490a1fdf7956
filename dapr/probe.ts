/** Asks a server on this machine something, to see whether it does its work. */
import { connect } from "node:net";

/** Whether a GET succeeds now. */
export async function answers(url: string, headers: Record<string, string> = {}): Promise<boolean> {
  try {
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(2000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

/**
 * What a server says first, at most to the length of one packet, after it was told `question` (nothing, if that is empty);
 * undefined if it says nothing within a second.
 */
export function firstReply(port: number, question: string | Buffer = ""): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(question));
    const finish = (reply?: Buffer) => {
      socket.destroy();
      resolve(reply);
    };
    socket.setTimeout(1000, () => finish());
    socket.on("error", () => finish());
    socket.on("close", () => finish());
    socket.once("data", finish);
  });
}
