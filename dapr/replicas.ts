/** How the replicas of a service change while the system goes on. */
import { highestPort, type Instance, maxReplicas, place, StartError, type Topology } from "./topology.js";

/** What it takes to change them. */
interface Hands {
  /** Whether all ports of an instance are free. */
  isFree(instance: Instance): Promise<boolean>;
  /** Starts a replica; resolves when its app has been started. */
  begin(instance: Instance): Promise<void>;
  /** Resolves once a replica does its work. */
  ready(instance: Instance): Promise<void>;
  /** Ends a replica without losing what it has begun; resolves when it is gone. */
  end(instance: Instance): Promise<void>;
  /** Tells people what happens. */
  tell(message: string): void;
}

/** The replicas that run. Changes are made one after another, whoever asks for them. */
export class Replicas {
  readonly #list: Instance[];
  /** By app: the place that was taken last. */
  readonly #latest = new Map<string, number>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly topology: Topology,
    list: readonly Instance[],
    private readonly offset: number,
    private readonly hands: Hands,
  ) {
    this.#list = [...list];
    for (const { app, replica } of list) this.#latest.set(app.appID, replica);
  }

  get all(): readonly Instance[] {
    return this.#list;
  }

  /** Those of one app, the lowest ports first. */
  of(app: string): Instance[] {
    return this.#list
      .filter((one) => one.app.appID === app)
      .sort((one, other) => one.replica - other.replica);
  }

  /** Replaces each replica of an app by a new process, one after another. @throws StartError */
  async roll(app: string, readiness = true): Promise<void> {
    this.#known(app);
    return this.#inTurn(async () => {
      const replaced = this.of(app);
      if (replaced.length === 0) this.hands.tell(`${app} does not run; there is nothing to restart`);
      for (const old of replaced) {
        const fresh = await this.#freePlace(app);
        if (fresh === undefined) await this.#remove(old); // all places are taken: make one
        await this.#add(fresh ?? old, readiness);
        if (fresh !== undefined) await this.#remove(old);
      }
    });
  }

  /** Starts or ends replicas of an app until there are so many. @throws StartError */
  async scale(app: string, count: number): Promise<void> {
    this.#known(app);
    if (!Number.isInteger(count) || count < 0 || count > maxReplicas)
      throw new StartError(`${app}=${count} is not a number from 0 to ${maxReplicas}`);
    if (app === "gateway")
      throw new StartError("the gateway is the one address that clients know, so it runs once here");
    return this.#inTurn(async () => {
      while (this.of(app).length < count) {
        const fresh = await this.#freePlace(app);
        if (fresh === undefined) throw new StartError(`${app}: no more ports are free`);
        await this.#add(fresh, true);
      }
      for (const old of this.of(app).slice(count).reverse()) await this.#remove(old);
      this.hands.tell(`${app} runs ${count === 1 ? "once" : `${count} times`}`);
    });
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(task, task);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #add(instance: Instance, readiness: boolean): Promise<void> {
    const { hands } = this;
    const began = performance.now();
    this.#list.push(instance);
    this.#latest.set(instance.app.appID, instance.replica);
    try {
      await hands.begin(instance);
      if (!readiness) return hands.tell(`${instance.name} was started`);
      await hands.ready(instance);
    } catch (error) {
      await this.#remove(instance);
      throw error;
    }
    hands.tell(`${instance.name} is ready after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  }

  async #remove(instance: Instance): Promise<void> {
    await this.hands.end(instance);
    this.#list.splice(this.#list.indexOf(instance), 1);
    this.hands.tell(`${instance.name} has ended`);
  }

  /** The next place after the one taken last: a place that has just been left is remembered by other sidecars for a while. */
  async #freePlace(app: string): Promise<Instance | undefined> {
    const { topology, offset, hands } = this;
    const found = topology.apps.find(({ appID }) => appID === app);
    const taken = new Set(this.of(app).map(({ replica }) => replica));
    const latest = this.#latest.get(app) ?? -1;
    for (let step = 1; found !== undefined && step <= maxReplicas; step++) {
      const candidate = place(found, (latest + step) % maxReplicas, offset);
      if (taken.has(candidate.replica)) continue;
      if (Math.max(...Object.values(candidate.ports)) > highestPort) continue;
      if (await hands.isFree(candidate)) return candidate;
    }
    return undefined;
  }

  #known(app: string): void {
    const known = this.topology.apps.map(({ appID }) => appID);
    if (!known.includes(app)) throw new StartError(`no service "${app}"; there are ${known.join(", ")}`);
  }
}
