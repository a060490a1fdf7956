/** `npm run migrate`: moves what the components of one backend hold into those of another, while the shop is stopped. */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { SingleBar } from "cli-progress";
import { z } from "zod";
import { readShop } from "#kit/shop.js";
import { command } from "./command.js";
import { migrationJournal, root, type Servers, StartError, startServers } from "./runner.js";
import { Passwords, type Resolved } from "./secrets.js";
import { kindOf, serversFor } from "./servers.js";
import { copy, differences, type Sum, sumOf } from "./store-move.js";
import { connectRedis, type Redis, redisPlace } from "./store-redis.js";
import { startSidecar } from "./store-sidecar.js";
import { copyStream, type Stream, streamSum, streamsOf } from "./store-streams.js";
import { openStore, type StateStore } from "./stores.js";
import { readTopology } from "./topology.js";

const usage = `Usage: npm run migrate -- --from BACKEND --to BACKEND [options]

  --from NAME|DIR,...    where records and messages lie: as --backend of npm start
  --to NAME|DIR,...      where they are to lie
  --component NAME,...   only these components (all state components, and the messages that wait in the broker)
  --overwrite            replace what the target holds
  --shop NAME|FILE       whose data: as in npm start
  --data DIR             the directory for state and logs: as in npm start
  --ports N              add N to every port: as in npm start
  --help                 show this`;

interface Options {
  from: string;
  to: string;
  components: string[] | undefined;
  overwrite: boolean;
  data: string;
  ports: number;
}

/** The options of the command line. Throws, with a sentence for people, if they can't be understood. */
function parseOptions(args: string[]): Options | "help" {
  const { values } = parseArgs({
    args,
    options: {
      from: { type: "string" },
      to: { type: "string" },
      component: { type: "string", multiple: true },
      overwrite: { type: "boolean", default: false },
      shop: { type: "string" },
      data: { type: "string" },
      ports: { type: "string", default: "0" },
      help: { type: "boolean" },
    },
  });
  const { from, to, component, overwrite, shop, data, ports } = values;
  if (values.help) return "help";
  if (!from || !to) throw new Error("--from and --to say which backends: both are needed");
  if (!/^\d+$/.test(ports)) throw new Error(`--ports: "${ports}" is not a whole number`);
  const components = component?.flatMap((list) => list.split(",")).map((name) => name.trim());
  return { from, to, components, overwrite, data: dataOf(data, shop), ports: Number(ports) };
}

/** Where `npm start` with the same options keeps its data. */
function dataOf(data: string | undefined, shop: string | undefined): string {
  if (data !== undefined) return resolve(data);
  if (shop === undefined) return join(root, "data");
  const ours = join(root, "shops", `${shop}.yaml`);
  const path = !/^[./]/.test(shop) && existsSync(ours) ? ours : resolve(shop);
  const [app] = readTopology(topologyFile).apps;
  const usual = app?.env?.SHOP === undefined ? undefined : resolve(app.appDirPath, app.env.SHOP);
  return join(root, "data", path === usual ? "" : readShop(path).name);
}

const topologyFile = join(root, "dapr", "dapr.yaml");

// --- what is on record about an unfinished move --------------------------------------------------------------------

const journalSchema = z.object({
  from: z.string(),
  to: z.string(),
  /** As named with --component. */
  chosen: z.array(z.string()).nullable(),
  /** By name: those that have been begun. */
  components: z.record(
    z.string(),
    z.object({ moved: z.number(), next: z.string().optional(), isDone: z.boolean().optional() }),
  ),
});

/** How far a move has come, kept in the data directory so that it survives the end of this process. */
class Journal {
  readonly #file: string;
  readonly #value: z.infer<typeof journalSchema>;
  /** Whether it goes on from an earlier run. */
  readonly isResumed: boolean;

  /** @throws StartError if another move is unfinished */
  constructor({ data, from, to, components }: Options) {
    this.#file = migrationJournal(data);
    this.#value = { from, to, chosen: components ?? null, components: {} };
    this.isResumed = existsSync(this.#file);
    if (!this.isResumed) return;
    const known = journalSchema.parse(JSON.parse(readFileSync(this.#file, "utf8")));
    const chosen = known.chosen === null ? "" : ` --component ${known.chosen.join()}`;
    if (known.from !== from || known.to !== to || known.chosen?.join() !== components?.join())
      throw new StartError(
        `A move from ${known.from} to ${known.to}${chosen && `,${chosen.replace(" --component", "")} only,`} has been begun in ${data} and is not finished.\n` +
          `Finish it first: npm run migrate -- --from ${known.from} --to ${known.to}${chosen}\n` +
          `Or give it up by removing ${this.#file}; what it has copied so far stays where it is.`,
      );
    this.#value = known;
  }

  /** Whether this component's move has been begun: then what the target holds is ours. */
  hasBegun(component: string): boolean {
    return this.#value.components[component] !== undefined;
  }

  of(component: string): { moved: number; next?: string | undefined; isDone?: boolean | undefined } {
    return this.#value.components[component] ?? { moved: 0 };
  }

  note(
    component: string,
    how: { moved: number; next?: string | undefined; isDone?: boolean | undefined },
  ): void {
    this.#value.components[component] = how;
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#value, null, 1));
    renameSync(`${this.#file}.new`, this.#file);
  }

  remove(): void {
    rmSync(this.#file, { force: true });
  }
}

// --- what people see -----------------------------------------------------------------------------------------------

const number = (value: number) => value.toLocaleString("en-US");
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
const count = (value: number, what: string) => `${number(value)} ${what}${value === 1 ? "" : "s"}`;

/** How far one step has come: a bar on a terminal, and otherwise a line every few seconds. */
class Progress {
  readonly #bar: SingleBar | undefined;
  #value = 0;
  readonly #began = performance.now();
  #told = performance.now();

  constructor(
    private readonly step: string,
    private readonly total: number,
    private readonly done = 0,
  ) {
    this.#value = done;
    if (!process.stdout.isTTY) return;
    const format = "{step} {bar} {value}/{total}  {rate}/s  {eta_formatted} left";
    this.#bar = new SingleBar({ format, barsize: 30, hideCursor: true, clearOnComplete: true, fps: 5 });
    this.#bar.start(total, done, { step: step.padEnd(26), rate: "-" });
  }

  readonly add = (records: number): void => {
    this.#value += records;
    const now = performance.now();
    const rate = number(Math.round(((this.#value - this.done) / (now - this.#began)) * 1000));
    this.#bar?.update(Math.min(this.#value, this.total), { rate });
    if (this.#bar !== undefined || now - this.#told < 5000) return;
    this.#told = now;
    console.log(`  ${this.step}: ${number(this.#value)} of ${number(this.total)} (${rate}/s)`);
  };

  end(): void {
    this.#bar?.stop();
  }
}

// --- the move ------------------------------------------------------------------------------------------------------

/** A component in both backends. */
interface Pair {
  name: string;
  from: Resolved;
  to: Resolved;
}

/** Moves as told; resolves with whether both sides are equal afterwards. @throws StartError */
async function migrate(options: Options, began: number): Promise<boolean> {
  const { from, to, data, ports } = options;
  if (!existsSync(join(data, "run")))
    throw new StartError(`No system has run on ${data}: --data, or --shop, says which directory to move.`);
  const journal = new Journal(options);
  const servers = await startServers({ backends: [from, to], data, ports, onEvent: console.log });
  try {
    const [source = [], target = []] = servers.backends;
    const pairs = pairsOf(source, target, options);
    const states = pairs.filter((pair) => pair.from.type.startsWith("state."));
    const buses = pairs.filter((pair) => pair.from.type.startsWith("pubsub."));
    const moves = (await Promise.all(states.map((pair) => StoreMove.plan(pair, data)))).filter(isThere);
    const streams = (await Promise.all(buses.map((pair) => StreamMove.plan(pair, options)))).filter(isThere);
    const all: (StoreMove | StreamMove)[] = [...moves, ...streams];
    refuse(all, journal, options);
    if (all.length === 0) {
      console.log("There is nothing to move.");
      return true;
    }
    if (moves.length > 0) {
      // It makes tables, collections and indexes as Dapr wants them. (Of the backends, startServers renders the target's last.)
      const sidecar = await startSidecar(
        moves.map(({ pair }) => pair.to),
        data,
        ports,
      );
      await sidecar.stop();
    }
    console.log(`${journal.isResumed ? "Going on moving" : "Moving"} from ${from} to ${to}, in ${data}`);
    let isEqual = true;
    for (const move of all) isEqual = (await move.run(journal).catch(interrupted(move.name))) && isEqual;
    // After a difference the target is nobody's to go on with: the next run finds that it holds records.
    journal.remove();
    tellTheEnd(isEqual, options, servers, all, performance.now() - began);
    return isEqual;
  } finally {
    await servers.stop();
  }
}

/** A failure of a server or a driver in a sentence; a mistake of ours keeps its stack. */
const interrupted = (component: string) => (error: Error) => {
  if (error instanceof StartError || error instanceof TypeError || error instanceof RangeError) throw error;
  throw new StartError(
    `${component}: ${error.message}\nThe move is not finished; the same command goes on from here.`,
  );
};

const isThere = <T>(item: T | undefined): item is T => item !== undefined;

/** The components to be moved. */
function pairsOf(source: Resolved[], target: Resolved[], { from, to, components }: Options): Pair[] {
  const movable = source.filter(({ type }) => /^(state|pubsub)\./.test(type));
  const unknown = components?.find((name) => !movable.some((one) => one.name === name));
  if (unknown !== undefined)
    throw new StartError(
      `${from} has no component "${unknown}" with records or messages; it has ${movable.map(({ name }) => name).join(", ")}.`,
    );
  return movable
    .filter(({ name }) => components?.includes(name) ?? true)
    .map((one) => {
      const other = target.find(({ name }) => name === one.name);
      if (other === undefined || other.type.split(".")[0] !== one.type.split(".")[0])
        throw new StartError(`${to} has no component "${one.name}" to move the one of ${from} to.`);
      return { name: one.name, from: one, to: other };
    });
}

/** Throws if a target holds what no unfinished move of this kind has put there, or if there is nothing at all to move. */
function refuse(
  moves: (StoreMove | StreamMove)[],
  journal: Journal,
  { to, from, data, overwrite }: Options,
): void {
  if (moves.length > 0 && !journal.isResumed && moves.every(({ inSource }) => inSource === 0))
    throw new StartError(
      `${from} holds nothing in ${data}; --data, or --shop, says which directory to move.`,
    );
  const inTheWay = moves.filter(({ name, inTarget }) => inTarget > 0 && !journal.hasBegun(name));
  if (inTheWay.length === 0 || overwrite) return;
  const held = inTheWay.map(({ name, inTarget, what }) => `  ${name}: ${count(inTarget, what)}`).join("\n");
  throw new StartError(
    `${to} holds something already:\n${held}\n` +
      "Nothing was moved. To have it removed and replaced by what is moved, add --overwrite.",
  );
}

/** One state component on its way. */
class StoreMove {
  readonly what = "record";

  private constructor(
    readonly pair: Pair,
    private readonly data: string,
    readonly inSource: number,
    readonly inTarget: number,
  ) {}

  get name(): string {
    return this.pair.name;
  }

  /** Looks at both sides; undefined where they are one and the same. */
  static async plan(pair: Pair, data: string): Promise<StoreMove | undefined> {
    const source = await openStore(pair.from, data);
    try {
      const target = await openStore(pair.to, data);
      try {
        if (source.place !== target.place)
          return new StoreMove(pair, data, await source.count(), await target.count());
        console.log(`${pair.name}: the same place in both; it stays as it is`);
        return undefined;
      } finally {
        await target.close();
      }
    } finally {
      await source.close();
    }
  }

  /** Moves the records; answers whether both sides are equal then. */
  async run(journal: Journal): Promise<boolean> {
    const source = await openStore(this.pair.from, this.data);
    try {
      const target = await openStore(this.pair.to, this.data);
      try {
        return await this.#move(source, target, journal);
      } finally {
        await target.close();
      }
    } finally {
      await source.close();
    }
  }

  async #move(source: StateStore, target: StateStore, journal: Journal): Promise<boolean> {
    const { name } = this;
    const began = performance.now();
    const before = journal.of(name);
    if (!journal.hasBegun(name)) {
      if (this.inTarget > 0) await target.clear();
      journal.note(name, { moved: 0 });
    }
    let { moved } = before;
    if (!before.isDone) {
      const progress = new Progress(`${name}, moving`, this.inSource, moved);
      try {
        await copy(source, target, before.next, (records, next) => {
          moved += records;
          journal.note(name, { moved, next });
          progress.add(records);
        });
      } finally {
        progress.end();
      }
      journal.note(name, { moved, isDone: true });
    }
    const took = performance.now() - began;
    const [here, there, horizon] = await this.#compare(source, target);
    const rate = number(Math.round(((moved - before.moved) / took) * 1000));
    const isEqual = here.records === there.records && here.checksum === there.checksum;
    console.log(
      `${name}: ${count(moved, "record")} moved in ${seconds(took)} (${rate}/s); ${isEqual ? "equal on both sides" : "DIFFERENT"}` +
        ` after ${seconds(performance.now() - began)}: ${told(here)}${isEqual ? "" : ` there, ${told(there)} here`}`,
    );
    if (!isEqual)
      for (const { key, how } of await differences(source, target, horizon)) console.log(`  ${key} ${how}`);
    return isEqual;
  }

  /** Sums up both sides, without what expires while that lasts. */
  async #compare(source: StateStore, target: StateStore): Promise<[Sum, Sum, number]> {
    for (let margin = 60_000; ; margin *= 4) {
      const horizon = Date.now() + margin;
      const progress = new Progress(`${this.name}, comparing`, 2 * this.inSource);
      try {
        const sums = [sumOf(source, horizon, progress.add), sumOf(target, horizon, progress.add)] as const;
        const [here, there] = await Promise.all(sums);
        if (Date.now() < horizon) return [here, there, horizon];
      } finally {
        progress.end();
      }
    }
  }
}

const told = ({ records, checksum }: Sum) => `${number(records)} with checksum ${checksum}`;

/** The broker's messages on their way: from Redis to another Redis. */
class StreamMove {
  readonly what = "message";

  private constructor(
    readonly pair: Pair,
    private readonly streams: Stream[],
    readonly inTarget: number,
  ) {}

  get name(): string {
    return this.pair.name;
  }

  get inSource(): number {
    return this.streams.reduce((sum, { messages }) => sum + messages, 0);
  }

  /**
   * Looks at both sides; undefined where there is nothing to move.
   * @throws StartError if messages wait, or may wait, that can't be moved
   */
  static async plan(pair: Pair, options: Options): Promise<StreamMove | undefined> {
    const { name, from, to } = pair;
    const isRedis = [from, to].map(({ type }) => type === "pubsub.redis");
    if (from.type === to.type && placeOf(from) === placeOf(to)) {
      console.log(`${name}: the same place in both; it stays as it is`);
      return undefined;
    }
    const finish = `Start the shop once more, npm start -- --backend ${options.from}, let it finish what it has under way, stop it with Ctrl-C`;
    const others = `--component with all the others, without ${name}`;
    if (!isRedis[0])
      throw new StartError(
        `${name}: whether messages still wait in a ${from.type} can't be seen from here. ${finish}, and migrate then with ${others}.`,
      );
    const source = await connectRedis(from);
    try {
      const streams = await streamsOf(source);
      if (isRedis[1]) {
        const target = await connectRedis(to);
        try {
          const held = (await streamsOf(target)).reduce((sum, { messages }) => sum + messages, 0);
          return new StreamMove(pair, streams, held);
        } finally {
          target.destroy();
        }
      }
      const waiting = streams.filter((stream) => stream.waiting > 0);
      if (waiting.length > 0)
        throw new StartError(
          `${name}: messages wait for somebody in ${waiting.map((one) => `${one.name} (${number(one.waiting)})`).join(", ")}, ` +
            `and from a ${from.type} they can't be moved to a ${to.type}. ${finish}, and migrate again.`,
        );
      const dead = streams.filter((one) => one.name.startsWith("dead-letters-") && one.messages > 0);
      console.log(
        `${name}: no message waits for anybody, so there is nothing to move from ${from.type} to ${to.type}` +
          (dead.length === 0
            ? ""
            : `; ${dead.map(({ name: topic }) => topic).join(", ")} stay where they are`),
      );
      return undefined;
    } finally {
      source.destroy();
    }
  }

  /** Moves the streams; answers whether both sides are equal then. */
  async run(journal: Journal): Promise<boolean> {
    const source = await connectRedis(this.pair.from);
    try {
      const target = await connectRedis(this.pair.to);
      try {
        return await this.#move(source, target, journal);
      } finally {
        target.destroy();
      }
    } finally {
      source.destroy();
    }
  }

  async #move(source: Redis, target: Redis, journal: Journal): Promise<boolean> {
    const { name } = this;
    const began = performance.now();
    if (!journal.hasBegun(name)) {
      // Also those without messages, which a first start has made: their groups would be in the way.
      for (const stream of await streamsOf(target)) await target.unlink(stream.name);
      journal.note(name, { moved: 0 });
    }
    const progress = new Progress(`${name}, moving`, this.inSource);
    const different: string[] = [];
    try {
      for (const stream of this.streams) {
        await copyStream(source, target, stream.name, progress.add);
        const [here, there] = await Promise.all([
          streamSum(source, stream.name),
          streamSum(target, stream.name),
        ]);
        if (here.checksum !== there.checksum)
          different.push(`${stream.name}: ${told(here)} there, ${told(there)} here`);
      }
    } finally {
      progress.end();
    }
    const waiting = this.streams.reduce((sum, stream) => sum + stream.waiting, 0);
    console.log(
      `${name}: ${count(this.inSource, "message")} of ${count(this.streams.length, "topic")} moved, ${number(waiting)} of them waiting for somebody, ` +
        `in ${seconds(performance.now() - began)}; ${different.length === 0 ? "equal on both sides, with what each app has read" : "DIFFERENT:"}`,
    );
    for (const line of different) console.log(`  ${line}`);
    return different.length === 0;
  }
}

function placeOf(component: Resolved): string {
  if (component.type === "pubsub.redis") return redisPlace(component);
  return kindOf(component)?.read(component).address ?? JSON.stringify(component.metadata);
}

function tellTheEnd(
  isEqual: boolean,
  { from, to, data, ports, overwrite }: Options,
  { backends: [source = [], target = []] }: Servers,
  moves: (StoreMove | StreamMove)[],
  took: number,
): void {
  if (!isEqual) {
    const again = `npm run migrate -- --from ${from} --to ${to}${overwrite ? "" : " --overwrite"}`;
    console.log(`\n${to} is not what ${from} was. Do not start the shop on it; to move again: ${again}`);
    return;
  }
  const moved = moves.map(({ pair }) => pair.from);
  const stays = target.concat(source.filter((one) => !moved.includes(one)));
  const passwords = new Passwords(data);
  const directories = (components: Resolved[]) => [
    ...serversFor(components, data, passwords, ports).map(({ directory }) => `${relative(data, directory)}/`),
    ...components
      .filter(({ type }) => type === "state.sqlite")
      .map(({ metadata }) => metadata.connectionString ?? ""),
  ];
  const kept = directories(stays);
  const old = directories(moved).filter((place) => !kept.includes(place));
  console.log(`\nAll is moved, in ${seconds(took)}. Start the shop on it: npm start -- --backend ${to}`);
  console.log(
    `${from} still holds the old records${old.length === 0 ? "" : ` (in ${data}: ${old.join(", ")})`}; ` +
      "remove them when you no longer want to go back. What happens from now on is not among them.",
  );
}

await command(
  usage,
  parseOptions,
  async (options) => {
    process.exitCode = (await migrate(options, performance.now())) ? 0 : 1;
  },
  "stopping; the same command goes on from here",
);
