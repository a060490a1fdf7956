import { readFileSync } from "node:fs";
import { z } from "zod";
import { type EventType, catalogue as events } from "#kit/events.js";
import { parseWith } from "#kit/yaml.js";

const who = z.enum(["automatic", "owner"]);
const both = z.strictObject({ en: z.string().min(1), ko: z.string().min(1) });

/** Highest id that a product may come with; a list has to look that far. */
export const MAX_CHOSEN_ID = 10_000;

const product = z.strictObject({
  id: z.int().positive().max(MAX_CHOSEN_ID),
  name: z.string().min(1),
  /** what it is made of, how large it is … */
  spec: z.string().default(""),
  /** integer minor units */
  price: z.int().nonnegative(),
  stock: z.int().nonnegative(),
  imageUrl: z.string().default(""),
  options: z
    .array(z.strictObject({ name: z.string().min(1), description: z.string().default("") }))
    .default([]),
});

const notification = z.strictObject({
  /** the event that the customer is told of */
  on: z.enum(Object.keys(events) as [EventType, ...EventType[]]),
  /** the Dapr output binding that takes the message: the name of its component */
  channel: z.string().regex(/^[a-z][a-z0-9-]*$/, "lower-case letters, digits and dashes"),
  /** {field} stands for a field of the event */
  text: both,
});

const schema = z
  .strictObject({
    name: z.string().regex(/^[a-z][a-z0-9-]*$/, "lower-case letters, digits and dashes"),
    title: both,
    /** whose field names, words and paths: a dialect of shops/dialects.yaml */
    dialect: z.string().default("fashion"),
    /** of the messages to customers */
    language: z.enum(["en", "ko"]).default("ko"),
    payment: z
      .strictObject({
        /** with the order, or later, by a command of the customer */
        when: z.enum(["order", "later"]).default("order"),
        /** refuse: 503 with Retry-After; register: the order stands, and is paid when payment is back */
        unreachable: z.enum(["refuse", "register"]).default("refuse"),
        /** whose price counts: the catalogue's, or the order's where the order names one */
        price: z.enum(["catalogue", "order"]).default("catalogue"),
        /** who approves cards: the demo built in, or the Dapr output binding of this name */
        gateway: z.string().min(1).default("demo"),
      })
      .prefault({}),
    /** reserve: checked, and held for an order; none: everything can be had */
    stock: z.enum(["reserve", "none"]).default("reserve"),
    store: z
      .strictObject({
        /** who accepts an order that has been paid */
        accept: who.default("automatic"),
        /** what starts the making of what was ordered, if it has to be made */
        making: z.enum(["none", "acceptance", "owner"]).default("none"),
        /** who confirms, after an order is cancelled, that its delivery is cancelled too */
        confirmCancel: who.default("automatic"),
      })
      .prefault({}),
    /** what starts the delivery; none: the customer picks it up */
    delivery: z.enum(["acceptance", "made", "none"]).default("acceptance"),
    cancel: z
      .strictObject({
        /** until what begins the customer may cancel; completion: until it has been delivered */
        customer: z.enum(["acceptance", "making", "delivery", "completion"]).default("completion"),
        /** until what begins the shop may cancel */
        shop: z.enum(["acceptance", "making", "delivery"]).default("acceptance"),
      })
      .prefault({}),
    loyalty: z.strictObject({ stampsPerItem: z.int().nonnegative().default(0) }).prefault({}),
    /** how a channel wants its messages: json (the default), the text alone, or that as HTML */
    channels: z.record(z.string(), z.strictObject({ form: z.enum(["json", "text", "html"]) })).default({}),
    notifications: z.array(notification).default([]),
    /** who else's web pages may use the gateway; https://fetch.spec.whatwg.org/#http-cors-protocol */
    cors: z
      .strictObject({
        origins: z.union([z.literal("*"), z.array(z.string())]).default("*"),
        credentials: z.boolean().default(true),
      })
      .prefault({}),
    catalogue: z.array(product),
  })
  .check(({ value: shop, issues }) => {
    const wrong = (path: (string | number)[], message: string) =>
      issues.push({ code: "custom", path, message, input: shop });
    const made = shop.store.making !== "none";
    if (shop.delivery === "made" && !made) wrong(["delivery"], "nothing is made here: store.making is none");
    for (const by of ["customer", "shop"] as const) {
      const until = shop.cancel[by];
      if (until === "making" && !made) wrong(["cancel", by], "nothing is made here: store.making is none");
      if (until === "delivery" && shop.delivery === "none")
        wrong(["cancel", by], "nothing is delivered here: delivery is none");
    }
    const ids = shop.catalogue.map(({ id }) => id);
    for (const [i, id] of ids.entries())
      if (ids.indexOf(id) < i) wrong(["catalogue", i, "id"], `product ${id} is there already`);
    for (const [i, { on }] of shop.notifications.entries())
      if (on === "MessageSent" || !Object.hasOwn(events[on].shape, "orderId"))
        wrong(["notifications", i, "on"], `${on} is nothing that a customer can be told of`);
    for (const [i, { on, text }] of shop.notifications.entries())
      for (const language of ["en", "ko"] as const)
        for (const field of placeholders(text[language]))
          if (!Object.hasOwn(events[on].shape, field))
            wrong(["notifications", i, "text", language], `${on} has no field ${field}`);
  });

/** How a business runs, as plain data: shops/<name>.yaml. */
export type Shop = z.infer<typeof schema>;

/** The fields that a text leaves room for: "{qty} of {productName}" → qty, productName. */
export const placeholders = (text: string): string[] =>
  [...text.matchAll(/\{(\w+)\}/g)].map(([, field]) => field ?? "");

/** Whether an order may stand before it is paid. */
export const maybePaidLater = ({ payment }: Pick<Shop, "payment">): boolean =>
  payment.when === "later" || payment.unreachable === "register";

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
export const parseShop = (text: string, path: string): Shop => parseWith(schema, text, path);
