import { isDeepStrictEqual } from "node:util";
import {
  type Call,
  type CloudEvent,
  Conflict,
  type Entry,
  type Reply,
  type Sidecar,
  type Store,
  Unavailable,
  type Verdict,
} from "#kit/sidecar.js";

/** An app as its sidecar sees it: something that answers HTTP calls and takes messages. */
export interface MemoryApp {
  topics: readonly string[];
  call(call: Call): Promise<Reply>;
  deliver(event: CloudEvent): Promise<Verdict>;
}

/** Something that an output binding has taken. */
export interface Bound {
  binding: string;
  data: unknown;
  metadata: Record<string, string>;
}

/**
 * The in-memory twin of a Dapr installation: stores, a broker with one consumer group per app, and calls between
 * apps. It delivers at least once, each message to one replica of each app, again after RETRY, and keeps what comes
 * while an app is down. For domain speed and simulation; never the proof.
 */
export class MemoryDapr {
  /** rows of each store by key; public so that a test can look at a backend directly */
  readonly stores = new Map<string, Map<string, Entry>>();
  /** dead letters by app */
  readonly deadLetters = new Map<string, CloudEvent[]>();
  /** what each output binding answers; a binding that is not here takes everything */
  readonly bindings = new Map<string, (taken: Bound) => unknown>();
  /** what output bindings have taken, in order */
  readonly bound: Bound[] = [];
  /** topics that refuse to take messages, stores, apps and bindings that are down */
  readonly down = new Set<string>();
  private readonly apps = new Map<string, MemoryApp[]>();
  private readonly groups = new Map<
    string,
    { topics: readonly string[]; backlog: CloudEvent[]; turn: number }
  >();
  private etags = 0;
  private busy = 0;
  private idle: (() => void)[] = [];

  /** Joins one replica of an app; answers how to leave again. Messages for the app are kept from now on. */
  join(app: string, replica: MemoryApp): () => void {
    const replicas = this.apps.get(app) ?? [];
    replicas.push(replica);
    this.apps.set(app, replicas);
    const group = this.groups.get(app) ?? { topics: replica.topics, backlog: [], turn: 0 };
    this.groups.set(app, group);
    const backlog = group.backlog.splice(0);
    for (const event of backlog) this.send(app, event);
    return () => {
      const at = replicas.indexOf(replica);
      if (at >= 0) replicas.splice(at, 1);
    };
  }

  /** The sidecar of one replica; `store` names its state component. */
  sidecar(store: string): Sidecar {
    const rows = this.stores.get(store) ?? new Map<string, Entry>();
    this.stores.set(store, rows);
    return {
      store: this.storeOver(store, rows),
      publish: async (topic, events) => {
        if (this.down.has(topic) || this.down.has("events")) throw new Unavailable(`${topic} is down`);
        for (const event of events) this.accept(topic, event);
      },
      invoke: async (app, call) => {
        const replicas = this.apps.get(app) ?? [];
        const target = replicas[Math.floor(Math.random() * replicas.length)];
        if (target === undefined || this.down.has(app)) throw new Unavailable(`${app} cannot be reached`);
        return target.call(call);
      },
      bind: async (binding, data, metadata = {}) => {
        if (this.down.has(binding)) throw new Unavailable(`${binding} is down`);
        const taken: Bound = { binding, data: JSON.parse(JSON.stringify(data)), metadata };
        let answer: unknown;
        try {
          answer = await this.bindings.get(binding)?.(taken);
        } catch (error) {
          throw new Unavailable(`${binding}: ${(error as Error).message}`);
        }
        this.bound.push(taken);
        return answer;
      },
      ready: async () => {
        if (this.down.has(store)) throw new Unavailable(`${store} is down`);
      },
      // Whoever has joined is listened for.
      heard: async () => new Set([...this.groups.values()].flatMap(({ topics }) => topics)),
      restart: async () => undefined,
      close: async () => undefined,
    };
  }

  /** Takes a message as the broker would; also the way for a test to repeat or reorder one. */
  accept(topic: string, event: CloudEvent): void {
    for (const [app, group] of this.groups) {
      if (group.topics.includes(topic)) this.send(app, structuredClone(event));
    }
  }

  /** Resolves when no message is on its way (those kept for apps that are down do not count). */
  async quiet(): Promise<void> {
    while (this.busy > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
  }

  private send(app: string, event: CloudEvent): void {
    const group = this.groups.get(app);
    if (group === undefined) return;
    const replicas = this.apps.get(app) ?? [];
    const replica = replicas[group.turn++ % Math.max(replicas.length, 1)];
    if (replica === undefined) {
      group.backlog.push(event);
      return;
    }
    this.busy++;
    setImmediate(() => {
      replica
        .deliver(structuredClone(event))
        .catch((): Verdict => "RETRY")
        .then((verdict) => {
          if (verdict === "RETRY") setTimeout(() => this.done(() => this.send(app, event)), 2);
          else this.done(() => verdict === "DROP" && this.setAside(app, event));
        });
    });
  }

  private done(then: () => void): void {
    then();
    this.busy--;
    if (this.busy === 0) for (const wake of this.idle.splice(0)) wake();
  }

  private setAside(app: string, event: CloudEvent): void {
    this.deadLetters.set(app, [...(this.deadLetters.get(app) ?? []), event]);
  }

  private storeOver(name: string, rows: Map<string, Entry>): Store {
    const alive = (...keys: readonly string[]) => {
      if (this.down.has(name)) throw new Unavailable(`${name} is down`);
      // Dapr puts it between its own prefixes and the key.
      if (keys.some((key) => key.includes("||"))) throw new Unavailable('a key cannot contain "||"');
    };
    return {
      get: async (keys) => {
        alive(...keys);
        const found = keys.flatMap((key) => {
          const row = rows.get(key);
          return row === undefined ? [] : [[key, structuredClone(row)] as const];
        });
        return new Map(found);
      },
      save: async (key, value, etag, ttlSeconds) => {
        alive(key);
        const row = rows.get(key);
        if ((row?.etag ?? null) !== etag) {
          if (row !== undefined && isDeepStrictEqual(row.value, value)) return;
          throw new Conflict(`${key} has changed`);
        }
        const saved: Entry = { value: JSON.parse(JSON.stringify(value)), etag: String(++this.etags) };
        rows.set(key, saved);
        const forget = () => rows.get(key) === saved && rows.delete(key);
        if (ttlSeconds !== undefined) setTimeout(forget, ttlSeconds * 1000).unref();
      },
      delete: async (key, etag) => {
        alive();
        const row = rows.get(key);
        if (row === undefined) return;
        if (row.etag !== etag) throw new Conflict(`${key} has changed`);
        rows.delete(key);
      },
    };
  }
}
