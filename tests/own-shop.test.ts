/** The exercise of docs/shops.md, done as it is written: a sixth shop without a line of code. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TestShop, until } from "./shop.js";

const root = fileURLToPath(new URL("../../", import.meta.url));
const page = readFileSync(join(root, "docs", "shops.md"), "utf8");
const blocks = (kind: string) =>
  [...page.matchAll(new RegExp(`^\`\`\`${kind}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, text]) => text ?? "");
const [bakery = "", words = ""] = blocks("yaml");
const commands = (blocks("console")[0] ?? "")
  .split("\n")
  .filter((line) => line.startsWith("$ http"))
  .map((line) => line.split("#").map((part) => part.trim()));

/** Does what HTTPie does with a line such as `$ http PUT :8088/payments/1/pay method=card`. */
function parse(line: string) {
  const [, , ...words] = line.split(/\s+/);
  const method = /^[A-Z]+$/.test(words[0] ?? "") ? words.shift() : undefined;
  const path = (words.shift() ?? "").replace(":8088", "");
  const body = Object.fromEntries(words.map((word) => word.split("=")));
  return {
    method: method ?? (words.length > 0 ? "POST" : "GET"),
    path,
    body: words.length > 0 ? body : undefined,
  };
}

describe("a shop of one's own", () => {
  let shop: TestShop;
  let folder: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "jangteo-own-"));
    const file = join(folder, "bakery.yaml");
    writeFileSync(file, `${bakery}dialect: bakery\n`);
    const table = readFileSync(join(root, "shops", "dialects.yaml"), "utf8");
    writeFileSync(join(folder, "dialects.yaml"), `${table}\n${words}`);
    shop = await TestShop.open(16_000, { shop: file, env: { DIALECTS: join(folder, "dialects.yaml") } });
  });
  after(async () => {
    await shop?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("docs/shops.md: each command of the exercise answers what is said beside it", async () => {
    assert.equal(commands.length, 7);
    for (const [line = "", promised = ""] of commands) {
      const { method, path, body } = parse(line);
      const [status, name] = /^\d{3}/.test(promised)
        ? promised.split(/[,:]/)
        : ["200", promised.split(":")[0]];
      await until(`${line}  # ${promised}`, 20_000, async () => {
        const reply = await shop.http(method, path, body);
        const text = JSON.stringify(reply.body);
        if (reply.status !== Number(status)) return false;
        if (promised.startsWith('"')) return text.includes(promised.slice(1, -1));
        if (promised.includes("paid: false")) return text.includes('"paid":false');
        if (promised.includes("stampQty: 10")) return text.includes('"stampQty":10');
        return status !== "200" || text.includes(name ?? "");
      });
    }
  });

  it("docs/shops.md: words of one's own are rows in a table", async () => {
    const ordered = await shop.http("POST", "/orders", { cakeId: "1", pieces: "1" });
    assert.equal(ordered.status, 201, JSON.stringify(ordered.body));
    assert.deepEqual([ordered.body.cakeId, ordered.body.pieces], [1, 1]);
    const { id } = ordered.body;
    assert.equal((await shop.http("PUT", `/payments/${id}/pay`, {})).status, 200);
    await shop.shows(`/trays/${id}`, { order: id, cake: "Cheesecake", where: "waiting" });
    assert.equal((await shop.http("PUT", `/trays/${id}/bake`)).body.where, "in the oven");
    assert.equal((await shop.http("GET", `/trays/${id}`)).body.where, "in the oven");
    assert.equal((await shop.http("PUT", `/trays/${id}/cool`)).body.where, "on the shelf");
    const refused = await shop.http("POST", "/orders", { cakeId: "1", pieces: "none" });
    assert.deepEqual([refused.status, refused.body.errors[0].field], [422, "pieces"]);
  });
});
