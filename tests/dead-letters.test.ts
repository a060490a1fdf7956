/** What can't be handled, on a running shop: each message ends as one letter, and goes nowhere else. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";
import type { Subscription } from "#kit/events.js";
import { KEPT } from "#kit/inbox.js";
import { readShop, type Shop } from "#kit/shop.js";
import { TestShop, until } from "./shop.js";

const PORTS = 11_080;
const root = fileURLToPath(new URL("../../", import.meta.url));
const APPS = ["order", "payment", "inventory", "store", "delivery", "orderview", "loyalty"];
const CLOUD_EVENT = "application/cloudevents+json";

/** What each service listens to in this shop. */
async function topicsOf(rules: Shop): Promise<Map<string, string[]>> {
  const found = APPS.map(async (app) => {
    const { subscriptions } = (await import(`../services/${app}/src/events.js`)) as {
      subscriptions(app: object, shop: Shop): Subscription[];
    };
    return [app, subscriptions({}, rules).map(({ topic }) => topic as string)] as const;
  });
  return new Map(await Promise.all(found));
}

let unique = 0;
/** An event that nobody can handle, for its data are wrong; JSON. */
const event = (topic: string, over: object = {}) =>
  JSON.stringify({
    ...{ specversion: "1.0", id: `odd/${++unique}`, source: "odd", type: topic },
    ...{ datacontenttype: "application/json", data: { odd: unique }, ...over },
  });

/** What a stranger may publish to a topic through a sidecar: body, type, query. */
const ODD: Record<string, (topic: string) => [body: string, type: string, query?: string]> = {
  "a text": () => [`text ${++unique}`, "text/plain"],
  "a text as it is": () => [`text ${++unique}`, "text/plain", "?metadata.rawPayload=true"],
  "wrong data": (topic) => [event(topic), CLOUD_EVENT],
  "no id": (topic) => [event(topic, { id: undefined }), CLOUD_EVENT],
  "another event": () => [event("StampsDeducted"), CLOUD_EVENT],
  "what has expired": (topic) => [event(topic, { expiration: "2020-01-01T00:00:00Z" }), CLOUD_EVENT],
  // With this one, Dapr 1.18 would end itself at each delivery if it looked into messages.
  "a trace that is no text": (topic) => [event(topic, { traceparent: 5, traceid: 5 }), CLOUD_EVENT],
};

describe("what can't be handled", () => {
  let shop: TestShop;
  let rules: string;
  let topics: Map<string, string[]>;
  /** messages by app */
  const expected = new Map<string, number>(APPS.map((app) => [app, 0]));
  let processes: string;
  const running = () =>
    shop.system
      .processes()
      .map(({ name, pid }) => `${name} ${pid}`)
      .join();

  /** Early words of deliveries to come, and what is thrown at delivery before they are replayed. */
  const EARLY = 6;
  const letters = async (query: string) => (await shop.http("GET", `/deadLetters?size=1${query}`)).body;
  const count = async (app: string) => (await letters(`&app=${app}`)).page.totalElements as number;
  const publish = async (topic: string, body: string, type: string, query = "") => {
    const path = `/v1.0/publish/events/${topic}${query}`;
    const base = shop.system.sidecarUrl("order");
    const { status } = await shop.http("POST", path, body, { "content-type": type }, base);
    assert.equal(status, 204);
    for (const [app, heard] of topics)
      if (heard.includes(topic)) expected.set(app, (expected.get(app) ?? 0) + 1);
  };
  const allThere = () =>
    until("each message has its letter", 60_000, async () => {
      for (const [app, messages] of expected) if ((await count(app)) !== messages) return false;
      return true;
    }).catch(async (error: Error) => {
      const counts = await Promise.all(
        APPS.map(async (app) => `${app} ${await count(app)}/${expected.get(app)}`),
      );
      throw new Error(`${error.message}: ${counts.join(", ")}`);
    });

  before(async () => {
    // Fashion, where the delivery asks the order before it begins: an order that is not there yet is refused.
    rules = join(mkdtempSync(join(tmpdir(), "jangteo-letters-")), "fashion.yaml");
    const fashion = readFileSync(join(root, "shops", "fashion.yaml"), "utf8");
    const strict = fashion.replace("customer: completion", "customer: delivery");
    assert.notEqual(strict, fashion);
    writeFileSync(rules, strict);
    topics = await topicsOf(readShop(rules));
    // Its process ends in the replay of all, when the third of what can be handled by then has been, and that is not yet on
    // record. Before that, the odd ones are written, the early ones, one that returns, and the odd ones that return.
    const odd = Object.keys(ODD).length;
    const writes = (topics.get("delivery")?.length ?? 0) * odd + EARLY + 1 + odd;
    const fault = `before-save:deadletter@${writes + 3}`;
    shop = await TestShop.open(PORTS, { shop: rules, faults: { delivery: fault } });
    processes = running();
  });
  after(async () => {
    await shop?.close();
    if (rules !== undefined) rmSync(join(rules, ".."), { recursive: true });
  });

  it("is on record once, whatever comes on whatever topic; and orders go their way meanwhile", async () => {
    const all = new Set([...topics.values()].flat());
    for (const topic of all) for (const odd of Object.values(ODD)) await publish(topic, ...odd(topic));
    const id = await shop.order();
    await shop.shows(`/deliveries/${id}`, { state: "DeliveryStarted" });
    await shop.shows(`/orderStatuses/${id}`, { deliveryStatus: "DeliveryStarted" });
    await allThere();
    assert.equal(running(), processes, "and no sidecar has ended over it");
    assert.ok(all.size > 10 && [...expected.values()].reduce((sum, n) => sum + n) > 100);
  });

  it("may be large, have a large head, or come past the sidecar: nothing comes again without end", async () => {
    await publish("OrderPaid", event("OrderPaid", { data: "x".repeat(3_000_000) }), CLOUD_EVENT);
    await publish("OrderPaid", event("OrderPaid"), CLOUD_EVENT, `?metadata.x=${"a".repeat(40_000)}`);
    const redis = createClient({ url: `redis://127.0.0.1:${6389 + PORTS}` });
    await redis.connect();
    const fields: Record<string, string | Buffer>[] = [
      ...[{ foo: "bar" }, { data: Buffer.from([0, 255, 1]) }, { data: "null", metadata: '{"traceid":"x"}' }],
      ...[{ data: event("OrderPaid"), metadata: "{" }, { data: "[".repeat(100_000) }],
      { data: event("OrderPaid", { data: "x".repeat(20_000_000) }) },
    ];
    for (const some of fields) await redis.xAdd("OrderPaid", "*", some);
    // What a former version, or the sidecar by itself, has set aside.
    await redis.xAdd("dead-letters-store", "*", {
      data: event("OrderPaid", { topic: "OrderPaid", traceparent: 7 }),
    });
    const hearing = APPS.filter((app) => topics.get(app)?.includes("OrderPaid"));
    assert.ok(hearing.includes("store"));
    for (const app of hearing) expected.set(app, (expected.get(app) ?? 0) + fields.length);
    expected.set("store", (expected.get("store") ?? 0) + 1);
    await allThere();
    for (const app of hearing)
      await until(
        `${app} has nothing left`,
        10_000,
        async () => (await redis.xPending("OrderPaid", app)).pending === 0,
      );
    await redis.close();
    assert.equal(running(), processes);
    const { body } = await shop.http("GET", "/deadLetters?app=store&topic=OrderPaid&size=100");
    const large = body._embedded.deadLetters.find(({ size }: { size: number }) => size > 10 * KEPT);
    assert.match(large.reason.type, /:body-too-large$/);
    const shown = (await shop.http("GET", `/deadLetters/${large.id}`)).body;
    assert.match(shown.message, /^\{"specversion":"1.0","id":"odd/);
  });

  it("returns when it is replayed and nothing has changed", async () => {
    const { topic, data } = accepted(2);
    for (let id = 2; id < 2 + EARLY; id++)
      await publish(topic, event(topic, { data: accepted(id).data }), CLOUD_EVENT);
    assert.equal(data.orderId, 2);
    await allThere();
    const [letter] = (await letters("&app=delivery"))._embedded.deadLetters;
    assert.match(letter.reason.type, /:not-found$/);
    const refused = await shop.http("PUT", `/deadLetters/${letter.id}/replay`);
    assert.deepEqual([refused.status, refused.body.attempts], [409, 2], JSON.stringify(refused.body));
    assert.equal((await shop.http("GET", `/deadLetters/${letter.id}`)).body.state, "Waiting");
  });

  it("is handled once what was missing is there, though its service is killed in the middle of it", async () => {
    const placed = [];
    for (let i = 0; i < EARLY; i++) placed.push(await shop.order());
    assert.deepEqual(placed, [2, 3, 4, 5, 6, 7], "the orders that were missing");
    const before = await count("delivery");
    // The first time it dies; whether its caller hears of that, or of the second try, is the sidecars' business.
    await until("it has been replayed", 30_000, async () => {
      const { body } = await shop.http("POST", "/deadLetters/replay?topic=StoreAccepted&app=delivery");
      return body.unavailable.length === 0 && body.left === 0;
    });
    assert.equal(shop.system.processes().find(({ name }) => name === "delivery-0")?.restarts, 1);
    assert.equal(
      await count("delivery"),
      before - EARLY,
      "what can be handled is off the list, the rest is on it",
    );
    await shop.audit([1, ...placed], 1_000_000);
  });

  it("can be discarded, and is on record still", async () => {
    const { id } = (await letters("&app=store"))._embedded.deadLetters[0];
    assert.equal((await shop.http("DELETE", `/deadLetters/${id}`)).status, 204);
    const all = (await letters("")).page.totalElements;
    const { status, body } = await shop.http("DELETE", "/deadLetters");
    assert.deepEqual([status, body], [200, { discarded: all, left: 0, unavailable: [] }]);
    assert.equal((await letters("")).page.totalElements, 0);
    assert.equal((await shop.http("GET", `/deadLetters/${id}`)).body.state, "Discarded");
  });
});

/** That the store has accepted an order. */
const accepted = (orderId: number) => ({
  topic: "StoreAccepted",
  data: {
    ...{ id: orderId, orderId, productId: 1, productName: "Outwear-1", qty: 1 },
    ...{ customerId: null, customerName: null, customerAddr: null },
  },
});
