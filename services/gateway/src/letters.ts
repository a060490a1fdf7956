import type { Dispatcher } from "undici";
import { z } from "zod";
import { type Answer, check, del, get, json, listing, paging, post, put, type Route } from "#kit/http.js";
import { currentTrace } from "#kit/log.js";
import { invalid, notFound, Problem } from "#kit/problem.js";
import { APPS, ask } from "./http.js";

/** How far back the list over all services goes. */
const MOST = 1_000;

const filter = { app: z.enum(APPS, { error: "is no service" }).optional(), topic: z.string().optional() };
const listed = paging.extend(filter);
const every = z.object({ ...filter, triedBefore: z.string().optional() });

/** A dead letter as its service tells of it. */
type Letter = { id: string; since: string } & Record<string, unknown>;
interface Listed {
  _embedded: { deadLetters: Letter[] };
  page: { totalElements: number };
}

/** What was asked of several services came to. */
interface Gathered<T> {
  answers: T[];
  /** those that did not answer */
  unavailable: string[];
}

/** The dead letters of all services, as one collection (kit/dead-letters.ts). */
export function letterRoutes(sidecar: Dispatcher, now: () => Date): Route[] {
  const to = (app: string, method: string, path: string) =>
    ask(sidecar, app, { method, path, headers: traced() });
  const gather = async <T>(
    method: string,
    path: string,
    { app, ...query }: Query & { app?: string },
  ): Promise<Gathered<T>> => {
    const apps = app === undefined ? APPS : [app];
    const answers: T[] = [];
    const unavailable: string[] = [];
    const asking = apps.map(async (app) => {
      const answer = await to(app, method, `${path}?${search(query)}`).catch(() => undefined);
      if (answer === undefined || answer.status >= 500) unavailable.push(app);
      else if (answer.status < 300) answers.push(JSON.parse(answer.text) as T);
      else throw Problem.from(answer.status, JSON.parse(answer.text));
    });
    await Promise.all(asking);
    return { answers, unavailable: unavailable.sort() };
  };
  /** Asks all for what each has counted, and adds it up. */
  const sum = async (method: string, path: string, query: Query): Promise<Answer> => {
    const { answers, unavailable } = await gather<Record<string, number>>(method, path, query);
    const counts: Record<string, number> = {};
    for (const [what, count] of answers.flatMap(Object.entries))
      if (typeof count === "number") counts[what] = (counts[what] ?? 0) + count;
    const { triedBefore } = query;
    return json({ ...counts, ...(triedBefore === undefined ? {} : { triedBefore }), unavailable });
  };
  const pass =
    (method: string): Route["handle"] =>
    async ({ params: { id = "" }, path }) => {
      const app = id.slice(0, id.lastIndexOf("-"));
      if (!APPS.includes(app) || !/^[a-z]+-\d+$/.test(id)) throw notFound("deadLetter", id);
      const { status, headers, text } = await to(app, method, path);
      return text === "" ? { status } : { status, body: text, type: String(headers["content-type"]) };
    };
  return [
    get("/deadLetters", async ({ query }) => {
      const { page, size, app, topic } = check(listed, query);
      const needed = (page + 1) * size;
      if (app === undefined && needed > MOST)
        throw invalid([{ field: "page", reason: `goes back more than ${MOST} letters; name an app` }]);
      const asked = app === undefined ? { page: 0, size: needed } : { page, size };
      const { answers, unavailable } = await gather<Listed>("GET", "/deadLetters", { app, topic, ...asked });
      const letters = answers.flatMap(({ _embedded }) => _embedded.deadLetters);
      if (app === undefined) letters.sort((a, b) => b.since.localeCompare(a.since)).splice(0, page * size);
      const items = letters.slice(0, size).map((state, id) => ({ id, state }));
      const totalElements = answers.reduce((total, { page }) => total + page.totalElements, 0);
      const shown = { items, size, number: page, totalElements };
      const body = listing("deadLetters", shown, ({ state }) => state, given({ app, topic }));
      return { status: 200, body: { ...body, unavailable } };
    }),
    del("/deadLetters", ({ query }) => sum("DELETE", "/deadLetters", check(every, query))),
    post("/deadLetters/replay", async ({ query }) => {
      const asked = check(every, query);
      return sum("POST", "/deadLetters/replay", { triedBefore: now().toISOString(), ...given(asked) });
    }),
    get("/deadLetters/:id", pass("GET")),
    del("/deadLetters/:id", pass("DELETE")),
    put("/deadLetters/:id/replay", pass("PUT")),
    post("/deadLetters/:id/replay", pass("POST")),
  ];
}

type Query = Record<string, string | number | undefined>;

const given = (query: Query): Record<string, string> =>
  Object.fromEntries(
    Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]])),
  );

const search = (query: Query): string => new URLSearchParams(given(query)).toString();

function traced(): Record<string, string> {
  const trace = currentTrace();
  return trace === undefined ? {} : { traceparent: trace.traceparent };
}
