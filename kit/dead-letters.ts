import { z } from "zod";
import { KeyedLock } from "#kit/batch.js";
import { isPublic } from "#kit/events.js";
import { check, del, get, json, listing, paging, post, put, type Route, resource } from "#kit/http.js";
import { type Aside, type Handle, identityOf, type Received, received, refusalIn } from "#kit/inbox.js";
import { conflict, notFound, type Problem } from "#kit/problem.js";
import type { Aggregate, Records } from "#kit/records.js";

/** Why a message could not be handled: a problem, as its JSON. */
export type Reason = Record<string, unknown>;

/** What is on record of a message that could not be handled; times are ISO 8601. */
export interface Letter {
  number: number;
  /** id of the {@link Poison} with the message itself */
  poison: string;
  topic: string;
  /** what the message says of itself, where it does */
  messageId: string | null;
  type: string | null;
  source: string | null;
  /** in bytes */
  size: number;
  state: "Waiting" | "Replayed" | "Discarded";
  /** of the last try */
  reason: Reason;
  /** how often it was refused */
  attempts: number;
  since: string;
  last: string;
  /** which replica was the last to refuse it */
  replica: string;
}

type Refused = Pick<Letter, "reason" | "last" | "replica">;
type LetterEvent =
  | { type: "LetterWritten"; data: Omit<Letter, "state" | "attempts"> }
  | { type: "LetterReturned"; data: Refused }
  | { type: "LetterReplayed"; data: object }
  | { type: "LetterDiscarded"; data: object };

/** A message, and the number of the letter that tells of it. In a record of its own, so that a list does not read them. */
interface Poison {
  number: number;
  topic: string;
  /** in this form, every store keeps it as it is */
  base64: string;
  size: number;
}

type PoisonEvent = { type: "PoisonKept"; data: Poison };

const LETTER: Aggregate<Letter, LetterEvent> = { name: "deadletter", listed: true, evolve };
const POISON: Aggregate<Poison, PoisonEvent> = {
  name: "poison",
  listed: false,
  evolve: (_, { data }) => data,
};

function evolve(letter: Letter | undefined, event: LetterEvent): Letter {
  if (event.type === "LetterWritten") return { ...event.data, state: "Waiting", attempts: 1 };
  if (letter === undefined) throw new Error(`${event.type} without a letter`);
  switch (event.type) {
    case "LetterReturned":
      return { ...letter, ...event.data, state: "Waiting", attempts: letter.attempts + 1 };
    case "LetterReplayed":
      return { ...letter, state: "Replayed" };
    case "LetterDiscarded":
      return { ...letter, state: "Discarded" };
  }
}

/** Longest that a command on all letters works, in ms; it says how many are left. */
const AT_MOST_MS = 4_000;
/** Most letters that it looks at. */
const AT_MOST = 1_000;
/** How many letters are discarded at a time: their writes travel together. */
const TOGETHER = 64;

interface Options {
  app: string;
  replica: string;
  records: Records;
  handle: Handle;
  now(): Date;
}

/** Which letters a command on all of them means. */
interface Which {
  topic?: string | undefined;
  /** ISO 8601: only those whose last try was earlier */
  triedBefore?: string;
}

/**
 * The messages that a service could not handle: on record with the reason, in its own store, until they are replayed or
 * discarded. A letter leaves the list only after the handler has succeeded; handlers know a repeat by its id, so a replay
 * may end at any point and be repeated, here or by another replica.
 */
export class DeadLetters implements Aside {
  private readonly locks = new KeyedLock();

  constructor(private readonly options: Options) {}

  async put(message: Received, reason: Problem): Promise<void> {
    const { records } = this.options;
    const id = identityOf(message);
    // The cause is new each time: what has been done is seen from the state.
    const cause = { event: crypto.randomUUID() };
    const { state: poison } = await records.handle(POISON, id, cause, async (was) => {
      if (was !== undefined) return [];
      const number = await records.ids(LETTER).next();
      const { topic, bytes, size } = message;
      return [
        {
          type: "PoisonKept",
          data: { number, topic: legible(topic), base64: bytes.toString("base64"), size },
        },
      ];
    });
    if (poison === undefined) throw new Error("a poison was kept and is not there");
    await this.change(poison.number, (was) => {
      if (was === undefined) return [this.written(message, reason, id, poison.number)];
      // A message that comes again: it waits already, or an operator has seen it.
      return was.state === "Replayed" ? [this.returned(reason)] : [];
    });
  }

  /** @throws Problem 404 */
  async load(number: number): Promise<Letter> {
    const letter = await this.options.records.load(LETTER, number);
    if (letter === undefined) throw notFound("deadLetter", this.name(number));
    return letter;
  }

  /** A letter's message. */
  async message({ poison, topic }: Letter): Promise<Received> {
    const kept = await this.options.records.load(POISON, poison);
    if (kept === undefined) throw new Error(`the message of a dead letter is not there: ${poison}`);
    return received(topic, Buffer.from(kept.base64, "base64"), kept.size);
  }

  /** Those that wait, newest first. */
  page(request: { page: number; size: number }, { topic, triedBefore }: Which, order?: "oldest") {
    const visible = (letter: Letter) =>
      letter.state === "Waiting" &&
      (topic === undefined || letter.topic === topic) &&
      (triedBefore === undefined || letter.last < triedBefore);
    return this.options.records.page(LETTER, {
      ...request,
      visible,
      lasting: false,
      ...(order === undefined ? {} : { order }),
    });
  }

  /**
   * Gives a message to its handler, now. One that has been replayed is left as it is, one that was discarded is replayed.
   * @returns the letter: Replayed, or Waiting again with the new reason
   * @throws Problem 404; Unavailable, or Problem 503: the letter is as it was
   */
  replay(number: number): Promise<Letter> {
    return this.locks.run(String(number), async () => {
      const letter = await this.load(number);
      if (letter.state === "Replayed") return letter;
      const refusal = await this.refusalOf(await this.message(letter));
      return this.change(number, (was) => {
        if (refusal !== undefined) return [this.returned(refusal)];
        return was?.state === "Replayed" ? [] : [{ type: "LetterReplayed", data: {} }];
      });
    });
  }

  /** Takes a letter off the list; it stays on record. One that has been replayed is left as it is. @throws Problem 404 */
  async discard(number: number): Promise<Letter> {
    await this.load(number);
    return this.change(number, (was) =>
      was?.state === "Waiting" ? [{ type: "LetterDiscarded", data: {} }] : [],
    );
  }

  /** Replays what waits, oldest first, for a few seconds. @throws Unavailable where nothing can be replayed now */
  async replayAll(which: Which): Promise<{ replayed: number; returned: number; left: number }> {
    const { items, totalElements } = await this.page({ page: 0, size: AT_MOST }, which, "oldest");
    const until = performance.now() + AT_MOST_MS;
    let [replayed, returned] = [0, 0];
    for (const { id } of items) {
      if (performance.now() > until) break;
      try {
        if ((await this.replay(id)).state === "Replayed") replayed++;
        else returned++;
      } catch (error) {
        if (replayed + returned === 0) throw error;
        break;
      }
    }
    return { replayed, returned, left: totalElements - replayed - returned };
  }

  /** Discards what waits, for a few seconds. */
  async discardAll(which: Which): Promise<{ discarded: number; left: number }> {
    const { items, totalElements } = await this.page({ page: 0, size: AT_MOST }, which, "oldest");
    const until = performance.now() + AT_MOST_MS;
    let discarded = 0;
    while (discarded < items.length && performance.now() < until) {
      const some = items.slice(discarded, discarded + TOGETHER);
      await Promise.all(some.map(({ id }) => this.discard(id)));
      discarded += some.length;
    }
    return { discarded, left: totalElements - discarded };
  }

  /** What a letter is called outside: its number alone would be another's in another service. */
  name(number: number): string {
    return `${this.options.app}-${number}`;
  }

  /** What a message is refused for, now. @throws Unavailable, Problem from 500: that says nothing about the message */
  private async refusalOf(message: Received): Promise<Problem | undefined> {
    try {
      await this.options.handle(message);
      return undefined;
    } catch (error) {
      const refusal = refusalIn(error);
      if (refusal === undefined) throw error;
      return refusal;
    }
  }

  private returned(reason: Problem): LetterEvent {
    const { replica, now } = this.options;
    return { type: "LetterReturned", data: { reason: reasonOf(reason), last: now().toISOString(), replica } };
  }

  private written(message: Received, reason: Problem, poison: string, number: number): LetterEvent {
    const { replica, now } = this.options;
    const at = now().toISOString();
    const { id, type, source } = message.event ?? {};
    const said = (value: unknown) => (typeof value === "string" ? legible(value) : null);
    return {
      type: "LetterWritten",
      data: {
        ...{ number, poison, topic: legible(message.topic), size: message.size },
        ...{ messageId: said(id), type: said(type), source: said(source) },
        ...{ reason: reasonOf(reason), since: at, last: at, replica },
      },
    };
  }

  private async change(number: number, decide: (was: Letter | undefined) => LetterEvent[]): Promise<Letter> {
    const cause = { event: crypto.randomUUID() };
    const { state } = await this.options.records.handle(LETTER, number, cause, decide);
    if (state === undefined) throw notFound("deadLetter", this.name(number));
    return state;
  }
}

/** Text that every store keeps and every terminal shows. */
const legible = (text: string): string => text.slice(0, 500).replace(/[\p{Cc}\p{Cs}]/gu, "\ufffd");

/** A problem's JSON, made safe to keep: parts of it may have come with the message. */
function reasonOf(problem: Problem): Reason {
  const { errors, ...rest } = problem.toJSON();
  const some = Array.isArray(errors) ? { errors: errors.slice(0, 20) } : {};
  return JSON.parse(JSON.stringify({ ...rest, ...some }), (_, value: unknown) =>
    typeof value === "string" ? legible(value) : value,
  ) as Reason;
}

// --- HTTP ----------------------------------------------------------------------------------------------------------

const PATH = "/deadLetters";
const topic = z
  .string()
  .refine((name) => isPublic(name) || name.startsWith("dead-letters-"), "is no topic")
  .optional();
const listed = paging.extend({ topic });
const every = z.object({ topic, triedBefore: z.iso.datetime("must be a time in ISO 8601, UTC").optional() });

/** The dead letters of a service, for its operators. */
export function deadLetterRoutes(letters: DeadLetters, now: () => Date): Route[] {
  const item = (letter: Letter, more: object = {}) => {
    const id = letters.name(letter.number);
    const { number: _, poison: __, ...rest } = letter;
    const self = `${PATH}/${id}`;
    return resource(self, { id, ...rest, ...more }, { replay: `${self}/replay` });
  };
  const numberIn = ({ id = "" }: Record<string, string>): number => {
    const number = Number(/^[a-z]+-([1-9]\d{0,14})$/.exec(id)?.[1]);
    if (Number.isNaN(number) || letters.name(number) !== id) throw notFound("deadLetter", id);
    return number;
  };
  const replay: Route["handle"] = async ({ params }) => {
    const letter = await letters.replay(numberIn(params));
    if (letter.state === "Replayed") return { status: 200, body: item(letter) };
    const { reason, attempts } = letter;
    throw conflict("replay-refused", `It was refused again: ${reason.detail}`, { reason, attempts });
  };
  return [
    get(PATH, async ({ query }) => {
      const { topic, ...asked } = check(listed, query);
      const page = await letters.page(asked, { topic });
      const filter: Record<string, string> = topic === undefined ? {} : { topic };
      return { status: 200, body: listing("deadLetters", page, ({ state }) => item(state), filter) };
    }),
    del(PATH, async ({ query }) => json(await letters.discardAll(check(every, query)))),
    // Those that come back are not tried twice: the next call goes on with those whose last try was before the first.
    post(`${PATH}/replay`, async ({ query }) => {
      const { topic, triedBefore = now().toISOString() } = check(every, query);
      const done = await letters.replayAll({ topic, triedBefore });
      return json({ ...done, triedBefore });
    }),
    get(`${PATH}/:id`, async ({ params }) => {
      const letter = await letters.load(numberIn(params));
      return { status: 200, body: item(letter, shown(await letters.message(letter))) };
    }),
    put(`${PATH}/:id/replay`, replay),
    post(`${PATH}/:id/replay`, replay),
    del(`${PATH}/:id`, async ({ params }) => {
      await letters.discard(numberIn(params));
      return { status: 204 };
    }),
  ];
}

/** A message as one can read it: as JSON, else as text, else in base64; of a large one, the first 1,000 bytes. */
function shown({ bytes, size, event }: Received): object {
  if (event !== undefined) return { message: event };
  const some = size > bytes.length ? bytes.subarray(0, 1_000) : bytes;
  const text = some.toString();
  return text.includes("\ufffd") ? { base64: some.toString("base64") } : { message: text };
}
