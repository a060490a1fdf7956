import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { EventType } from "#kit/events.js";
import { decides, given, info, SHOP } from "#kit/testing.js";
import {
  type Content,
  compose,
  due,
  fill,
  MESSAGE,
  type Message,
  type MessageEvent,
  NOBODY,
  NOTICE,
  number,
  type Policy,
  pack,
  sent,
  takeOver,
  unnumbered,
  write,
} from "./domain.js";

const AT = "2026-11-21T09:00:00.000Z";
const LATER = "2026-11-21T09:00:05.000Z";
const text = { en: "{qty} of {productName}", ko: "{productName} {qty}권" };
const policy: Policy = { ...SHOP, language: "ko" };

const entry = (on: EventType, channel = "kakao") => ({ on, channel, text });
const content = (
  on: EventType = "OrderPaid",
  changes: Record<string, unknown> = {},
  rules = policy,
): Content => compose(entry(on), { ...info, at: AT, ...changes }, LATER, rules);

const written: MessageEvent = { type: "MessageWritten", data: { ...content(), sender: "a" } };
const takenOver: MessageEvent = { type: "MessageTakenOver", data: { sender: "b" } };
const told = {
  orderId: 7,
  messageId: 12,
  event: "OrderPaid",
  channel: "kakao",
  text: "Outwear-1 3권",
  at: LATER,
};
const wasSent: MessageEvent = { type: "MessageSent", data: told };

const stateOf = (changes: Partial<Message> = {}): Message => ({
  ...content(),
  ...{ status: "Waiting", sender: "a", sentDate: null },
  ...changes,
});

describe("a message", () => {
  decides(
    MESSAGE,
    { none: [], waiting: [written], "taken over": [written, takenOver], sent: [written, wasSent] },
    {
      "write, by its sender": (message) => write(message, content(), "a"),
      "write, by another": (message) => write(message, content(), "b"),
      "take over, by its sender": (message) => takeOver(message, "a"),
      "take over, by another": (message) => takeOver(message, "b"),
      sent: (message) => sent(message, 12, LATER, policy),
    },
    {
      "write, by its sender": {
        ...{ none: "MessageWritten", waiting: "nothing", "taken over": "MessageTakenOver", sent: "nothing" },
      },
      "write, by another": {
        ...{ none: "MessageWritten", waiting: "MessageTakenOver", "taken over": "nothing", sent: "nothing" },
      },
      "take over, by its sender": {
        ...{ none: "nothing", waiting: "nothing", "taken over": "MessageTakenOver", sent: "nothing" },
      },
      "take over, by another": {
        ...{ none: "nothing", waiting: "MessageTakenOver", "taken over": "nothing", sent: "nothing" },
      },
      sent: { none: "nothing", waiting: "MessageSent", "taken over": "MessageSent", sent: "nothing" },
    },
  );

  it("is on record before it is sent", () => {
    const { state, thenHappens } = given(MESSAGE).when((message) => write(message, content(), "a"));
    thenHappens(written);
    assert.deepEqual(state, stateOf());
  });

  it("changes hands as a whole", () => {
    assert.deepEqual(given(MESSAGE, written, takenOver).state, stateOf({ sender: "b" }));
  });

  it("tells others what it said, in the shop's language", () => {
    const korean = given(MESSAGE, written).when((message) => sent(message, 12, LATER, policy));
    korean.thenHappens(wasSent);
    assert.deepEqual(korean.state, stateOf({ status: "Sent", sentDate: LATER }));
    const english = { ...policy, language: "en" as const };
    given(MESSAGE, written)
      .when((message) => sent(message, 12, LATER, english))
      .thenHappens({ type: "MessageSent", data: { ...told, text: "3 of Outwear-1" } });
  });
});

describe("the words of a message", () => {
  it("are filled with the event's fields, what is not known being left empty", () => {
    const data = { qty: 2, productName: "토지", amount: 0, phoneNumber: null };
    assert.equal(fill("{productName} {qty}권 {amount}원", data), "토지 2권 0원");
    assert.equal(fill("to {phoneNumber}, {reason}: {constructor}{toString}.", data), "to , : .");
    assert.equal(fill("{qty}{qty} { qty } {}", data), "22 { qty } {}");
    assert.equal(fill("{a}", { a: "{b} $& $1", b: "no" }), "{b} $& $1", "what is filled in is left alone");
  });

  it("are in both languages, about what S2-D5 has", () => {
    assert.deepEqual(content(), {
      ...{ orderId: 7, productId: 1, productName: "Outwear-1", qty: 3 },
      ...{ customerId: "cust1", customerName: "jang", phoneNumber: "01012341234" },
      ...{ event: "OrderPaid", channel: "kakao", to: "01012341234" },
      ...{ textEn: "3 of Outwear-1", textKo: "Outwear-1 3권", at: AT },
      ...{ approveDate: AT, startDate: null, cancelDate: null },
    });
  });

  it("take the time from the event, or else the present (S2-D5)", () => {
    for (const at of ["", undefined, null]) {
      const { at: was, approveDate } = content("OrderPaid", { at });
      assert.deepEqual([was, approveDate], [LATER, LATER], String(at));
    }
  });

  const dates = (on: EventType) => {
    const { approveDate, startDate, cancelDate } = content(on);
    return Object.entries({ approveDate, startDate, cancelDate })
      .filter(([, date]) => date !== null)
      .map(([name, date]) => `${name} ${date}`)
      .join();
  };
  for (const [on, date] of [
    ["PaymentApproved", "approveDate"],
    ["OrderPaid", "approveDate"],
    ["DeliveryStarted", "startDate"],
    ["PaymentCancelled", "cancelDate"],
    ["DeliveryCancelled", "cancelDate"],
    ["OrderCancelled", "cancelDate"],
    ["StoreRejected", "cancelDate"],
    ["StoreCancelled", "cancelDate"],
  ] as const)
    it(`call the time of ${on} ${date} (S2-D5)`, () => assert.equal(dates(on), `${date} ${AT}`));

  it("call it nothing where nothing is approved, started or cancelled", () => {
    for (const on of ["OrderPlaced", "MakeCompleted", "DeliveryCompleted", "StoreAccepted"] as const)
      assert.equal(dates(on), "", on);
  });

  it("are about an order of which little is known, too", () => {
    const bare = compose(entry("StampsEarned"), { orderId: 7, stampQty: 5, qty: 2 }, LATER, policy);
    assert.deepEqual(bare, {
      ...{ orderId: 7, productId: null, productName: null, qty: 2 },
      ...{ customerId: null, customerName: null, phoneNumber: null },
      ...{ event: "StampsEarned", channel: "kakao", to: null },
      ...{ textEn: "2 of ", textKo: " 2권", at: LATER },
      ...{ approveDate: null, startDate: null, cancelDate: null },
    });
  });
});

describe("whom a message goes to", () => {
  const texts: Policy = { ...policy, channels: { kakao: { form: "text" } } };
  const whom = (customerId: string | null, phoneNumber: string | null, rules = policy) =>
    content("OrderPaid", { customerId, phoneNumber }, rules).to;

  it("is a phone number, else whatever the customer is called", () => {
    assert.equal(whom("cust1", "010"), "010");
    assert.equal(whom("me@x.com", "010"), "010");
    assert.equal(whom("cust1", null), "cust1");
    assert.equal(whom(null, null), null);
  });

  it("is a mail address first, where the channel takes texts", () => {
    assert.equal(whom("me@x.com", "010", texts), "me@x.com");
    assert.equal(whom("cust1", "010", texts), "010");
    assert.equal(whom("cust1", null, texts), "cust1");
  });
});

describe("what a channel gets", () => {
  it("is the whole message as JSON, and what the kinds of bindings look for", () => {
    assert.deepEqual(pack(12, stateOf(), policy), {
      data: {
        ...{ messageId: 12, orderId: 7, productId: 1, productName: "Outwear-1", qty: 3 },
        ...{ customerId: "cust1", customerName: "jang", phoneNumber: "01012341234" },
        ...{ event: "OrderPaid", channel: "kakao", to: "01012341234", subject: "시험: 주문 7" },
        ...{ text: "Outwear-1 3권", texts: { en: "3 of Outwear-1", ko: "Outwear-1 3권" } },
        ...{ at: AT, approveDate: AT, startDate: null, cancelDate: null },
      },
      metadata: {
        "Idempotency-Key": "message-12",
        fileName: "message-12.json",
        emailTo: NOBODY,
        subject: "시험: 주문 7",
        toNumber: "01012341234",
      },
    });
  });

  it("is its text alone where the shop says so", () => {
    const english: Policy = { ...policy, language: "en", channels: { kakao: { form: "text" } } };
    const { data, metadata } = pack(12, stateOf({ phoneNumber: null }), english);
    assert.equal(data, "3 of Outwear-1");
    assert.deepEqual(metadata, {
      "Idempotency-Key": "message-12",
      fileName: "message-12.txt",
      emailTo: NOBODY,
      subject: "Test: order 7",
    });
  });

  it("is its text as HTML where the shop says so, in which no customer can write tags", () => {
    const mail: Policy = { ...policy, channels: { kakao: { form: "html" } } };
    const { data, metadata } = pack(12, stateOf({ textKo: `<a href="x">'P' & Q</a>` }), mail);
    assert.equal(data, `<p>&#60;a href=&#34;x&#34;&#62;'P' &#38; Q&#60;/a&#62;</p>`);
    assert.equal(metadata.fileName, "message-12.html");
  });

  it("names one mail address, and always one: a mail binding keeps the last that it was told", () => {
    const emailTo = (customerId: string | null) => pack(1, stateOf({ customerId }), policy).metadata.emailTo;
    assert.equal(emailTo("jang@example.com"), "jang@example.com");
    const none = [
      "cust1",
      "@",
      "a@",
      "@b",
      "a@b;c@d",
      "a@b,c@d",
      "a@b c",
      "a@b\r\nBcc:c@d",
      "A <a@b>",
      "a@b@c",
    ];
    for (const customerId of [null, ...none]) assert.equal(emailTo(customerId), NOBODY, `${customerId}`);
  });
});

describe("the numbers of an order's messages", () => {
  const notifications = [
    entry("OrderPaid"),
    entry("OrderPaid", "email"),
    entry("OrderCancelled"),
    entry("OrderPaid"),
  ];
  const keys = (list: Policy["notifications"], event: EventType) =>
    due(event, { ...policy, notifications: list }).map(({ key }) => key);

  it("are by event, channel and which of several texts", () => {
    assert.deepEqual(keys(notifications, "OrderPaid"), [
      "OrderPaid:kakao:0",
      "OrderPaid:email:0",
      "OrderPaid:kakao:1",
    ]);
    assert.deepEqual(keys(notifications, "OrderCancelled"), ["OrderCancelled:kakao:0"]);
    assert.deepEqual(keys(notifications, "DeliveryStarted"), []);
  });

  it("stay the same when the shop has more to say of other things", () => {
    const more = [entry("OrderPlaced"), entry("OrderPaid", "sms"), ...notifications];
    assert.deepEqual(keys(more, "OrderCancelled"), keys(notifications, "OrderCancelled"));
    assert.deepEqual(keys(more, "OrderPaid").slice(1), keys(notifications, "OrderPaid"));
  });

  it("are given once", () => {
    const first = given(NOTICE).when((notice) => number(notice, ["a", "b"], [4, 5]));
    first.thenHappens({ type: "MessagesNumbered", data: { messages: { a: 4, b: 5 } } });
    const again = given(NOTICE, { type: "MessagesNumbered", data: { messages: { a: 4, b: 5 } } });
    assert.deepEqual(unnumbered(again.state, ["a", "b", "c"]), ["c"]);
    again.when((notice) => number(notice, ["a", "b"], [])).thenHappens();
    const more = again.when((notice) => number(notice, ["a", "c"], [9]));
    more.thenHappens({ type: "MessagesNumbered", data: { messages: { c: 9 } } });
    assert.deepEqual(more.state, { messages: { a: 4, b: 5, c: 9 } });
  });
});
