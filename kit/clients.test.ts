import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import { clients, networkOf, RateLimit } from "#kit/clients.js";
import { Problem } from "#kit/problem.js";

const request = (remoteAddress: string, forwarded?: string) =>
  ({
    headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
    socket: { remoteAddress },
    connection: { remoteAddress },
  }) as unknown as IncomingMessage;

describe("who asks", () => {
  it("is the address of the connection, whatever a header says", () => {
    assert.equal(clients([])(request("203.0.113.9", "10.1.2.3")), "203.0.113.9");
    assert.equal(clients(["10.0.0.0/8"])(request("203.0.113.9", "10.1.2.3")), "203.0.113.9");
  });

  it("is, behind a trusted proxy, the last one that is none, whatever was said before it", () => {
    const clientOf = clients(["10.0.0.0/8", "::1"]);
    assert.equal(clientOf(request("10.0.0.1", "203.0.113.9")), "203.0.113.9");
    assert.equal(clientOf(request("::1", "198.51.100.1, 203.0.113.9, 10.2.2.2")), "203.0.113.9");
    assert.equal(clientOf(request("10.0.0.1")), "10.0.0.1");
    assert.equal(clientOf(request("10.0.0.1", "x".repeat(5_000))).length, 64);
  });

  it("is a network of 64 bits for IPv6, and IPv4 in either form", () => {
    for (const address of ["2001:db8:0:7::1", "2001:DB8::7:0:0:0:2", "2001:0db8:0000:0007:9:9:9:9"])
      assert.equal(networkOf(address), "2001:db8:0:7::/64", address);
    assert.equal(networkOf("::1"), "0:0:0:0::/64");
    assert.equal(networkOf("fe80::1%eth0"), "fe80:0:0:0::/64");
    assert.equal(networkOf("::ffff:192.0.2.1"), "192.0.2.1");
  });
});

describe("the rate limit", () => {
  let now = 0;
  const refused = (limit: RateLimit, client: string): Problem | undefined => {
    try {
      limit.take(client);
      return undefined;
    } catch (error) {
      assert.ok(error instanceof Problem);
      return error;
    }
  };
  /** How many of `count` requests are taken. */
  const taken = (limit: RateLimit, client: string, count: number) =>
    Array.from({ length: count }, () => refused(limit, client)).filter((one) => one === undefined).length;

  it("takes twice as many at once, and then so many per second, however many come", () => {
    const limit = new RateLimit(10, () => now);
    assert.equal(taken(limit, "a", 100), 20);
    for (let ms = 0; ms < 5_000; ms += 10) {
      now += 10;
      if (ms % 1_000 === 0) assert.equal(taken(limit, "b", 2), 2, "another client");
    }
    assert.equal(taken(limit, "a", 100), 20);
    let sum = 0;
    for (let ms = 0; ms < 5_000; ms += 5) {
      now += 5;
      sum += taken(limit, "a", 1);
    }
    assert.equal(sum, 50);
  });

  it("says when to come again", () => {
    const limit = new RateLimit(1, () => now);
    taken(limit, "a", 2);
    const problem = refused(limit, "a");
    assert.deepEqual(
      [problem?.status, problem?.code, problem?.headers],
      [
        429,
        "too-many-requests",
        { "retry-after": "1", "ratelimit-policy": '"client";q=1;w=1', ratelimit: '"client";r=0;t=1' },
      ],
    );
    now += 1_000;
    assert.equal(refused(limit, "a"), undefined);
  });

  it("remembers a bounded number of clients, those who asked last", () => {
    const limit = new RateLimit(1, () => now, 100);
    for (let i = 0; i < 10_000; i++) {
      taken(limit, `other ${i}`, 1);
      if (i % 50 === 0) taken(limit, "busy", 10);
    }
    assert.equal(limit.size, 100);
    assert.equal(taken(limit, "busy", 10), 0);
  });

  it("of 0 is none", () => {
    assert.equal(taken(new RateLimit(0, () => now), "a", 10_000), 10_000);
  });
});
