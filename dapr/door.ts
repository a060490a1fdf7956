/** The one address that clients know, kept by the runner while the processes behind it come and go. */
import * as net from "node:net";

/** A listening socket without anybody who accepts: what Node's cluster module shares among its workers. */
interface Handle {
  fd: number;
  close(): void;
}

/**
 * Node has no public way to bind a socket and not accept at it. This one has been there since its cluster module, which
 * depends on it; it answers the number of an error where it fails.
 */
const createServerHandle = (
  net as unknown as { _createServerHandle?: (host: string, port: number, family: 4) => Handle | number }
)._createServerHandle;

/** A socket at an address, to be handed down to processes by its number. */
export interface Door {
  fd: number;
  /** The address is given up once the processes that have it have ended, too. */
  close(): void;
}

/**
 * Opens the address. Clients that come while nobody listens there any more wait, and are refused only before the first
 * process has begun to listen. Undefined if it can't be opened: then a process must open it by itself.
 */
export function openDoor(port: number): Door | undefined {
  const handle = createServerHandle?.("127.0.0.1", port, 4);
  return typeof handle === "object" ? handle : undefined;
}
