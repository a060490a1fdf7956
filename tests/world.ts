/**
 * A world for services to run in, all of them in one process: time is virtual, chance is seeded, and everything that a
 * replica does to others goes through a scheduler, which takes one thing at a time, in an order that the seed decides.
 * There it may fail, come late, come twice, or be the last thing that the replica does. The same seed makes the same
 * world, down to the last step.
 *
 * One thing at a time is what makes it repeatable, and what tells whose code runs: from one step to the next all code
 * that runs belongs to the replica whose message, timer or answer the step was.
 */
import type { Dialects } from "#kit/dialects.js";
import { toProblem } from "#kit/http.js";
import { createLogger } from "#kit/log.js";
import { MemoryDapr } from "#kit/memory.js";
import { type Composed, compose, type ServiceDefinition } from "#kit/service.js";
import type { Shop } from "#kit/shop.js";
import {
  type Call,
  type CloudEvent,
  type Reply,
  type Sidecar,
  type Store,
  Unavailable,
} from "#kit/sidecar.js";
import { findRoute } from "./routing.js";

/** Chance that can be repeated: the generator sfc32. */
export class Chance {
  private a = 0x9e3779b9;
  private b = 0x243f6a88;
  private c: number;
  private d = 1;

  constructor(seed: number) {
    this.c = seed | 0;
    for (let i = 0; i < 15; i++) this.next();
  }

  /** From 0 (inclusive) to 1 (exclusive). */
  next(): number {
    const t = (((this.a + this.b) | 0) + this.d) | 0;
    this.d = (this.d + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + t;
    return (t >>> 0) / 2 ** 32;
  }

  /** A whole number from `from` to `to`, both inclusive. */
  between(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  maybe(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)] as T;
  }
}

/** What can go wrong with one thing that a replica asks of its sidecar, or that its sidecar asks of it. */
export type Fault =
  /** it does not happen, and the replica hears so */
  | "refused"
  /** it happens, and the replica hears that it may not have */
  | "answer lost"
  /** the replica gives up waiting, and it happens later */
  | "late"
  /** the answer takes its time */
  | "slow"
  /** the process is killed before, or after it happened */
  | "crash before"
  | "crash after"
  /** the process is stopped, before or after it happened; long enough for others to take it for dead */
  | "pause before"
  | "pause after"
  /** it happens twice */
  | "twice"
  /** all stand still for a while */
  | "standstill";

export interface Trouble {
  /** which faults there may be */
  kinds: readonly Fault[];
  /** how many */
  most: number;
  /** how likely each step is to have one */
  rate: number;
  /** whom they hit; everybody where this is empty */
  apps: readonly string[];
  /** what they hit; everything where this is empty */
  at: readonly Target[];
}

/** What a fault can hit: something asked of a sidecar, or a message that comes from it. */
export type Target = Kind | "message";

export const NO_TROUBLE: Trouble = { kinds: [], most: 0, rate: 0, apps: [], at: [] };

/** Someone whose code runs in the world: a replica, or the people outside. */
interface Actor {
  name: string;
  /** app-id of a replica */
  app?: string;
  alive: boolean;
  paused: boolean;
}

interface Action {
  owner: Actor;
  run: () => void;
  /** what a dying owner leaves behind: its request may have been sent already */
  orphan?: (() => void) | undefined;
}

interface Timer {
  at: number;
  order: number;
  owner: Actor;
  run: () => void;
  every: number;
  cancelled: boolean;
}

interface Waiting {
  /** tells who waits for it that there will be no answer */
  lost: () => void;
}

/** A replica of a service. */
class Process implements Actor {
  alive = true;
  paused = false;
  started = false;
  readonly calls = new Set<Waiting>();
  readonly messages = new Set<CloudEvent>();
  composed: Composed | undefined;

  constructor(
    readonly name: string,
    readonly app: string,
    readonly slot: string,
  ) {}
}

/** What puts something in the way between services and stores; what a guard is removed with. */
export type Tampering = (store: Store, component: string) => Store;

export interface WorldOptions {
  seed: number;
  shop: Shop;
  dialects: Dialects;
  definitions: readonly ServiceDefinition[];
  /** replicas by app-id; 1 where it is not said */
  replicas: ReadonlyMap<string, number>;
  tampering?: Tampering | undefined;
  /** hears what happens, line by line */
  trace?: ((line: string) => void) | undefined;
}

const EPOCH = Date.UTC(2026, 10, 21);
/** Sidecar calls are given up after as long as in kit/dapr.ts, in ms. */
const PATIENCE = { store: 2_500, publish: 2_500, invoke: 5_000, bind: 10_000 };
type Kind = keyof typeof PATIENCE;
const PEOPLE_WAIT_MS = 15_000;

const silent = createLogger("simulation", "simulation", "silent");
const real = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  setImmediate: globalThis.setImmediate,
  clearImmediate: globalThis.clearImmediate,
  dateNow: Date.now,
  random: Math.random,
  performanceNow: performance.now,
  randomUUID: crypto.randomUUID,
};

export class World {
  readonly chance: Chance;
  readonly twin = new MemoryDapr();
  /** messages that a service has set aside as poison */
  readonly deadLetters: string[] = [];
  /** what a binding answers; undefined takes everything */
  outside: (binding: string, data: unknown, metadata: Record<string, string>) => unknown = () => undefined;
  trouble: Trouble = NO_TROUBLE;
  /** when something other than a heartbeat last happened, in ms of virtual time */
  lastNews = 0;
  steps = 0;
  faults = 0;

  private now = 0;
  private order = 0;
  private readonly people: Actor = { name: "people", alive: true, paused: false };
  private readonly nature: Actor = { name: "nature", alive: true, paused: false };
  private current: Actor = this.nature;
  private ready: Action[] = [];
  private timers: Timer[] = [];
  private readonly processes = new Map<string, Process[]>();
  private readonly slots: { definition: ServiceDefinition; slot: string }[] = [];
  private readonly topics = new Map<string, ReadonlySet<string>>();
  private readonly backlog = new Map<string, CloudEvent[]>();
  private born = 0;

  constructor(private readonly options: WorldOptions) {
    this.chance = new Chance(options.seed);
    for (const definition of options.definitions) {
      const count = options.replicas.get(definition.app) ?? 1;
      for (let i = 0; i < count; i++) this.slots.push({ definition, slot: `${definition.app}-${i}` });
    }
  }

  /** ms since the beginning. */
  time(): number {
    return this.now;
  }

  // --- time and chance, as the code under test sees them -----------------------------------------------------------

  /** Replaces the process's timers, clocks and chance until {@link leave}. */
  enter(): void {
    const timer = (run: (...args: unknown[]) => void, ms = 0, every = 0, ...args: unknown[]) => {
      const made = this.after(ms, this.current, () => run(...args), every);
      return Object.assign(made, { ref: () => made, unref: () => made, hasRef: () => false });
    };
    const cancel = (made: unknown) => {
      if (typeof made === "object" && made !== null) (made as Timer).cancelled = true;
    };
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms?: number, ...args: unknown[]) => timer(run, ms, 0, ...args),
      setInterval: (run: () => void, ms = 1, ...args: unknown[]) => timer(run, ms, Math.max(1, ms), ...args),
      setImmediate: (run: () => void, ...args: unknown[]) => timer(run, 0, 0, ...args),
      clearTimeout: cancel,
      clearInterval: cancel,
      clearImmediate: cancel,
    });
    Date.now = () => EPOCH + this.now;
    Math.random = () => this.chance.next();
    performance.now = () => this.now;
    crypto.randomUUID = () => {
      const hex = () => this.chance.between(0, 0xffff).toString(16).padStart(4, "0");
      return `${hex()}${hex()}-${hex()}-4${hex().slice(1)}-8${hex().slice(1)}-${hex()}${hex()}${hex()}`;
    };
  }

  leave(): void {
    const { dateNow, random, performanceNow, randomUUID, ...timers } = real;
    Object.assign(globalThis, timers);
    Date.now = dateNow;
    Math.random = random;
    performance.now = performanceNow;
    crypto.randomUUID = randomUUID;
  }

  // --- the scheduler -----------------------------------------------------------------------------------------------

  /** Goes on until `done`, or until `limit` ms of virtual time have passed; answers whether it is done. */
  async run(done: () => boolean, limit: number): Promise<boolean> {
    const end = this.now + limit;
    while (!done()) {
      if (this.now > end || !this.step()) return false;
      await settled();
    }
    return true;
  }

  /** One thing happens. Answers false if there is nothing left that could. */
  private step(): boolean {
    this.steps++;
    while (this.timers[0] !== undefined && this.timers[0].at <= this.now) this.ring();
    const eligible = this.ready.filter(({ owner }) => !owner.paused);
    if (eligible.length === 0) {
      const next = this.timers[0];
      if (next === undefined) return false;
      this.now = Math.max(this.now, next.at);
      return true;
    }
    if (this.strikes("standstill", undefined)) this.now += this.chance.between(100, 9_000);
    const action = this.chance.pick(eligible);
    this.ready.splice(this.ready.indexOf(action), 1);
    this.now += this.chance.between(0, 2);
    this.current = action.owner;
    action.run();
    return true;
  }

  private ring(): void {
    const timer = this.popTimer();
    if (timer === undefined || timer.cancelled || !timer.owner.alive) return;
    if (timer.every > 0) {
      timer.at = this.now + timer.every;
      this.pushTimer(timer);
    }
    this.ready.push({ owner: timer.owner, run: () => timer.cancelled || timer.run() });
  }

  private act(owner: Actor, run: () => void, orphan?: () => void): void {
    if (owner.alive) this.ready.push({ owner, run, orphan });
    else if (orphan !== undefined) this.ready.push({ owner: this.nature, run: orphan });
  }

  private after(ms: number, owner: Actor, run: () => void, every = 0): Timer {
    const delay = Number.isFinite(ms) ? Math.max(0, ms) : 0;
    const timer = { at: this.now + delay, order: this.order++, owner, run, every, cancelled: false };
    this.pushTimer(timer);
    return timer;
  }

  private pushTimer(timer: Timer): void {
    const heap = this.timers;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent] as Timer)) break;
      heap[at] = heap[parent] as Timer;
      at = parent;
    }
    heap[at] = timer;
  }

  private popTimer(): Timer | undefined {
    const heap = this.timers;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= heap.length) break;
      const right = left + 1;
      const least = right < heap.length && isBefore(heap[right] as Timer, heap[left] as Timer) ? right : left;
      if (!isBefore(heap[least] as Timer, last)) break;
      heap[at] = heap[least] as Timer;
      at = least;
    }
    heap[at] = last;
    return first;
  }

  // --- trouble -----------------------------------------------------------------------------------------------------

  private strikes(fault: Fault, app: string | undefined): boolean {
    return this.trouble.kinds.includes(fault) && this.draw(undefined, [fault], app, 0.1) !== undefined;
  }

  private draw(
    target: Target | undefined,
    possible: readonly Fault[],
    app: string | undefined,
    factor = 1,
  ): Fault | undefined {
    const { kinds, most, rate, apps, at } = this.trouble;
    if (this.faults >= most || !this.chance.maybe(rate * factor)) return undefined;
    if (app !== undefined && apps.length > 0 && !apps.includes(app)) return undefined;
    if (target !== undefined && at.length > 0 && !at.includes(target)) return undefined;
    const those = possible.filter((fault) => kinds.includes(fault));
    if (those.length === 0) return undefined;
    this.faults++;
    return this.chance.pick(those);
  }

  private say(what: () => string): void {
    const { trace } = this.options;
    if (trace !== undefined) trace(`${(this.now / 1000).toFixed(3).padStart(8)} ${what()}`);
  }

  /** A replica dies: its code never goes on, its timers are dead, who waits for it is told, its messages come again. */
  private kill(process: Process): void {
    this.say(() => `${process.name} DIES`);
    process.alive = false;
    const left = this.ready.filter(({ owner }) => owner === process);
    this.ready = this.ready.filter(({ owner }) => owner !== process);
    for (const { orphan } of left) {
      // Its sidecar may have had the request already.
      if (orphan !== undefined && this.chance.maybe(0.3)) this.act(this.nature, orphan);
    }
    for (const call of process.calls) call.lost();
    this.leaveApp(process);
    for (const event of process.messages) this.send(process.app, event);
    const others = this.processes.get(process.app)?.length ?? 0;
    if (others > 0 && this.trouble !== NO_TROUBLE && this.chance.maybe(0.5)) return; // until all is put right
    this.after(this.chance.between(50, 12_000), this.nature, () => this.restart());
  }

  private leaveApp(process: Process): void {
    const replicas = this.processes.get(process.app) ?? [];
    this.processes.set(
      process.app,
      replicas.filter((one) => one !== process),
    );
  }

  private pause(process: Process): void {
    if (process.paused) return;
    const ms = this.chance.between(1_000, 14_000);
    this.say(() => `${process.name} IS STOPPED for ${ms} ms`);
    process.paused = true;
    this.after(ms, this.nature, () => {
      this.say(() => `${process.name} goes on`);
      process.paused = false;
    });
  }

  /** Nothing goes wrong from here on, and what is dead is started. */
  heal(): void {
    this.trouble = NO_TROUBLE;
    this.restart();
  }

  // --- replicas ----------------------------------------------------------------------------------------------------

  /** Starts every slot that has no process. */
  restart(): void {
    for (const { definition, slot } of this.slots) {
      const running = this.processes.get(definition.app) ?? [];
      if (!running.some((one) => one.slot === slot)) this.spawn(definition, slot);
    }
  }

  allStarted(): boolean {
    const running = [...this.processes.values()].flat();
    return running.length === this.slots.length && running.every(({ started }) => started);
  }

  /** No message, call or answer is on its way. */
  isQuiet(): boolean {
    const running = [...this.processes.values()].flat();
    const idle = running.every(({ calls, messages, paused }) => calls.size + messages.size === 0 && !paused);
    return idle && [...this.backlog.values()].every(({ length }) => length === 0);
  }

  private spawn(definition: ServiceDefinition, slot: string): void {
    const { app } = definition;
    const { shop, dialects } = this.options;
    const process = new Process(`${slot}.${++this.born}`, app, slot);
    this.say(() => `${process.name} starts`);
    const before = this.current;
    this.current = process;
    const composed = compose(definition, {
      config: {
        ...{ app, port: 1, host: "127.0.0.1", daprPort: 1, slot, shop: "", dialects: "" },
        ...{ logLevel: "fatal" as const, drills: false, rateLimit: 0, trustedProxies: [] },
      },
      shop,
      dialects,
      log: silent,
      sidecar: this.sidecarOf(process, definition.store ?? "none"),
      replica: process.name,
      now: () => new Date(EPOCH + this.now),
    });
    process.composed = composed;
    if (!this.topics.has(app))
      this.topics.set(app, new Set(composed.subscriptions.map(({ topic }) => topic as string)));
    this.processes.set(app, [...(this.processes.get(app) ?? []), process]);
    const waiting = this.backlog.get(app) ?? [];
    this.backlog.set(app, []);
    for (const event of waiting) this.send(app, event);
    void this.bringUp(process, composed);
    this.current = before;
  }

  /** As kit/service.ts does: again and again, until its store answers. */
  private async bringUp(process: Process, composed: Composed): Promise<void> {
    for (;;) {
      try {
        await composed.start();
        process.started = true;
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  // --- what replicas ask of their sidecars -------------------------------------------------------------------------

  private sidecarOf(process: Process, component: string): Sidecar {
    const twin = this.twin.sidecar(component).store;
    const store = this.options.tampering?.(twin, component) ?? twin;
    const ask = <T>(kind: Kind, what: () => string, effect: () => Promise<T>) =>
      this.ask(process, kind, what, effect);
    return {
      store: {
        get: (keys) =>
          ask(
            "store",
            () => `reads ${keys.slice(0, 3)}`,
            () => store.get(keys),
          ),
        save: (key, value, etag, ttlSeconds) => {
          if (!key.startsWith("journal:")) this.lastNews = this.now;
          // What is asked for is what it is now: the caller may go on changing it.
          const sent = JSON.stringify(value);
          return ask(
            "store",
            () => `writes ${key} ${brief(sent)}`,
            () => store.save(key, JSON.parse(sent), etag, ttlSeconds),
          );
        },
        delete: (key, etag) =>
          ask(
            "store",
            () => `deletes ${key}`,
            () => store.delete(key, etag),
          ),
      },
      publish: (topic, events) =>
        ask(
          "publish",
          () => `publishes ${events.map(({ id }) => id)}: ${topic}`,
          async () => this.accept(topic, events),
        ),
      invoke: (app, call) => this.invoke(process, app, call, call.timeoutMs ?? PATIENCE.invoke),
      bind: (binding, data, metadata = {}) => {
        const sent = JSON.stringify(data);
        return ask(
          "bind",
          () => `hands ${metadata["Idempotency-Key"]} to ${binding}`,
          async () => this.outside(binding, JSON.parse(sent), metadata),
        );
      },
      ready: async () => undefined,
      heard: async () => new Set(),
      restart: async () => undefined,
      close: async () => undefined,
    };
  }

  private ask<T>(process: Process, kind: Kind, what: () => string, effect: () => Promise<T>): Promise<T> {
    if (!process.alive) return never();
    if (kind !== "store") this.lastNews = this.now;
    const asked = this.now;
    return new Promise<T>((resolve, reject) => {
      const perform = (fault: Fault | undefined) => {
        this.say(() => `${process.name} ${what()}${fault === undefined ? "" : ` — ${fault.toUpperCase()}`}`);
        const happen = () => {
          const outcome = effect();
          outcome.catch(() => undefined);
          return outcome;
        };
        const answer = (outcome: Promise<T>) => void outcome.then(resolve, reject);
        const fail = (why: string) => reject(new Unavailable(`${process.name} ${what()}: ${why}`));
        switch (fault) {
          case undefined:
          case "standstill":
            return answer(happen());
          case "twice":
            void happen();
            return answer(happen());
          case "refused":
            return fail("refused");
          case "answer lost":
            void happen();
            return fail("answer lost");
          case "late":
            this.after(this.chance.between(1, 9_000), this.nature, () => {
              this.say(() => `late: ${process.name} ${what()}`);
              void happen();
            });
            return fail("no answer in time");
          case "slow": {
            const outcome = happen();
            this.after(this.chance.between(1, PATIENCE[kind]), process, () => answer(outcome));
            return;
          }
          case "crash before":
            return this.kill(process);
          case "crash after":
            void happen();
            return this.kill(process);
          case "pause before":
            this.pause(process);
            return this.act(
              process,
              () => perform(undefined),
              () => void happen(),
            );
          case "pause after": {
            this.pause(process);
            const outcome = happen();
            return this.act(process, () => answer(outcome));
          }
        }
      };
      const begin = () => {
        // Who has waited too long for their sidecar hears nothing; the request has had its effect, or will.
        const overdue = this.now - asked > PATIENCE[kind] && !process.paused;
        perform(
          overdue
            ? this.chance.pick(["refused", "answer lost", "late"])
            : this.draw(kind, FAULTS[kind], process.app),
        );
      };
      this.act(process, begin, () => {
        this.say(() => `left behind: ${process.name} ${what()}`);
        effect().catch(() => undefined);
      });
    });
  }

  // --- calls -------------------------------------------------------------------------------------------------------

  /** A request of a customer or an owner. @throws Unavailable when there is no answer */
  request(app: string, call: Call): Promise<Reply> {
    return this.invoke(this.people, app, call, PEOPLE_WAIT_MS);
  }

  /** For the people: lets `ms` of virtual time pass. */
  pauseOfPeople(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, this.people, resolve));
  }

  private invoke(caller: Actor, app: string, call: Call, patience: number): Promise<Reply> {
    if (!caller.alive) return never();
    this.lastNews = this.now;
    const sent: Call = JSON.parse(JSON.stringify(call));
    const what = () => `${caller.name} asks ${app}: ${call.method} ${call.path}`;
    return new Promise((resolve, reject) => {
      const inTime = this.after(patience, caller, () => reject(new Unavailable("no answer in time")));
      const answer = (reply: Reply | undefined) =>
        this.act(caller, () => {
          inTime.cancelled = true;
          if (reply === undefined) reject(new Unavailable("no answer"));
          else resolve(JSON.parse(JSON.stringify(reply)));
        });
      const go = (then: (reply: Reply | undefined) => void) => {
        const replicas = this.processes.get(app) ?? [];
        if (replicas.length === 0) return then(undefined);
        this.serve(this.chance.pick(replicas), sent, then);
      };
      const perform = () => {
        const isPerson = caller === this.people;
        const fault = this.draw(
          "invoke",
          isPerson ? FAULTS_OF_PEOPLE : FAULTS.invoke,
          isPerson ? app : caller.app,
        );
        this.say(() => `${what()}${fault === undefined ? "" : ` — ${fault.toUpperCase()}`}`);
        switch (fault) {
          case "refused":
            return answer(undefined);
          case "answer lost":
            return go(() => answer(undefined));
          case "late":
            answer(undefined);
            this.after(this.chance.between(1, 9_000), this.nature, () => go(() => undefined));
            return;
          case "slow":
            return go(
              (reply) => void this.after(this.chance.between(1, patience), this.nature, () => answer(reply)),
            );
          case "twice": {
            // As its sidecar does when an attempt takes too long. For people the word of who answers last counts, see below.
            let open = isPerson || this.chance.maybe(0.5) ? 2 : 1;
            const counted = (reply: Reply | undefined) => --open === 0 && answer(reply);
            go(counted);
            this.after(this.chance.between(0, 2_500), this.nature, () => go(counted));
            return;
          }
          case "crash before":
            if (caller instanceof Process) return this.kill(caller);
            return go(answer);
          case "crash after":
            go(answer);
            if (caller instanceof Process) this.kill(caller);
            return;
          default:
            return go(answer);
        }
      };
      this.act(caller, perform, () => go(() => undefined));
    });
  }

  /** A replica answers a call. `then` hears undefined if it died over it. */
  private serve(
    process: Process,
    { method, path, body, headers }: Call,
    then: (reply?: Reply) => void,
  ): void {
    const call: Waiting = { lost: () => then(undefined) };
    process.calls.add(call);
    const asked = body === undefined ? {} : JSON.parse(JSON.stringify(body));
    this.act(process, () => {
      void answerOf(process.composed as Composed, method, path, asked, headers ?? {}).then((reply) => {
        process.calls.delete(call);
        this.say(
          () =>
            `${process.name} answers ${method} ${path}: ${reply.status} ${brief(JSON.stringify(reply.body))}`,
        );
        then(reply);
      });
    });
  }

  // --- messages ----------------------------------------------------------------------------------------------------

  private accept(topic: string, events: readonly CloudEvent[]): void {
    for (const event of events)
      for (const [app, topics] of this.topics) if (topics.has(topic)) this.send(app, event);
  }

  /** A message is on its way to an app: to any of its replicas, before or after any other. */
  private send(app: string, event: CloudEvent): void {
    const fault = this.draw("message", ["slow", "twice"], app);
    if (fault === "twice") this.give(app, event);
    if (fault === "slow") this.later(this.chance.between(1, 10_000), app, event);
    else this.give(app, event);
  }

  private later(ms: number, app: string, event: CloudEvent): void {
    const waiting = this.backlog.get(app) ?? [];
    this.backlog.set(app, [...waiting, event]); // so that the world is not quiet meanwhile
    this.after(ms, this.nature, () => {
      const now = this.backlog.get(app) ?? [];
      if (!now.includes(event)) return; // a replica that has started meanwhile has got it
      this.backlog.set(app, now.toSpliced(now.indexOf(event), 1));
      this.give(app, event);
    });
  }

  private give(app: string, event: CloudEvent): void {
    this.lastNews = this.now;
    const replicas = this.processes.get(app) ?? [];
    if (replicas.length === 0) {
      this.backlog.set(app, [...(this.backlog.get(app) ?? []), event]);
      return;
    }
    const process = this.chance.pick(replicas);
    // A copy, which is also this delivery's identity.
    const message: CloudEvent = { traceparent: TRACE, ...JSON.parse(JSON.stringify(event)) };
    process.messages.add(message);
    this.act(process, () => {
      this.say(() => `${process.name} gets ${event.id}: ${event.type}`);
      void (process.composed as Composed).deliver(message).then((verdict) => {
        process.messages.delete(message);
        this.lastNews = this.now;
        const lost = verdict === "SUCCESS" && this.draw("message", ["answer lost"], app) !== undefined;
        this.say(() => `${process.name} says ${verdict} to ${event.id}${lost ? " — ANSWER LOST" : ""}`);
        if (verdict === "DROP") this.deadLetters.push(`${app} has set ${event.type} ${event.id} aside`);
        if (verdict === "RETRY" || lost) this.later(this.chance.between(100, 2_000), app, event);
      });
    });
  }
}

const FAULTS: Record<Kind, readonly Fault[]> = {
  store: [
    ...(["refused", "answer lost", "late", "slow", "crash before", "crash after"] as const),
    ...(["pause before", "pause after"] as const),
  ],
  publish: [
    ...(["refused", "answer lost", "late", "slow", "twice", "crash before", "crash after"] as const),
    ...(["pause before", "pause after"] as const),
  ],
  invoke: ["refused", "answer lost", "late", "slow", "twice", "crash before", "crash after"],
  bind: [
    ...(["refused", "answer lost", "late", "slow", "twice", "crash before", "crash after"] as const),
    ...(["pause before", "pause after"] as const),
  ],
};

/**
 * What somebody asks for is asked before they hear how it went: a request that reaches the order service only after an
 * equal one was refused is taken for another try, and may make an order that nobody is told of.
 */
const FAULTS_OF_PEOPLE: readonly Fault[] = ["refused", "answer lost", "slow", "twice"];

const TRACE = `00-${"0".repeat(31)}1-${"0".repeat(15)}1-00`;

const isBefore = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

const never = <T>(): Promise<T> => new Promise<T>(() => undefined);

/** Resolves when all that follows from the last step has run: promises' reactions come before the next tick. */
const settled = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));

const brief = (text: string | undefined): string => (text ?? "").slice(0, 160);

/** What the edge of a service makes of a request. (Koa, which only carries it, is left out: it would take most of the time.) */
async function answerOf(
  { routes }: Composed,
  method: string,
  url: string,
  body: unknown,
  headers: Record<string, string>,
): Promise<Reply> {
  try {
    const { route, params, query, path } = findRoute(routes, method, url);
    const {
      status,
      body: said,
      headers: more = {},
    } = await route.handle({ params, query, body, headers, path });
    return { status, headers: more, body: said };
  } catch (error) {
    const problem = toProblem(error);
    return { status: problem.status, headers: problem.headers, body: { ...problem.toJSON() } };
  }
}
