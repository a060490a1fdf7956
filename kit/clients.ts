import type { IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";
import proxyAddr from "proxy-addr";
import { tooManyRequests } from "#kit/problem.js";

/**
 * Who asks, as far as an address tells: that of the connection; behind a trusted proxy the last one in X-Forwarded-For that
 * is not a trusted proxy's. What stands before it there is the client's own word, and not believed. An IPv6 client is
 * its /64, for it has all of that to choose from.
 * @param trusted addresses and networks (CIDR) of proxies
 */
export function clients(trusted: readonly string[]): (request: IncomingMessage) => string {
  const trust = trusts(trusted);
  return (request) => networkOf(proxyAddr(request, trust) ?? "");
}

/** Whether an address is one of these proxies'. */
export const trusts = (trusted: readonly string[]): ((address: string) => boolean) => {
  if (trusted.length === 0) return () => false;
  const trust = proxyAddr.compile([...trusted]);
  return (address) => trust(address, 0);
};

/** What one client can't change of its address at will. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=[\d.]+$)/i, "").replace(/%.*$/, "");
  if (!isIPv6(plain)) return plain.slice(0, 64); // a proxy may say anything
  const [head = "", tail] = plain.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? 0 : tail.split(":").length;
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - groups.length - after);
  const all = [...groups, ...Array<string>(zeros).fill("0"), ...(tail ?? "").split(":")];
  return `${all
    .slice(0, 4)
    .map((group) => Number.parseInt(group || "0", 16).toString(16))
    .join(":")}::/64`;
}

/** Most clients that are remembered: some 100 bytes each. */
const REMEMBERED = 10_000;

interface Bucket {
  tokens: number;
  /** when that was, in ms */
  at: number;
}

/**
 * So many requests per second for each client, and twice as many at once after a rest (a token bucket each). Of more
 * clients than can be remembered those are forgotten that have asked for nothing for longest; to profit from it somebody needs
 * thousands of addresses, and has then no use for it.
 */
export class RateLimit {
  private readonly buckets = new Map<string, Bucket>();

  /** @param perSecond 0: as many as they like */
  constructor(
    private readonly perSecond: number,
    private readonly now: () => number = () => performance.now(),
    private readonly remembered = REMEMBERED,
  ) {}

  /** One request of a client. @throws Problem 429 */
  take(client: string): void {
    if (this.perSecond === 0) return;
    const [now, burst] = [this.now(), 2 * this.perSecond];
    const bucket = this.buckets.get(client) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, bucket.tokens + ((now - bucket.at) / 1_000) * this.perSecond);
    this.buckets.delete(client);
    // The last in order, as the latest to ask.
    this.buckets.set(client, { tokens: tokens < 1 ? tokens : tokens - 1, at: now });
    if (this.buckets.size > this.remembered) this.forgetOne();
    if (tokens < 1) throw tooManyRequests(this.perSecond, Math.ceil((1 - tokens) / this.perSecond));
  }

  get size(): number {
    return this.buckets.size;
  }

  private forgetOne(): void {
    for (const client of this.buckets.keys()) {
      this.buckets.delete(client);
      return;
    }
  }
}
