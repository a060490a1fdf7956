import type { Event, EventType, OrderInfo } from "#kit/events.js";
import type { Aggregate } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";

type Nullable<T> = { [K in keyof T]: T[K] | null };

/** Whom and what a message is about: what the event says of it. */
export interface About
  extends Nullable<
    Pick<OrderInfo, "productId" | "productName" | "qty" | "customerId" | "customerName" | "phoneNumber">
  > {
  orderId: number;
}

/** One thing to say to one customer, once, through one channel. */
export interface Content extends About {
  /** what it tells of */
  event: EventType;
  /** the Dapr output binding that takes it */
  channel: string;
  /** phone number, mail address or whatever the customer is known by */
  to: string | null;
  textEn: string;
  textKo: string;
  /** when it happened, ISO 8601 */
  at: string;
  /** `at` under the name that says what happened (S2-D5) */
  approveDate: string | null;
  startDate: string | null;
  cancelDate: string | null;
}

export interface Message extends Content {
  status: "Waiting" | "Sent";
  /** the process that sends it; another one has to take it over first */
  sender: string;
  sentDate: string | null;
}

export type MessageEvent =
  | Event<"MessageSent">
  | { type: "MessageWritten"; data: Content & { sender: string } }
  /** its sender is gone, or does not know of it */
  | { type: "MessageTakenOver"; data: { sender: string } };

/** The numbers of an order's messages, by what each of them is for: an event that comes again finds them. */
export interface Notice {
  messages: Record<string, number>;
}

export type NoticeEvent = { type: "MessagesNumbered"; data: Notice };

/** What a shop file says about messages. */
export type Policy = Pick<Shop, "title" | "language" | "channels" | "notifications">;

type Entry = Shop["notifications"][number];

/** A kind of event happens to an order once, so this names a message of it for good. */
export interface Due {
  key: string;
  entry: Entry;
}

/** What the shop wants said when this happens. The n-th of its texts for an event and a channel keeps its key. */
export function due(event: EventType, { notifications }: Policy): Due[] {
  const counts = new Map<string, number>();
  return notifications
    .filter((entry) => entry.on === event)
    .map((entry) => {
      const n = counts.get(entry.channel) ?? 0;
      counts.set(entry.channel, n + 1);
      return { key: `${event}:${entry.channel}:${n}`, entry };
    });
}

/** Which of these have no number yet. */
export const unnumbered = (notice: Notice | undefined, keys: readonly string[]): string[] =>
  keys.filter((key) => notice?.messages[key] === undefined);

/** Numbers what has no number yet, with the first of `numbers`. */
export function number(
  notice: Notice | undefined,
  keys: readonly string[],
  numbers: readonly number[],
): NoticeEvent[] {
  const given = unnumbered(notice, keys).flatMap((key, i) => {
    const n = numbers[i];
    return n === undefined ? [] : [[key, n] as const];
  });
  return given.length === 0
    ? []
    : [{ type: "MessagesNumbered", data: { messages: Object.fromEntries(given) } }];
}

/** Those that tell when something was approved, started or cancelled. */
const DATES: Partial<Record<EventType, "approveDate" | "startDate" | "cancelDate">> = {
  OrderPaid: "approveDate",
  PaymentApproved: "approveDate",
  DeliveryStarted: "startDate",
  OrderCancelled: "cancelDate",
  PaymentCancelled: "cancelDate",
  StoreRejected: "cancelDate",
  StoreCancelled: "cancelDate",
  DeliveryCancelled: "cancelDate",
};

/** Words an event for a customer, in both languages. @param at where the event does not say when it was */
export function compose(
  { on, channel, text }: Entry,
  data: { orderId: number } & Readonly<Record<string, unknown>>,
  at: string,
  policy: Policy,
): Content {
  const about = aboutOf(data);
  const happened = typeof data.at === "string" && data.at !== "" ? data.at : at;
  const dates = { approveDate: null, startDate: null, cancelDate: null };
  const named = DATES[on];
  return {
    ...about,
    ...{ event: on, channel, to: addressee(about, formOf(channel, policy)) },
    ...{ textEn: fill(text.en, data), textKo: fill(text.ko, data) },
    ...{ at: happened, ...dates, ...(named === undefined ? {} : { [named]: happened }) },
  };
}

/** Fills in {field}; what is not known is left empty. */
export function fill(text: string, data: Readonly<Record<string, unknown>>): string {
  return text.replace(/\{(\w+)\}/g, (_, field: string) =>
    Object.hasOwn(data, field) ? String(data[field] ?? "") : "",
  );
}

/** Puts a message on record before it is sent. Where it is there already, and still waits for another, it changes hands. */
export function write(message: Message | undefined, content: Content, sender: string): MessageEvent[] {
  return message === undefined
    ? [{ type: "MessageWritten", data: { ...content, sender } }]
    : takeOver(message, sender);
}

/** From a sender that is gone. */
export function takeOver(message: Message | undefined, sender: string): MessageEvent[] {
  return message?.status === "Waiting" && message.sender !== sender
    ? [{ type: "MessageTakenOver", data: { sender } }]
    : [];
}

/** Its channel has taken it. */
export function sent(
  message: Message | undefined,
  id: number,
  at: string,
  { language }: Policy,
): MessageEvent[] {
  if (message?.status !== "Waiting") return [];
  const { orderId, event, channel } = message;
  const text = textOf(message, language);
  return [{ type: "MessageSent", data: { orderId, messageId: id, event, channel, text, at } }];
}

export function evolve(message: Message | undefined, event: MessageEvent): Message {
  switch (event.type) {
    case "MessageWritten":
      return { ...event.data, status: "Waiting", sentDate: null };
    case "MessageTakenOver":
      return { ...known(message, event), sender: event.data.sender };
    case "MessageSent":
      return { ...known(message, event), status: "Sent", sentDate: event.data.at };
  }
}

export const MESSAGE: Aggregate<Message, MessageEvent> = { name: "message", listed: true, evolve };

export const NOTICE: Aggregate<Notice, NoticeEvent> = {
  name: "notice",
  listed: false,
  evolve: (notice, { data }) => ({ messages: { ...notice?.messages, ...data.messages } }),
};

export const textOf = ({ textEn, textKo }: Content, language: Policy["language"]): string =>
  language === "en" ? textEn : textKo;

/** What an output binding is handed. */
export interface Parcel {
  data: unknown;
  metadata: Record<string, string>;
}

/**
 * Nobody's address (RFC 2606). Never leave `emailTo` out: bindings.smtp of Dapr 1.18 keeps the last one that it was told, so
 * the mail would go to the customer before this one (components-contrib, bindings/smtp/smtp.go, mergeWithRequestMetadata).
 */
export const NOBODY = "nobody@example.invalid";

/** What the channel gets: the whole message or its text, and as metadata what the kinds of bindings look for. */
export function pack(id: number, message: Message, policy: Policy): Parcel {
  const { textEn, textKo, status: _status, sender: _sender, sentDate: _sentDate, ...rest } = message;
  const form = formOf(message.channel, policy);
  const text = textOf(message, policy.language);
  const subject = {
    en: `${policy.title.en}: order ${message.orderId}`,
    ko: `${policy.title.ko}: 주문 ${message.orderId}`,
  }[policy.language];
  const phone = message.phoneNumber;
  return {
    data: {
      json: { messageId: id, ...rest, subject, text, texts: { en: textEn, ko: textKo } },
      text,
      html: html(text),
    }[form],
    metadata: {
      "Idempotency-Key": `message-${id}`,
      fileName: `message-${id}.${SUFFIX[form]}`,
      emailTo: mailAddress(message.customerId) ?? NOBODY,
      subject,
      ...(phone === null ? {} : { toNumber: phone }),
    },
  };
}

type Form = Policy["channels"][string]["form"];

const SUFFIX: Record<Form, string> = { json: "json", text: "txt", html: "html" };

const formOf = (channel: string, { channels }: Policy): Form => channels[channel]?.form ?? "json";

/** A text as HTML that shows it. What customers call themselves and their goods must not become markup. */
const html = (text: string): string =>
  `<p>${text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`).replaceAll("\n", "<br>")}</p>`;

/** A mail is its text, so a channel for texts or HTML prefers an address that mail can be sent to. */
function addressee({ phoneNumber, customerId }: About, form: Form): string | null {
  return (form !== "json" ? mailAddress(customerId) : null) ?? phoneNumber ?? customerId;
}

/** A customer who is known by a mail address: one address, with nothing that a mail program would take for two. */
const mailAddress = (customerId: string | null): string | null =>
  customerId !== null && /^[^\s@,;:<>"()[\]\\]+@[^\s@,;:<>"()[\]\\]+$/.test(customerId) ? customerId : null;

function aboutOf(data: { orderId: number } & Readonly<Record<string, unknown>>): About {
  const { orderId, productId, productName, qty, customerId, customerName, phoneNumber } = data;
  const text = (value: unknown) => (typeof value === "string" ? value : null);
  const count = (value: unknown) => (typeof value === "number" ? value : null);
  return {
    ...{ orderId, productId: count(productId), productName: text(productName), qty: count(qty) },
    ...{ customerId: text(customerId), customerName: text(customerName), phoneNumber: text(phoneNumber) },
  };
}

function known(message: Message | undefined, event: MessageEvent): Message {
  if (message === undefined) throw new Error(`${event.type} without a message`);
  return message;
}
