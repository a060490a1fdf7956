import type { Server, ServerResponse } from "node:http";
import { type AddressInfo, Server as NetServer } from "node:net";

/** In ms; tests have shorter ones. */
export const DRAIN = {
  /** Whoever has just been told this address still comes; when nobody has for so long, nobody will. */
  quiet: 500,
  /** Longest time that requests are waited for. */
  most: 6_000,
};

/** Where a service listens. */
export interface Address {
  port: number;
  host: string;
  /** a listening socket that was handed down, and that others may listen at too (the runner's, for the gateway) */
  fd?: number | undefined;
}

/**
 * A service's ear: HTTP servers at its own port and, where one was handed down, at a shared socket. It can stop listening
 * without refusing anybody and without cutting anybody off.
 */
export class Listening {
  private readonly underWay = new Set<ServerResponse>();
  private lastRequest = Number.NEGATIVE_INFINITY;
  private leaving = false;
  private hurried = false;

  private constructor(
    private readonly own: Server | undefined,
    private readonly shared: Server | undefined,
  ) {}

  /** Resolves once it listens. @param make called for each place to listen at. @throws Error of the system if it cannot */
  static async at({ port, host, fd }: Address, make: () => Server): Promise<Listening> {
    const shared = fd === undefined ? undefined : await listen(make(), { fd });
    const isOwn = (shared?.address() as AddressInfo | undefined)?.port === port;
    const listening = new Listening(isOwn ? undefined : await listen(make(), { port, host }), shared);
    for (const server of listening.servers) {
      server.prependListener("request", (_request, response: ServerResponse) => listening.note(response));
    }
    return listening;
  }

  /**
   * Answers what has begun and what still comes, asks clients to close their connections, and stops listening when it is
   * quiet, or after {@link DRAIN.most}. At the shared socket it stops at once: there others go on.
   * @param quiet ms without a request; 0 where nobody is expected any more
   */
  async drain(quiet = DRAIN.quiet, most = DRAIN.most): Promise<void> {
    const since = performance.now();
    this.leaving = true;
    for (const response of this.underWay) lastOfItsConnection(response);
    // Unlike http's own close(), that of its base class leaves open the connections that are idle at this moment: their
    // clients may be about to send.
    if (this.shared !== undefined) NetServer.prototype.close.call(this.shared);
    const patient = () => !this.hurried && performance.now() - since < most;
    const isQuiet = () => performance.now() - Math.max(this.lastRequest, since) >= quiet;
    while (patient() && !(this.underWay.size === 0 && isQuiet())) await pause();
    for (const server of this.servers) server.close();
    while (patient() && this.underWay.size > 0) await pause();
    for (const server of this.servers) server.closeAllConnections();
  }

  /** Ends a drain that is under way. */
  hurry(): void {
    this.hurried = true;
  }

  private get servers(): Server[] {
    return [this.own, this.shared].filter((server) => server !== undefined);
  }

  private note(response: ServerResponse): void {
    this.lastRequest = performance.now();
    this.underWay.add(response);
    response.once("close", () => this.underWay.delete(response));
    if (this.leaving) lastOfItsConnection(response);
  }
}

function lastOfItsConnection(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader("connection", "close");
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

async function listen(
  server: Server,
  where: { fd: number } | { port: number; host: string },
): Promise<Server> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, resolve);
  });
  return server;
}
