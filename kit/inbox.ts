import { catalogue, type Subscription } from "#kit/events.js";
import { type Bytes, check, get, post, type Route } from "#kit/http.js";
import { digest } from "#kit/ids.js";
import { inTrace, type Logger } from "#kit/log.js";
import { bodyTooLarge, invalid, Problem } from "#kit/problem.js";
import { Unavailable, type Verdict } from "#kit/sidecar.js";

/** Most bytes of a message that are read. Our own have a few hundred. */
export const KEPT = 1024 * 1024;
/** {@link KEPT} in base64, and what Dapr puts around it. */
const ENVELOPE = Math.ceil(KEPT / 3) * 4 + 8_192;
/** An error that nobody foresaw (a bug, or something passing) is met so often, in some 40 s, before it counts as final. */
export const TRIES = 10;
/** How many messages' failures are counted at most. */
const COUNTED = 10_000;

/** A message as it was published. */
export interface Received {
  topic: string;
  /** all of it or, where it is larger than {@link KEPT}, its beginning */
  bytes: Buffer;
  /** how many bytes it has */
  size: number;
  /** what it says, unchecked, if it is a whole JSON object */
  event: Event | undefined;
}

/** The parts of a CloudEvent that matter here. */
interface Event {
  id?: unknown;
  type?: unknown;
  source?: unknown;
  topic?: unknown;
  data?: unknown;
  traceparent?: unknown;
}

/** @param size where `bytes` are only the beginning of it */
export function received(topic: string, bytes: Buffer, size = bytes.length): Received {
  const event = size > bytes.length ? undefined : parsed(bytes.toString());
  const isObject = typeof event === "object" && event !== null && !Array.isArray(event);
  return { topic, bytes, size, event: isObject ? event : undefined };
}

/** Handles a message. @throws Problem below 500: it never can be; from 500, or Unavailable: not now */
export type Handle = (message: Received) => Promise<void>;

/** Where a message goes that can't be handled. */
export interface Aside {
  /** Puts it on record, once. @throws Unavailable */
  put(message: Received, reason: Problem): Promise<void>;
}

/** Understands messages, and gives each to the subscription of its topic. */
export function handling(subscriptions: readonly Subscription[]): Handle {
  const byTopic = new Map<string, Subscription>(subscriptions.map((one) => [one.topic, one]));
  return async ({ topic, bytes, size, event }) => {
    const subscription = byTopic.get(topic);
    if (subscription === undefined)
      throw new Problem(422, "topic-unknown", "Nobody listens", `This service does not listen to ${topic}.`);
    if (size > bytes.length) throw bodyTooLarge(KEPT);
    if (event === undefined)
      throw new Problem(422, "no-event", "The message is no event", "It is no JSON object.");
    const { id, type } = event;
    // It is kept with what it changes, so it must be something that every store can keep.
    if (typeof id !== "string" || !/^[^\p{Cc}\p{Cs}]{1,500}$/u.test(id))
      throw invalid([{ field: "id", reason: "must be a text of 1 to 500 characters" }]);
    if (type !== topic) throw invalid([{ field: "type", reason: `must be ${topic}, like the topic` }]);
    const data = check(catalogue[subscription.topic], event.data);
    await subscription.handle({ id, type: subscription.topic, data });
  };
}

/**
 * Says what is to become of each message: handled, brought again, or set aside with the reason. There is no other way
 * out. An error that nobody foresaw is tried {@link TRIES} times; for ever, it would keep one of the sidecar's few workers.
 * @param aside undefined in a service without a store: Dapr sets aside what is dropped
 */
export function delivering(
  app: string,
  handle: Handle,
  aside: Aside | undefined,
  log: Logger,
): (message: Received) => Promise<Verdict> {
  const failures = new Map<string, number>();
  const count = (message: Received): number => {
    const key = identityOf(message);
    const times = (failures.get(key) ?? 0) + 1;
    failures.delete(key);
    if (times < TRIES) failures.set(key, times); // the newest is the last
    const [oldest] = failures.keys();
    if (failures.size > COUNTED && oldest !== undefined) failures.delete(oldest);
    return times;
  };
  const setAside = async (message: Received, reason: Problem): Promise<Verdict> => {
    log.error({ reason, topic: message.topic, event: message.event?.id }, "a message is set aside");
    if (aside === undefined) return "DROP";
    await aside.put(message, reason);
    return "SUCCESS";
  };
  const attempt = async (message: Received): Promise<Verdict> => {
    if (message.topic === deadLetterTopic(app)) return setAside(asPublished(message), BY_THE_SIDECAR);
    try {
      await handle(message);
      return "SUCCESS";
    } catch (error) {
      const refusal = refusalIn(error);
      const isFinal = refusal === error || (refusal !== undefined && count(message) >= TRIES);
      if (refusal === undefined || !isFinal) throw error;
      return setAside(message, refusal);
    }
  };
  return (message) => {
    const traceparent = message.event?.traceparent;
    return inTrace(typeof traceparent === "string" ? traceparent : undefined, async () => {
      try {
        return await attempt(message);
      } catch (error) {
        const about = { err: error, topic: message.topic, event: message.event?.id };
        log.warn(about, "a message could not be handled and will come again");
        return "RETRY";
      }
    });
  };
}

/** The same for a message that comes again: brokers don't always say that it does, and ids of strangers may repeat. */
export function identityOf({ topic, bytes, size, event }: Received): string {
  return typeof event?.id === "string"
    ? digest(JSON.stringify([topic, event.source, event.id, event.data]))
    : digest(`${topic}\n${size}\n${bytes.toString("latin1")}`);
}

/**
 * What an error of a handler says about its message: the problem that it is refused for, or one that stands for an error that
 * nobody foresaw; undefined where it says nothing, only that it can't be handled now.
 */
export function refusalIn(error: unknown): Problem | undefined {
  if (error instanceof Unavailable) return undefined;
  if (error instanceof Problem) return error.status < 500 ? error : undefined;
  return new Problem(500, "internal", "Something went wrong here", String(error));
}

/** The topic to which an app's sidecar moves what it drops by itself. */
const deadLetterTopic = (app: string) => `dead-letters-${app}`;

const BY_THE_SIDECAR = new Problem(
  500,
  "set-aside-by-sidecar",
  "The sidecar has set it aside",
  "Dapr has moved it to its dead letter topic by itself; its log may say why.",
);

/** What was moved to a dead letter topic, under the topic that it says it came from. */
function asPublished(message: Received): Received {
  const { topic, type } = message.event ?? {};
  const origin = [topic, type].find((one) => typeof one === "string" && Object.hasOwn(catalogue, one));
  return { ...message, topic: (origin as string | undefined) ?? message.topic };
}

/**
 * The two things that Dapr asks of a subscriber. https://docs.dapr.io/reference/api/pubsub_api/
 *
 * Messages come as raw payloads, so that the sidecar does not look into them. Where it does, Dapr 1.18 ends itself over one
 * whose `traceparent` is no text, again at each redelivery, and sets aside without a reason what is no JSON or has expired.
 * @param keeps whether dead letters are kept here; then also what the sidecar sets aside by itself
 */
export function subscriptionRoutes(
  { app, pubsub, keeps }: { app: string; pubsub: string; keeps: boolean },
  subscriptions: readonly Subscription[],
  deliver: (message: Received) => Promise<Verdict>,
): Route[] {
  const dead = deadLetterTopic(app);
  const to = (topic: string) => ({
    ...{ pubsubname: pubsub, topic, route: `/events/${topic}`, metadata: { rawPayload: "true" } },
  });
  const described = subscriptions.map(({ topic }) => ({ ...to(topic), deadLetterTopic: dead }));
  const all = keeps && described.length > 0 ? [...described, to(dead)] : described;
  const subscribe = get("/dapr/subscribe", async () => ({
    status: 200,
    body: all,
    type: "application/json",
  }));
  if (all.length === 0) return [subscribe];
  const take = post("/events/:topic", async ({ params, body }) => {
    const status = await deliver(unwrapped(params.topic ?? "", body as Bytes));
    return { status: 200, body: { status }, type: "application/json" };
  });
  return [subscribe, { ...take, raw: ENVELOPE }];
}

/** A message out of the envelope that Dapr puts around a raw payload; one that comes without is what it is. */
function unwrapped(topic: string, { bytes, size }: Bytes): Received {
  if (size > bytes.length) {
    // The payload comes first in it; what is known of its end is how long it would be.
    const [, base64 = ""] = /^\{"data_base64":"([\w+/]*)/.exec(bytes.toString("latin1")) ?? [];
    const beginning = base64 === "" ? bytes : Buffer.from(base64, "base64");
    return received(topic, beginning.subarray(0, KEPT), base64 === "" ? size : Math.floor((size / 4) * 3));
  }
  const envelope = parsed(bytes.toString()) as { data_base64?: unknown; data?: unknown } | null | undefined;
  const payload = envelope?.data_base64;
  if (typeof payload !== "string" || envelope?.data !== undefined) return received(topic, bytes);
  const all = Buffer.from(payload, "base64");
  return received(topic, all.subarray(0, KEPT), all.length);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
