import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { MemoryDapr } from "#kit/memory.js";
import { type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  assertProblem,
  cloudEvent,
  embedded,
  type Host,
  type HostOptions,
  hostInMemory,
  listen,
  settled,
  shopWith,
  until,
} from "#kit/testing.js";
import type { Product } from "./domain.js";
import { inventory } from "./main.js";

const hosts: Host[] = [];
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
});

async function start(options: HostOptions = {}, dapr = new MemoryDapr()) {
  const heard = listen(dapr);
  const host = await hostInMemory(dapr, inventory, options);
  hosts.push(host);
  const ended = (orderId: number, productId: number) => ({
    ...{ id: orderId, orderId, productId, productName: "TV", qty: 1, price: 1, amount: 1, reason: "changed" },
    ...{ customerId: null, customerName: null, customerAddr: null },
  });
  return {
    dapr,
    heard,
    http: host.http,
    start: (options: HostOptions) => start(options, dapr),
    reserve: (orderId: number, qty: number, productId = 1) =>
      host.http("PUT", `/reservations/${orderId}`, { productId, qty }),
    cancelled: (orderId: number, productId = 1) =>
      dapr.accept("OrderCancelled", cloudEvent("OrderCancelled", ended(orderId, productId))),
    aborted: (orderId: number, productId = 1) =>
      dapr.accept("OrderAborted", cloudEvent("OrderAborted", ended(orderId, productId))),
    settled: () => settled(dapr),
    stock: async (id = 1) => (await host.http("GET", `/products/${id}`)).body.stock,
    told: async (...types: string[]) => {
      await settled(dapr);
      return heard
        .filter(({ type }) => types.includes(type))
        .map(({ type, data }) => `${type} ${data.orderId ?? data.id} ${data.stock}`);
    },
    /** what the product itself remembers */
    product: (id = 1) =>
      (dapr.stores.get("inventory")?.get(`product:${id}`)?.value as { state: Product } | undefined)?.state,
  };
}

describe("the inventory", () => {
  it("begins with the shop's catalogue, oldest first, as the seed shows it (S0-H7)", async () => {
    const { http, told } = await start();
    const { body } = await http("GET", "/products");
    const products = body._embedded?.products as unknown as { id: number }[];
    assert.deepEqual(products[0], {
      ...{ "@id": 1, id: 1, name: "TV", spec: "", price: 10_000, stock: 100, sold: 0, imageUrl: "" },
      _links: {
        self: { href: "/products/1" },
        product: { href: "/products/1" },
        productOptions: { href: "/products/1/productOptions" },
      },
    });
    assert.deepEqual(
      products.map(({ id }) => id),
      [1, 2, 3],
    );
    assert.deepEqual(await told("ProductRegistered"), [
      ...["ProductRegistered 1 100", "ProductRegistered 2 5", "ProductRegistered 3 1"],
    ]);
    const options = await http("GET", "/products/1/productOptions");
    assert.deepEqual(options.body._embedded?.productOptions, [{ name: "60", description: "inch" }]);
  });

  it("begins with it once: a new start changes nothing", async () => {
    const first = await start();
    await first.reserve(7, 3);
    await first.http("PUT", "/products/2", { name: "HAT", price: 5, stock: 50 });
    await first.http("DELETE", "/products/3");
    const second = await first.start({ slot: "inventory-1" });
    const { body } = await second.http("GET", "/products");
    const products = body._embedded?.products as unknown as { name: string; stock: number }[];
    assert.deepEqual(
      products.map(({ name, stock }) => [name, stock]),
      [
        ["TV", 97],
        ["HAT", 50],
      ],
    );
  });

  it("lets the owner register, change and remove products (S0-F1)", async () => {
    const { http, told } = await start();
    const options = [{ name: "L" }];
    const coat = { name: " Coat ", spec: "wool", price: "5", stock: "2", options };
    const registered = await http("POST", "/products", coat);
    assert.deepEqual([registered.status, registered.headers.location], [201, "/products/4"]);
    assert.deepEqual(
      [registered.body.name, registered.body.spec, registered.body.price, registered.body.imageUrl],
      ["Coat", "wool", 5, ""],
    );
    const shown = await http("GET", "/products/4/productOptions");
    assert.deepEqual(shown.body._embedded?.productOptions, [{ name: "L", description: "" }]);

    const patched = await http("PATCH", "/products/4", { price: 6 });
    assert.deepEqual([patched.body.name, patched.body.price, patched.body.stock], ["Coat", 6, 2]);
    assert.equal(patched.body.spec, "wool");
    const put = await http("PUT", "/products/4", { name: "Cape", price: 7, stock: 3 });
    assert.deepEqual([put.body.name, put.body.price, put.body.stock], ["Cape", 7, 3]);
    assert.equal(put.body.spec, "", "what a replacement leaves out is empty");
    assert.deepEqual((await http("GET", "/products/4/productOptions")).body._embedded?.productOptions, []);

    const removed = await http("DELETE", "/products/4");
    assert.deepEqual([removed.status, removed.body], [204, ""]);
    for (const [method, body] of [
      ["GET"],
      ["PUT", { name: "x", price: 1, stock: 1 }],
      ["PATCH", { price: 1 }],
      ["DELETE"],
    ] as const)
      assertProblem(
        await http(method, "/products/4", body),
        404,
        method === "GET" ? "not-found" : "product-not-found",
      );
    assertProblem(await http("GET", "/products/4/productOptions"), 404, "product-not-found");
    assert.deepEqual(await told("ProductChanged", "ProductRemoved"), [
      ...["ProductChanged 4 2", "ProductChanged 4 3", "ProductRemoved 4 3"],
    ]);
    assert.equal((await http("POST", "/products", { name: "next", price: 1, stock: 1 })).body.id, 5);
  });

  it("checks what the owner sends", async () => {
    const { http } = await start();
    const good = { name: "Coat", price: 5, stock: 2 };
    for (const [method, path, body, field] of [
      ["POST", "/products", { ...good, name: "" }, "name"],
      ["POST", "/products", { ...good, spec: 5 }, "spec"],
      ["POST", "/products", { ...good, id: 0 }, "id"],
      ["POST", "/products", { ...good, id: 10_001 }, "id"],
      ["POST", "/products", { ...good, productId: 1.5 }, "productId"],
      ["POST", "/products", { ...good, id: 5, productId: 6 }, "productId"],
      ["POST", "/products", { name: "Rose", price: 1, qty: -1 }, "qty"],
      ["POST", "/products", { ...good, price: -1 }, "price"],
      ["POST", "/products", { ...good, price: 0.5 }, "price"],
      ["POST", "/products", { ...good, stock: "many" }, "stock"],
      ["POST", "/products", { ...good, options: [{}] }, "options.0.name"],
      ["POST", "/products", { name: "Coat" }, "price"],
      ["PUT", "/products/1", { price: 1 }, "name"],
      ["PATCH", "/products/1", { stock: -1 }, "stock"],
      ["PATCH", "/products/1", {}, "body"],
      ["PATCH", "/products/1", { colour: "red" }, "body"],
      ["PUT", "/reservations/7", { productId: 1, qty: 0 }, "qty"],
      ["PUT", "/reservations/7", { qty: 1 }, "productId"],
    ] as const) {
      const problem = assertProblem(await http(method, path, body), 422, "invalid-field");
      assert.equal(problem.errors?.[0]?.field, field, JSON.stringify(body));
    }
  });

  it("lists many products, oldest first, page by page", async () => {
    const { http } = await start();
    for (let i = 4; i <= 30; i++) await http("POST", "/products", { name: `P${i}`, price: i, stock: i });
    const page = await http("GET", "/products?page=1&size=20");
    const ids = embedded(page, "products").map(({ id }) => id);
    assert.deepEqual(
      ids,
      Array.from({ length: 10 }, (_, i) => 21 + i),
    );
    assert.deepEqual(page.body.page, { size: 20, totalElements: 30, totalPages: 2, number: 1 });
  });
});

describe("an id that the owner has chosen (S2-D4)", () => {
  const rose = { name: "Rose", spec: "red", price: 3000, stock: 10 };

  it("is the product's, and what is listed stays in order", async () => {
    const { http, told } = await start();
    const chosen = await http("POST", "/products", { ...rose, id: 7 });
    assert.deepEqual([chosen.status, chosen.headers.location, chosen.body.id], [201, "/products/7", 7]);
    const { body } = await http("GET", "/products");
    assert.deepEqual(
      embedded({ status: 200, headers: {}, body }, "products").map(({ id }) => id),
      [1, 2, 3, 7],
    );
    assert.deepEqual((await told("ProductRegistered")).at(-1), "ProductRegistered 7 10");
  });

  it("may be taken: 409, and nothing is changed, not even by one that was removed", async () => {
    const { http } = await start();
    for (const id of [1, "2"])
      assertProblem(await http("POST", "/products", { ...rose, id }), 409, "product-exists");
    assert.equal((await http("GET", "/products/1")).body.name, "TV");
    await http("DELETE", "/products/3");
    assertProblem(await http("POST", "/products", { ...rose, id: 3 }), 409, "product-exists");
    assertProblem(await http("GET", "/products/3"), 404, "not-found");
  });

  it("goes to one of those who choose it at once", async () => {
    const one = await start();
    const other = await one.start({ slot: "inventory-1" });
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        (i % 2 ? one : other).http("POST", "/products", { ...rose, name: `Rose ${i}`, id: 50 }),
      ),
    );
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 409, 409, 409, 409, 409]);
    const winner = answers.find(({ status }) => status === 201);
    assert.equal((await one.http("GET", "/products/50")).body.name, winner?.body.name);
  });

  it("is never given to another product, at any replica", async () => {
    const one = await start();
    const other = await one.start({ slot: "inventory-1" });
    const ids: number[] = [];
    const register = async (at: typeof one, body: object) => {
      const { status, body: made } = await at.http("POST", "/products", body);
      assert.equal(status, 201, JSON.stringify(made));
      ids.push(Number(made.id));
      return Number(made.id);
    };
    // Each replica hands ids out of a block of its own: the chosen ones lie in both, and far beyond.
    const next = await register(one, rose);
    const nextThere = await register(other, rose);
    for (const id of [next + 1, next + 2, nextThere + 1, nextThere + 3, 300])
      await register(one, { ...rose, id });
    for (let i = 0; i < 40; i++) await register(i % 2 ? one : other, rose);
    await register(other, { ...rose, id: 10_000 });
    for (let i = 0; i < 10; i++) await register(i % 2 ? one : other, rose);
    assert.equal(new Set(ids).size, ids.length, ids.join(" "));
  });

  it("is given once to a request that is repeated with its Idempotency-Key, also by another replica", async () => {
    const one = await start({ slot: "inventory-0" });
    const other = await one.start({ slot: "inventory-1" });
    const key = { "Idempotency-Key": "roses" };
    const made = await Promise.all([one, other, one].map((at) => at.http("POST", "/products", rose, key)));
    assert.deepEqual(
      made.map(({ status, body }) => [status, body.id]),
      made.map(() => [201, made[0]?.body.id]),
    );
    assertProblem(
      await one.http("POST", "/products", { ...rose, price: 1 }, key),
      422,
      "idempotency-key-reused",
    );
    const chosen = { ...rose, id: 77 };
    for (const at of [one, other])
      assert.equal((await at.http("POST", "/products", chosen, { "Idempotency-Key": "77" })).status, 201);
    assertProblem(
      await one.http("POST", "/products", chosen, { "Idempotency-Key": "78" }),
      409,
      "product-exists",
    );
    assert.equal((await one.told("ProductRegistered")).length, 3 + 2);
  });

  it("of a repeated request is another one if somebody has chosen it meanwhile", async () => {
    const { http, product } = await start();
    const next = Number((await http("POST", "/products", rose)).body.id) + 1;
    await http("POST", "/products", { ...rose, name: "Tulip", id: next });
    const key = { "Idempotency-Key": "late" };
    const { body } = await http("POST", "/products", rose, key);
    assert.ok(Number(body.id) > next);
    assert.equal((await http("POST", "/products", rose, key)).body.id, body.id);
    assert.equal(product(next)?.name, "Tulip");
  });

  it("may be left out, empty or null: then the next one is given", async () => {
    const { http } = await start();
    const ids: unknown[] = [];
    for (const id of [undefined, null, ""])
      ids.push((await http("POST", "/products", { ...rose, id })).body.id);
    assert.deepEqual(ids, [4, 5, 6]);
  });
});

describe("a product in the words of the seeds", () => {
  it("is registered, changed and shown with the flowers' names (S2-D4)", async () => {
    const { http } = await start({ shop: shopWith({ dialect: "flower" }) });
    const sent = { productId: 9, name: "Rose", spec: "red", qty: 10, price: 3000 };
    const made = await http("POST", "/products", sent);
    assert.equal(made.status, 201);
    const { _links, ...body } = made.body;
    assert.deepEqual(body, { ...sent, id: 9, stock: 10, sold: 0, imageUrl: "" });
    const changed = await http("PATCH", "/products/9", { qty: 4 });
    assert.deepEqual([changed.body.stock, changed.body.qty], [4, 4]);
  });

  it("is also a productInfo, a menu and a topBook, in these words alone (S2-R2, S4-D4, S1-R2)", async () => {
    const { http, reserve, settled } = await start();
    await http("PATCH", "/products/1", { spec: "60 inch" });
    await reserve(7, 3);
    await settled();
    for (const [path, one, item] of [
      ["productInfos", "productInfo", { productId: 1, name: "TV", spec: "60 inch", qty: 97, price: 10_000 }],
      ["menus", "menu", { id: 1, name: "TV", price: 10_000 }],
      ["topBooks", "topBook", { id: 1, bookid: 1, count: 1 }],
    ] as const) {
      const list = await http("GET", `/${path}`);
      const { _links, ...first } = embedded(list, path)[0] ?? {};
      assert.deepEqual(first, item, path);
      const self = { href: `/${path}/1` };
      assert.deepEqual([_links?.self, _links?.[one]], [self, self]);
      assert.deepEqual((await http("GET", `/${path}/1`)).body, { ...item, _links });
      assert.deepEqual(list.body.page, { size: 20, totalElements: 3, totalPages: 1, number: 0 });
      assertProblem(await http("GET", `/${path}/9`), 404, "not-found");
      assertProblem(await http("POST", `/${path}`, item), 405, "method-not-allowed");
      assert.equal((await http("GET", `/profile/${path}`)).status, 200);
    }
  });
});

describe("how many orders a product was sold in (S1-R2)", () => {
  it("counts orders, not pieces, and those that were taken back no more", async () => {
    const { http, reserve, cancelled, aborted, settled } = await start();
    const sold = async () => (await http("GET", "/products/1")).body.sold;
    await reserve(7, 3);
    await reserve(7, 3);
    await reserve(8, 1);
    assert.equal(await sold(), 2);
    assertProblem(await reserve(9, 1000), 409, "out-of-stock");
    assert.equal(await sold(), 2);
    cancelled(7);
    cancelled(7);
    aborted(10);
    await settled();
    assert.equal(await sold(), 1);
    assert.equal(
      (await http("PATCH", "/products/1", { price: 1 })).body.sold,
      1,
      "whatever its owner changes",
    );
  });
});

describe("stock", () => {
  it("is reserved for an order once, and the answer says what it costs", async () => {
    const { reserve, stock, told } = await start();
    const reserved = await reserve(7, 3);
    const { _links, ...body } = reserved.body;
    assert.deepEqual(body, {
      orderId: 7,
      productId: 1,
      productName: "TV",
      qty: 3,
      price: 10_000,
      amount: 30_000,
    });
    const again = await Promise.all([reserve(7, 3), reserve(7, 3)]);
    assert.deepEqual([again[0]?.body, again[1]?.body], [reserved.body, reserved.body]);
    assert.equal(await stock(), 97);
    assert.deepEqual(await told("StockDecreased"), ["StockDecreased 7 97"]);
  });

  it("may be ordered down to the last piece (S2-T3)", async () => {
    const { reserve, stock } = await start();
    assert.equal((await reserve(7, 5, 2)).status, 200);
    assert.equal(await stock(2), 0);
    assertProblem(await reserve(8, 1, 2), 409, "out-of-stock");
  });

  it("is never given out twice: of many orders at two replicas just so many get it", async () => {
    const one = await start();
    const other = await one.start({ slot: "inventory-1" });
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => (i % 2 ? one : other).reserve(i + 1, 1, 2)),
    );
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [...Array(5).fill(200), ...Array(7).fill(409)]);
    for (const answer of answers) if (answer.status === 409) assertProblem(answer, 409, "out-of-stock");
    assert.equal(await one.stock(2), 0);
  });

  it("goes back once when the order is cancelled or given up", async () => {
    const { reserve, cancelled, aborted, stock, told } = await start();
    await reserve(7, 3);
    await reserve(8, 2);
    cancelled(7);
    cancelled(7);
    aborted(8);
    assert.deepEqual((await told("StockRestored")).length, 2);
    assert.equal(await stock(), 100);
    cancelled(7);
    aborted(7);
    await told();
    assert.equal(await stock(), 100);
    assertProblem(await reserve(7, 3), 409, "reservation-released");
  });

  it("is not taken for an order that was given up before", async () => {
    const { reserve, aborted, stock, told } = await start();
    aborted(7);
    await told();
    assertProblem(await reserve(7, 3), 409, "reservation-released");
    assert.equal(await stock(), 100);
    assert.deepEqual(await told("StockDecreased", "StockRestored"), []);
  });

  it("goes back into a product that is no longer sold", async () => {
    const { http, reserve, cancelled, settled, product } = await start();
    await reserve(7, 3);
    await http("DELETE", "/products/1");
    assertProblem(await reserve(8, 1), 404, "product-not-found");
    assert.equal((await reserve(7, 3)).status, 200, "what is reserved is reserved");
    cancelled(7);
    await settled();
    assert.deepEqual([product()?.stock, product()?.removed], [100, true]);
  });

  it("forgets the orders that are done with, however many they are", async () => {
    const { reserve, cancelled, settled, product } = await start();
    for (let order = 1; order <= 40; order++) {
      await reserve(order, 1);
      if (order % 2) cancelled(order);
      await settled();
    }
    assert.equal(product()?.stock, 80);
    assert.ok(Object.keys(product()?.open ?? {}).length <= 2, JSON.stringify(product()?.open));
    // A repeat, thousands of changes later as it were, is still recognised.
    cancelled(1);
    await reserve(2, 1);
    await settled();
    assert.equal(product()?.stock, 80);
  });

  it("is taken once though a repeat begins before it is reserved and goes on when all about it is forgotten", async () => {
    const { start: another, reserve, product } = await start();
    let goOn: () => void = () => {};
    const stopped = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    let waits = false;
    const late = await another({
      slot: "inventory-1",
      through: (sidecar) => ({
        ...sidecar,
        store: {
          ...sidecar.store,
          get: async (keys) => {
            if (waits && keys.includes("product:1")) await stopped;
            return sidecar.store.get(keys);
          },
        },
      }),
    });
    waits = true;
    const repeat = late.reserve(7, 3);
    await reserve(7, 3);
    for (let orderId = 8; orderId < 40; orderId++) assert.equal((await reserve(orderId, 1)).status, 200);
    assert.equal(product()?.open[7], undefined);
    goOn();
    assert.equal((await repeat).status, 200);
    assert.equal(product()?.stock, 100 - 3 - 32);
  });

  it("that cannot be reserved, for the store is away, leaves nothing unheard behind", async () => {
    const { dapr, reserve } = await start();
    const unheard: unknown[] = [];
    const hear = (reason: unknown) => unheard.push(reason);
    process.on("unhandledRejection", hear);
    try {
      dapr.down.add("inventory");
      assertProblem(await reserve(7, 3), 503, "unavailable");
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(unheard, [], "it would end the process");
    } finally {
      process.off("unhandledRejection", hear);
    }
  });

  it("adds up again after a crash between taking and reserving, by a repeat", async () => {
    const { start: another, reserve, product, dapr } = await start();
    const cut = await another({ slot: "cut", through: failing("reservation:7") });
    assertProblem(await cut.reserve(7, 3), 503, "unavailable");
    assert.equal(product()?.stock, 97);
    assert.equal(dapr.stores.get("inventory")?.has("reservation:7"), false);
    assert.equal((await reserve(7, 3)).status, 200);
    assert.equal(product()?.stock, 97);
  });

  it("adds up again after such a crash when the order is given up", async () => {
    const { start: another, aborted, settled, product } = await start();
    const cut = await another({ slot: "cut", through: failing("reservation:7", 1) });
    await cut.reserve(7, 3);
    assert.equal(product()?.stock, 97);
    aborted(7);
    await settled();
    await until(() => product()?.stock === 100, "the stock is back");
    assert.deepEqual(product()?.open, {});
  });

  it("adds up again after a crash between putting back and releasing, by the message's redelivery", async () => {
    const {
      start: another,
      reserve,
      cancelled,
      settled,
      product,
    } = await start({ through: failing("reservation:7", 1, 1) });
    await reserve(7, 3);
    cancelled(7);
    await settled();
    assert.equal(product()?.stock, 100);
    const next = await another({ slot: "inventory-1" });
    cancelled(7);
    await next.settled();
    assert.equal(product()?.stock, 100);
    assertProblem(await next.reserve(7, 3), 409, "reservation-released");
  });

  it("that a dead process left half-way is settled by the next start", async () => {
    const at = Date.now();
    const { start: another, product, dapr, settled } = await start();
    const cut = await another({
      slot: "cut",
      through: failing("reservation:"),
      now: () => new Date(at - 60_000),
    });
    await cut.reserve(7, 3);
    await cut.reserve(8, 2);
    const rows = dapr.stores.get("inventory");
    const product1 = rows?.get("product:1")?.value as { state: Product };
    for (const open of Object.values(product1.state.open)) open.at = new Date(at - 60_000).toISOString();
    // Since then 7 was given up (a tombstone), and 8 was reserved after all.
    const state = { orderId: 7, productId: 1, qty: 0, status: "Released" };
    rows?.set("reservation:7", { value: { state, version: 1, seen: [], outbox: [], by: "x" }, etag: "x7" });
    const held = { orderId: 8, productId: 1, qty: 2, status: "Reserved" };
    rows?.set("reservation:8", {
      value: { state: held, version: 1, seen: [], outbox: [], by: "x" },
      etag: "x8",
    });
    await another({ slot: "inventory-1" });
    await settled();
    assert.equal(product()?.stock, 98);
    assert.deepEqual(product()?.open, {});
  });
});

/** Fails writes of keys that begin so: all, or `times` of them after letting `first` through. */
function failing(prefix: string, times = Number.POSITIVE_INFINITY, first = 0) {
  let through = first;
  let left = times;
  return (sidecar: Sidecar): Sidecar => ({
    ...sidecar,
    store: {
      ...sidecar.store,
      save: async (key, ...rest) => {
        if (key.startsWith(prefix) && through-- <= 0 && left-- > 0) throw new Unavailable("cut off");
        await sidecar.store.save(key, ...rest);
      },
    },
  });
}
