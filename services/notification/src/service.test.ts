import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { afterEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { EventType } from "#kit/events.js";
import { type Bound, MemoryDapr } from "#kit/memory.js";
import { readShop, type Shop } from "#kit/shop.js";
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
  permutations,
  SHOP,
  settled,
  shopWith,
  until,
} from "#kit/testing.js";
import { Channel, PAUSE } from "./channel.js";
import { NOBODY } from "./domain.js";
import { notification } from "./main.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../../..");
const shopOf = (name: string) => readShop(join(root, "shops", `${name}.yaml`));

const AT = "2026-11-21T09:00:00.000Z";
const NOW = "2026-11-21T09:00:01.000Z";

type Notifications = Shop["notifications"];
const say = (on: EventType, channel = "kakao", what = "{productName} {orderId}"): Notifications[number] => ({
  ...{ on, channel },
  text: { en: `${on} ${what}`, ko: `${on} ${what} 안내` },
});
const told: Notifications = [say("OrderPaid"), say("OrderPaid", "sms"), say("DeliveryStarted")];
const saying = (...notifications: Notifications) => shopWith({ notifications, language: "en" });

/** Everything that any event has. */
const about = (orderId: number, changes: object = {}) => ({
  ...info,
  ...{ id: orderId, orderId, productName: `P${orderId}`, price: 5, amount: 15, at: AT },
  ...{
    paymentId: orderId,
    approvalCode: "1234",
    paid: true,
    reason: "why",
    refunded: 15,
    deliveryStatus: "",
  },
  ...changes,
});

/** A channel for which a test decides when a message has been taken. */
interface Slow {
  /** how many it has in its hands */
  now: number;
  most: number;
  release(): void;
}

const hosts: Host[] = [];
afterEach(async () => {
  await Promise.all(hosts.splice(0).map((host) => host.stop().catch(() => undefined)));
});

async function start(shop: Shop, dapr = new MemoryDapr(), options: HostOptions = {}) {
  const heard = listen(dapr);
  const add = async (options: HostOptions = {}) => {
    const host = await hostInMemory(dapr, notification, { shop, now: () => new Date(NOW), ...options });
    hosts.push(host);
    return host;
  };
  const host = await add(options);
  const publish = (type: EventType, orderId: number, changes: object = {}, id?: string) =>
    dapr.accept(type, cloudEvent(type, about(orderId, changes), id));
  const records = async () => embedded(await host.http("GET", "/messages?size=1000"), "messages");
  return {
    ...{ dapr, host, heard, add, publish, records },
    /** Resolves once so many messages have left, and answers what they say. */
    left: async (count: number) => {
      await until(() => dapr.bound.length >= count, `${count} have left`);
      await settled(dapr);
      return texts(dapr.bound);
    },
    waiting: async () => (await records()).filter(({ state }) => String(state) === "Waiting").length,
    /** Resolves once the records say so as well. */
    allSent: (count: number) =>
      until(async () => {
        const all = await records();
        return all.length === count && all.every(({ state }) => String(state) === "Sent");
      }, `${count} are on record as sent`),
    slow: (binding: string): Slow => {
      let open: () => void = () => undefined;
      const gate = new Promise<void>((resolve) => {
        open = resolve;
      });
      const slow: Slow = { now: 0, most: 0, release: () => open() };
      dapr.bindings.set(binding, async () => {
        slow.most = Math.max(slow.most, ++slow.now);
        await gate;
        slow.now--;
      });
      return slow;
    },
  };
}

const textOf = ({ data }: Bound) => (typeof data === "string" ? data : (data as { text: string }).text);
const texts = (bound: Bound[]) => bound.map((one) => `${one.binding}: ${textOf(one)}`);

/** A process that can be ended in the middle of anything: from then on nothing that it does has an effect. */
function mortal(beforeSave: (key: string) => void = () => undefined) {
  const life = { over: false };
  const through = (sidecar: Sidecar): Sidecar => {
    const alive = () => {
      if (life.over) throw new Unavailable("this process is dead");
    };
    const { store } = sidecar;
    return {
      ...sidecar,
      store: {
        get: async (keys) => {
          alive();
          return store.get(keys);
        },
        save: async (key, ...rest) => {
          beforeSave(key);
          alive();
          return store.save(key, ...rest);
        },
        delete: async (...row) => {
          alive();
          return store.delete(...row);
        },
      },
      publish: async (...events) => {
        alive();
        return sidecar.publish(...events);
      },
      bind: async (...what) => {
        alive();
        return sidecar.bind(...what);
      },
    };
  };
  return {
    through,
    kill: () => {
      life.over = true;
    },
  };
}

/** What a process reads of a key: how often it asks, which senders it finds there; and what it sends after a second one. */
function reading(key: string) {
  const reads = { count: 0, senders: new Set<unknown>(), sentAfterwards: 0 };
  const through = (sidecar: Sidecar): Sidecar => ({
    ...sidecar,
    store: {
      ...sidecar.store,
      get: async (keys) => {
        if (keys.includes(key)) reads.count++;
        const found = await sidecar.store.get(keys);
        const stored = found.get(key)?.value as { state?: { sender?: string } } | undefined;
        if (stored !== undefined) reads.senders.add(stored.state?.sender);
        return found;
      },
    },
    bind: (...what) => {
      if (reads.senders.size > 1) reads.sentAfterwards++;
      return sidecar.bind(...what);
    },
  });
  return { reads, through };
}

describe("an event that the shop tells of", () => {
  it("becomes a message in both languages, sent once, on record and in the list (S2-D5, S2-T4)", async () => {
    const { dapr, host, publish, allSent } = await start(saying(say("DeliveryStarted")));
    publish("DeliveryStarted", 7);
    await allSent(1);
    assert.deepEqual((await host.http("GET", "/messages/1")).body, {
      ...{ id: 1, orderId: 7, productId: 1, productName: "P7", qty: 3 },
      ...{ customerId: "cust1", customerName: "jang", phoneNumber: "01012341234" },
      ...{ event: "DeliveryStarted", channel: "kakao", to: "01012341234" },
      ...{
        text: "DeliveryStarted P7 7",
        texts: { en: "DeliveryStarted P7 7", ko: "DeliveryStarted P7 7 안내" },
      },
      ...{ at: AT, approveDate: null, startDate: AT, cancelDate: null, sentDate: NOW, state: "Sent" },
      _links: { self: { href: "/messages/1" }, message: { href: "/messages/1" } },
    });
    assert.deepEqual(dapr.bound, [
      {
        binding: "kakao",
        data: {
          ...{ messageId: 1, orderId: 7, productId: 1, productName: "P7", qty: 3 },
          ...{ customerId: "cust1", customerName: "jang", phoneNumber: "01012341234" },
          ...{ event: "DeliveryStarted", channel: "kakao", to: "01012341234", subject: "Test: order 7" },
          text: "DeliveryStarted P7 7",
          texts: { en: "DeliveryStarted P7 7", ko: "DeliveryStarted P7 7 안내" },
          ...{ at: AT, approveDate: null, startDate: AT, cancelDate: null },
        },
        metadata: {
          ...{ "Idempotency-Key": "message-1", fileName: "message-1.json" },
          ...{ emailTo: NOBODY, subject: "Test: order 7", toNumber: "01012341234" },
        },
      },
    ]);
  });

  it("is told in the shop's language", async () => {
    const { left, publish } = await start({ ...saying(...told), language: "ko" });
    publish("DeliveryStarted", 7);
    assert.deepEqual(await left(1), ["kakao: DeliveryStarted P7 7 안내"]);
  });

  it("may be told through several channels, and twice through one", async () => {
    const shop = saying(say("OrderPaid"), say("OrderPaid", "sms"), say("OrderPaid", "kakao", "again"));
    const { left, publish, allSent } = await start(shop);
    publish("OrderPaid", 7);
    const said = ["kakao: OrderPaid P7 7", "kakao: OrderPaid again", "sms: OrderPaid P7 7"];
    assert.deepEqual((await left(3)).sort(), said);
    await allSent(3);
  });

  it("is told as text alone to a channel that wants it so, and a mail to the customer's address", async () => {
    const shop = { ...saying(say("OrderPaid", "email")), channels: { email: { form: "text" as const } } };
    const { dapr, host, left, publish } = await start(shop);
    publish("OrderPaid", 7, { customerId: "jang@example.com" });
    await left(1);
    assert.deepEqual(
      [dapr.bound[0]?.data, dapr.bound[0]?.metadata.emailTo, dapr.bound[0]?.metadata.fileName],
      ["OrderPaid P7 7", "jang@example.com", "message-1.txt"],
    );
    assert.equal((await host.http("GET", "/messages/1")).body.to, "jang@example.com");
  });

  it("is told to the others: MessageSent, with what was said", async () => {
    const { dapr, heard, publish, allSent } = await start(saying(say("OrderPaid")));
    publish("OrderPaid", 7);
    await allSent(1);
    await settled(dapr);
    const ours = heard.filter(({ source }) => source === "notification");
    assert.deepEqual(
      ours.map(({ type, data: { timestamp: _timestamp, ...data } }) => [type, data]),
      [
        [
          "MessageSent",
          {
            ...{ orderId: 7, messageId: 1, event: "OrderPaid", channel: "kakao" },
            ...{ text: "OrderPaid P7 7", at: NOW, eventType: "MessageSent" },
          },
        ],
      ],
    );
  });

  it("leaves empty what it does not say", async () => {
    const { left, publish } = await start(
      saying(say("OrderPaid", "kakao", "<{note}{storeId}{customerName}>")),
    );
    publish("OrderPaid", 7, { customerName: null });
    assert.deepEqual(await left(1), ["kakao: OrderPaid <>"]);
  });

  it("is heard once, however many texts it has; others are not heard at all", async () => {
    const { host } = await start(saying(...told));
    const { body } = await host.http("GET", "/dapr/subscribe");
    const topics = (body as unknown as { topic: string }[]).map(({ topic }) => topic);
    assert.deepEqual(topics, ["OrderPaid", "DeliveryStarted", "dead-letters-notification"]);
    const silent = await start(SHOP);
    assert.deepEqual((await silent.host.http("GET", "/dapr/subscribe")).body, []);
    assert.deepEqual(await silent.records(), []);
  });

  it("has to be about an order, and not about a message", async () => {
    const refused = (on: EventType) => start(saying(say(on, "kakao", "")));
    await assert.rejects(refused("ProductChanged"), /ProductChanged is about no order/);
    await assert.rejects(refused("MessageSent"), /MessageSent would tell of itself/);
  });

  it("says nothing of stamps that were given by hand, which belong to no order", async () => {
    const { dapr, left, publish } = await start(saying(say("StampsEarned", "kakao", "{stampQty}")));
    publish("StampsEarned", 7, { orderId: null, stampQty: 1 });
    publish("StampsEarned", 7, { stampQty: 8 });
    assert.deepEqual(await left(1), ["kakao: StampsEarned 8"]);
    assert.deepEqual(deadLetters(dapr), []);
  });

  it("is set aside where it can't be understood", async () => {
    const { dapr, publish, records } = await start(saying(say("OrderPaid")));
    publish("OrderPaid", 7, { qty: "many" });
    await settled(dapr);
    assert.deepEqual(
      deadLetters(dapr, "messages").map(({ topic }) => topic),
      ["OrderPaid"],
    );
    assert.deepEqual(await records(), []);
  });
});

describe("the shops", () => {
  async function tell(name: string, ...types: EventType[]) {
    const { dapr, host, publish, left } = await start(shopOf(name));
    for (const [i, type] of types.entries()) {
      publish(type, 7);
      await left(i + 1);
    }
    return { said: texts(dapr.bound), host, dapr };
  }

  it("bookstore: bought, with a receipt by mail (S1-F4)", async () => {
    const { dapr, publish, left } = await start(shopOf("bookstore"));
    publish("OrderPaid", 7, { customerId: "jang@example.com", productName: "MSA Book" });
    assert.deepEqual((await left(2)).sort(), [
      "email: <p>주문 7 영수증: MSA Book 3권, 15원, 승인번호 1234</p>",
      "kakao: MSA Book 3권을 15원에 구매하셨습니다. 주문번호 7",
    ]);
    const mail = dapr.bound.find(({ binding }) => binding === "email");
    assert.deepEqual(
      [mail?.metadata.emailTo, mail?.metadata.subject],
      ["jang@example.com", "온라인 도서 구매 시스템: 주문 7"],
    );
  });

  it("bookstore: cancelled (S1-F8), and every change of the delivery (S1-F9)", async () => {
    const { said } = await tell(
      ...(["bookstore", "DeliveryStarted", "DeliveryCompleted"] as const),
      ...(["OrderCancelled", "DeliveryCancelled"] as const),
    );
    assert.deepEqual(said, [
      "kakao: P7 배송이 시작되었습니다. 주문번호 7",
      "kakao: P7 배송이 완료되었습니다. 주문번호 7",
      "kakao: 주문 7 (P7)이 취소되었습니다.",
      "kakao: P7 배송이 취소되었습니다. 주문번호 7",
    ]);
  });

  it("flower: paid, shipped, arrived, and both cancelled (S2-F3, F4, F6, P4, P5, P9, P10), as S2-D5 has it", async () => {
    const { said, host } = await tell(
      ...(["flower", "PaymentApproved", "DeliveryStarted", "DeliveryCompleted"] as const),
      ...(["PaymentCancelled", "DeliveryCancelled"] as const),
    );
    assert.deepEqual(said, [
      "sms: Payment has been Completed",
      "sms: Shippment has Started",
      "sms: Shippment has been Completed",
      "sms: Payment was Canceled",
      "sms: Shipping has been Canceled",
    ]);
    const rows = embedded(await host.http("GET", "/messages"), "messages").toReversed();
    assert.deepEqual(
      rows.map((row) => [row.messageId, row.status, row.approveDate, row.startDate, row.cancelDate]),
      [
        [1, "Payment has been Completed", AT, null, null],
        [2, "Shippment has Started", null, AT, null],
        [3, "Shippment has been Completed", null, null, null],
        [4, "Payment was Canceled", null, null, AT],
        [5, "Shipping has been Canceled", null, null, AT],
      ],
    );
    for (const { orderId, productId, qty, phoneNumber } of rows)
      assert.deepEqual([orderId, productId, qty, phoneNumber], [7, 1, 3, "01012341234"], "S2-T4");
  });

  it("cafe: every state of an order, by KakaoTalk (S4-F10)", async () => {
    const { said } = await tell(
      ...(["cafe", "OrderPaid", "StoreAccepted", "MakeStarted", "MakeCompleted"] as const),
      ...(["StoreRejected", "OrderCancelled", "PaymentCancelled"] as const),
    );
    assert.deepEqual(said, [
      "kakao: 주문 7의 결제가 완료되었습니다: 15원",
      "kakao: 카페에서 주문 7을 승인했습니다.",
      "kakao: P7 제조를 시작했습니다.",
      "kakao: P7 제조가 완료되었습니다.",
      "kakao: 카페에서 주문 7을 취소했습니다: why",
      "kakao: 주문 7이 취소되었습니다.",
      "kakao: 15원이 환불되었습니다.",
    ]);
  });
});

describe("what comes more than once, and in any order", () => {
  it("is said once: after hundreds of other events, under its own id or another", async () => {
    const { dapr, publish, left, allSent } = await start(saying(...told));
    publish("OrderPaid", 1, {}, "order/order:1/2/1");
    for (let orderId = 2; orderId <= 150; orderId++) {
      publish("OrderPaid", orderId);
      publish("DeliveryStarted", orderId);
    }
    const all = 2 + 149 * 3;
    await left(all);
    publish("OrderPaid", 1, {}, "order/order:1/2/1");
    for (let i = 0; i < 60; i++) publish("OrderPaid", 1, {}, `another/${i}`);
    publish("OrderPaid", 1, {}, "order/order:1/2/1");
    await settled(dapr);
    assert.equal((await left(all)).length, all);
    await allSent(all);
  });

  it("is said in whatever order it comes", async () => {
    const shop = saying(say("OrderPaid"), say("OrderCancelled"), say("DeliveryStarted"));
    const { dapr, publish, left } = await start(shop);
    const orders = permutations(["OrderPaid", "OrderCancelled", "DeliveryStarted"] as EventType[]);
    for (const [i, types] of orders.entries()) {
      for (const type of types) {
        publish(type, i + 1);
        await settled(dapr);
      }
    }
    await left(orders.length * 3);
    const of = (orderId: number) =>
      dapr.bound.flatMap(({ data }) => {
        const one = data as { orderId: number; event: string };
        return one.orderId === orderId ? [one.event] : [];
      });
    for (const [i, types] of orders.entries()) assert.deepEqual(of(i + 1), types);
  });

  it("is said once by two replicas, whichever hears it", async () => {
    const { dapr, add, publish, left, allSent, records } = await start(saying(...told));
    await add({ slot: "notification-1" });
    for (let orderId = 1; orderId <= 40; orderId++) {
      for (const id of ["first", "first", "second"]) publish("OrderPaid", orderId, {}, `${id}/${orderId}`);
      publish("DeliveryStarted", orderId);
    }
    await left(120);
    await allSent(120);
    await settled(dapr);
    assert.equal(dapr.bound.length, 120);
    assert.equal(new Set(dapr.bound.map(({ metadata }) => metadata["Idempotency-Key"])).size, 120);
    assert.equal(new Set((await records()).map(({ id }) => id)).size, 120);
  });

  it("is said once, too, when the repeat comes to the other replica while the message waits", async () => {
    const { reads, through } = reading("message:1");
    const shop = saying(say("OrderPaid"));
    const { dapr, host, add, publish, left, waiting, slow } = await start(shop, new MemoryDapr(), {
      through,
    });
    const other = await add({ slot: "notification-1" });
    dapr.down.add("kakao");
    other.leave();
    publish("OrderPaid", 7, {}, "one");
    await until(async () => (await waiting()) === 1, "it waits");
    await settled(dapr);
    other.join();
    host.leave();
    const kakao = slow("kakao");
    publish("OrderPaid", 7, {}, "one");
    await settled(dapr);
    dapr.down.delete("kakao");
    await until(() => kakao.now === 1, "it is being sent");
    await until(() => reads.senders.size === 2, "the first one has seen that it is no longer its own");
    await settled(dapr);
    kakao.release();
    assert.deepEqual(await left(1), ["kakao: OrderPaid P7 7"]);
    await until(async () => (await waiting()) === 0, "it is on record as sent");
    assert.deepEqual([dapr.bound.length, reads.sentAfterwards], [1, 0]);
  });

  it("is written when the store is back, once", async () => {
    const { reads, through } = reading("notice:7");
    const { dapr, publish, left, allSent } = await start(saying(...told), new MemoryDapr(), { through });
    dapr.down.add("messages");
    publish("OrderPaid", 7);
    await until(() => reads.count > 3, "it has come several times");
    assert.deepEqual(dapr.bound, []);
    dapr.down.delete("messages");
    await left(2);
    await allSent(2);
    assert.equal(dapr.bound.length, 2);
    assert.deepEqual(deadLetters(dapr), []);
  });
});

describe("a channel that is down", () => {
  it("delays its own messages and nothing else (S4-N2): events are consumed, others go on", async () => {
    const { dapr, host, publish, left, waiting, allSent } = await start(saying(...told));
    dapr.down.add("kakao");
    for (let orderId = 1; orderId <= 50; orderId++) publish("OrderPaid", orderId);
    await settled(dapr); // quiet: every event has been acknowledged
    const said = await left(50);
    assert.deepEqual(new Set(said.map((text) => text.split(":")[0])), new Set(["sms"]));
    await until(async () => (await waiting()) === 50, "those for the channel wait");
    assert.deepEqual(
      [(await host.http("GET", "/readyz")).status, (await host.http("GET", "/messages/1")).body.sentDate],
      [200, null],
    );
    dapr.down.delete("kakao");
    await left(100);
    await allSent(100);
    assert.equal(dapr.bound.length, 100);
  });

  it("gets what waited for an order in the order in which it happened", async () => {
    const { dapr, publish, left, waiting } = await start(
      saying(say("OrderPaid"), say("DeliveryStarted"), say("DeliveryCompleted")),
    );
    dapr.down.add("kakao");
    const life = ["OrderPaid", "DeliveryStarted", "DeliveryCompleted"] as const;
    for (const [i, type] of life.entries()) {
      publish(type, 7);
      await until(async () => (await waiting()) === i + 1, `${type} waits`);
    }
    dapr.down.delete("kakao");
    assert.deepEqual(
      await left(3),
      life.map((type) => `kakao: ${type} P7 7`),
    );
  });

  it("for one customer only holds up no other", async () => {
    const { dapr, publish, left, waiting } = await start(saying(say("OrderPaid")));
    dapr.bindings.set("kakao", ({ data }) => {
      if ((data as { orderId: number }).orderId === 1) throw new Unavailable("no such number");
    });
    for (let orderId = 1; orderId <= 20; orderId++) publish("OrderPaid", orderId);
    await left(19);
    assert.equal(await waiting(), 1);
    publish("OrderPaid", 21);
    await left(20);
    assert.equal(await waiting(), 1);
  });

  it("is given one message at a time, while others have theirs (a mail binding mixes two up)", async () => {
    const { publish, left, slow } = await start(saying(...told));
    const kakao = slow("kakao");
    for (let orderId = 1; orderId <= 10; orderId++) publish("OrderPaid", orderId);
    await left(10);
    assert.deepEqual([kakao.now, kakao.most], [1, 1]);
    kakao.release();
    await left(20);
    assert.equal(kakao.most, 1);
  });
});

describe("a stop and a crash", () => {
  it("a stop leaves what waits to the next start, which sends it once", async () => {
    const { dapr, host, add, publish, left, waiting } = await start(saying(...told));
    dapr.down.add("kakao");
    for (let orderId = 1; orderId <= 5; orderId++) publish("OrderPaid", orderId);
    await until(async () => (await waiting()) === 5, "they wait");
    await left(5);
    const began = performance.now();
    await host.stop();
    host.leave();
    assert.ok(performance.now() - began < 2_500, "it does not wait for the channel");
    dapr.down.delete("kakao");
    const next = await add();
    await left(10);
    await until(async () => {
      const rows = embedded(await next.http("GET", "/messages"), "messages");
      return rows.length === 10 && rows.every(({ state }) => String(state) === "Sent");
    }, "all are on record as sent");
    assert.equal(dapr.bound.length, 10);
  });

  it("a crash too, and so does the crash of the one that took over", async () => {
    const dapr = new MemoryDapr();
    dapr.down.add("kakao");
    const { host, add, publish, waiting } = await start(saying(say("OrderPaid")), dapr);
    host.leave();
    const slot = "notification-1";
    const first = mortal();
    const dying = await add({ slot, through: first.through });
    for (let orderId = 1; orderId <= 5; orderId++) publish("OrderPaid", orderId);
    await until(async () => (await waiting()) === 5, "they wait");
    first.kill();
    dying.leave();
    const second = mortal();
    await add({ slot, through: second.through });
    second.kill();
    dapr.down.delete("kakao");
    await add({ slot });
    await until(async () => (await waiting()) === 0, "they are on record as sent");
    assert.equal(dapr.bound.length, 5);
  });

  it("a crash between the numbers and the messages: the event comes again, and they are written under these", async () => {
    const { dapr, host, add, publish, left, records } = await start(saying(...told));
    host.leave();
    const life = mortal((key) => {
      if (key.startsWith("message:")) life.kill();
    });
    const dying = await add({ slot: "notification-1", through: life.through });
    publish("OrderPaid", 7);
    const notice = () =>
      dapr.stores.get("messages")?.get("notice:7")?.value as { state: { messages: object } } | undefined;
    await until(() => notice(), "they have numbers");
    assert.deepEqual(await records(), []);
    dying.leave();
    host.join();
    await left(2);
    assert.deepEqual(
      (await records()).map(({ id }) => Number(id)).sort(),
      Object.values(notice()?.state.messages ?? {}).sort(),
    );
  });

  it("what was taken while the store went away is not sent again", async () => {
    const { reads, through } = reading("message:1");
    const shop = saying(say("OrderPaid"));
    const { dapr, publish, left, allSent } = await start(shop, new MemoryDapr(), { through });
    dapr.bindings.set("kakao", () => void dapr.down.add("messages"));
    publish("OrderPaid", 7);
    await left(1);
    const before = reads.count;
    await until(() => reads.count > before + 3, "it has tried to put it on record");
    dapr.bindings.clear();
    dapr.down.delete("messages");
    await allSent(1);
    assert.equal(dapr.bound.length, 1);
  });

  it("what was taken in the moment of a crash comes again under the same key and file name", async () => {
    const { dapr, host, add, publish, left, waiting } = await start(saying(say("OrderPaid")));
    host.leave();
    const slot = "notification-1";
    const life = mortal();
    dapr.bindings.set("kakao", () => void life.kill());
    const dying = await add({ slot, through: life.through });
    publish("OrderPaid", 7);
    await left(1);
    assert.equal(await waiting(), 1);
    dying.leave();
    await add({ slot });
    await left(2);
    await until(async () => (await waiting()) === 0, "it is on record as sent");
    const [first, second] = dapr.bound;
    assert.deepEqual(second, first);
  });

  it("a start looks for what waits, should no journal have said so", async () => {
    const { dapr, host, add, publish, left, waiting } = await start(saying(say("OrderPaid")));
    host.leave();
    const life = mortal();
    const dying = await add({ slot: "notification-1", through: life.through });
    dapr.down.add("kakao");
    publish("OrderPaid", 7);
    await until(async () => (await waiting()) === 1, "it waits");
    life.kill();
    dying.leave();
    const rows = dapr.stores.get("messages") ?? new Map();
    for (const key of rows.keys()) if (/^journal:|^replicas$/.test(key)) rows.delete(key);
    dapr.down.delete("kakao");
    await add({ slot: "notification-2" });
    await left(1);
    await until(async () => (await waiting()) === 0, "it is on record as sent");
  });

  it("a paused process that wakes up sends nothing that was taken over from it", async () => {
    const { dapr, host, add, publish, left, waiting, slow } = await start(saying(say("OrderPaid")));
    host.leave();
    const slot = "notification-1";
    const { reads, through } = reading("message:1");
    const paused = await add({ slot, through });
    dapr.down.add("kakao");
    publish("OrderPaid", 7);
    await until(async () => (await waiting()) === 1, "it waits");
    paused.leave();
    const kakao = slow("kakao");
    await add({ slot }); // the slot's next process takes the first one for dead
    dapr.down.delete("kakao");
    await until(() => kakao.now === 1, "it is being sent");
    await until(() => reads.senders.size === 2, "the first one has seen that it is no longer its own");
    await settled(dapr);
    kakao.release();
    await left(1);
    await until(async () => (await waiting()) === 0, "it is on record as sent");
    assert.deepEqual([dapr.bound.length, reads.sentAfterwards], [1, 0]);
  });
});

describe("messages over HTTP", () => {
  it("are listed newest first, in pages", async () => {
    const { host, publish, allSent } = await start(saying(say("OrderPaid")));
    for (const orderId of [5, 3, 9]) {
      publish("OrderPaid", orderId);
      await allSent([5, 3, 9].indexOf(orderId) + 1);
    }
    const page = await host.http("GET", "/messages?size=2");
    assert.deepEqual(
      embedded(page, "messages").map(({ id, orderId }) => [id, orderId]),
      [
        [3, 9],
        [2, 3],
      ],
    );
    assert.deepEqual(page.body.page, { size: 2, totalElements: 3, totalPages: 2, number: 0 });
    const last = embedded(await host.http("GET", "/messages?size=2&page=1"), "messages");
    assert.deepEqual(
      last.map(({ orderId }) => orderId),
      [5],
    );
  });

  it("are found by their order, all of them (S2-T5), as they happened", async () => {
    const { host, publish, allSent } = await start(saying(...told));
    publish("DeliveryStarted", 7, { at: "2026-11-21T09:00:09.000Z" });
    await allSent(1);
    publish("OrderPaid", 7);
    publish("OrderPaid", 8);
    await allSent(5);
    const find = async (orderId: unknown) =>
      host.http("GET", `/messages/search/findByOrderId?orderId=${orderId}`);
    const found = await find(7);
    assert.equal(found.status, 200);
    assert.deepEqual(
      embedded(found, "messages")
        .map((row) => `${row.event} ${row.channel} ${row._links?.self?.href}`)
        .sort(),
      embedded(found, "messages")
        .map((row) => `${row.event} ${row.channel} /messages/${row.id}`)
        .sort(),
    );
    assert.deepEqual(
      embedded(found, "messages").map(({ event }) => event),
      ["OrderPaid", "OrderPaid", "DeliveryStarted"],
    );
    assert.equal(embedded(await find(8), "messages").length, 2);
    assert.deepEqual(embedded(await find(99), "messages"), []);
    for (const none of ["", "x", "0", "-7", "1.5"]) assertProblem(await find(none), 404, "not-found");
  });

  it("are there or not, and nobody changes them", async () => {
    const { host } = await start(saying(...told));
    assertProblem(await host.http("GET", "/messages/1"), 404, "not-found");
    assertProblem(await host.http("GET", "/messages/x"), 404, "not-found");
    assertProblem(await host.http("GET", "/messages?size=0"), 422, "invalid-field");
    for (const method of ["POST", "PUT", "DELETE"])
      assertProblem(
        await host.http(method, "/messages", method === "DELETE" ? undefined : {}),
        405,
        "method-not-allowed",
      );
    assert.equal((await host.http("GET", "/profile/messages")).status, 200);
    assert.equal((await host.http("GET", "/messages/search")).status, 200);
  });
});

describe("a channel", () => {
  /** Messages by id, the order's first digit leading: 31 is the first of order 3. Those in `refused` are not taken. */
  function channel() {
    const clock = { now: 1_000 };
    const refused = new Set<number>();
    const gone = new Set<number>();
    const tried: number[] = [];
    const taken: number[] = [];
    const one = new Channel(
      "kakao",
      async (id) =>
        gone.has(id)
          ? undefined
          : async () => {
              tried.push(id);
              if (refused.has(id)) throw new Unavailable("refused");
              taken.push(id);
            },
      () => clock.now,
    );
    const send = (id: number) =>
      one.send(id, Math.floor(id / 10)).then(
        () => true,
        () => false,
      );
    return { clock, refused, gone, tried, taken, send };
  }

  it("that fails is left alone, longer each time, up to a limit", async () => {
    const { clock, refused, tried, send } = channel();
    refused.add(10);
    const pauses: number[] = [];
    for (let began = clock.now; pauses.length < 10; began = clock.now) {
      for (const before = tried.length; tried.length === before; clock.now += 10) await send(10);
      pauses.push(clock.now - 10 - began);
      clock.now -= 10;
    }
    // First as one that it had not seen, then as one that it has refused.
    assert.deepEqual(pauses, [0, 250, 250, 500, 1_000, 2_000, 4_000, 8_000, PAUSE.longest, PAUSE.longest]);
  });

  it("that is down for a minute is tried a few times, however many messages come; then they go at once", async () => {
    const { clock, refused, tried, taken, send } = channel();
    const ids = Array.from({ length: 600 }, (_, i) => 10 * (i + 1));
    for (const id of ids) {
      refused.add(id);
      assert.equal(await send(id), false);
      clock.now += 100;
    }
    assert.ok(tried.length > 10 && tried.length <= 20, `${tried.length} tries`);
    refused.clear();
    clock.now += PAUSE.longest;
    assert.ok((await Promise.all(ids.map(send))).every(Boolean));
    assert.deepEqual(new Set(taken), new Set(ids));
  });

  it("is not asked for each of thousands that wait", async () => {
    const { clock, refused, tried, send } = channel();
    const ids = Array.from({ length: 1_000 }, (_, i) => 10 * (i + 1));
    for (const id of ids) refused.add(id);
    await Promise.all(ids.map(send));
    await Promise.all(ids.map(send));
    assert.equal(tried.length, 1);
    clock.now += PAUSE.first;
    await Promise.all(ids.map(send));
    assert.equal(tried.length, 2);
    refused.clear();
    clock.now += PAUSE.longest;
    assert.ok((await Promise.all(ids.map(send))).every(Boolean));
    assert.equal(tried.length, 1_002);
  });

  it("takes an order's messages in their order, whichever is asked for", async () => {
    const { clock, refused, taken, send } = channel();
    refused.add(11);
    assert.equal(await send(11), false);
    clock.now += PAUSE.longest;
    assert.equal(await send(12), false, "the first one still is not taken");
    refused.clear();
    clock.now += PAUSE.longest;
    assert.equal(await send(13), true);
    assert.deepEqual(taken, [11, 12, 13]);
    assert.equal(await send(12), true, "it has been sent on the way, or is sent again: the record decides");
  });

  it("tries what it refused before after what it has not seen, and each of those in turn", async () => {
    const { clock, refused, tried, taken, send } = channel();
    for (const id of [10, 20, 30]) refused.add(id);
    for (const id of [10, 20, 30]) {
      await send(id);
      clock.now += PAUSE.longest;
    }
    tried.splice(0);
    for (let i = 0; i < 4; i++) {
      assert.equal(await send(10), false);
      clock.now += PAUSE.longest;
    }
    assert.deepEqual(tried, [10, 20, 30, 10]);
    assert.equal(await send(40), true);
    assert.equal(await send(50), true, "what is refused makes nobody wait");
    assert.deepEqual(taken, [40, 50]);
  });

  it("takes the lowest number of an order first, whichever came first", async () => {
    const { clock, refused, taken, send } = channel();
    refused.add(12);
    assert.equal(await send(12), false);
    refused.clear();
    clock.now += PAUSE.longest;
    assert.equal(await send(11), true);
    assert.equal(await send(12), true);
    assert.deepEqual(taken, [11, 12]);
  });

  it("is trusted again as soon as it takes something", async () => {
    const { clock, refused, taken, send } = channel();
    /** Fails with new messages until the pause is a long one. */
    const goDown = async (...ids: number[]) => {
      for (const id of ids) {
        refused.add(id);
        assert.equal(await send(id), false);
        clock.now += PAUSE.longest;
      }
      refused.clear();
    };
    await goDown(10, 20, 30, 40, 50);
    assert.equal(await send(60), true, "a new one");
    refused.add(70);
    assert.equal(await send(70), false);
    clock.now += PAUSE.first;
    assert.equal(await send(80), true, "the pause is the first one again");

    await goDown(110, 120, 130, 140, 150);
    clock.now -= PAUSE.longest - PAUSE.first; // new ones have long to wait still; those that have failed, not so long
    assert.equal(await send(10), true, "one that had failed");
    assert.equal(await send(160), true, "so new ones go at once");
    assert.deepEqual(taken.slice(0, 2), [60, 80]);
  });

  it("is not blamed when nothing is left to do", async () => {
    const { gone, tried, send } = channel();
    gone.add(10);
    assert.equal(await send(10), true);
    assert.deepEqual(tried, []);
    assert.equal(await send(20), true);
  });

  it("is not trusted again for that, either", async () => {
    const { clock, refused, gone, send } = channel();
    gone.add(30);
    for (const id of [10, 20]) {
      refused.add(id);
      assert.equal(await send(id), false);
      clock.now += 2 * PAUSE.first;
    }
    assert.equal(await send(30), true);
    refused.add(40);
    assert.equal(await send(40), false, "the third in a row");
    clock.now += 4 * PAUSE.first - 1;
    assert.equal(await send(50), false);
    clock.now += 1;
    assert.equal(await send(50), true);
  });

  it("is not blamed for what fails before it is asked", async () => {
    let down = true;
    const one = new Channel(
      "kakao",
      async () => {
        if (down) throw new Unavailable("the store is away");
        return async () => undefined;
      },
      () => 0,
    );
    await assert.rejects(one.send(1, 1), /the store is away/);
    down = false;
    await one.send(1, 1);
  });
});
