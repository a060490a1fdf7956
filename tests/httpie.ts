/** Reads HTTPie's command line, so that a command can be run here and copied into a terminal. https://httpie.io/docs/cli */

export interface HttpieCall {
  method: string;
  /** with its query */
  path: string;
  headers: Record<string, string>;
  /** absent where the command has no field of a body */
  body?: Record<string, unknown>;
}

/**
 * The words of a command, as a POSIX shell splits them.
 * @throws Error where a quotation mark is left open
 */
export function words(command: string): string[] {
  const found: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let i = 0; i < command.length; i++) {
    const c = command.charAt(i);
    if (quote === undefined && /\s/.test(c)) {
      if (word !== undefined) found.push(word);
      word = undefined;
    } else if (quote === undefined && (c === "'" || c === '"')) {
      quote = c;
      word ??= "";
    } else if (c === quote) {
      quote = undefined;
    } else if (c === "\\" && quote !== "'" && i + 1 < command.length) {
      word = (word ?? "") + command.charAt(++i);
    } else {
      word = (word ?? "") + c;
    }
  }
  if (quote !== undefined) throw new Error(`the quotation mark ${quote} is not closed: ${command}`);
  if (word !== undefined) found.push(word);
  return found;
}

/**
 * What `http [METHOD] /path item…` asks for. Items: `field=text`, `field:=json`, `Header:value`, `query==value`.
 * @param fill what stands for a placeholder in a word
 * @throws Error that says what cannot be understood
 */
export function parseHttpie(command: string, fill: (word: string) => string = (word) => word): HttpieCall {
  const [program, ...rest] = words(command);
  if (program !== "http") throw new Error(`a command begins with "http": ${command}`);
  const named = /^[A-Z]+$/.test(rest[0] ?? "") ? rest.shift() : undefined;
  const target = fill(rest.shift() ?? "");
  if (!target.startsWith("/")) throw new Error(`a path begins with "/", not "${target}": ${command}`);
  const headers: Record<string, string> = {};
  const body: Record<string, unknown> = {};
  const query: [string, string][] = [];
  for (const word of rest) {
    const [, name = "", separator, raw = ""] = /^([^:=]+)(:=|==|=|:)(.*)$/s.exec(word) ?? [];
    const value = fill(raw);
    if (separator === "=") body[name] = value;
    else if (separator === ":=") body[name] = json(value, command);
    else if (separator === "==") query.push([name, value]);
    else if (separator === ":") headers[name.toLowerCase()] = value;
    else throw new Error(`"${word}" is neither a field, a header nor a query: ${command}`);
  }
  const search = query.length === 0 ? "" : `${target.includes("?") ? "&" : "?"}${new URLSearchParams(query)}`;
  const hasBody = Object.keys(body).length > 0;
  return {
    method: named ?? (hasBody ? "POST" : "GET"),
    path: target + search,
    headers,
    ...(hasBody ? { body } : {}),
  };
}

function json(text: string, command: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${text} is not JSON: ${command}`);
  }
}
