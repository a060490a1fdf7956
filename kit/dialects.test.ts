import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { parseDialects, readDialects } from "#kit/dialects.js";
import { whole } from "#kit/http.js";
import type { FieldError, Problem } from "#kit/problem.js";

const TABLE = `
plain:
  boxes: {}
post:
  boxes:
    fields:
      parcelId: id
      weight: grams
      to: address.street
      status: &status
        of: state
        words: { Open: OPEN, Shut: SEALED, Lost: null }
    commands:
      seal: shut
  parcels:
    of: boxes
    one: parcel
    fields: { parcelId: id, status: *status }
    commands: { seal: shut, tape: shut, rip: open }
port:
  boxes:
    fields:
      mass: grams
      id: containerNo # a name of ours, for something else
      status:
        of: state
        words: { Open: OPEN, Shut: CLOSED, Lost: OVERBOARD }
    commands:
      close: shut
  containers:
    of: boxes
`;
const speaking = (dialect: string) => parseDialects(TABLE, "words.yaml", dialect);
const box = { id: 7, grams: 250, address: { street: "Main" }, state: "Shut", lid: "red" };

const schema = z.object({
  grams: whole(1, 1000),
  state: z.string().optional(),
  containerNo: whole(1, 9).optional(),
});
/** What is wrong with a body, by the caller's names. */
const wrong = (sent: unknown, dialect = "plain"): FieldError[] => {
  try {
    speaking(dialect).check("boxes", schema, sent);
  } catch (error) {
    assert.deepEqual([(error as Problem).status, (error as Problem).code], [422, "invalid-field"]);
    return (error as Problem).extra.errors as FieldError[];
  }
  return [];
};

describe("the table of dialects", () => {
  it("names the dialects that there are, when a shop speaks another", () => {
    const message = 'words.yaml: There is no dialect "braille"; there are plain, post, port.';
    assert.throws(() => speaking("braille"), { message });
    for (const notOne of ["toString", "__proto__", ""]) assert.throws(() => speaking(notOne), /no dialect/);
  });

  it("names file, line and key of what is wrong in it", () => {
    const table = "plain:\n  boxes:\n    fields:\n      a: { of: b }\n    one: 3\n";
    assert.throws(
      () => parseDialects(table, "words.yaml", "plain"),
      ({ message }: Error) =>
        message.split("\n").every((line) => /^words\.yaml:[45]: plain\.boxes\.(fields\.a|one): /.test(line)),
    );
  });
});

describe("a collection's names", () => {
  it("are its own, and every other path that a dialect has for it", () => {
    for (const dialect of ["plain", "post"])
      assert.deepEqual(
        speaking(dialect)
          .ways("boxes", "box")
          .map(({ name, one }) => [name, one]),
        [
          ["boxes", "box"],
          ["parcels", "parcel"],
          ["containers", "containers"],
        ],
      );
    assert.deepEqual(
      speaking("plain")
        .ways("crates", "crate")
        .map(({ name }) => name),
      ["crates"],
    );
  });

  it("are known to who has to find the collection behind a path", () => {
    assert.deepEqual(
      speaking("plain")
        .looks()
        .map(([path, { of }]) => [path, of]),
      [
        ["parcels", "boxes"],
        ["containers", "boxes"],
      ],
    );
  });

  it("have their own names for a command: at our path ours and everybody's, at another path that one's", () => {
    const [own, parcels, containers] = speaking("plain").ways("boxes", "box");
    assert.deepEqual(own?.namesOf("shut"), ["shut", "seal", "close"]);
    assert.deepEqual(parcels?.namesOf("shut"), ["seal", "tape"]);
    assert.deepEqual(parcels?.namesOf("open"), ["rip"]);
    assert.deepEqual(own?.namesOf("open"), ["open"], "a look's names are that look's");
    assert.deepEqual(containers?.namesOf("shut"), []);
  });
});

describe("an item", () => {
  it("is told in our fields, and in those of the shop's dialect with its words", () => {
    assert.deepEqual(speaking("plain").say("boxes", box), box);
    assert.deepEqual(speaking("post").say("boxes", box), {
      ...box,
      ...{ parcelId: 7, weight: 250, to: "Main", status: "SEALED" },
    });
    assert.deepEqual(speaking("port").say("boxes", { ...box, containerNo: 99 }), {
      ...{ ...box, containerNo: 99 },
      ...{ mass: 250, id: 99, status: "CLOSED" },
    });
    assert.deepEqual(speaking("post").say("crates", box), box, "of which the dialect says nothing");
  });

  it("keeps a word that the dialect has none for, and has null where there is nothing", () => {
    const post = speaking("post");
    assert.equal(post.say("boxes", { ...box, state: "Burnt" }).status, "Burnt");
    assert.equal(post.say("boxes", { ...box, state: "toString" }).status, "toString");
    assert.equal(post.say("boxes", { ...box, state: "Lost" }).status, null, "a word may be none");
    assert.equal(post.say("boxes", { ...box, state: 3 }).status, 3);
    const { weight, to, status } = post.say("boxes", {});
    assert.deepEqual([weight, to, status], [null, null, null]);
  });

  it("at a path of one dialect has exactly that dialect's fields, whatever the shop speaks", () => {
    for (const dialect of ["plain", "port"]) {
      const parcels = speaking(dialect).ways("boxes", "box")[1];
      assert.deepEqual(parcels?.say(box), { parcelId: 7, status: "SEALED" });
    }
  });

  it("has a number where the dialect has one and we have text, if that is a number", () => {
    const table = "x:\n  boxes:\n    fields:\n      shelf: { of: place, as: number }";
    const shelf = (place: unknown) => parseDialects(table, "x.yaml", "x").say("boxes", { place }).shelf;
    assert.deepEqual(["12", "0", "12b", "", "-1", "1.5", "9".repeat(20), 12, null].map(shelf), [
      ...[12, 0, "12b", "", "-1", "1.5", "9".repeat(20), 12, null],
    ]);
  });

  it("is not changed by being told", () => {
    const item = Object.freeze({ ...box });
    assert.notEqual(speaking("post").say("boxes", item), item);
  });
});

describe("what a caller sends", () => {
  it("is understood in every dialect, whatever the shop speaks", () => {
    for (const dialect of ["plain", "post", "port"])
      for (const grams of ["grams", "weight", "mass"])
        assert.equal(speaking(dialect).check("boxes", schema, { [grams]: "250" }).grams, 250, grams);
  });

  it("may name a field twice if it says the same", () => {
    const sent = { grams: 5, weight: "5", mass: 5 };
    assert.equal(speaking("plain").check("boxes", schema, sent).grams, 5);
  });

  it("is refused if two names of one field differ, with the names that the caller used", () => {
    assert.deepEqual(wrong({ grams: 5, weight: 6 }), [{ field: "weight", reason: "differs from grams" }]);
    assert.deepEqual(wrong({ weight: 5, mass: 6 }), [{ field: "mass", reason: "differs from weight" }]);
    assert.deepEqual(wrong({ weight: 5, mass: null }), [{ field: "mass", reason: "differs from weight" }]);
  });

  it("is refused with the name that the caller used for a field", () => {
    assert.deepEqual(wrong({ mass: 0 }), [{ field: "mass", reason: "must be at least 1" }]);
    assert.deepEqual(wrong({ grams: 0 }), [{ field: "grams", reason: "must be at least 1" }]);
    assert.deepEqual(wrong({}), [{ field: "grams", reason: "is required" }], "ours, if there was none");
  });

  it("may call something else what is also a name of ours", () => {
    assert.equal(speaking("plain").check("boxes", schema, { grams: 1, id: 4 }).containerNo, 4);
    assert.deepEqual(wrong({ grams: 1, id: 40 }), [{ field: "id", reason: "must be at most 9" }]);
  });

  it("cannot reach into another field", () => {
    const anything = z.looseObject({});
    assert.deepEqual(speaking("plain").check("boxes", anything, { to: "Main" }), { to: "Main" });
  });

  it("that is no object is for the schema to refuse", () => {
    for (const sent of [[], "text", null, 3])
      assert.equal(wrong(sent)[0]?.field, "body", JSON.stringify(sent));
  });

  it("is not changed by being understood", () => {
    const sent = Object.freeze({ weight: 5 });
    speaking("plain").check("boxes", schema, sent);
    assert.deepEqual(sent, { weight: 5 });
  });

  it("of another collection is not touched", () => {
    assert.throws(() => speaking("post").check("crates", schema, { weight: 5 }), /grams: is required/);
  });

  it("that goes wrong otherwise goes wrong as it is", () => {
    const broken = z.object({}).transform(() => {
      throw new Error("a mistake of ours");
    });
    assert.throws(() => speaking("plain").check("boxes", broken, {}), { message: "a mistake of ours" });
  });
});

describe("a word of a dialect", () => {
  it("means what any dialect means by it, and itself", () => {
    for (const dialect of ["plain", "port"]) {
      const meant = (word: string) => speaking(dialect).meant("boxes", "state", word);
      assert.deepEqual(meant("SEALED"), ["SEALED", "Shut"]);
      assert.deepEqual(meant("OPEN"), ["OPEN", "Open"], "once, though several say it");
      assert.deepEqual(meant("Shut"), ["Shut"]);
      assert.deepEqual(meant("nonsense"), ["nonsense"]);
    }
    assert.deepEqual(speaking("post").meant("boxes", "grams", "SEALED"), ["SEALED"], "in that field alone");
    assert.deepEqual(speaking("post").meant("crates", "state", "SEALED"), ["SEALED"]);
  });

  it("may mean several of ours", () => {
    const table = "x:\n  boxes:\n    fields:\n      s: { of: state, words: { A: one, B: one, C: two } }";
    assert.deepEqual(parseDialects(table, "x.yaml", "x").meant("boxes", "state", "one"), ["one", "A", "B"]);
  });
});

describe("shops/dialects.yaml", () => {
  const path = fileURLToPath(new URL("../../shops/dialects.yaml", import.meta.url));
  const of = (dialect: string) => readDialects(path, dialect);
  const order = {
    ...{ id: 1, productId: 2, productName: "Book", qty: 3, amount: 9, customerAddr: "seoul" },
    ...{ note: "gift", customerId: "12", storeId: "5", method: "card", state: "OrderCancelled" },
  };

  const SHOPS = ["fashion", "bookstore", "flower", "coffee", "cafe"];
  const anything = z.looseObject({});

  for (const [dialect, theirs, ours] of [
    ["fashion", { quantity: 3, orderStatus: "OrderCancelled" }, { qty: 3 }],
    [
      "bookstore",
      {
        ...{ bookId: 2, bookName: "Book", quantity: 3, preference: "gift", address: "seoul" },
        orderStatus: "OrderCancelled",
      },
      { productId: 2, productName: "Book", qty: 3, note: "gift", customerAddr: "seoul" },
    ],
    ["flower", { address: "seoul", cost: 9, status: "OrderCanceled" }, { customerAddr: "seoul", amount: 9 }],
    [
      "coffee",
      { paymentType: "card", cost: 9, destination: "seoul", orderStatus: "Order Cancelled" },
      { method: "card", amount: 9, customerAddr: "seoul" },
    ],
    [
      "cafe",
      { customerId: 12, cafeId: 5, menuId: 2, totalPrice: 9, status: "OrderCanceled" },
      { storeId: 5, productId: 2, amount: 9 },
    ],
  ] as const)
    it(`says an order as ${dialect} does, and understands it in every shop`, () => {
      assert.deepEqual(of(dialect).say("orders", order), { ...order, ...theirs });
      for (const shop of SHOPS) {
        const { state, ...understood } = of(shop).check("orders", anything, theirs);
        const names = Object.keys(theirs);
        const meant = Object.entries(understood).filter(([name]) => !names.includes(name));
        assert.deepEqual(Object.fromEntries(meant), ours, shop);
        assert.ok(of(shop).meant("orders", "state", String(state)).includes("OrderCancelled"), shop);
      }
    });

  it("has no name that means two of our fields in a collection that takes input", () => {
    for (const collection of ["orders", "payments", "products"]) {
      const names = new Set(SHOPS.flatMap((dialect) => Object.keys(of(dialect).say(collection, {}))));
      assert.ok(names.size > 2, collection);
      for (const theirs of names) {
        const understood = of("fashion").check(collection, anything, { [theirs]: "x" });
        const meant = Object.keys(understood).filter((name) => name !== theirs);
        assert.ok(meant.length <= 1, `${collection}: ${theirs} means ${meant.join(" and ")}`);
      }
    }
  });

  it("has the paths that the seeds have besides ours", () => {
    const looks = of("fashion")
      .looks()
      .map(([path, { of }]) => `${path} → ${of}`);
    assert.deepEqual(looks.sort(), [
      "cafeOrders → storeOrders",
      "menus → products",
      "orderHistories → orderStatuses",
      "orderLists → orderStatuses",
      "orderTraces → orderStatuses",
      "productInfos → products",
      "topBooks → products",
    ]);
  });

  it("has the words of the seeds for how a payment stands: S2-V1, S3-H4, S4-V1", () => {
    const said = (dialect: string, field: string) =>
      ["PaymentRequested", "PaymentApproved", "PaymentCancelled"].map(
        (state) => of(dialect).say("payments", { state })[field],
      );
    assert.deepEqual(said("fashion", "paymentStatus"), [
      ...["PaymentRequested", "PaymentApproved", "PaymentCancelled"],
    ]);
    assert.deepEqual(said("flower", "status"), ["REQUESTED", "SUCCESS", "CANCELLED"]);
    assert.deepEqual(said("coffee", "paymentStatus"), ["Not Pay", "END", "CANCEL"]);
    assert.deepEqual(said("cafe", "status"), ["Initial", "Paid", "PaymentCanceled"]);
    assert.ok(of("cafe").meant("payments", "state", "END").includes("PaymentApproved"), "S3-H4 in any shop");
  });

  it("has the cafe's names of what the store does: S4-H2", () => {
    const [own, cafeOrders] = of("fashion").ways("storeOrders", "storeOrder");
    for (const [ours, theirs] of [
      ["accept", "orderapprove"],
      ["reject", "ordercancel"],
      ["start", "makestart"],
      ["complete", "makecomplete"],
    ] as const) {
      assert.deepEqual(cafeOrders?.namesOf(ours), [theirs]);
      assert.deepEqual(own?.namesOf(ours), [ours]);
    }
  });
});
