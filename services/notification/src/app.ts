import type { EventType, Message as Heard } from "#kit/events.js";
import type { Hint, Page, Records } from "#kit/records.js";
import type { Sidecar } from "#kit/sidecar.js";
import { Channel } from "./channel.js";
import {
  compose,
  due,
  MESSAGE,
  type Message,
  type MessageEvent,
  NOTICE,
  number,
  type Policy,
  pack,
  sent,
  takeOver,
  unnumbered,
  write,
} from "./domain.js";

type Decide = (message: Message | undefined) => MessageEvent[];

/**
 * The use cases of notification: an event is put into words, on record, and behind that each message goes its way. An
 * event is consumed once its messages are on record; no channel can hold that up.
 */
export class Messages {
  private readonly channels = new Map<string, Channel>();
  /** taken by their channel and not yet on record as sent; the promise is that of the record being written */
  private readonly taken = new Map<number, Promise<void> | undefined>();

  constructor(
    private readonly records: Records,
    private readonly sidecar: Sidecar,
    private readonly policy: Policy,
    private readonly now: () => Date,
    /** unique to this process */
    private readonly sender: string,
  ) {
    // What was announced and is not there needs nobody: its event has not been acknowledged, and writes it again.
    records.onResume(MESSAGE, async (id, message) => {
      if (message?.status === "Waiting") await this.keep(Number(id), (was) => takeOver(was, this.sender));
    });
  }

  /** Sends what dead replicas left waiting. */
  async start(): Promise<void> {
    await this.records.sweep(MESSAGE);
  }

  /** Writes what the shop wants said of this event. What came before, however long ago, is not said again. */
  async tell({ id: cause, type, data }: Heard<EventType>): Promise<void> {
    const orderId = "orderId" in data ? data.orderId : null;
    if (orderId === null) return; // stamps given by hand belong to no order
    const wanted = due(type, this.policy);
    const { numbers, known } = await this.number(
      cause,
      orderId,
      wanted.map(({ key }) => key),
    );
    // A repeat most likely finds everything said, and need not announce that it is going to change anything.
    const before = known
      ? await this.records.loadMany(MESSAGE, Object.values(numbers))
      : new Map<string, Message>();
    const writing = wanted.map(async ({ key, entry }) => {
      const id = numbers[key];
      if (id === undefined || before.get(String(id))?.status === "Sent") return;
      const content = compose(entry, { ...data, orderId }, this.at(), this.policy);
      await this.keep(id, (was) => write(was, content, this.sender), { isNew: !known });
    });
    await Promise.all(writing);
  }

  load(id: number): Promise<Message | undefined> {
    return this.records.load(MESSAGE, id);
  }

  page(request: { page: number; size: number }): Promise<Page<Message>> {
    return this.records.page(MESSAGE, request);
  }

  /** All messages of one order, in the order of what they tell. */
  async ofOrder(orderId: number): Promise<{ id: number; state: Message }[]> {
    const notice = await this.records.load(NOTICE, orderId);
    const ids = Object.values(notice?.messages ?? {});
    const found = await this.records.loadMany(MESSAGE, ids);
    const rows = [...found].map(([id, state]) => ({ id: Number(id), state }));
    return rows.sort((a, b) => a.state.at.localeCompare(b.state.at) || a.id - b.id);
  }

  /** The messages of these orders that have been sent, by id. */
  async sentOf(orderIds: readonly number[]): Promise<[id: number, Message][]> {
    const notices = await this.records.loadMany(NOTICE, orderIds);
    const ids = [...notices.values()].flatMap(({ messages }) => Object.values(messages));
    const found = [...(await this.records.loadMany(MESSAGE, ids))];
    return found.filter(([, { status }]) => status === "Sent").map(([id, message]) => [Number(id), message]);
  }

  private async number(cause: string, orderId: number, keys: string[]) {
    const fresh: number[] = [];
    const { state, events } = await this.records.handle(NOTICE, orderId, { event: cause }, async (notice) => {
      const missing = unnumbered(notice, keys).length;
      while (fresh.length < missing) fresh.push(await this.records.ids(MESSAGE).next());
      return number(notice, keys, fresh);
    });
    return { numbers: state?.messages ?? {}, known: events.length === 0 };
  }

  /** Makes a message this process's to send: on record, and named in its journal until it is sent. */
  private async keep(id: number, decide: Decide, hint: Hint = {}): Promise<void> {
    const cause = { command: crypto.randomUUID() };
    const then = (message: Message | undefined) => this.send(id, message);
    await this.records.handle(MESSAGE, id, cause, decide, { ...hint, then });
  }

  /** @throws when that can't be now; whoever called tries again, until it succeeds */
  private async send(id: number, message: Message | undefined): Promise<void> {
    if (message?.status !== "Waiting") return;
    await this.channel(message.channel).send(id, message.orderId);
    await this.note(id);
  }

  private channel(name: string): Channel {
    const known = this.channels.get(name);
    if (known !== undefined) return known;
    const channel = new Channel(name, (id) => this.look(id));
    this.channels.set(name, channel);
    return channel;
  }

  /** The record says whether there is anything to send, and whether it is still ours: it may have been taken over. */
  private async look(id: number): Promise<(() => Promise<void>) | undefined> {
    if (this.taken.has(id)) return undefined;
    const message = await this.records.load(MESSAGE, id);
    if (message?.status !== "Waiting" || message.sender !== this.sender) return undefined;
    return async () => {
      const { data, metadata } = pack(id, message, this.policy);
      await this.sidecar.bind(message.channel, data, metadata);
      // From here on it must not be sent again, so this is on record before anything else, and repeated until it is.
      this.taken.set(id, undefined);
      this.note(id).catch(() => undefined);
    };
  }

  /** Puts on record that a message was sent. */
  private async note(id: number): Promise<void> {
    if (!this.taken.has(id)) return;
    const noting = this.taken.get(id) ?? this.noteNow(id);
    this.taken.set(id, noting);
    await noting;
  }

  private async noteNow(id: number): Promise<void> {
    try {
      const cause = { command: `sent:${id}` };
      await this.records.handle(MESSAGE, id, cause, (was) => sent(was, id, this.at(), this.policy));
    } catch (error) {
      this.taken.set(id, undefined);
      throw error;
    }
    this.taken.delete(id);
  }

  private at(): string {
    return this.now().toISOString();
  }
}
