import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given } from "#kit/testing.js";
import {
  type Closed,
  change,
  closeAll,
  hold,
  isVisible,
  PRODUCT,
  type Product,
  type ProductEvent,
  RESERVATION,
  type ReservationEvent,
  register,
  registerAs,
  release,
  remove,
  restoreStock,
  takeStock,
  undoTake,
} from "./domain.js";

const at = "2024-01-01T00:00:00.000Z";
const fields = {
  name: "TV",
  spec: "60 inch",
  price: 10_000,
  stock: 10,
  imageUrl: "/tv.jpg",
  options: [{ name: "60", description: "inch" }],
};
const take = (orderId: number, qty: number) => ({ productId: 1, orderId, qty, at });
const reserved = (orderId: number): Closed => ({ orderId, kind: "reserve" });
const restored = (orderId: number): Closed => ({ orderId, kind: "restore" });

const registered: ProductEvent = { type: "ProductRegistered", data: { ...fields, id: 1 } };
const removed: ProductEvent = { type: "ProductRemoved", data: { ...fields, id: 1 } };
const decreased = (orderId: number, qty: number, stock: number): ProductEvent => ({
  type: "StockDecreased",
  data: { orderId, productId: 1, qty, stock, at },
});
const increased = (orderId: number, qty: number, stock: number, undone = false): ProductEvent => ({
  type: "StockRestored",
  data: { orderId, productId: 1, qty, stock, at, undone },
});
const closed = (...orderIds: number[]): ProductEvent => ({ type: "ChangesClosed", data: { orderIds } });

const histories = {
  none: [],
  registered: [registered],
  "3 taken for order 7": [registered, decreased(7, 3, 7)],
  "taken and closed": [registered, decreased(7, 3, 7), closed(7)],
  "put back": [registered, decreased(7, 3, 7), closed(7), increased(7, 3, 10)],
  removed: [registered, removed],
  "3 taken, then removed": [registered, decreased(7, 3, 7), removed],
};

describe("a product", () => {
  decides(
    PRODUCT,
    histories,
    {
      register: (product) => register(product, 1, fields),
      "register with this id": (product) => registerAs(product, 1, fields),
      change: (product) => change(product, 1, { price: 1 }),
      remove: (product) => remove(product, 1),
      "take 3 for order 7": (product) => takeStock(product, take(7, 3), []),
      "take 8 for order 8": (product) => takeStock(product, take(8, 8), []),
      "put 3 of order 7 back": (product) => restoreStock(product, take(7, 3), []),
      "undo order 7": (product) => undoTake(product, 7),
      "close the take of 7": (product) => closeAll(product, [reserved(7)]),
      "close the put-back of 7": (product) => closeAll(product, [restored(7)]),
    },
    {
      register: {
        none: "ProductRegistered",
        registered: "nothing",
        "3 taken for order 7": "nothing",
        "taken and closed": "nothing",
        "put back": "nothing",
        removed: "nothing",
        "3 taken, then removed": "nothing",
      },
      "register with this id": {
        none: "ProductRegistered",
        registered: "409 product-exists",
        "3 taken for order 7": "409 product-exists",
        "taken and closed": "409 product-exists",
        "put back": "409 product-exists",
        // Its orders may still be on their way.
        removed: "409 product-exists",
        "3 taken, then removed": "409 product-exists",
      },
      change: {
        none: "404 product-not-found",
        registered: "ProductChanged",
        "3 taken for order 7": "ProductChanged",
        "taken and closed": "ProductChanged",
        "put back": "ProductChanged",
        removed: "404 product-not-found",
        "3 taken, then removed": "404 product-not-found",
      },
      remove: {
        none: "404 product-not-found",
        registered: "ProductRemoved",
        "3 taken for order 7": "ProductRemoved",
        "taken and closed": "ProductRemoved",
        "put back": "ProductRemoved",
        removed: "404 product-not-found",
        "3 taken, then removed": "404 product-not-found",
      },
      "take 3 for order 7": {
        none: "404 product-not-found",
        registered: "StockDecreased",
        "3 taken for order 7": "nothing",
        // Who asks again so late is stopped by the reservation, see below.
        "taken and closed": "StockDecreased",
        "put back": "nothing",
        removed: "404 product-not-found",
        "3 taken, then removed": "404 product-not-found",
      },
      "take 8 for order 8": {
        none: "404 product-not-found",
        registered: "StockDecreased",
        "3 taken for order 7": "409 out-of-stock",
        "taken and closed": "409 out-of-stock",
        "put back": "StockDecreased",
        removed: "404 product-not-found",
        "3 taken, then removed": "404 product-not-found",
      },
      "put 3 of order 7 back": {
        none: "nothing",
        registered: "StockRestored",
        "3 taken for order 7": "StockRestored",
        "taken and closed": "StockRestored",
        "put back": "nothing",
        removed: "StockRestored",
        "3 taken, then removed": "StockRestored",
      },
      "undo order 7": {
        none: "nothing",
        registered: "nothing",
        "3 taken for order 7": "StockRestored",
        "taken and closed": "nothing",
        "put back": "nothing",
        removed: "nothing",
        "3 taken, then removed": "StockRestored",
      },
      "close the take of 7": {
        none: "nothing",
        registered: "nothing",
        "3 taken for order 7": "ChangesClosed",
        "taken and closed": "nothing",
        "put back": "nothing",
        removed: "nothing",
        "3 taken, then removed": "ChangesClosed",
      },
      "close the put-back of 7": {
        none: "nothing",
        registered: "nothing",
        "3 taken for order 7": "nothing",
        "taken and closed": "nothing",
        "put back": "ChangesClosed",
        removed: "nothing",
        "3 taken, then removed": "nothing",
      },
    },
  );

  it("is put on the shelves, changed in part, and taken off", () => {
    const decided = given(PRODUCT).when((product) => register(product, 1, fields));
    decided.thenHappens(registered);
    assert.deepEqual(decided.state, { ...fields, id: 1, sold: 0, removed: false, open: {} });
    const changed = given(PRODUCT, registered).when((product) =>
      change(product, 1, { stock: 0, options: [] }),
    );
    changed.thenHappens({ type: "ProductChanged", data: { ...fields, stock: 0, options: [], id: 1 } });
    assert.equal(changed.state?.stock, 0);
    const gone = given(PRODUCT, registered).when((product) => remove(product, 1));
    assert.ok(gone.state && !isVisible(gone.state));
    assert.ok(changed.state && isVisible(changed.state));
  });

  it("keeps what is under way when its owner changes it", () => {
    const decided = given(PRODUCT, registered, decreased(7, 3, 7)).when((product) =>
      change(product, 1, { price: 1 }),
    );
    assert.deepEqual(decided.state?.open, { 7: { kind: "reserve", qty: 3, at } });
    assert.equal(decided.state?.stock, 7);
  });

  it("counts the orders that hold some of it", () => {
    const sold = (...history: ProductEvent[]) => given(PRODUCT, registered, ...history).state?.sold;
    assert.equal(sold(decreased(7, 3, 7), decreased(8, 1, 6)), 2);
    assert.equal(sold(decreased(7, 3, 7), closed(7), increased(7, 3, 10)), 0);
    assert.equal(sold(decreased(7, 3, 7), increased(7, 3, 10, true)), 0);
    const changed = given(PRODUCT, registered, decreased(7, 3, 7)).when((product) =>
      change(product, 1, { name: "Radio" }),
    );
    assert.equal(changed.state?.sold, 1);
  });

  it("gives the last piece, and not one more (S2-T3)", () => {
    const decided = given(PRODUCT, registered).when((product) => takeStock(product, take(7, 10), []));
    decided.thenHappens(decreased(7, 10, 0));
    given(PRODUCT, registered, decreased(7, 10, 0))
      .when((product) => takeStock(product, take(8, 1), []))
      .thenRefused(409, "out-of-stock");
  });

  it("says how many are left to who asks for more", () => {
    assert.throws(() => takeStock(given(PRODUCT, registered).state, take(7, 11), []), {
      extra: { stock: 10, errors: [{ field: "qty", reason: "is more than the 10 in stock" }] },
    });
  });

  it("takes a decrease back with the quantity that was taken", () => {
    const decided = given(PRODUCT, registered, decreased(7, 3, 7), decreased(8, 2, 5)).when((product) =>
      undoTake(product, 7),
    );
    decided.thenHappens(increased(7, 3, 8, true));
    assert.deepEqual(decided.state?.open, { 8: { kind: "reserve", qty: 2, at } });
  });

  it("forgets finished changes with the next write, by their kind", () => {
    const before = [registered, decreased(7, 3, 7), decreased(8, 2, 5)];
    const taken = given(PRODUCT, ...before).when((product) =>
      takeStock(product, take(9, 1), [reserved(7), restored(8), reserved(99)]),
    );
    taken.thenHappens(closed(7), decreased(9, 1, 4));
    assert.deepEqual(Object.keys(taken.state?.open ?? {}), ["8", "9"]);
    const put = given(PRODUCT, ...before).when((product) => restoreStock(product, take(7, 3), [reserved(7)]));
    put.thenHappens(closed(7), increased(7, 3, 8));
    assert.deepEqual(
      put.state?.open[7],
      { kind: "restore", qty: 3, at },
      "its take is closed, its put-back open",
    );
  });

  it("remembers a put-back whose take was never closed as a put-back", () => {
    const { state } = given(PRODUCT, registered, decreased(7, 3, 7)).when((product) =>
      restoreStock(product, take(7, 3), []),
    );
    assert.deepEqual(state?.open, { 7: { kind: "restore", qty: 3, at } });
    assert.equal(undoTake(state, 7).length, 0, "so that nobody puts it back twice");
  });

  it("cannot begin in the middle", () => {
    assert.throws(() => given(PRODUCT, removed), /ProductRemoved without a product/);
  });

  it("never makes or loses a piece, whatever is done to its orders and however often", () => {
    // Every sequence of four steps for two orders: what is not on the shelf is held by a reservation.
    const steps: Record<string, (world: World) => void> = {
      take7: (world) => reserve(world, 7, 3),
      take8: (world) => reserve(world, 8, 8),
      release7: (world) => giveBack(world, 7),
      release8: (world) => giveBack(world, 8),
    };
    const names = Object.keys(steps);
    const walk = (done: string[]) => {
      if (done.length === 4) {
        const world: World = { product: given(PRODUCT, registered).state, held: new Map(), finished: [] };
        for (const name of done) steps[name]?.(world);
        const held = [...world.held.values()].filter((one) => one?.status === "Reserved");
        const sum = held.reduce((pieces, one) => pieces + (one?.qty ?? 0), world.product?.stock ?? 0);
        assert.equal(sum, 10, done.join(" "));
        assert.ok((world.product?.stock ?? -1) >= 0, done.join(" "));
        return;
      }
      for (const name of names) walk([...done, name]);
    };
    walk([]);
  });
});

describe("a reservation", () => {
  const held: ReservationEvent = { type: "Reserved", data: { orderId: 7, productId: 1, qty: 3 } };
  const released: ReservationEvent = { type: "Released", data: { orderId: 7, productId: 1 } };

  decides(
    RESERVATION,
    { none: [], reserved: [held], released: [held, released], tombstone: [released] },
    {
      hold: (reservation) => hold(reservation, { orderId: 7, productId: 1, qty: 3 }),
      release: (reservation) => release(reservation, 7, 1),
    },
    {
      hold: {
        none: "Reserved",
        reserved: "nothing",
        released: "409 reservation-released",
        tombstone: "409 reservation-released",
      },
      release: { none: "Released", reserved: "Released", released: "nothing", tombstone: "nothing" },
    },
  );

  it("keeps its quantity when it is released; a tombstone has none", () => {
    assert.deepEqual(given(RESERVATION, held, released).state, {
      ...{ orderId: 7, productId: 1, qty: 3, status: "Released" },
    });
    assert.equal(given(RESERVATION, released).state?.qty, 0);
  });
});

// The steps of app.ts, without stores in between.

type Held = ReturnType<typeof RESERVATION.evolve> | undefined;
interface World {
  product: Product | undefined;
  held: Map<number, Held>;
  finished: Closed[];
}

const apply = (world: World, events: ProductEvent[]) => {
  world.product = events.reduce<Product | undefined>(PRODUCT.evolve, world.product);
  if (events.length > 0) world.finished = [];
};

function reserve(world: World, orderId: number, qty: number): void {
  try {
    const held = world.held.get(orderId);
    const events = hold(held, { orderId, productId: 1, qty });
    if (held === undefined) apply(world, takeStock(world.product, take(orderId, qty), world.finished));
    world.held.set(orderId, events.reduce<Held>(RESERVATION.evolve, held));
    world.finished.push(reserved(orderId));
  } catch (error) {
    assert.match(String(error), /left|given up/);
  }
}

function giveBack(world: World, orderId: number): void {
  const held = world.held.get(orderId);
  if (held?.status === "Reserved")
    apply(world, restoreStock(world.product, take(orderId, held.qty), world.finished));
  world.held.set(orderId, release(held, orderId, 1).reduce<Held>(RESERVATION.evolve, held));
  world.finished.push(restored(orderId));
}
