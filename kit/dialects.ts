import { readFileSync } from "node:fs";
import { z } from "zod";
import { check } from "#kit/http.js";
import { type FieldError, invalid, Problem } from "#kit/problem.js";
import { parseWith } from "#kit/yaml.js";

/** What a field is on the wire: one of ours under another name, perhaps with other words for its values. */
const field = z.union([
  z.string(),
  z.strictObject({
    /** our field; dots lead into it */
    of: z.string(),
    /** their word for each of ours; what is not here stays as it is */
    words: z.record(z.string(), z.string().nullable()).default({}),
    /** for text of ours that is a number to them, where it is one */
    as: z.literal("number").optional(),
  }),
]);

const resource = z.strictObject({
  /** our collection, of which this is another look; absent for our collections themselves */
  of: z.string().optional(),
  /** singular, the relation under which an item links to itself; goes with `of` */
  one: z.string().optional(),
  fields: z.record(z.string(), field).default({}),
  /** their name of a command on an item → ours */
  commands: z.record(z.string(), z.string()).default({}),
});

const schema = z.record(z.string(), z.record(z.string(), resource));
type Table = z.infer<typeof schema>;
type Resource = z.infer<typeof resource>;
type Body = Record<string, unknown>;

/** A collection under one of its names. */
export interface Way {
  /** plural, also the path */
  name: string;
  one: string;
  /** what an item of ours is called here */
  say(item: object): Body;
  /** the path names of one of our commands on an item */
  namesOf(command: string): string[];
}

/**
 * The table of what each of our ancestors called things (shops/dialects.yaml), and the one dialect that a shop speaks.
 * What comes in is understood in all dialects. What goes out at a path that several share follows the shop's dialect,
 * added to our own fields; at a path that only one dialect has, it is that dialect's alone.
 */
export class Dialects {
  private readonly spoken: Record<string, Resource>;
  private readonly rows = new Map<string, Resource[]>();

  constructor(
    private readonly table: Table,
    dialect: string,
  ) {
    const spoken = Object.hasOwn(table, dialect) ? table[dialect] : undefined;
    if (spoken === undefined)
      throw new Error(`There is no dialect "${dialect}"; there are ${Object.keys(table).join(", ")}.`);
    this.spoken = spoken;
  }

  /** A collection under its own name. */
  own(name: string, one: string): Way {
    const aliases = this.all(name)
      .filter(({ of }) => of === undefined)
      .flatMap(({ commands }) => Object.entries(commands));
    return {
      ...{ name, one },
      say: (item) => this.say(name, item),
      namesOf: (command) => [command, ...unique(named(aliases, command))],
    };
  }

  /** The names that lead to a collection: its own, then those of the dialects. */
  ways(name: string, one: string): Way[] {
    const looks = this.looks()
      .filter(([, { of }]) => of === name)
      .map(([path, look]) => ({
        ...{ name: path, one: look.one ?? path },
        say: (item: object) => translate(look, item as Body),
        namesOf: (command: string) => named(Object.entries(look.commands), command),
      }));
    return [this.own(name, one), ...looks];
  }

  /** Every path that is another look at one of our collections, with that collection's name. */
  looks(): [path: string, look: Resource & { of: string }][] {
    return Object.values(this.table).flatMap((dialect) =>
      Object.entries(dialect).flatMap(([path, look]): [string, Resource & { of: string }][] =>
        look.of === undefined ? [] : [[path, { ...look, of: look.of }]],
      ),
    );
  }

  /** An item of ours as the shop's dialect says it: with our fields and its own, which win where both have a name. */
  say(name: string, item: object): Body {
    const said = this.spoken[name];
    return said === undefined ? { ...item } : { ...item, ...translate(said, item as Body) };
  }

  /**
   * Checks what a caller sent, in whatever dialect.
   * @throws Problem 422 that names every field that is wrong, as the caller called it
   */
  check<T extends z.ZodType>(name: string, schema: T, sent: unknown): z.output<T> {
    const { body, calledBy } = this.understand(name, sent);
    try {
      return check(schema, body);
    } catch (error) {
      throw inTheirWords(error, calledBy);
    }
  }

  /** Does what a caller asked for; what is refused about a field names it as the caller called it. */
  async answering<T>(name: string, sent: unknown, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw inTheirWords(error, this.understand(name, sent).calledBy);
    }
  }

  /** Our words for a dialect's word in one of our fields; the word itself where no dialect has it. */
  meant(name: string, ours: string, word: string): string[] {
    const rows = this.all(name).flatMap(({ fields }) => Object.values(fields));
    const means = rows.flatMap((row) =>
      typeof row === "string" || row.of !== ours
        ? []
        : Object.entries(row.words).flatMap(([our, their]) => (their === word ? [our] : [])),
    );
    return unique([word, ...means]);
  }

  /** Their names of our fields, for what comes in. */
  private understand(name: string, sent: unknown): { body: unknown; calledBy: Map<string, string> } {
    const calledBy = new Map<string, string>();
    if (typeof sent !== "object" || sent === null || Array.isArray(sent)) return { body: sent, calledBy };
    const body: Body = { ...sent };
    const errors: FieldError[] = [];
    for (const { fields } of this.all(name)) {
      for (const [theirs, row] of Object.entries(fields)) {
        const ours = typeof row === "string" ? row : row.of;
        const value = (sent as Body)[theirs];
        if (theirs === ours || value === undefined || ours.includes(".")) continue;
        const before =
          calledBy.get(ours) ?? (Object.hasOwn(sent, ours) && !this.isTheirs(name, ours) ? ours : undefined);
        if (before === theirs) continue;
        // Who sends back what was read, with another word in it, means the word.
        const repeated = before === ours && typeof row !== "string";
        if (before !== undefined && !repeated && String((sent as Body)[before]) !== String(value))
          errors.push({ field: theirs, reason: `differs from ${before}` });
        body[ours] = value;
        calledBy.set(ours, theirs);
      }
    }
    if (errors.length > 0) throw invalid(errors);
    return { body, calledBy };
  }

  /** Whether a dialect uses the name of one of our fields for another one. */
  private isTheirs(name: string, field: string): boolean {
    return this.all(name).some(({ fields }) => {
      const row = fields[field];
      return row !== undefined && (typeof row === "string" ? row : row.of) !== field;
    });
  }

  /** What all dialects say of one of our collections, the looks at it included. */
  private all(name: string): Resource[] {
    const known = this.rows.get(name);
    if (known !== undefined) return known;
    const found = Object.values(this.table).flatMap((resources) =>
      Object.entries(resources)
        .filter(([path, { of }]) => (of ?? path) === name)
        .map(([, one]) => one),
    );
    this.rows.set(name, found);
    return found;
  }
}

/** Reads the table. @throws Error that names the file, and the line and key of everything wrong in it */
export function readDialects(path: string, dialect: string): Dialects {
  return parseDialects(readFileSync(path, "utf8"), path, dialect);
}

/** {@link readDialects} on text; `path` is for messages. */
export function parseDialects(text: string, path: string, dialect: string): Dialects {
  const table = parseWith(schema, text, path);
  try {
    return new Dialects(table, dialect);
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
}

function inTheirWords(error: unknown, calledBy: ReadonlyMap<string, string>): unknown {
  const fields = error instanceof Problem ? (error.extra.errors as FieldError[] | undefined) : undefined;
  if (!(error instanceof Problem) || fields === undefined || calledBy.size === 0) return error;
  const errors = fields.map(({ field, reason }) => ({ field: calledBy.get(field) ?? field, reason }));
  if (error.code === "invalid-field") return invalid(errors);
  const { status, code, title, message, extra, headers } = error;
  return new Problem(status, code, title, message, { ...extra, errors }, headers);
}

function translate({ fields }: Resource, item: Body): Body {
  return Object.fromEntries(
    Object.entries(fields).map(([theirs, row]) => {
      if (typeof row === "string") return [theirs, at(item, row) ?? null];
      const word = at(item, row.of);
      if (row.as === "number" && typeof word === "string" && /^(0|[1-9]\d{0,14})$/.test(word))
        return [theirs, Number(word)];
      const has = typeof word === "string" && Object.hasOwn(row.words, word);
      return [theirs, has ? row.words[word] : (word ?? null)];
    }),
  );
}

const at = (item: Body, path: string): unknown =>
  path
    .split(".")
    .reduce<unknown>(
      (here, key) => (typeof here === "object" && here !== null ? (here as Body)[key] : undefined),
      item,
    );

const named = (commands: [string, string][], ours: string) =>
  commands.filter(([, command]) => command === ours).map(([theirs]) => theirs);

const unique = <T>(list: T[]): T[] => [...new Set(list)];
