import { readFileSync } from "node:fs";
import { LineCounter, parseDocument } from "yaml";
import { z } from "zod";

const who = z.enum(["automatic", "owner"]);

const schema = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]*$/, "lower-case letters, digits and dashes"),
  title: z.strictObject({ en: z.string().min(1), ko: z.string().min(1) }),
  store: z.strictObject({
    /** who accepts an order that has been paid */
    accept: who,
    /** who confirms, after an order is cancelled, that its delivery is cancelled too */
    confirmCancel: who,
  }),
  catalogue: z.array(
    z.strictObject({
      id: z.int().positive(),
      name: z.string().min(1),
      /** integer minor units */
      price: z.int().nonnegative(),
      stock: z.int().nonnegative(),
      imageUrl: z.string().default(""),
      options: z
        .array(z.strictObject({ name: z.string().min(1), description: z.string().default("") }))
        .default([]),
    }),
  ),
});

/** How a business runs, as plain data: shops/<name>.yaml. */
export type Shop = z.infer<typeof schema>;

/** Reads and checks a shop file. @throws Error that names the file, and the line and key of everything wrong in it */
export function readShop(path: string): Shop {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`The shop file ${path} cannot be read: ${(error as Error).message}`);
  }
  return parseShop(text, path);
}

/** {@link readShop} on text; `path` is for messages. */
export function parseShop(text: string, path: string): Shop {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken !== undefined) throw new Error(`${path}: ${broken.message}`);
  const parsed = schema.safeParse(document.toJS());
  if (parsed.success) return parsed.data;
  const wrong = parsed.error.issues.map((issue) => {
    const keys = issue.path.filter((key): key is string | number => typeof key !== "symbol");
    // A missing key has no place of its own: name the nearest thing above it that has one.
    let at: number | undefined;
    for (let depth = keys.length; depth >= 0 && at === undefined; depth--) {
      const node = document.getIn(keys.slice(0, depth), true) as
        | { range?: [number, number, number] }
        | undefined;
      at = node?.range?.[0];
    }
    return `${path}:${lines.linePos(at ?? 0).line}: ${keys.join(".") || "(file)"}: ${issue.message}`;
  });
  throw new Error(wrong.join("\n"));
}
