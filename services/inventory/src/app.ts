import { digest } from "#kit/ids.js";
import { keyReused, Problem } from "#kit/problem.js";
import type { Cause, Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import { Conflict, readOne, type Store, Unavailable } from "#kit/sidecar.js";
import {
  type Closed,
  change,
  closeAll,
  hold,
  isVisible,
  PRODUCT,
  type Product,
  type ProductEvent,
  type ProductFields,
  productNotFound,
  RESERVATION,
  type Reservation,
  refuse,
  register,
  registerAs,
  release,
  remove,
  restoreStock,
  takeStock,
  undoTake,
} from "./domain.js";

/** Codes of refusals before anything is taken. */
const NOTHING_TAKEN = new Set(["product-not-found", "out-of-stock"]);

/** What an order needs to know of what it has reserved. */
export interface Reserved {
  orderId: number;
  productId: number;
  productName: string;
  qty: number;
  price: number;
  amount: number;
}

/** How long a repeated registration finds the product that its first one made, in seconds. */
const REMEMBERED_S = 24 * 3600;

interface Remembered {
  id: number;
  fingerprint: string;
}

/**
 * The use cases of the stock.
 *
 * A change of a product asks the order's reservation whether it has happened already, and always after it has read the
 * product. The other way round a repeat could read the reservation before it is there, and the product after that it was
 * forgotten in `open` again, and take the stock twice. (services/loyalty/src/app.ts has the whole argument.)
 */
export class Inventory {
  /** by product: changes that the next write may forget */
  private readonly finished = new Map<number, Set<Closed>>();

  constructor(
    private readonly records: Records,
    private readonly store: Store,
    private readonly shop: Shop,
    private readonly now: () => Date,
  ) {
    records.onResume(PRODUCT, (id) => this.settleOpen(Number(id)), { shared: true });
  }

  /** Puts the shop's catalogue on the shelves (once) and finishes what an earlier process left open. */
  async start(): Promise<void> {
    await this.records
      .ids(PRODUCT)
      .setAside(Math.max(0, ...this.shop.catalogue.map((product) => product.id)));
    const known = await this.records.loadMany(
      PRODUCT,
      this.shop.catalogue.map((product) => product.id),
    );
    for (const { id, ...fields } of this.shop.catalogue) {
      const product = known.get(String(id));
      if (product === undefined) {
        await this.records.handle(PRODUCT, id, { command: `catalogue:${id}` }, (was) =>
          register(was, id, fields),
        );
      } else if (Object.keys(product.open).length > 0) {
        await this.settleOpen(id);
      }
    }
  }

  /**
   * With an idempotency key a repeated request gets the product that the first one made.
   * @param chosen an id that the owner has chosen
   * @throws Problem 409 it is taken, 422 the key belongs to another request
   */
  async register(fields: ProductFields, chosen: number | null = null, key?: string): Promise<Product> {
    if (key !== undefined) return this.registerOnce(fields, chosen, digest(key));
    if (chosen !== null) {
      const product = await this.command(chosen, (was) => registerAs(was, chosen, fields));
      await this.records.ids(PRODUCT).setAside(chosen);
      return product;
    }
    for (;;) {
      const id = await this.records.ids(PRODUCT).next();
      const cause = { command: crypto.randomUUID() };
      const { state, events } = await this.records.handle(PRODUCT, id, cause, (was) =>
        register(was, id, fields),
      );
      if (state !== undefined && events.length > 0) return state;
      // Somebody has chosen this very id meanwhile: it is theirs.
    }
  }

  private async registerOnce(fields: ProductFields, chosen: number | null, key: string): Promise<Product> {
    const fingerprint = digest(JSON.stringify({ ...fields, chosen }));
    for (let etag: string | null = null; ; ) {
      const id = await this.idFor(`idempotency:${key}`, { fingerprint, chosen, etag });
      try {
        const cause = { command: `register:${key}` };
        const { state } = await this.records.handle(PRODUCT, id, cause, (was) => registerAs(was, id, fields));
        if (chosen !== null) await this.records.ids(PRODUCT).setAside(chosen);
        if (state === undefined) throw productNotFound(id);
        return state;
      } catch (error) {
        if (chosen !== null || !(error instanceof Problem) || error.code !== "product-exists") throw error;
        // Somebody has chosen this very id meanwhile: it is theirs, and another one is given.
        etag = (await readOne(this.store, `idempotency:${key}`))?.etag ?? null;
      }
    }
  }

  /** The id of the product that a request registers, the same for its repeats. */
  private async idFor(
    key: string,
    { fingerprint, chosen, etag }: { fingerprint: string; chosen: number | null; etag: string | null },
  ): Promise<number> {
    const id = chosen ?? (await this.records.ids(PRODUCT).next());
    try {
      await this.store.save(key, { id, fingerprint } satisfies Remembered, etag, REMEMBERED_S);
      return id;
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
    }
    const known = (await readOne(this.store, key))?.value as Remembered | undefined;
    if (known === undefined) throw new Unavailable(`${key} has gone`);
    if (known.fingerprint !== fingerprint) {
      throw keyReused(
        "Another product needs a new Idempotency-Key; a repeated request must have the same body.",
      );
    }
    return known.id;
  }

  change(id: number, changes: Partial<ProductFields>): Promise<Product> {
    return this.command(id, (product) => change(product, id, changes));
  }

  async remove(id: number): Promise<void> {
    await this.command(id, (product) => remove(product, id));
  }

  /**
   * Reserves stock for an order, once.
   * @throws Problem 404 product, 409 out of stock, 409 the order was given up
   */
  async reserve(orderId: number, productId: number, qty: number): Promise<Reserved> {
    const holding = { orderId, productId, qty };
    try {
      return await this.take(holding);
    } catch (error) {
      if (!(error instanceof Problem && NOTHING_TAKEN.has(error.code))) throw error;
      // Whoever is refused gives its order up without a word, so a repeat that is still on its way must find nothing either.
      const refusal = { command: `refuse:${orderId}` };
      const { state } = await this.records.handle(
        RESERVATION,
        orderId,
        refusal,
        (was) => refuse(was, holding),
        {
          isNew: true,
        },
      );
      if (state?.status !== "Reserved") throw error;
      return this.take(holding); // a repeat was faster, and got it
    }
  }

  private async take({ orderId, productId, qty }: Omit<Reservation, "status">): Promise<Reserved> {
    const cause = { command: `reserve:${orderId}` };
    const look = () => this.records.load(RESERVATION, orderId);
    let looking: Promise<Reservation | undefined> | undefined;
    const { state: product } = await this.changeStock(productId, cause, async (was, finished) => {
      looking = look();
      const known = await looking;
      hold(known, { orderId, productId, qty });
      if (known !== undefined) return [];
      return takeStock(was, { productId, orderId, qty, at: this.now().toISOString() }, finished);
    });
    // A product that remembers this cause has not been asked.
    const known = await (looking ?? look());
    hold(known, { orderId, productId, qty }); // a repeat is refused as well if the order was given up meanwhile
    if (known !== undefined) return describe(orderId, qty, productId, product);
    try {
      await this.records.handle(
        RESERVATION,
        orderId,
        cause,
        (was) => hold(was, { orderId, productId, qty }),
        {
          isNew: true,
        },
      );
    } catch (error) {
      if (error instanceof Problem) await this.undo(productId, orderId);
      throw error;
    }
    this.finish(productId, { orderId, kind: "reserve" });
    return describe(orderId, qty, productId, product);
  }

  /** The order is cancelled or given up: its pieces go back, once; before they were taken, they never will be. */
  async release(orderId: number, productId: number, messageId: string): Promise<void> {
    const cause = { event: messageId };
    const held = await this.records.load(RESERVATION, orderId);
    if (held?.status === "Reserved") {
      const { qty } = held;
      await this.changeStock(productId, cause, async (was, finished) => {
        const known = await this.records.load(RESERVATION, orderId);
        if (known?.status !== "Reserved") return []; // another delivery of the message was faster
        return restoreStock(was, { productId, orderId, qty, at: this.now().toISOString() }, finished);
      });
    }
    const { state } = await this.records.handle(RESERVATION, orderId, cause, (was) => {
      // Reserved between our reading and now: take it from the top, through the message's redelivery.
      if (held === undefined && was !== undefined) throw new Error(`order ${orderId} was reserved meanwhile`);
      return release(was, orderId, productId);
    });
    // A tombstone holds nothing; should its reserve have got half-way, that half is undone.
    if (state?.qty === 0) await this.undo(productId, orderId);
    else this.finish(productId, { orderId, kind: "restore" });
  }

  async load(id: number): Promise<Product | undefined> {
    const product = await this.records.load(PRODUCT, id);
    return product !== undefined && isVisible(product) ? product : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<Product>> {
    return this.records.page(PRODUCT, { ...request, order: "oldest", visible: isVisible, lasting: false });
  }

  /** Finishes the changes of a product that some process has begun: its reservation says how each has ended. */
  private async settleOpen(productId: number): Promise<void> {
    const product = await this.records.load(PRODUCT, productId);
    const changes = Object.entries(product?.open ?? {});
    const reservations = await this.records.loadMany(
      RESERVATION,
      changes.map(([orderId]) => orderId),
    );
    const closed: Closed[] = [];
    for (const [key, { kind }] of changes) {
      const orderId = Number(key);
      const reservation = reservations.get(key);
      if (reservation?.status === (kind === "reserve" ? "Reserved" : "Released"))
        closed.push({ orderId, kind });
      else if (reservation?.status === "Released") await this.undo(productId, orderId);
      // Otherwise it is under way, or its order is being given up and that message will release it.
    }
    if (closed.length > 0) {
      const cause = { command: `close:${crypto.randomUUID()}` };
      await this.records.handle(PRODUCT, productId, cause, (was) => closeAll(was, closed));
    }
  }

  private async undo(productId: number, orderId: number): Promise<void> {
    await this.records.handle(PRODUCT, productId, { command: `undo:${orderId}` }, (was) =>
      undoTake(was, orderId),
    );
  }

  private async changeStock(
    productId: number,
    cause: Cause,
    decide: (
      was: Product | undefined,
      finished: readonly Closed[],
    ) => ProductEvent[] | Promise<ProductEvent[]>,
  ) {
    let closing: Closed[] = [];
    const outcome = await this.records.handle(PRODUCT, productId, cause, (was) => {
      closing = [...(this.finished.get(productId) ?? [])];
      return decide(was, closing);
    });
    if (outcome.events.length > 0) for (const one of closing) this.finished.get(productId)?.delete(one);
    return outcome;
  }

  private finish(productId: number, change: Closed): void {
    const set = this.finished.get(productId) ?? new Set();
    this.finished.set(productId, set.add(change));
  }

  private async command(id: number, decide: (was: Product | undefined) => ProductEvent[]): Promise<Product> {
    const { state } = await this.records.handle(PRODUCT, id, { command: crypto.randomUUID() }, decide);
    if (state === undefined) throw productNotFound(id);
    return state;
  }
}

function describe(orderId: number, qty: number, productId: number, product: Product | undefined): Reserved {
  if (product === undefined) throw productNotFound(productId);
  const { name, price } = product;
  return { orderId, productId, productName: name, qty, price, amount: price * qty };
}
