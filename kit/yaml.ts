import { LineCounter, parseDocument } from "yaml";
import type { z } from "zod";

/** Checks a YAML text. @throws Error that names the file, and the line and key of everything wrong in it */
export function parseWith<T extends z.ZodType>(schema: T, text: string, path: string): z.output<T> {
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
