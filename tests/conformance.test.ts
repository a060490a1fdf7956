/**
 * Holds the real sidecar, on every store and broker that is shipped and can be had here, and its in-memory twin to the same suites
 * (tests/suites.ts).
 */
import "reflect-metadata";
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { root } from "#dapr/runner.js";
import type { Instance } from "#dapr/topology.js";
import { daprSidecar } from "#kit/dapr.js";
import { readDialects } from "#kit/dialects.js";
import { MemoryDapr } from "#kit/memory.js";
import { type Composed, compose } from "#kit/service.js";
import { Conflict, type Sidecar, Unavailable } from "#kit/sidecar.js";
import { cloudEvent, hostInMemory, SHOP, settled, silent, until } from "#kit/testing.js";
import { type BrokerFolder, brokerFeatures, type StoreFolder, storeFeatures } from "./features.js";
import { Installation } from "./installation.js";
import { bindingSuite, busSuite, REPLICAS, type Replica, type Subscriber, storeSuite } from "./suites.js";

// --- the twin ------------------------------------------------------------------------------------------------------

storeSuite("the twin", async () => {
  const dapr = new MemoryDapr();
  return { open: () => dapr.sidecar("orders").store, close: async () => undefined };
});

busSuite("the twin", async (subscriber) => {
  const dapr = new MemoryDapr();
  const names = Object.keys(REPLICAS) as Replica[];
  const hosts = new Map(
    await Promise.all(
      names.map(
        async (name) => [name as string, await hostInMemory(dapr, subscriber(name), { slot: name })] as const,
      ),
    ),
  );
  return {
    publisher: dapr.sidecar("none"),
    down: async (name) => hosts.get(name)?.leave(),
    up: async (name) => hosts.get(name)?.join(),
    deadLetters: async (app) => (dapr.deadLetters.get(app) ?? []).map(({ id }) => id),
    settled: () => settled(dapr),
    close: async () => {
      for (const host of hosts.values()) await host.stop();
    },
  };
});

bindingSuite("the twin", async () => {
  const dapr = new MemoryDapr();
  let reply: (data: unknown) => unknown = () => undefined;
  dapr.bindings.set("open", ({ data }) => reply(data));
  dapr.bindings.set("failing", () => {
    throw new Unavailable("it answered 500");
  });
  dapr.down.add("absent");
  return {
    ...{ sidecar: dapr.sidecar("none"), open: "open", failing: "failing", absent: "absent" },
    given: () =>
      dapr.bound.map(({ data, metadata }) => ({
        data,
        headers: Object.fromEntries(
          Object.entries(metadata).map(([key, value]) => [key.toLowerCase(), value]),
        ),
      })),
    answers: (as) => {
      reply = as;
    },
    close: async () => undefined,
  };
});

// --- the real sidecar ----------------------------------------------------------------------------------------------

const PORTS = 15_000;
const start = (names: readonly string[], backend: string) => Installation.start(names, backend, PORTS);
/** The components as they come, with those of a folder in the place of theirs. */
const layers = (folder: string) => (folder === "embedded" ? folder : `embedded,${folder}`);

/** An app in this process, where the sidecar of a replica expects one. */
class App {
  private server: Server | undefined;
  private readonly composed: Composed;

  constructor(
    private readonly instance: Instance,
    subscriber: Subscriber,
  ) {
    const { name, app, ports } = instance;
    this.composed = compose(subscriber(name as Replica), {
      config: {
        ...{ app: app.appID, port: ports.app, host: "127.0.0.1", daprPort: ports.http, slot: name, shop: "" },
        ...{ dialects: "", logLevel: "fatal", drills: false },
        ...{ rateLimit: 0, trustedProxies: [] },
      },
      shop: SHOP,
      dialects: readDialects(join(root, "shops", "dialects.yaml"), SHOP.dialect),
      log: silent,
      sidecar: daprSidecar({ port: ports.http, pubsub: "events" }),
      replica: name,
    });
  }

  async up(): Promise<void> {
    await this.composed.start();
    this.server = createServer(this.composed.koa.callback()).listen(this.instance.ports.app, "127.0.0.1");
    this.server.keepAliveTimeout = 120_000;
    await once(this.server, "listening");
  }

  async down(): Promise<void> {
    const closed = this.server && once(this.server, "close");
    this.server?.close();
    this.server?.closeAllConnections();
    await closed;
  }

  async close(): Promise<void> {
    await this.down();
    await this.composed.stop();
  }
}

for (const [folder, features] of Object.entries(storeFeatures) as [
  StoreFolder,
  (typeof storeFeatures)[StoreFolder],
][])
  storeSuite(
    `a real sidecar, components/${folder}`,
    async () => {
      const installation = await start(["order-0"], layers(folder));
      const { http: port } = installation.instance("order-0").ports;
      const opened: Sidecar[] = [];
      return {
        open: () => {
          const sidecar = daprSidecar({ port, store: "orders", pubsub: "events" });
          opened.push(sidecar);
          return sidecar.store;
        },
        state: `http://127.0.0.1:${port}/v1.0/state/orders`,
        away: () => installation.away(installation.holder("orders")),
        back: () => installation.back(installation.holder("orders")),
        close: async () => {
          for (const sidecar of opened) await sidecar.close();
          await installation.stop();
        },
      };
    },
    features,
  );

/** An app that hears what is set aside for others; it listens where the publisher's sidecar expects its app. */
class Undertaker {
  readonly topics: { topic: string; route: string }[] = [...new Set(Object.values(REPLICAS))].map((app) => ({
    topic: `dead-letters-${app}`,
    route: `/dead/${app}`,
  }));
  private readonly heard = new Map<string, string[]>();
  private readonly server = createServer(async (asked, answer) => {
    const chunks: Buffer[] = [];
    for await (const chunk of asked) chunks.push(chunk as Buffer);
    const [, path, of = ""] = (asked.url ?? "").split("/");
    if (path === "dead")
      this.heardOf(of).push((JSON.parse(Buffer.concat(chunks).toString()) as { id: string }).id);
    const subscriptions = this.topics.map((topic) => ({ pubsubname: "events", ...topic }));
    answer.writeHead(200, { "content-type": "application/json" });
    answer.end(JSON.stringify(asked.url === "/dapr/subscribe" ? subscriptions : { status: "SUCCESS" }));
  });

  /** The ids of what has come, growing. */
  heardOf(of: string): string[] {
    const ids = this.heard.get(of) ?? [];
    this.heard.set(of, ids);
    return ids;
  }

  async listen(port: number): Promise<void> {
    this.server.listen(port, "127.0.0.1");
    await once(this.server, "listening");
  }

  close(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** Resolves when a sidecar has asked what its app listens to. */
async function subscribed({ name, ports }: Instance): Promise<void> {
  await until(
    async () => {
      const metadata = await fetch(`http://127.0.0.1:${ports.http}/v1.0/metadata`);
      const { subscriptions } = (await metadata.json()) as { subscriptions?: unknown[] };
      return subscriptions !== undefined && subscriptions.length > 0;
    },
    `the sidecar of ${name} has subscribed`,
    30_000,
  );
}

for (const [folder, features] of Object.entries(brokerFeatures) as [
  BrokerFolder,
  (typeof brokerFeatures)[BrokerFolder],
][])
  busSuite(
    `a real sidecar, components/${folder}`,
    async (subscriber) => {
      const installation = await start(["order-0", ...Object.keys(REPLICAS)], layers(folder));
      const publishing = installation.instance("order-0");
      const publisher = daprSidecar({ port: publishing.ports.http, pubsub: "events" });
      const undertaker = new Undertaker();
      const apps = new Map(
        Object.keys(REPLICAS).map(
          (name) => [name, new App(installation.instance(name), subscriber)] as const,
        ),
      );
      const broker = installation.holder("events");
      const close = async () => {
        for (const app of apps.values()) await app.close();
        undertaker.close();
        await publisher.close();
        await installation.stop();
      };
      try {
        await undertaker.listen(publishing.ports.app);
        for (const app of apps.values()) await app.up();
        for (const instance of installation.instances) await subscribed(instance);
      } catch (error) {
        await close();
        throw error;
      }
      return {
        publisher,
        down: async (name) => apps.get(name)?.down(),
        up: async (name) => apps.get(name)?.up(),
        deadLetters: async (app) => undertaker.heardOf(app),
        killSidecar: async (name) => {
          await installation.kill(name);
          await subscribed(installation.instance(name));
        },
        away: () => installation.away(broker),
        back: () => installation.back(broker),
        listen: async (topic) => {
          undertaker.topics.push({ topic, route: `/dead/${topic}` });
          await installation.kill(publishing.name);
          await subscribed(publishing);
          return undertaker.heardOf(topic);
        },
        close,
      };
    },
    features,
  );

// --- what is outside -----------------------------------------------------------------------------------------------

/** A sidecar of notification with these output bindings, and nothing else. */
async function withBindings(
  bindings: Record<string, string | { type: string; metadata: Record<string, string> }>,
): Promise<{ sidecar: Sidecar; data: string; close(): Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), "jangteo-bindings-"));
  for (const [name, binding] of Object.entries(bindings))
    writeFileSync(
      join(folder, `${name}.yaml`),
      typeof binding === "string" ? binding : component(name, binding.type, binding.metadata),
    );
  try {
    const installation = await start(["notification-0"], folder);
    const { http: port } = installation.instance("notification-0").ports;
    const sidecar = daprSidecar({ port, pubsub: "events" });
    return {
      ...{ sidecar, data: installation.data },
      close: async () => {
        await sidecar.close();
        await installation.stop();
      },
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const component = (name: string, type: string, metadata: Record<string, string>) =>
  JSON.stringify({
    ...{ apiVersion: "dapr.io/v1alpha1", kind: "Component", metadata: { name } },
    spec: {
      type,
      version: "v1",
      metadata: Object.entries(metadata).map(([name, value]) => ({ name, value })),
    },
    scopes: ["notification"],
  });

const portOf = (server: Server | MailServer) => (server.address() as AddressInfo).port;

bindingSuite("a real sidecar, bindings.http", async () => {
  const given: { data: unknown; headers: Record<string, string | undefined> }[] = [];
  let reply: (data: unknown) => unknown = () => undefined;
  const server = createServer(async (asked, answer) => {
    const chunks: Buffer[] = [];
    for await (const chunk of asked) chunks.push(chunk as Buffer);
    if (asked.method !== "POST" || asked.url !== "/open") return answer.writeHead(500).end("not here");
    const data = JSON.parse(Buffer.concat(chunks).toString()) as unknown;
    given.push({ data, headers: asked.headers as Record<string, string | undefined> });
    const said = reply(data);
    answer.end(typeof said === "string" ? said : said && JSON.stringify(said));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  // Rendering adds PORTS to the ports of loopback addresses.
  const at = (path: string) => ({
    type: "bindings.http",
    metadata: { url: `http://127.0.0.1:${portOf(server) - PORTS}/${path}` },
  });
  const { sidecar, close } = await withBindings({ open: at("open"), failing: at("failing") });
  return {
    ...{ sidecar, open: "open", failing: "failing", absent: "absent" },
    given: () => given,
    answers: (as) => {
      reply = as;
    },
    close: async () => {
      await close();
      server.closeAllConnections();
      server.close();
    },
  };
});

describe("a channel as it comes, bindings.localstorage", () => {
  let outside: Awaited<ReturnType<typeof withBindings>>;
  before(async () => {
    const file = join(root, "components", "embedded", "kakao.yaml");
    outside = await withBindings({ kakao: readFileSync(file, "utf8") });
  });
  after(() => outside?.close());
  const folder = () => join(outside.data, "outbox", "kakao");
  const put = (fileName: string, data: unknown) => outside.sidecar.bind("kakao", data, { fileName });

  it("makes a file of each message, which a repeat writes again", async () => {
    const message = { messageId: 7, text: "주문 7 👕", texts: { en: "paid", ko: "결제" }, to: null };
    await put("message-7.json", message);
    await put("message-7.json", message);
    await put("message-8.txt", 'Paid: "Gum" \\ 3\n<b>껌</b> & more');
    assert.deepEqual(readdirSync(folder()).sort(), ["message-7.json", "message-8.txt"]);
    assert.deepEqual(JSON.parse(readFileSync(join(folder(), "message-7.json"), "utf8")), message);
    const text = readFileSync(join(folder(), "message-8.txt"), "utf8");
    assert.equal(text, 'Paid: "Gum" \\ 3\n<b>껌</b> & more');
  });

  it("that cannot write is unavailable", async () => {
    mkdirSync(join(folder(), "taken"));
    await assert.rejects(put("taken", { n: 1 }), Unavailable);
  });
});

interface Mail {
  to: string[];
  subject: string;
  type: string;
  body: string;
}

/** A mail server that takes everything and passes nothing on (RFC 5321, as far as one client goes). */
class MailServer {
  readonly mails: Mail[] = [];
  private readonly server = createTcpServer((socket) => this.serve(socket));
  /** what it answers to a mail */
  verdict = "250 OK";

  async listen(): Promise<this> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    return this;
  }

  address = () => this.server.address();
  close = () => this.server.close();

  private serve(socket: Socket): void {
    let read = "";
    let to: string[] = [];
    let inData = false;
    const say = (line: string) => socket.write(`${line}\r\n`);
    socket.setEncoding("latin1").on("error", () => undefined);
    socket.on("data", (chunk: string) => {
      read += chunk;
      for (;;) {
        const end = inData ? "\r\n.\r\n" : "\r\n";
        const at = read.indexOf(end);
        if (at < 0) return;
        const line = read.slice(0, at);
        read = read.slice(at + end.length);
        if (inData) {
          inData = false;
          if (this.verdict.startsWith("2")) this.mails.push({ to, ...parseMail(line) });
          to = [];
          say(this.verdict);
        } else if (line === "DATA") {
          inData = true;
          say("354 go on");
        } else {
          const [, address] = /^RCPT TO:<(.*)>/.exec(line) ?? [];
          if (address !== undefined) to.push(address);
          say(line === "QUIT" ? "221 bye" : "250 OK");
        }
      }
    });
    say("220 test");
  }
}

/** Quoted-printable, read as latin1, as the UTF-8 text that it stands for. */
const unquoted = (text: string) =>
  Buffer.from(
    text
      .replace(/=\r\n/g, "")
      .replace(/=([0-9A-F]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16))),
    "latin1",
  ).toString();

function parseMail(text: string): Omit<Mail, "to"> {
  const at = text.indexOf("\r\n\r\n");
  const headers = text.slice(0, at).replace(/\r\n[ \t]+/g, " ");
  const header = (name: string) => new RegExp(`^${name}: (.*)$`, "im").exec(headers)?.[1]?.trim() ?? "";
  const subject = header("Subject")
    .replace(/\?=\s+=\?/g, "?==?")
    .replace(/=\?UTF-8\?q\?(.*?)\?=/gi, (_, word: string) => word.replaceAll("_", " "));
  assert.equal(header("Content-Transfer-Encoding"), "quoted-printable");
  return {
    subject: unquoted(subject),
    type: header("Content-Type"),
    body: unquoted(text.slice(at + 4).replace(/^\.\./gm, ".")).trimEnd(),
  };
}

describe("a channel that really sends, bindings.smtp", () => {
  let server: MailServer;
  let outside: Awaited<ReturnType<typeof withBindings>>;
  before(async () => {
    server = await new MailServer().listen();
    const metadata = { host: "127.0.0.1", port: String(portOf(server)), emailFrom: "shop@example.com" };
    outside = await withBindings({ email: { type: "bindings.smtp", metadata } });
  });
  after(async () => {
    await outside?.close();
    server?.close();
  });
  const send = (text: string, metadata: Record<string, string>) =>
    outside.sidecar.bind("email", text, metadata);

  it("is in the daprd that npm start builds: address, subject and text arrive as they were", async () => {
    const text = '토지 3권을 45000원에 구매하셨습니다. 주문번호 7: "thank you" = <3 \\ .';
    await send(text, { emailTo: "jang@example.com", subject: "온라인 도서 구매 시스템: 주문 7" });
    const { type, ...mail } = server.mails.at(-1) ?? { type: "" };
    assert.deepEqual(mail, {
      ...{ to: ["jang@example.com"], subject: "온라인 도서 구매 시스템: 주문 7", body: text },
    });
    assert.match(type, /charset=UTF-8/i);
  });

  it("is unavailable when the mail server refuses, and works again afterwards", async () => {
    const before = server.mails.length;
    server.verdict = "451 try again later";
    await assert.rejects(send("x", { emailTo: "a@example.com", subject: "x" }), Unavailable);
    assert.equal(server.mails.length, before);
    server.verdict = "250 OK";
    await send("x", { emailTo: "a@example.com", subject: "x" });
    assert.equal(server.mails.length, before + 1);
  });

  it("needs the address each time: without one it goes to the customer before, so that must never be left out", async () => {
    await send("first", { emailTo: "first@example.com", subject: "first" });
    await send("second", { subject: "second" });
    // Should this fail with a later Dapr, it has been mended there (mergeWithRequestMetadata in bindings/smtp).
    assert.deepEqual(server.mails.at(-1)?.to, ["first@example.com"]);
  });
});

// --- what only a real connection does ------------------------------------------------------------------------------

describe("a sidecar whose answers are lost", () => {
  let installation: Installation;
  let line: Server;
  let sidecar: Sidecar;
  let other: Sidecar;
  /** what happens to the next write that passes */
  let lose: "nothing" | "request" | "answer" = "nothing";
  let meanwhile: () => Promise<void> = async () => undefined;

  before(async () => {
    installation = await start(["order-0"], "embedded");
    const { http: port } = installation.instance("order-0").ports;
    line = createServer(async (asked, answer) => {
      const chunks: Buffer[] = [];
      for await (const chunk of asked) chunks.push(chunk as Buffer);
      const losing = asked.method === "POST" && !asked.url?.endsWith("/bulk") ? lose : "nothing";
      if (losing !== "nothing") lose = "nothing";
      if (losing === "request") {
        await meanwhile();
        return answer.destroy();
      }
      const { method, url: path, headers } = asked;
      const passed = request({ host: "127.0.0.1", port, method, path, headers });
      passed.end(Buffer.concat(chunks));
      const [got] = await once(passed, "response");
      if (losing === "nothing") return got.pipe(answer.writeHead(got.statusCode, got.headers));
      got.resume();
      await meanwhile();
      answer.destroy();
    }).listen(0, "127.0.0.1");
    await once(line, "listening");
    const options = { store: "orders", pubsub: "events" };
    sidecar = daprSidecar({ port: (line.address() as AddressInfo).port, ...options });
    other = daprSidecar({ port, ...options });
    await sidecar.ready(); // it has tried out the store, so that it is our writes that get lost
  });
  after(async () => {
    await sidecar?.close();
    await other?.close();
    line?.closeAllConnections();
    line?.close();
    await installation?.stop();
  });

  const key = (name: string) => `lost:${name}`;
  const value = async (name: string) => (await other.store.get([key(name)])).get(key(name))?.value;
  const etag = async (name: string) => (await other.store.get([key(name)])).get(key(name))?.etag ?? null;

  it("has written after all, and says so", async () => {
    lose = "answer";
    await sidecar.store.save(key("a"), { n: 1 }, null);
    assert.deepEqual(await value("a"), { n: 1 });
    lose = "answer";
    await sidecar.store.save(key("a"), { n: 2 }, await etag("a"));
    assert.deepEqual(await value("a"), { n: 2 });
    assert.equal(lose, "nothing", "an answer was lost");
  });

  it("has not written, and says that it does not know", async () => {
    lose = "request";
    await assert.rejects(sidecar.store.save(key("b"), { n: 1 }, null), Unavailable);
    assert.equal(await value("b"), undefined);
    await sidecar.store.save(key("b"), { n: 1 }, null);
    lose = "request";
    await assert.rejects(sidecar.store.save(key("b"), { n: 2 }, await etag("b")), Unavailable);
    assert.deepEqual(await value("b"), { n: 1 });
  });

  it("was overtaken, and says so", async () => {
    await sidecar.store.save(key("c"), { n: 1 }, null);
    for (const lost of ["request", "answer"] as const) {
      const before = await etag("c");
      lose = lost;
      meanwhile = async () => other.store.save(key("c"), { n: 3, lost }, await etag("c"));
      await assert.rejects(sidecar.store.save(key("c"), { n: 2 }, before), Conflict);
      assert.deepEqual(await value("c"), { n: 3, lost });
      meanwhile = async () => undefined;
    }
  });

  it("settles each write of a batch for itself", async () => {
    const names = Array.from({ length: 20 }, (_, n) => `batch-${n}`);
    // The first flies alone, and meanwhile the others gather.
    const first = sidecar.store.save(key("d"), { n: 1 }, null);
    lose = "answer";
    await Promise.all([first, ...names.map((name, n) => sidecar.store.save(key(name), { n }, null))]);
    for (const [n, name] of names.entries()) assert.deepEqual(await value(name), { n });
    assert.equal(lose, "nothing", "an answer was lost");
  });

  it("is not there: what is asked of it is unavailable", async () => {
    const gone = daprSidecar({ port: 1, store: "orders", pubsub: "events" });
    await assert.rejects(gone.store.get(["x"]), Unavailable);
    await assert.rejects(gone.store.save("x", {}, null), Unavailable);
    await assert.rejects(gone.store.delete("x", "1"), Unavailable);
    await assert.rejects(gone.publish("OrderPlaced", [cloudEvent("OrderPlaced", {})]), Unavailable);
    await assert.rejects(gone.ready(), Unavailable);
    await assert.rejects(gone.invoke("order", { method: "GET", path: "/orders" }), Unavailable);
    await assert.rejects(gone.bind("kakao", { text: "x" }), Unavailable);
    await gone.close();
  });
});
