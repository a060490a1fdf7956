import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { parseShop, readShop } from "#kit/shop.js";

const shops = fileURLToPath(new URL("../../shops", import.meta.url));

const good = `name: corner
title:
  en: Corner shop
  ko: 구멍가게
store:
  accept: owner
  confirmCancel: automatic
catalogue:
  - id: 1
    name: Gum
    price: 500
    stock: 3
`;

/** What a shop file says is wrong after one line of the good one is replaced. */
function complaint(line: string, by: string): string {
  assert.ok(good.includes(line), line);
  try {
    parseShop(good.replace(line, by), "shops/corner.yaml");
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing";
}

describe("a shop file", () => {
  it("says how the business runs; what it may leave out has a default", () => {
    assert.deepEqual(parseShop(good, "shops/corner.yaml"), {
      name: "corner",
      title: { en: "Corner shop", ko: "구멍가게" },
      store: { accept: "owner", confirmCancel: "automatic" },
      catalogue: [{ id: 1, name: "Gum", price: 500, stock: 3, imageUrl: "", options: [] }],
    });
  });

  for (const [what, line, by, said] of [
    [
      "a value that is not one of those",
      "  accept: owner",
      "  accept: nobody",
      "shops/corner.yaml:6: store.accept: ",
    ],
    ["a key that is not known", "    stock: 3", "    stok: 3", "shops/corner.yaml:9: catalogue.0.stock: "],
    ["text for a number", "    price: 500", "    price: cheap", "shops/corner.yaml:11: catalogue.0.price: "],
    ["a negative price", "    price: 500", "    price: -1", "shops/corner.yaml:11: catalogue.0.price: "],
    ["a fraction of a piece", "    stock: 3", "    stock: 0.5", "shops/corner.yaml:12: catalogue.0.stock: "],
    [
      "a missing section",
      "store:\n  accept: owner\n  confirmCancel: automatic\n",
      "",
      "shops/corner.yaml:1: store: ",
    ],
    [
      "a name that cannot be a file's",
      "name: corner",
      "name: The Corner",
      "shops/corner.yaml:1: name: lower-case",
    ],
    ["what is no YAML", "title:", "title: [", "shops/corner.yaml: "],
    ["an unknown key at the top", "name: corner", "name: corner\nopen: 9-5", "shops/corner.yaml:1: (file): "],
  ] as const)
    it(`names file, line and key of ${what}`, () => {
      assert.ok(complaint(line, by).includes(said), `"${complaint(line, by)}" does not say "${said}"`);
    });

  it("names everything that is wrong at once", () => {
    const wrong = good.replace("price: 500", "price: x").replace("accept: owner", "accept: x");
    assert.throws(
      () => parseShop(wrong, "s.yaml"),
      ({ message }: Error) => message.split("\n").length === 2 && /s.yaml:6.*\ns.yaml:11/.test(message),
    );
  });

  it("that is not there is named", () => {
    assert.throws(() => readShop("shops/nowhere.yaml"), /The shop file shops\/nowhere\.yaml cannot be read/);
  });

  for (const file of readdirSync(shops).filter((name) => name.endsWith(".yaml")))
    it(`${file} is good, and is called what it is`, () => {
      const shop = readShop(join(shops, file));
      assert.equal(shop.name, basename(file, ".yaml"));
      assert.equal(new Set(shop.catalogue.map(({ id }) => id)).size, shop.catalogue.length, "ids are unique");
    });
});
