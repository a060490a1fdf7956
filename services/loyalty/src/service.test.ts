import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { setImmediate as macrotask } from "node:timers/promises";
import { MemoryDapr } from "#kit/memory.js";
import type { Stored } from "#kit/records.js";
import { type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  deadLetters,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  info,
  listen,
  settled,
  shopWith,
  until,
} from "#kit/testing.js";
import type { Card, Grant } from "./domain.js";
import { loyalty } from "./main.js";

const PHONE = "01012341234";
const shop = shopWith({ loyalty: { stampsPerItem: 2 } });

const hosts: Host[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
});

async function host(dapr: MemoryDapr, options: HostOptions = {}): Promise<Host> {
  const started = await hostInMemory(dapr, loyalty, { shop, ...options });
  hosts.push(started);
  return started;
}

const about = (order: object) => ({ ...info, price: 1000, amount: 3000, approvalCode: "ok", ...order });
/** An order that is paid; the same message whenever it comes. */
const paid = (orderId: number, order: object = {}) =>
  cloudEvent("PaymentApproved", { id: orderId, ...about({ ...order, orderId }) }, `paid/${orderId}`);
const refunded = (orderId: number, order: object = {}) => {
  const data = { id: orderId, ...about({ refunded: 3000, ...order, orderId }), reason: "changed my mind" };
  return cloudEvent("PaymentCancelled", data, `refunded/${orderId}`);
};

async function start(options: HostOptions = {}) {
  const dapr = new MemoryDapr();
  const heard = listen(dapr);
  const first = await host(dapr, options);
  const stored = <S>(key: string) => dapr.stores.get("stamps")?.get(key)?.value as Stored<S> | undefined;
  return {
    dapr,
    first,
    /** Takes messages as the broker would, and waits until they are handled. */
    async send(...events: ReturnType<typeof paid>[]) {
      for (const event of events) dapr.accept(event.type, event);
      await settled(dapr);
    },
    /** What was told, each event once: a repeat has the id of the first. */
    told() {
      const once = new Map(heard.filter(({ source }) => source === "loyalty").map((one) => [one.id, one]));
      return [...once.values()].map(({ type, data }) => `${type} ${data.orderId} ${data.qty}`);
    },
    card: () => stored<Card>(`card:tel:${PHONE}`)?.state,
    grant: (id: number | string) => stored<Grant>(`grant:${id}`)?.state,
    async stampQty(at: Host = first) {
      return (await at.http("GET", `/stamps/${PHONE}`)).body.stampQty;
    },
    give: (stampQty: unknown = 1, headers: Record<string, string> = {}, at: Host = first) =>
      at.http("POST", "/stamps", { phoneNumber: PHONE, stampQty }, headers),
  };
}

/** Looks at each read and write of grants and cards before it happens; the journal and the counters are left alone. */
function watched(look: (what: string, key: string) => Promise<void> | void) {
  return (sidecar: Sidecar): Sidecar => ({
    ...sidecar,
    store: {
      ...sidecar.store,
      get: async (keys) => {
        const [key = ""] = keys.filter((one) => /^(grant|card):/.test(one));
        if (key !== "") await look("get", key);
        return sidecar.store.get(keys);
      },
      save: async (key, ...rest) => {
        if (/^(grant|card):/.test(key)) await look("save", key);
        return sidecar.store.save(key, ...rest);
      },
    },
  });
}

describe("stamps", () => {
  it("S3-F8: paid drinks earn stamps for each piece, and a cancelled payment takes them back (S3-H5)", async () => {
    const { send, stampQty, told, grant } = await start();
    await send(paid(7, { qty: 3 }));
    assert.equal(await stampQty(), 6);
    await send(paid(8, { qty: 1 }));
    assert.equal(await stampQty(), 8);
    await send(refunded(7, { qty: 3 }));
    assert.equal(await stampQty(), 2);
    assert.deepEqual(told(), ["StampsEarned 7 6", "StampsEarned 8 2", "StampsDeducted 7 6"]);
    assert.deepEqual([grant(7)?.status, grant(8)?.status], ["Deducted", "Earned"]);
  });

  it("S3-T2: each payment counts once, however often its messages come", async () => {
    const { send, stampQty, told } = await start();
    await send(paid(7), paid(7), paid(7));
    await send(paid(7), { ...paid(7), id: "the same news, in another message" });
    assert.equal(await stampQty(), 6);
    await send(refunded(7), refunded(7));
    await send(refunded(7), paid(7), { ...paid(7), id: "once more" }, { ...refunded(7), id: "and this" });
    assert.equal(await stampQty(), 0);
    assert.deepEqual(told(), ["StampsEarned 7 6", "StampsDeducted 7 6"]);
  });

  it("S3-T2: an order that is not paid earns none, and its cancellation takes none", async () => {
    const { send, first, give, told, stampQty } = await start();
    assert.deepEqual(
      first.composed.subscriptions.map(({ topic }) => topic),
      ["PaymentApproved", "PaymentCancelled"],
    );
    await send(refunded(7, { refunded: 0, approvalCode: null }));
    assertProblem(await first.http("GET", `/stamps/${PHONE}`), 404, "not-found");
    await give(5);
    await send(refunded(8, { refunded: 0, approvalCode: null }));
    assert.equal(await stampQty(), 5);
    assert.deepEqual(told(), ["StampsEarned null 5"]);
  });

  it("S3-T2: without a phone number nothing happens, and nothing is wrong", async () => {
    const { send, dapr, first, told } = await start();
    await send(paid(7, { phoneNumber: null }), refunded(7, { phoneNumber: null }));
    assert.deepEqual(embedded(await first.http("GET", "/stamps"), "stamps"), []);
    const keys = [...(dapr.stores.get("stamps")?.keys() ?? [])];
    assert.deepEqual(
      keys.filter((key) => /^(grant|card)/.test(key)),
      [],
    );
    assert.deepEqual([told(), deadLetters(dapr)], [[], []]);
  });

  it("of a payment that was cancelled before it was heard of are never earned", async () => {
    const { send, first, told, grant } = await start();
    await send(refunded(7));
    await send(paid(7));
    assertProblem(await first.http("GET", `/stamps/${PHONE}`), 404, "not-found");
    assert.deepEqual([told(), grant(7)?.status, grant(7)?.qty], [[], "Deducted", 0]);
  });

  it("are taken back as many as were earned, whatever the shop gives meanwhile", async () => {
    const { dapr, first, send, stampQty } = await start();
    await send(paid(7, { qty: 3 }));
    first.leave();
    const generous = await host(dapr, { slot: "b", shop: shopWith({ loyalty: { stampsPerItem: 5 } }) });
    await send(paid(8, { qty: 1 }), refunded(7, { qty: 3 }));
    assert.equal(await stampQty(generous), 5);
  });

  it("count once although hundreds of other changes came in between", async () => {
    const { send, give, stampQty, told } = await start();
    await send(paid(7), paid(8));
    for (let i = 0; i < 300; i++) await give();
    await send(paid(7), refunded(8));
    assert.equal(await stampQty(), 6 + 300);
    for (let i = 0; i < 300; i++) await give();
    await send(paid(7), paid(8), refunded(8));
    assert.equal(await stampQty(), 6 + 600);
    assert.equal(told().filter((one) => !one.includes("null")).length, 3);
  });

  it("count once although a process gave up half-way, and hundreds of other changes came before it went on", async () => {
    let cut = false;
    let changed = false;
    const { first, give, stampQty } = await start({
      through: watched((what, key) => {
        if (what === "save" && key.startsWith("card:")) changed = true;
        else if (cut && changed) throw new Unavailable("cut");
      }),
    });
    let given = 0;
    for (const [event, stamps] of [[paid(7), 6] as const, [refunded(7), 0] as const]) {
      cut = true;
      changed = false;
      assert.equal(await first.composed.deliver(event), "RETRY");
      cut = false;
      for (let i = 0; i < 100; i++) await give();
      given += 100;
      assert.equal(await stampQty(), given + stamps, "half-way");
      assert.equal(await first.composed.deliver(event), "SUCCESS");
      assert.equal(await stampQty(), given + stamps);
    }
  });

  it("keep no more than what is under way: a card does not grow with its orders", async () => {
    const { send, card, give } = await start();
    for (let orderId = 1; orderId <= 40; orderId++) await send(paid(orderId), refunded(orderId));
    await give();
    assert.deepEqual(card(), { phoneNumber: PHONE, no: 1, stampQty: 1, open: {} });
  });

  it("are not earned in a shop that gives none", async () => {
    const { first, send, give } = await start({ shop: shopWith({}) });
    assert.deepEqual(first.composed.subscriptions, []);
    await send(paid(7));
    assertProblem(await first.http("GET", `/stamps/${PHONE}`), 404, "not-found");
    assert.equal((await give()).status, 201);
  });
});

describe("two replicas", () => {
  /** Both get as far as writing the card before either does. */
  function together() {
    let arrived = 0;
    return watched(async (what, key) => {
      if (what !== "save" || !key.startsWith("card:")) return;
      arrived++;
      await until(() => arrived >= 2, "both are about to write the card");
    });
  }

  it("that handle the same message at once count it once, and open one card", async () => {
    const through = together();
    const { dapr, first, stampQty, told, card } = await start({ through });
    const second = await host(dapr, { slot: "loyalty-1", through });
    const both = (event: ReturnType<typeof paid>) =>
      Promise.all([first, second].map((one) => one.composed.deliver(event)));
    assert.deepEqual(await both(paid(7)), ["SUCCESS", "SUCCESS"]);
    assert.equal(await stampQty(), 6);
    const listed = await first.http("GET", "/stamps");
    assert.deepEqual(
      embedded(listed, "stamps").map(({ phoneNumber }) => phoneNumber),
      [PHONE],
    );
    assert.equal(listed.body.page?.totalElements, 1, "the number that the card did not get is not counted");
    assert.deepEqual(await both(refunded(7)), ["SUCCESS", "SUCCESS"]);
    await settled(dapr);
    assert.equal(card()?.stampQty, 0);
    assert.deepEqual(told(), ["StampsEarned 7 6", "StampsDeducted 7 6"]);
  });

  /** Runs a repeat of a message that stops at its nth step until all else is over. @returns false if it has fewer */
  async function stoppedAt(nth: number, event: ReturnType<typeof paid>, history: ReturnType<typeof paid>[]) {
    const { dapr, first, send, give, stampQty, told } = await start();
    let steps = 0;
    let go = false;
    const slow = await host(dapr, {
      slot: "slow",
      through: watched(async () => {
        if (++steps === nth) await until(() => go, "all else is over");
      }),
    });
    slow.leave();
    const done = history.at(-1) === event ? history.slice(0, -1) : [];
    await send(...done);
    const repeat = slow.composed.deliver(event);
    await until(() => Promise.race([repeat.then(() => true), macrotask(steps >= nth)]), "it has stopped");
    const stopped = steps >= nth;
    // The first replica does the same from the beginning to the end, and then forgets.
    assert.equal(await first.composed.deliver(event), "SUCCESS");
    for (let i = 0; i < 30; i++) await give();
    go = true;
    assert.equal(await repeat, "SUCCESS");
    await settled(dapr);
    return { stopped, stampQty: await stampQty(), told: told().filter((one) => !one.includes("null")) };
  }

  it("one of which stops at any step, until the other has done it all and forgotten: an earning counts once", async () => {
    const event = paid(7);
    let nth = 1;
    for (; ; nth++) {
      const { stopped, stampQty, told } = await stoppedAt(nth, event, [event]);
      assert.deepEqual([stampQty, told], [6 + 30, ["StampsEarned 7 6"]], `stopped at step ${nth}`);
      if (!stopped) break;
    }
    assert.ok(nth > 5, `it has ${nth} steps`);
  });

  it("one of which stops at any step, until the other has done it all and forgotten: a deduction counts once", async () => {
    const event = refunded(7);
    let nth = 1;
    for (; ; nth++) {
      const { stopped, stampQty, told } = await stoppedAt(nth, event, [paid(7), event]);
      const expected = [30, ["StampsEarned 7 6", "StampsDeducted 7 6"]];
      assert.deepEqual([stampQty, told], expected, `stopped at step ${nth}`);
      if (!stopped) break;
    }
    assert.ok(nth > 5, `it has ${nth} steps`);
  });

  it("one that still earns while the other takes back: in the end there are none", async () => {
    for (let nth = 1, steps = 0; nth === 1 || steps >= nth - 1; nth++) {
      steps = 0;
      let go = false;
      const { dapr, first, stampQty, told, give } = await start();
      const earner = await host(dapr, {
        slot: "earner",
        through: watched(async () => {
          if (++steps === nth) await until(() => go, "it is taken back");
        }),
      });
      await give();
      const earning = earner.composed.deliver(paid(7));
      await until(() => Promise.race([earning.then(() => true), macrotask(steps >= nth)]), "it has stopped");
      assert.equal(await first.composed.deliver(refunded(7)), "SUCCESS");
      await give();
      go = true;
      assert.equal(await earning, "SUCCESS");
      await settled(dapr);
      assert.equal(await stampQty(), 2, `stopped at step ${nth}`);
      const pairs = told().filter((one) => !one.includes("null"));
      assert.ok(pairs.length === 0 || pairs.length === 2, `stopped at step ${nth}: ${pairs}`);
    }
  });
});

describe("a process that dies", () => {
  /**
   * Earns and takes back, with a replica that dies at its nth write of a grant or a card (or of the card's number), or
   * at its nth event to tell; the broker gives its messages to the next one in its slot.
   */
  async function dyingAt(nth: number, applied: boolean) {
    const { dapr, first, card, grant, told } = await start({ slot: "elsewhere" });
    first.leave();
    let acts = 0;
    const dead = () => acts >= nth;
    const die = async <T>(act: () => Promise<T>): Promise<T> => {
      if (dead()) throw new Unavailable("dead");
      if (++acts < nth) return act();
      doomed.leave();
      if (applied) await act();
      throw new Unavailable("dead");
    };
    const alive = <T>(act: () => Promise<T>) => (dead() ? Promise.reject(new Unavailable("dead")) : act());
    const doomed: Host = await hostInMemory(dapr, loyalty, {
      shop,
      slot: "loyalty-0",
      through: (sidecar) => ({
        ...sidecar,
        store: {
          get: (keys) => alive(() => sidecar.store.get(keys)),
          save: (key, ...rest) => {
            const save = () => sidecar.store.save(key, ...rest);
            return /^(grant|card|cardno):/.test(key) ? die(save) : alive(save);
          },
          delete: (key, etag) => alive(() => sidecar.store.delete(key, etag)),
        },
        publish: (topic, events) => die(() => sidecar.publish(topic, events)),
      }),
    });
    hosts.push({ ...doomed, stop: () => doomed.stop().catch(() => undefined) }); // what is dead says no goodbye
    let next: Host | undefined;
    for (const event of [paid(7), refunded(7)]) {
      dapr.accept(event.type, event);
      let quiet = false;
      void settled(dapr).then(() => {
        quiet = true;
      });
      await until(() => quiet || dead(), "it is handled, or nobody is there to do it");
      if (dead()) next ??= await host(dapr, { slot: "loyalty-0" });
      await settled(dapr);
    }
    const given = await next?.http("POST", "/stamps", { phoneNumber: PHONE, stampQty: 1 });
    await settled(dapr);
    return {
      died: dead(),
      given: given?.body.stampQty,
      card: card(),
      grant: grant(7)?.status,
      told: told().filter((one) => !one.includes("null")),
    };
  }

  for (const applied of [true, false])
    it(`at any step, ${applied ? "just after" : "just before"} it: nothing is lost, nothing counts twice`, async () => {
      let nth = 1;
      for (; ; nth++) {
        const { died, given, card, grant, told } = await dyingAt(nth, applied);
        if (!died) break;
        const expected = [1, {}, "Deducted", ["StampsEarned 7 6", "StampsDeducted 7 6"]];
        assert.deepEqual([given, card?.open, grant, told], expected, `it died at step ${nth}`);
      }
      assert.ok(nth > 9, `there are ${nth - 1} steps: 4 of the earning, 3 of the deduction, 2 events`);
    });
});

describe("an answer of the store that is lost", () => {
  /** Loses the first answer to a write of the card, or the write itself. */
  const losing =
    (applied: boolean) =>
    (sidecar: Sidecar): Sidecar => {
      let lost = false;
      return {
        ...sidecar,
        store: {
          ...sidecar.store,
          save: async (key, ...rest) => {
            if (lost || !key.startsWith("card:")) return sidecar.store.save(key, ...rest);
            lost = true;
            if (applied) await sidecar.store.save(key, ...rest);
            throw new Unavailable("no answer");
          },
        },
      };
    };

  for (const applied of [true, false])
    it(`with the write ${applied ? "done" : "not done"}: the message comes again and counts once`, async () => {
      const { send, stampQty, told } = await start({ through: losing(applied) });
      await send(paid(7));
      assert.equal(await stampQty(), 6);
      assert.deepEqual(told(), ["StampsEarned 7 6"]);
    });

  for (const applied of [true, false])
    it(`with the write ${applied ? "done" : "not done"}: a client that asks again under its key is given once`, async () => {
      const { give, stampQty, dapr } = await start({ through: losing(applied) });
      const key = { "idempotency-key": "mine" };
      assertProblem(await give(2, key), 503, "unavailable");
      const again = await give(2, key);
      assert.deepEqual([again.status, again.body.stampQty], [201, 2]);
      await settled(dapr);
      assert.equal(await stampQty(), 2);
    });

  it("is settled even where the client never asks again: its grant learns what the card has had", async () => {
    const { give, dapr } = await start({ through: losing(true) });
    assertProblem(await give(2, { "idempotency-key": "mine" }), 503, "unavailable");
    await until(() => {
      const rows = [...(dapr.stores.get("stamps") ?? [])].filter(([key]) => key.startsWith("grant:key-"));
      return rows.some(([, { value }]) => (value as Stored<Grant>).state?.status === "Earned");
    }, "the grant is Earned");
  });
});

describe("POST /stamps", () => {
  it("S3-H6: gives stamps by hand, and opens the card with the first", async () => {
    const { give, first, told, dapr } = await start();
    const opened = await give(2);
    assert.deepEqual([opened.status, opened.headers.location], [201, `/stamps/${PHONE}`]);
    assert.deepEqual(opened.body, {
      ...{ phoneNumber: PHONE, stampQty: 2 },
      _links: { self: { href: `/stamps/${PHONE}` }, stamp: { href: `/stamps/${PHONE}` } },
    });
    assert.equal((await give("3")).body.stampQty, 5);
    assert.deepEqual((await first.http("GET", `/stamps/${PHONE}`)).body.stampQty, 5);
    await settled(dapr);
    assert.deepEqual(told(), ["StampsEarned null 2", "StampsEarned null 3"]);
  });

  it("S3-H6: 200 users at once for one number are all counted", async () => {
    const { give, stampQty } = await start();
    const answers = await Promise.all(Array.from({ length: 200 }, () => give(2)));
    assert.ok(answers.every(({ status }) => status === 201));
    assert.equal(await stampQty(), 400);
    assert.equal(new Set(answers.map(({ body }) => body.stampQty)).size, 200);
  });

  it("S3-H6: 200 users at two replicas, while orders earn stamps for the same number, are all counted", async () => {
    const { dapr, give, first, send, stampQty, told } = await start();
    const second = await host(dapr, { slot: "loyalty-1" });
    const users = Array.from({ length: 200 }, (_, i) => give(2, {}, i % 2 === 0 ? first : second));
    const orders = Array.from({ length: 20 }, (_, i) => paid(i + 1, { qty: 1 }));
    const [answers] = await Promise.all([Promise.all(users), send(...orders, ...orders)]);
    assert.ok(answers.every(({ status }) => status === 201));
    assert.equal(await stampQty(), 400 + 40);
    assert.equal(await stampQty(second), 400 + 40);
    await until(() => told().length === 220, "all of it is told");
  });

  it("gives once under one Idempotency-Key, also at once, and hundreds of changes later", async () => {
    const { give, stampQty, told, dapr } = await start();
    const key = { "idempotency-key": "mine" };
    const answers = await Promise.all(Array.from({ length: 20 }, () => give(2, key)));
    assert.deepEqual(
      new Set(answers.map(({ status, body }) => `${status} ${body.stampQty}`)),
      new Set(["201 2"]),
    );
    for (let i = 0; i < 100; i++) await give();
    assert.equal((await give(2, key)).body.stampQty, 102);
    assert.equal((await give(2, { "idempotency-key": "another" })).body.stampQty, 104);
    assert.equal(await stampQty(), 104);
    await settled(dapr);
    assert.equal(told().filter((one) => one === "StampsEarned null 2").length, 2);
  });

  it("refuses an Idempotency-Key that belongs to another request, or is none", async () => {
    const { give, first, stampQty } = await start();
    const key = { "idempotency-key": "mine" };
    await give(2, key);
    const reused = assertProblem(await give(3, key), 422, "idempotency-key-reused");
    assert.deepEqual(reused.errors, [{ field: "Idempotency-Key", reason: "was used with a different body" }]);
    const other = { phoneNumber: "01055556666", stampQty: 2 };
    assertProblem(await first.http("POST", "/stamps", other, key), 422, "idempotency-key-reused");
    assert.equal(await stampQty(), 2);
    const bad = assertProblem(await give(2, { "idempotency-key": "k".repeat(201) }), 422, "invalid-field");
    assert.match(JSON.stringify(bad.errors), /"field":"Idempotency-Key"/);
  });

  it("names every field that is not acceptable, and changes nothing", async () => {
    const { first } = await start();
    const post = (body: unknown) => first.http("POST", "/stamps", body);
    const fields = async (body: unknown) => {
      const { errors } = assertProblem(await post(body), 422, "invalid-field");
      return (errors as unknown as { field: string; reason: string }[]).map(
        ({ field, reason }) => `${field} ${reason}`,
      );
    };
    assert.deepEqual(await fields({}), ["phoneNumber is required", "stampQty is required"]);
    const bad = { phoneNumber: "call me", stampQty: "many" };
    assert.deepEqual(await fields(bad), [
      "phoneNumber must be a phone number",
      "stampQty must be a whole number",
    ]);
    for (const [stampQty, reason] of [
      [0, "must be at least 1"],
      [-1, "must be at least 1"],
      [10_001, "must be at most 10000"],
      [1.5, "must be a whole number"],
      ["1.5", "must be a whole number"],
      [null, "must be a whole number"],
    ])
      assert.deepEqual(await fields({ phoneNumber: PHONE, stampQty }), [`stampQty ${reason}`]);
    assert.equal((await post({ phoneNumber: PHONE, stampQty: 10_000 })).status, 201);
    assertProblem(
      await first.http("POST", "/stamps", "{", { "content-type": "application/json" }),
      400,
      "malformed-json",
    );
    assertProblem(await first.http("PUT", `/stamps/${PHONE}`, {}), 405, "method-not-allowed");
  });
});

describe("the cards", () => {
  it("are found by their numbers, however these are written (S3-D4)", async () => {
    const { give, first, send, stampQty } = await start();
    await first.http("POST", "/stamps", { phoneNumber: "010-1234-1234", stampQty: 2 });
    await give(1);
    await send(paid(7));
    assert.equal(await stampQty(), 2 + 1 + 6);
    for (const written of ["01012341234", "010-1234-1234", "010%201234%201234"]) {
      assert.equal((await first.http("GET", `/stamps/${written}`)).body.stampQty, 9, written);
      const found = await first.http("GET", `/stamps/search/findByPhoneNumber?phoneNumber=${written}`);
      assert.deepEqual(
        embedded(found, "stamps").map(({ phoneNumber, stampQty }) => [phoneNumber, stampQty]),
        [[PHONE, 9]],
      );
    }
    const abroad = await first.http("POST", "/stamps", { phoneNumber: "+82 10 1234 1234", stampQty: 4 });
    assert.equal((await first.http("GET", String(abroad.headers.location))).body.stampQty, 4);
    assert.equal(await stampQty(), 9);
    // A leading zero is part of a number.
    assertProblem(await first.http("GET", "/stamps/1012341234"), 404, "not-found");
  });

  it("that are not there: 404 for one, an empty list for a search", async () => {
    const { first } = await start();
    for (const number of [PHONE, "call-me", "%20", "1"]) {
      const problem = assertProblem(await first.http("GET", `/stamps/${number}`), 404, "not-found");
      assert.equal(problem.resource, "stamp");
    }
    const find = (query: string) => first.http("GET", `/stamps/search/findByPhoneNumber${query}`);
    assert.deepEqual(embedded(await find(`?phoneNumber=${PHONE}`), "stamps"), []);
    for (const query of ["", "?phoneNumber=me"])
      assert.match(
        JSON.stringify(assertProblem(await find(query), 422, "invalid-field").errors),
        /"phoneNumber"/,
      );
    const { body } = await first.http("GET", "/stamps/search");
    assert.equal(body._links?.findByPhoneNumber?.href, "/stamps/search/findByPhoneNumber{?phoneNumber}");
  });

  it("are listed in pages, newest first, each once", async () => {
    const { first } = await start();
    for (const n of [1, 2, 3, 4, 5, 2, 4])
      await first.http("POST", "/stamps", { phoneNumber: `0100000000${n}`, stampQty: n });
    const { body, headers } = await first.http("GET", "/stamps?page=1&size=2");
    assert.equal(headers["content-type"], "application/hal+json");
    assert.deepEqual(body.page, { size: 2, totalElements: 5, totalPages: 3, number: 1 });
    assert.equal(body._links?.next?.href, "/stamps?page=2&size=2");
    const listed = async (query: string) =>
      embedded(await first.http("GET", `/stamps${query}`), "stamps").map(
        ({ phoneNumber, stampQty }) => `${String(phoneNumber).slice(-1)}:${stampQty}`,
      );
    assert.deepEqual(await listed(""), ["5:5", "4:8", "3:3", "2:4", "1:1"]);
    assert.deepEqual(await listed("?page=1&size=2"), ["3:3", "2:4"]);
    assert.deepEqual(await listed("?page=9&size=2"), []);
    for (const query of ["?size=0", "?page=-1", "?size=x"])
      assertProblem(await first.http("GET", `/stamps${query}`), 422, "invalid-field");
  });

  it("cannot be read or changed while their store is down: 503, and they are whole afterwards", async () => {
    const { dapr, give, first, stampQty } = await start();
    await give(2);
    dapr.down.add("stamps");
    for (const answer of [await give(2), await first.http("GET", `/stamps/${PHONE}`)]) {
      assertProblem(answer, 503, "unavailable");
      assert.equal(answer.headers["retry-after"], "2");
    }
    dapr.down.delete("stamps");
    assert.equal(await stampQty(), 2);
    assert.equal((await give(2)).body.stampQty, 4);
  });

  it("gain stamps while no event can leave; they are told of later", async () => {
    const { dapr, give, told } = await start();
    dapr.down.add("events");
    for (let i = 0; i < 40; i++) assert.equal((await give(2)).status, 201);
    assert.deepEqual(told(), []);
    dapr.down.delete("events");
    await until(() => told().length === 40, "all of it is told");
  });
});
