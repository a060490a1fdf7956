/** Makes a large shop out of a small one, for tests and measurements: as if its orders had been placed again and again. */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import sqlite from "node-sqlite3-wasm";
import { digest, endOfBlock } from "#kit/ids.js";

/** Whose order it is, by the order's id: what {@link multiply} recognises, and makes new ones of. */
export const customerOf = (order: number): { customerId: string; phoneNumber: string } => ({
  customerId: `customer-${order}`,
  phoneNumber: `010${String(order).padStart(8, "0")}`,
});

/** A number that differs from copy to copy: of an order, a message or a stamp card. */
type Kind = "order" | "message" | "card";

/** A text with numbers in it that differ from copy to copy. */
type Template = (string | { kind: Kind; number: number; isPhone: boolean })[];

/**
 * Multiplies the orders of a stopped shop on `embedded`, with all that belongs to them, in all eight stores.
 * The shop has had orders 1 to n, of {@link customerOf}; nothing was under way when it was stopped.
 * @param orders a multiple of n
 * @returns how many records the stores hold then
 */
export function multiply(data: string, orders: number): number {
  const files = readdirSync(data).filter((name) => name.endsWith(".db") && name !== "nameresolution.db");
  const stores = files.map((file) => open(join(data, file)));
  const last = (counter: string) =>
    Math.max(0, ...stores.map((db) => next(db, `%||ids:${counter}`) ?? 0)) - 1;
  const had: Record<Kind, number> = { order: last("order"), message: last("message"), card: last("cardno") };
  const copies = orders / had.order;
  if (!Number.isInteger(copies)) throw new Error(`${orders} is no multiple of ${had.order}`);
  let records = 0;
  for (const db of stores) {
    records += copyAll(db, had, copies);
    db.close();
  }
  return records;
}

function open(file: string): sqlite.Database {
  rmSync(`${file}.lock`, { recursive: true, force: true });
  const db = new sqlite.Database(file, { fileMustExist: true });
  db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF");
  return db;
}

/** What a counter gives out next. */
function next(db: sqlite.Database, key: string): number | undefined {
  const row = db.get("SELECT value FROM state WHERE key LIKE ?", key) as { value: string } | null;
  return row === null ? undefined : JSON.parse(row.value).next;
}

function copyAll(db: sqlite.Database, had: Record<Kind, number>, copies: number): number {
  const rows = db.all("SELECT key, value, expiration_time AS expires FROM state") as {
    key: string;
    value: string;
    expires: string | null;
  }[];
  const insert = db.prepare(
    "INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES (?, ?, 0, ?, ?)",
  );
  db.exec("BEGIN");
  for (const { key, value, expires } of rows) {
    const name = key.slice(key.indexOf("||") + 2);
    if (/^(replicas$|journal:|product:)/.test(name)) continue;
    if (name.startsWith("ids:")) {
      db.run("UPDATE state SET value = ? WHERE key = ?", [counted(name, value, had, copies), key]);
      continue;
    }
    const keyTemplate = keyOf(name);
    const valueTemplate = split(JSON.stringify(mark(JSON.parse(value))));
    for (let copy = 1; copy < copies; copy++) {
      const fill = (template: Template) =>
        template
          .map((part) => {
            if (typeof part === "string") return part;
            const number = part.number + copy * had[part.kind];
            return part.isPhone ? customerOf(number).phoneNumber : String(number);
          })
          .join("");
      const made = name.startsWith("idempotency:")
        ? `idempotency:${digest(name + copy)}`
        : digested(fill(keyTemplate));
      insert.run([
        key.slice(0, key.length - name.length) + made,
        fill(valueTemplate),
        crypto.randomUUID(),
        expires,
      ]);
    }
  }
  db.exec("COMMIT");
  insert.finalize();
  return Number((db.get("SELECT count(*) AS n FROM state") as { n: number }).n);
}

/** A counter after all copies. */
function counted(name: string, value: string, had: Record<Kind, number>, copies: number): string {
  const was = JSON.parse(value);
  const own: Record<string, Kind> = { "ids:order": "order", "ids:message": "message", "ids:cardno": "card" };
  const kind = own[name];
  const count = kind === undefined ? endOfBlock(had.order * copies) : had[kind] * copies;
  return JSON.stringify({ ...was, next: name === "ids:product" ? was.next : count + 1 });
}

const INDEXES = ["customer", "phone"] as const;

/** A key of the view's index names a digest, which has no number to be seen: the template holds the text behind it. */
function keyOf(name: string): Template {
  for (const index of INDEXES) {
    const prefix = `index:${index}:`;
    if (!name.startsWith(prefix)) continue;
    for (let order = 1; order < 1000; order++) {
      const { customerId, phoneNumber } = customerOf(order);
      const text = index === "customer" ? customerId : phoneNumber;
      if (name === prefix + digest(text)) return split(prefix + markText(text));
    }
    throw new Error(`${name} is the index of no customer that is known here`);
  }
  return split(markText(name));
}

function digested(key: string): string {
  const [, prefix = "", text = ""] = /^(index:(?:customer|phone):)(.+)$/.exec(key) ?? [];
  return prefix === "" ? key : prefix + digest(text);
}

const FIELDS: Record<string, Kind> = {
  ...{ orderId: "order", id: "order", paymentId: "order", deliveryId: "order" },
  ...{ messageId: "message", no: "card" },
};

/** Puts marks where a value has numbers that differ from copy to copy. */
function mark(value: unknown, field = ""): unknown {
  const kind = FIELDS[field];
  if (typeof value === "number") return kind === undefined ? value : `\uE000${kind} ${value}\uE001`;
  if (typeof value === "string") return markText(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => mark(item, field === "orderIds" ? "orderId" : field));
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      if (field === "open") return [`\uE002order ${name}\uE003`, item]; // by order, on a card
      return [name, mark(item, field === "messages" ? "messageId" : name)]; // by event, in a notice
    }),
  );
}

const markText = (text: string) =>
  text
    .replace(/\b010(\d{8})\b/g, (_, number) => `\uE002phone ${Number(number)}\uE003`)
    .replace(/\b(customer-)(\d+)\b/g, "$1\uE002order $2\uE003")
    .replace(/\b([a-z]+):(\d+)(?=\/|$)/g, (_, word, number) => {
      const kind = { message: "message", sent: "message", cardno: "card" }[word as string] ?? "order";
      return `${word}:\uE002${kind} ${number}\uE003`;
    });

function split(text: string): Template {
  const parts = text.split(/"\uE000([a-z]+ \d+)\uE001"|\uE002([a-z]+ \d+)\uE003/);
  return parts.flatMap((part, i): Template => {
    if (part === undefined) return [];
    if (i % 3 === 0) return [part];
    const [kind, number] = part.split(" ");
    const isPhone = kind === "phone";
    return [{ kind: (isPhone ? "order" : kind) as Kind, number: Number(number), isPhone }];
  });
}
