import assert from "node:assert/strict";
import { once } from "node:events";
import type { RequestListener, Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { after, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { FRONT, type Limits, limitedServer } from "#kit/limits.js";
import { until } from "#kit/testing.js";

const servers: Server[] = [];
after(() => {
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

/** Answers every request that has arrived, with its body. */
const echo: RequestListener = async (request, response) => {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
  } catch {
    return; // cut off
  }
  response.end(Buffer.concat(chunks));
};

/** A server, and connections to it. */
async function scene(limits: Partial<Limits> = {}, handler: RequestListener = echo) {
  const server = limitedServer(handler, { ...FRONT, ...limits }, (address) => address === "127.0.0.9");
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    server,
    /** A connection, and all that came over it. */
    async open(from = "127.0.0.1"): Promise<Line> {
      const socket = connect({ port, host: "127.0.0.1", localAddress: from });
      const line: Line = { socket, text: "", closed: false, failed: false };
      socket.setEncoding("utf8");
      socket.on("data", (text) => {
        line.text += text;
      });
      socket.on("error", () => {
        line.failed = true;
      });
      socket.on("close", () => {
        line.closed = true;
      });
      await once(socket, "connect");
      return line;
    },
  };
}

interface Line {
  socket: Socket;
  text: string;
  closed: boolean;
  failed: boolean;
}

/** What came is one problem, after which the server closed the connection. */
async function refused(line: Line, status: number, code: string, within = 5_000): Promise<void> {
  await until(() => line.closed, `closed after ${status}`, within);
  const [head = "", body = ""] = line.text.split("\r\n\r\n");
  assert.match(head, new RegExp(`^HTTP/1.1 ${status} `), line.text.slice(0, 300));
  assert.match(head, /^content-type: application\/problem\+json$/im);
  assert.match(head, /^connection: close$/im);
  assert.equal(Number(/^content-length: (\d+)$/im.exec(head)?.[1]), Buffer.byteLength(body));
  const problem = JSON.parse(body) as Record<string, unknown>;
  assert.deepEqual([problem.type, problem.status], [`urn:jangteo:problem:${code}`, status]);
  assert.ok(problem.title && problem.detail);
}

const request = (path = "/", headers = "", method = "GET") =>
  `${method} ${path} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`;

describe("a server within limits", () => {
  it("refuses what is too long, too much or no HTTP, as a problem", async () => {
    const { open } = await scene();
    for (const [sent, status, code] of [
      [request(`/${"x".repeat(5_000)}`), 414, "uri-too-long"],
      [request("/", "a: b\r\n".repeat(101)), 431, "headers-too-large"],
      [request("/", `a: ${"x".repeat(20_000)}\r\n`), 431, "headers-too-large"],
      [request("/", `a: ${"x".repeat(2_000_000)}\r\n`), 431, "headers-too-large"],
      [request("/", "a b: c\r\n"), 400, "malformed-request"],
      ["GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"],
      ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed-request"],
      [`${request("/", "Transfer-Encoding: chunked\r\n", "POST")}zz\r\n`, 400, "malformed-request"],
      [request("/", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "POST"), 400, "malformed-request"],
    ] as const) {
      const line = await open();
      line.socket.write(sent);
      await refused(line, status, code);
    }
    const line = await open();
    line.socket.write(request(`/${"x".repeat(4_000)}`, `Expect: much\r\na: ${"x".repeat(10_000)}\r\n`));
    await until(() => line.text.startsWith("HTTP/1.1 200"), "what is within all limits is answered");
    line.socket.destroy();
  });

  it("does not wait for a client that sends nothing, half a head, or its body drop by drop", async () => {
    const { open } = await scene({ headMs: 600, requestMs: 1_200 });
    const [silent, half, drops] = [await open(), await open(), await open()];
    half.socket.write("POST /orders HTTP/1.1\r\nHost: x\r\n");
    drops.socket.write(request("/orders", "Content-Length: 1000\r\n", "POST"));
    const idle = await open();
    idle.socket.write(request());
    const dropping = setInterval(() => drops.socket.write("x"), 50);
    await Promise.all([
      refused(silent, 408, "request-timeout"),
      refused(half, 408, "request-timeout"),
      refused(drops, 408, "request-timeout"),
    ]).finally(() => clearInterval(dropping));
    idle.socket.write(request());
    await until(() => idle.text.split("HTTP/1.1 200").length === 3, "who keeps a connection for later may");
    idle.socket.destroy();
  });

  it("cuts off a client that does not read its answer, and not one that reads slowly", async () => {
    const answers: RequestListener = (_request, response) => response.end(Buffer.alloc(32 * 1024 * 1024));
    const { open, server } = await scene({ silenceMs: 700 }, answers);
    const closed = new Promise((resolve) =>
      server.once("connection", (socket) => socket.once("close", resolve)),
    );
    const deaf = await open();
    deaf.socket.pause();
    deaf.socket.write(request());
    await closed;
    deaf.socket.destroy();
    const slow = await open();
    slow.socket.write(request());
    const began = performance.now();
    while (slow.text.length < 32 * 1024 * 1024 && !slow.closed) {
      await until(() => slow.socket.bytesRead > 0, "something came");
      slow.socket.pause();
      await delay(100);
      slow.socket.resume();
      await delay(performance.now() - began > 1_500 ? 50 : 1);
    }
    assert.equal(slow.failed, false);
    assert.ok(performance.now() - began > 700, "it took longer than silence may");
    slow.socket.destroy();
  });

  it("leaves an answer that is under way as it is", async () => {
    let answer: () => void = () => undefined;
    const { open } = await scene({}, (_request, response) => {
      answer = () => response.end("mine");
    });
    const line = await open();
    line.socket.write(`${request()}NONSENSE\r\n\r\n`);
    await until(() => line.closed, "what follows is no request, so nothing is certain any more");
    answer();
    assert.equal(line.text, "", "and nobody's answer is taken for another's");
  });

  it("gives one address so many connections, and nobody else fewer", async () => {
    const { open, server } = await scene({ connectionsEach: 16 });
    const mine = await Promise.all(Array.from({ length: 40 }, () => open().catch(() => undefined)));
    const count = () =>
      new Promise<number>((resolve) => server.getConnections((_error, connections) => resolve(connections)));
    await until(async () => (await count()) === 18, "those far beyond are closed");
    const left = () => mine.filter((line) => line !== undefined && !line.closed);
    await until(() => left().length === 18, "and their clients see it");
    const open18 = left();
    for (const line of open18) line?.socket.write(request());
    await until(() => open18.every((line) => line?.text !== ""), "all are answered");
    assert.equal(open18.filter((line) => line?.text.startsWith("HTTP/1.1 200")).length, 16);
    for (const line of open18)
      if (line?.text.startsWith("HTTP/1.1 429")) await refused(line, 429, "too-many-connections");
    const other = await open("127.0.0.2");
    other.socket.write(request());
    await until(() => other.text.startsWith("HTTP/1.1 200"), "another address is served");
    const proxied = await Promise.all(Array.from({ length: 30 }, () => open("127.0.0.9")));
    for (const line of proxied) line.socket.write(request());
    await until(
      () => proxied.every(({ text }) => text.startsWith("HTTP/1.1 200")),
      "a proxy has many clients",
    );
    for (const line of [...open18, other, ...proxied]) line?.socket.destroy();
    await until(async () => (await count()) === 0, "all have gone");
    const again = await open();
    again.socket.write(request());
    await until(() => again.text.startsWith("HTTP/1.1 200"), "and who has closed them may come again");
    again.socket.destroy();
  });
});
