import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parseDialects } from "#kit/dialects.js";
import { MAX_CHOSEN_ID, maybePaidLater, parseShop, placeholders, readShop } from "#kit/shop.js";

const folder = fileURLToPath(new URL("../../shops", import.meta.url));
/** The table of words lies beside the shops. */
const shops = readdirSync(folder).filter((name) => name.endsWith(".yaml") && name !== "dialects.yaml");

const good = `name: corner
title:
  en: Corner shop
  ko: 구멍가게
payment:
  when: later
store:
  accept: owner
  making: owner
delivery: made
cancel:
  customer: making
  shop: delivery
notifications:
  - on: OrderPaid
    channel: sms
    text:
      en: "{qty} of {productName}"
      ko: "{productName} {qty}개"
catalogue:
  - id: 1
    name: Gum
    price: 500
    stock: 3
  - id: 2
    name: Candle
    price: 900
    stock: 1
`;

/** What a shop file says is wrong after one part of the good one is replaced. */
function complaint(part: string, by: string): string {
  assert.equal(good.split(part).length, 2, `"${part}" is there once`);
  try {
    parseShop(good.replace(part, by), "shops/corner.yaml");
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing";
}

describe("a shop file", () => {
  it("says how the business runs, and is read as it stands", () => {
    const { payment, store, delivery, cancel, notifications } = parseShop(good, "shops/corner.yaml");
    assert.deepEqual(
      { payment: payment.when, accept: store.accept, making: store.making, delivery, cancel },
      {
        ...{ payment: "later", accept: "owner", making: "owner", delivery: "made" },
        cancel: { customer: "making", shop: "delivery" },
      },
    );
    assert.deepEqual(notifications, [
      {
        ...{ on: "OrderPaid", channel: "sms" },
        text: { en: "{qty} of {productName}", ko: "{productName} {qty}개" },
      },
    ]);
  });

  it("may leave out all but its name, title and catalogue; the rest has defaults", () => {
    const least = `
name: corner
title: { en: Corner shop, ko: 구멍가게 }
catalogue: [{ id: 1, name: Gum, price: 500, stock: 3 }]
`;
    assert.deepEqual(parseShop(least, "shops/corner.yaml"), {
      ...{ name: "corner", title: { en: "Corner shop", ko: "구멍가게" } },
      ...{ dialect: "fashion", language: "ko" },
      payment: { when: "order", unreachable: "refuse", price: "catalogue", gateway: "demo" },
      stock: "reserve",
      store: { accept: "automatic", making: "none", confirmCancel: "automatic" },
      delivery: "acceptance",
      cancel: { customer: "completion", shop: "acceptance" },
      loyalty: { stampsPerItem: 0 },
      ...{ channels: {}, notifications: [] },
      cors: { origins: "*", credentials: true },
      catalogue: [{ id: 1, name: "Gum", spec: "", price: 500, stock: 3, imageUrl: "", options: [] }],
    });
  });

  it("may sell nothing yet", () => {
    assert.deepEqual(
      parseShop("name: new\ntitle: { en: New, ko: 새 }\ncatalogue: []", "new.yaml").catalogue,
      [],
    );
  });

  for (const [what, part, by, said] of [
    ["a value that is not one of those", "accept: owner", "accept: nobody", "8: store.accept: "],
    ["a key that is not known", "    name: Gum\n", "    name: Gum\n    nmae: Gum\n", "21: catalogue.0: "],
    ["a missing key, at what it is missing from", "    stock: 3\n", "", "21: catalogue.0.stock: "],
    ["text for a number", "price: 500", "price: cheap", "23: catalogue.0.price: "],
    ["a negative price", "price: 500", "price: -1", "23: catalogue.0.price: "],
    ["a fraction of a piece", "stock: 3", "stock: 0.5", "24: catalogue.0.stock: "],
    ["a missing section", "title:\n  en: Corner shop\n  ko: 구멍가게\n", "", "1: title: "],
    ["a title in one language", "  ko: 구멍가게\n", "", "3: title.ko: "],
    ["a name that cannot be a file's", "name: corner", "name: The Corner", "1: name: lower-case"],
    ["an unknown key at the top", "name: corner", "name: corner\nopen: 9-5", "1: (file): "],
    ["a time to pay that there is not", "when: later", "when: never", "6: payment.when: "],
    ["an event that there is not", "on: OrderPaid", "on: OrderPayed", "15: notifications.0.on: "],
    ["a channel that no component can be called", "channel: sms", "channel: My SMS", "16: notifications.0."],
    ["an empty text", 'en: "{qty} of {productName}"', 'en: ""', "18: notifications.0.text.en: "],
    ["an id below 1", "id: 1", "id: 0", "21: catalogue.0.id: "],
    ["an id that lists cannot reach", "id: 2", `id: ${MAX_CHOSEN_ID + 1}`, "25: catalogue.1.id: "],
  ] as const)
    it(`names file, line and key of ${what}`, () => {
      const got = complaint(part, by);
      assert.ok(got.startsWith(`shops/corner.yaml:${said}`), got);
      assert.equal(got.split("\n").length, 1, "and of nothing else");
    });

  it("that is no YAML is named", () => {
    assert.match(complaint("title:\n", "title: [\n"), /^shops\/corner\.yaml: /);
  });

  it("takes the highest id that lists reach", () => {
    assert.equal(complaint("id: 2", `id: ${MAX_CHOSEN_ID}`), "nothing");
  });

  // What each rule says is fine; together they say what cannot be.
  for (const [what, part, by, said] of [
    [
      "a delivery of what is never made",
      "making: owner",
      "making: none",
      "10: delivery: nothing is made here",
    ],
    [
      "a customer who may cancel until a making that there is not",
      "  making: owner\ndelivery: made\n",
      "delivery: acceptance\n",
      "11: cancel.customer: nothing is made here",
    ],
    [
      "a shop that may cancel until a delivery that there is not",
      "delivery: made",
      "delivery: none",
      "13: cancel.shop: nothing is delivered here",
    ],
    ["two products of one id", "id: 2", "id: 1", "25: catalogue.1.id: product 1 is there already"],
    [
      "a field that its event does not have",
      "{productName} {qty}개",
      "{colour}",
      "19: notifications.0.text.ko: OrderPaid has no field colour",
    ],
  ] as const)
    it(`names file, line and key of ${what}`, () => {
      const got = complaint(part, by);
      const lines = got.split("\n");
      assert.ok(
        lines.some((line) => line.startsWith(`shops/corner.yaml:${said}`)),
        got,
      );
    });

  it("lets both sides cancel until a making or a delivery that there is, and no later", () => {
    const may = (rules: string) => {
      try {
        parseShop(`name: x\ntitle: { en: x, ko: x }\n${rules}\ncatalogue: []`, "x.yaml");
        return "yes";
      } catch (error) {
        return (error as Error).message.replaceAll(/x\.yaml:\d+: /g, "");
      }
    };
    const making = (from: string) => `store: { making: ${from} }`;
    const noMaking = "nothing is made here: store.making is none";
    const noDelivery = "nothing is delivered here: delivery is none";
    for (const by of ["customer", "shop"]) {
      const cancel = (until: string) => `cancel: { ${by}: ${until} }`;
      assert.equal(may(cancel("acceptance")), "yes");
      assert.equal(may(cancel("delivery")), "yes");
      assert.equal(may(cancel("making")), `cancel.${by}: ${noMaking}`);
      for (const from of ["acceptance", "owner"])
        assert.equal(may(`${making(from)}\n${cancel("making")}`), "yes");
      assert.equal(may(`delivery: none\n${cancel("delivery")}`), `cancel.${by}: ${noDelivery}`);
    }
    assert.equal(may("delivery: made"), `delivery: ${noMaking}`);
    assert.equal(may("cancel: { customer: completion }"), "yes");
    assert.match(
      may("cancel: { shop: completion }"),
      /^cancel\.shop: Invalid/,
      "the goods are the customer's",
    );
  });

  it("names everything that is wrong at once", () => {
    const wrong = good.replace("price: 500", "price: x").replace("accept: owner", "accept: x");
    assert.throws(
      () => parseShop(wrong, "s.yaml"),
      ({ message }: Error) => /^s\.yaml:8: .*\ns\.yaml:23: .*$/.test(message),
    );
  });

  it("that is not there is named", () => {
    assert.throws(() => readShop("shops/nowhere.yaml"), /The shop file shops\/nowhere\.yaml cannot be read/);
  });
});

describe("the shops that come with it", () => {
  it("are the five of the seeds", () => {
    assert.deepEqual(shops.sort(), [
      "bookstore.yaml",
      "cafe.yaml",
      "coffee.yaml",
      "fashion.yaml",
      "flower.yaml",
    ]);
  });

  const table = readFileSync(join(folder, "dialects.yaml"), "utf8");
  for (const file of shops)
    it(`${file} is good, is called what it is, and speaks a dialect that there is`, () => {
      const shop = readShop(join(folder, file));
      assert.equal(shop.name, basename(file, ".yaml"));
      assert.ok(shop.catalogue.length > 0);
      parseDialects(table, "dialects.yaml", shop.dialect);
    });

  it("fashion.yaml says every rule, also where it is the default", () => {
    const { name, title, catalogue, ...rules } = readShop(join(folder, "fashion.yaml"));
    const least = parseShop("name: x\ntitle: { en: x, ko: x }\ncatalogue: []", "x.yaml");
    assert.deepEqual(
      rules,
      (({ name, title, catalogue, ...rules }) => rules)(least),
      "docs/shops.md promises it",
    );
    const text = readFileSync(join(folder, "fashion.yaml"), "utf8");
    const said = (rule: string) => new RegExp(`^ *${rule}:`, "m").test(text);
    const rulesIn = (of: object): string[] =>
      Object.entries(of).flatMap(([rule, value]) =>
        typeof value === "object" && !Array.isArray(value) ? [rule, ...rulesIn(value)] : [rule],
      );
    // Channels say how a message looks that is sent through them, and this shop sends none.
    const unsaid = rulesIn(rules).filter((rule) => !said(rule) && rule !== "channels");
    assert.deepEqual(unsaid, []);
  });
});

describe("a text with room for fields", () => {
  it("names them, each as often as it stands there", () => {
    assert.deepEqual(placeholders("{qty} of {productName}, {qty} in all; {} { x } {not one}"), [
      ...["qty", "productName", "qty"],
    ]);
    assert.deepEqual(placeholders("none"), []);
  });
});

describe("an order that stands before it is paid", () => {
  it("is there where one pays later, or where an unreachable payment only registers it", () => {
    const rules = { price: "catalogue", gateway: "demo" } as const;
    const maybe = (when: "order" | "later", unreachable: "refuse" | "register") =>
      maybePaidLater({ payment: { ...rules, when, unreachable } });
    assert.deepEqual(
      [
        maybe("order", "refuse"),
        maybe("order", "register"),
        maybe("later", "refuse"),
        maybe("later", "register"),
      ],
      [false, true, true, true],
    );
  });
});
