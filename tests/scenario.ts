/**
 * Scenarios: what a shop does, told step by step beside the commands that show it (scenarios/<shop>.yaml), and the
 * engine that performs them on a real system. `npm run scenario` shows one to a person, tests/scenarios.test.ts runs all.
 */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { z } from "zod";
import { root, type StartOptions, type System, startSystem } from "#dapr/runner.js";
import { parseWith } from "#kit/yaml.js";
import { differences, relevant, short, valueAt } from "./expect.js";
import { type HttpieCall, parseHttpie } from "./httpie.js";

const oneOrMore = z.union([z.string(), z.array(z.string()).min(1)]).transform((one) => [one].flat());
const item = z.string().regex(/^S[0-4]-[A-Z]\d+$/, "an item of a seed is called S3-F1");

/** An app, one of its replicas, or the sidecar of either. */
const WHERE = /^([a-z]+)(?:-(\d+))?(-sidecar)?$/;

/** Stands for what was saved under the name; `\d{8}` is none. */
const PLACEHOLDER = /\{([a-z]\w*)\}/g;

/** What a step does; each step does one of these. */
const ACTIONS = ["do", "until", "outbox", "pause", "resume", "kill", "drill"] as const;

const stepSchema = z.strictObject({
  /** what happens, for people */
  say: z.string().min(1),
  /** the items of the seed that are shown by it */
  proves: z.array(item).default([]),
  /** commands, each answered as expected */
  do: oneOrMore.optional(),
  /** how often they are asked */
  times: z.number().int().min(1).default(1),
  /** the same, asked again until the answers are as expected */
  until: oneOrMore.optional(),
  /** what a channel has taken, looked at until it is as expected: one entry per message */
  outbox: z.string().optional(),
  /** whose own port is asked: a service's, one of its replicas' (delivery-1), its sidecar's (order-sidecar); else the gateway's */
  at: z.string().regex(WHERE, "a service, delivery-1 or order-sidecar").optional(),
  /** the services that stop for now, as if they hung */
  pause: oneOrMore.optional(),
  /** … and go on */
  resume: oneOrMore.optional(),
  /** the services whose process dies and is started again */
  kill: oneOrMore.optional(),
  /** how payment's gateway behaves from now on */
  drill: z.record(z.string(), z.number()).optional(),
  expect: z
    .strictObject({
      /** any 2xx where it is not said */
      status: z.number().optional(),
      /** by their names in small letters */
      headers: z.record(z.string(), z.unknown()).optional(),
      /** compared by tests/expect.ts */
      body: z.unknown().optional(),
    })
    .default({}),
  /** name: what it stands for from now on, as a path into the last answer's body (or headers.location) */
  save: z.record(z.string().regex(/^[a-z]\w*$/), z.string()).default({}),
});

const schema = z
  .strictObject({
    shop: z.string(),
    title: z.string(),
    /** which services run more than once */
    replicas: z.record(z.string(), z.number()).default({}),
    steps: z.array(stepSchema).min(1),
  })
  .check(({ value: { steps }, issues }) => {
    const saved = new Set<string>();
    for (const [i, step] of steps.entries()) {
      const wrong = (key: string, message: string) =>
        issues.push({ code: "custom", path: ["steps", i, key], message, input: step });
      const actions = ACTIONS.filter((action) => step[action] !== undefined);
      if (actions.length !== 1) wrong("say", `a step does one of ${ACTIONS.join(", ")}`);
      for (const key of ["do", "until", "expect"] as const)
        for (const name of placeholders(step[key]))
          if (!saved.has(name)) wrong(key, `nothing is saved as {${name}} before`);
      for (const key of ["do", "until"] as const)
        for (const command of step[key] ?? [])
          try {
            parseHttpie(command.replace(PLACEHOLDER, "/1"));
          } catch (error) {
            wrong(key, (error as Error).message);
          }
      for (const name of Object.keys(step.save)) saved.add(name);
    }
  });

export type Scenario = z.infer<typeof schema>;
export type Step = z.infer<typeof stepSchema>;

/** The scenarios that there are. */
export const scenarioNames = (): string[] =>
  readdirSync(join(root, "scenarios"))
    .filter((name) => name.endsWith(".yaml"))
    .map((name) => basename(name, ".yaml"))
    .sort();

/** Reads and checks a scenario. @throws Error that names the file, and the line and key of everything wrong in it */
export function readScenario(name: string): Scenario {
  const path = join("scenarios", `${name}.yaml`);
  return parseScenario(readFileSync(join(root, path), "utf8"), path);
}

/** {@link readScenario} on text; `path` is for messages. */
export const parseScenario = (text: string, path: string): Scenario => parseWith(schema, text, path);

/** What a step is called where its result is listed. */
export const nameOf = ({ say, proves }: Step): string =>
  proves.length === 0 ? say : `${proves.join(", ")}: ${say}`;

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: unknown;
}

/** How long something may take that follows by itself. */
const PATIENCE_MS = 20_000;
const LOOK_AGAIN_MS = 50;

/** A scenario on its own running system. */
export class Performance {
  private readonly saved = new Map<string, unknown>();

  private constructor(
    private readonly system: System,
    /** where its processes write; gone after the end */
    readonly data: string,
    private readonly tell: (line: string) => void,
    private readonly clear: () => void,
  ) {}

  /**
   * Starts the scenario's shop on a data directory of its own.
   * @param tell hears, in lines for people, what is asked and answered
   */
  static async open(
    { shop, replicas }: Scenario,
    ports: number,
    options: Omit<StartOptions, "data" | "ports"> = {},
    tell: (line: string) => void = () => {},
  ): Promise<Performance> {
    const data = await mkdtemp(join(tmpdir(), "jangteo-scenario-"));
    const clear = () => rmSync(data, { recursive: true, force: true });
    process.once("exit", clear); // a signal ends this process before it comes to its end
    try {
      const system = await startSystem({ shop, replicas, drills: true, ...options, ports, data });
      return new Performance(system, data, tell, clear);
    } catch (error) {
      process.off("exit", clear);
      clear(); // the message has what matters of the logs
      throw error;
    }
  }

  /** Stops the system; with `keep`, what it wrote stays. */
  async close(keep = false): Promise<void> {
    await this.system.stop({ now: !keep });
    process.off("exit", this.clear);
    if (!keep) this.clear();
  }

  /** @throws Error that says what was not as expected */
  async perform(step: Step): Promise<void> {
    const expected = this.fillIn(step.expect) as Step["expect"];
    let last: Answer | undefined;
    for (let time = 0; time < step.times; time++)
      for (const command of step.do ?? []) last = await this.once(command, step.at, expected);
    for (const command of step.until ?? []) last = await this.repeated(command, step.at, expected);
    if (step.outbox !== undefined) last = await this.outbox(step.outbox, expected);
    for (const app of step.pause ?? []) await this.pause(app);
    for (const app of step.resume ?? []) await this.resume(app);
    for (const app of step.kill ?? []) await this.kill(app);
    if (step.drill !== undefined) await this.drill(step.drill);
    for (const [name, path] of Object.entries(step.save)) this.save(name, valueIn(last, path), path);
  }

  private async once(command: string, at: string | undefined, expected: Step["expect"]): Promise<Answer> {
    const call = this.call(command, at);
    this.tell(this.shown(call));
    const answer = await this.ask(call);
    return this.judge(call, answer, expected);
  }

  private async repeated(command: string, at: string | undefined, expected: Step["expect"]): Promise<Answer> {
    const call = this.call(command, at);
    this.tell(`${this.shown(call)}   (until it is so)`);
    const answer = await lookAgain(
      () => this.ask(call).catch((error: Error) => ({ status: 0, headers: {}, body: error.message })),
      (one) => judgement(one, expected).length === 0,
    );
    return this.judge(call, answer, expected);
  }

  /** What the files of a channel's folder say: components/embedded writes one per message. */
  private async outbox(channel: string, expected: Step["expect"]): Promise<Answer> {
    const directory = join(this.data, "outbox", channel);
    this.tell(`cat ${join("outbox", channel, "*")}   (in the data directory, until it is so)`);
    const read = async () => {
      const names = await readdir(directory).catch(() => []);
      const texts = await Promise.all(names.sort().map((name) => readFile(join(directory, name), "utf8")));
      return { status: 200, headers: {}, body: texts.map(parsed) };
    };
    const answer = await lookAgain(read, (one) => judgement(one, expected).length === 0);
    return this.judge(directory, answer, expected);
  }

  private async pause(app: string): Promise<void> {
    this.tell(`kill -STOP ${this.pid(app)}   (${app})`);
    await this.system.kill(replica(app), "SIGSTOP");
  }

  private async resume(app: string): Promise<void> {
    this.tell(`kill -CONT ${this.pid(app)}   (${app})`);
    await this.system.kill(replica(app), "SIGCONT");
    await this.ready(app);
  }

  private async kill(app: string): Promise<void> {
    this.tell(`kill -KILL ${this.pid(app)}   (${app})`);
    await this.system.kill(replica(app), "SIGKILL");
    await this.ready(app);
  }

  /** Its sidecar has to know as well: it sends nothing to an app that it takes for sick. */
  private async ready(app: string): Promise<void> {
    await this.system.waitReady(replica(app));
    await this.system.waitReady(`${replica(app)}-sidecar`);
  }

  private async drill(settings: Record<string, number>): Promise<void> {
    const items = Object.entries(settings).map(([name, value]) => `${name}:=${value}`);
    await this.once(
      ["http PUT /drill", ...(items.length > 0 ? items : ["delayMs:=0"])].join(" "),
      "payment",
      {},
    );
  }

  private judge(asked: Call | string, answer: Answer, expected: Step["expect"]): Answer {
    const wrong = judgement(answer, expected);
    const { status, headers, body } = answer;
    const seen = Object.keys(expected.headers ?? {}).map((name) => `${name}: ${headers[name]}`);
    const part = body === undefined ? [] : [short(relevant(body, expected.body), expected.body ? 240 : 120)];
    this.tell([status, ...seen, ...part].join("  "));
    if (wrong.length === 0) return answer;
    const what = typeof asked === "string" ? asked : this.shown(asked);
    throw new Error(`${what}\n  ${wrong.join("\n  ")}\n  answered ${status} ${short(body, 2_000)}`);
  }

  private save(name: string, value: unknown, path: string): void {
    if (value === undefined) throw new Error(`the answer has no ${path} to save as {${name}}`);
    this.saved.set(name, value);
  }

  private call(command: string, at: string | undefined): Call {
    const fill = (word: string) => String(this.fillIn(word));
    return { ...parseHttpie(command, fill), base: this.base(at), at, words: command };
  }

  private base(at: string | undefined): string {
    const [, app, number = 0, sidecar] = WHERE.exec(at ?? "gateway") ?? [];
    if (app === undefined) throw new Error(`there is no "${at}"`);
    return sidecar === undefined
      ? this.system.url(app, Number(number))
      : this.system.sidecarUrl(app, Number(number));
  }

  /** As it can be typed into a terminal, in the data directory. */
  private shown({ words, base, at }: Call): string {
    const command = String(this.fillIn(words)).replace(/ \//, ` ${base.replace(/.*:/, ":")}/`);
    const token = at === undefined ? "" : ` "$(cat run/tokens/${at.replace(/-\d+/, "")})"`;
    return command + token;
  }

  /** At a service's or a sidecar's own port, its token is shown. */
  private ask(call: Call): Promise<Answer> {
    return ask(call.at === undefined ? call : withHeaders(call, this.system.headersFor(call.base)));
  }

  private pid(app: string): number | undefined {
    return this.system.processes().find(({ name }) => name === replica(app))?.pid;
  }

  /** Puts what has been saved in its places; "{stock} - 3" is a number. */
  private fillIn(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((one) => this.fillIn(one));
    if (typeof value === "object" && value !== null)
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, this.fillIn(one)]));
    if (typeof value !== "string") return value;
    const [, name, sign, by] = /^\{([a-z]\w*)\}(?: ([+-]) (\d+))?$/.exec(value) ?? [];
    if (name === undefined) return value.replace(PLACEHOLDER, (_, name) => String(this.recall(name)));
    const known = this.recall(name);
    return sign === undefined ? known : Number(known) + Number(`${sign}${by}`);
  }

  private recall(name: string): unknown {
    if (!this.saved.has(name)) throw new Error(`nothing was saved as {${name}}`);
    return this.saved.get(name);
  }
}

interface Call extends HttpieCall {
  base: string;
  /** whose own port is asked, if not the gateway's */
  at: string | undefined;
  words: string;
}

const withHeaders = (call: Call, headers: Record<string, string>): Call => ({
  ...call,
  headers: { ...headers, ...call.headers },
});

/** The process of an app: `payment` is its only replica, `delivery-1` one of several. */
const replica = (app: string): string => (/-\d+$/.test(app) ? app : `${app}-0`);

async function ask({ base, path, method, headers, body }: Call): Promise<Answer> {
  const answer = await fetch(base + path, {
    method,
    headers: {
      accept: "application/json, */*;q=0.5",
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  const isJson = /json/.test(answer.headers.get("content-type") ?? "");
  return {
    status: answer.status,
    headers: Object.fromEntries(answer.headers),
    body: text === "" ? undefined : isJson ? parsed(text) : text,
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function judgement(answer: Answer, { status, headers = {}, body }: Step["expect"]): string[] {
  const asWanted =
    status === undefined ? answer.status >= 200 && answer.status < 300 : answer.status === status;
  return [
    ...(asWanted ? [] : [`the status is ${answer.status}, not ${status ?? "2xx"}`]),
    ...differences(answer.headers, headers),
    ...(body === undefined ? [] : differences(answer.body, body)),
  ];
}

/** Looks until it is so, or the patience is over; the last look. */
async function lookAgain<T>(look: () => Promise<T>, holds: (seen: T) => boolean): Promise<T> {
  for (const end = performance.now() + PATIENCE_MS; ; ) {
    const seen = await look();
    if (holds(seen) || performance.now() > end) return seen;
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

const valueIn = (answer: Answer | undefined, path: string): unknown =>
  path.startsWith("headers.") ? answer?.headers[path.slice("headers.".length)] : valueAt(answer?.body, path);

/** Every {name} in a text, or in the texts of a structure. */
const placeholders = (value: unknown): string[] =>
  [...(JSON.stringify(value) ?? "").matchAll(PLACEHOLDER)].map(([, name = ""]) => name);
