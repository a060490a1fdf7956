import assert from "node:assert/strict";
import { Agent, createServer, type IncomingMessage, type RequestListener, request } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { Listening } from "#kit/listening.js";

const host = "127.0.0.1";

/** A port that nobody listens at. */
async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, host, resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function ask(port: number, agent: Agent | false = false): Promise<{ body: string; connection: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host, port, agent }, async (response: IncomingMessage) => {
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      resolve({
        body: Buffer.concat(chunks).toString(),
        connection: String(response.headers.connection),
      });
    });
    sent.once("error", reject);
    sent.end();
  });
}

const refused = (port: number) => assert.rejects(ask(port), /ECONNREFUSED/);

describe("a service that stops listening", () => {
  const handler: RequestListener = (_, response) => response.end("hello");

  it("answers what has begun, however late, and then is gone", async () => {
    const port = await freePort();
    let finish = () => {};
    const begun = new Promise<void>((resolve) => {
      const late: RequestListener = (_, response) => {
        finish = () => response.end("at last");
        resolve();
      };
      void Listening.at({ port, host }, () => createServer(late)).then((one) => {
        listening = one;
        pending = ask(port);
      });
    });
    let listening: Listening | undefined;
    let pending: ReturnType<typeof ask> | undefined;
    await begun;
    let isDrained = false;
    const drained = listening?.drain(20).then(() => {
      isDrained = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(isDrained, false);
    finish();
    assert.deepEqual(await pending, { body: "at last", connection: "close" });
    await drained;
    await refused(port);
  });

  it("answers who still comes, and asks those that keep their connection to close it", async () => {
    const port = await freePort();
    const listening = await Listening.at({ port, host }, () => createServer(handler));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    assert.equal((await ask(port, agent)).connection, "keep-alive");
    const drained = listening.drain(200);
    for (let i = 0; i < 5; i++)
      assert.deepEqual(await ask(port, agent), { body: "hello", connection: "close" });
    await drained;
    await refused(port);
    agent.destroy();
  });

  it("is patient only so long, and not with who hurries it", async () => {
    for (const hurry of [false, true]) {
      const port = await freePort();
      const listening = await Listening.at({ port, host }, () => createServer(() => {})); // never answers
      const cut = assert.rejects(ask(port), /hang up|ECONNRESET/);
      await new Promise((resolve) => setTimeout(resolve, 50));
      const drained = listening.drain(0, hurry ? 60_000 : 100);
      if (hurry) listening.hurry();
      await drained;
      await cut;
    }
  });
});
