import type { Event, EventData } from "#kit/events.js";
import { conflict, Problem } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export interface ProductOption {
  name: string;
  description: string;
}

/** A change of stock that has been applied but whose reservation may not say so yet. */
export interface OpenChange {
  kind: "reserve" | "restore";
  qty: number;
  /** ISO time */
  at: string;
}

export interface Product {
  id: number;
  name: string;
  /** what it is made of, how large it is … */
  spec: string;
  /** integer minor units */
  price: number;
  stock: number;
  /** how many orders have taken some of it */
  sold: number;
  imageUrl: string;
  options: ProductOption[];
  removed: boolean;
  /** by orderId; see the design: a key that many orders share cannot remember them all, only those under way */
  open: Record<string, OpenChange>;
}

/** A change that its reservation records, so that the product may forget it. */
export interface Closed {
  orderId: number;
  kind: OpenChange["kind"];
}

export type ProductFields = Pick<Product, "name" | "spec" | "price" | "stock" | "imageUrl" | "options">;

/** An order's hold on stock: a key of its own, so that a repeat is recognised however late it comes. */
export interface Reservation {
  orderId: number;
  productId: number;
  qty: number;
  status: "Reserved" | "Released";
}

export type ProductEvent =
  | Event<"ProductRegistered" | "ProductChanged" | "ProductRemoved">
  | { type: "StockDecreased"; data: EventData<"StockDecreased"> & { at: string } }
  /** `undone`: a decrease whose order had been given up meanwhile, taken back */
  | { type: "StockRestored"; data: EventData<"StockRestored"> & { at: string; undone: boolean } }
  /** these changes are on record elsewhere and need not be remembered here any more */
  | { type: "ChangesClosed"; data: { orderIds: number[] } };

export type ReservationEvent =
  | { type: "Reserved"; data: { orderId: number; productId: number; qty: number } }
  | { type: "Released"; data: { orderId: number; productId: number } };

const exists = (product: Product | undefined): product is Product =>
  product !== undefined && !product.removed;

export const productNotFound = (id: number): Problem =>
  new Problem(404, "product-not-found", "There is no such product", `There is no product ${id}.`, {
    resource: "product",
    id: String(id),
    errors: [{ field: "productId", reason: "names no product" }],
  });

export function register(product: Product | undefined, id: number, fields: ProductFields): ProductEvent[] {
  return product === undefined ? [{ type: "ProductRegistered", data: { id, ...fields } }] : [];
}

/** With an id that its owner has chosen. */
export function registerAs(product: Product | undefined, id: number, fields: ProductFields): ProductEvent[] {
  if (product !== undefined) throw conflict("product-exists", `There is, or was, a product ${id} already.`);
  return register(product, id, fields);
}

export function change(
  product: Product | undefined,
  id: number,
  changes: Partial<ProductFields>,
): ProductEvent[] {
  if (!exists(product)) throw productNotFound(id);
  return [{ type: "ProductChanged", data: { ...fieldsOf(product), ...changes, id } }];
}

export function remove(product: Product | undefined, id: number): ProductEvent[] {
  if (!exists(product)) throw productNotFound(id);
  return [{ type: "ProductRemoved", data: { ...fieldsOf(product), id } }];
}

/** Takes pieces from the stock for one order, once; closes what else has been finished. */
export function takeStock(
  product: Product | undefined,
  take: { productId: number; orderId: number; qty: number; at: string },
  finished: readonly Closed[],
): ProductEvent[] {
  const { productId, orderId, qty, at } = take;
  if (!exists(product)) throw productNotFound(productId);
  if (product.open[orderId] !== undefined) return [];
  if (product.stock < qty) {
    throw new Problem(
      409,
      "out-of-stock",
      "There is not enough in stock",
      `Product ${productId} has ${product.stock} left.`,
      {
        stock: product.stock,
        errors: [{ field: "qty", reason: `is more than the ${product.stock} in stock` }],
      },
    );
  }
  return [
    ...close(product, finished),
    { type: "StockDecreased", data: { orderId, productId, qty, stock: product.stock - qty, at } },
  ];
}

/** Puts the pieces of a released order back, once; also into a product that is no longer sold. */
export function restoreStock(
  product: Product | undefined,
  restore: { productId: number; orderId: number; qty: number; at: string },
  finished: readonly Closed[],
): ProductEvent[] {
  const { productId, orderId, qty, at } = restore;
  if (product === undefined || product.open[orderId]?.kind === "restore") return [];
  return [
    ...close(product, finished),
    {
      type: "StockRestored",
      data: { orderId, productId, qty, stock: product.stock + qty, at, undone: false },
    },
  ];
}

/** Takes a decrease back whose reservation could not be made because the order had been given up. */
export function undoTake(product: Product | undefined, orderId: number): ProductEvent[] {
  const open = product?.open[orderId];
  if (product === undefined || open?.kind !== "reserve") return [];
  const { qty, at } = open;
  const stock = product.stock + qty;
  return [{ type: "StockRestored", data: { orderId, productId: product.id, qty, stock, at, undone: true } }];
}

function close(product: Product, finished: readonly Closed[]): ProductEvent[] {
  const orderIds = finished
    .filter((one) => product.open[one.orderId]?.kind === one.kind)
    .map((one) => one.orderId);
  return orderIds.length === 0 ? [] : [{ type: "ChangesClosed", data: { orderIds } }];
}

export const closeAll = (product: Product | undefined, finished: readonly Closed[]): ProductEvent[] =>
  product === undefined ? [] : close(product, finished);

export function hold(
  reservation: Reservation | undefined,
  of: Omit<Reservation, "status">,
): ReservationEvent[] {
  if (reservation?.status === "Released") {
    throw new Problem(
      409,
      "reservation-released",
      "The order was given up",
      `Order ${of.orderId} was given up.`,
    );
  }
  return reservation === undefined ? [{ type: "Reserved", data: of }] : [];
}

/** There was nothing to be had: a tombstone, unless a repeat was faster and got it. */
export const refuse = (
  reservation: Reservation | undefined,
  { orderId, productId }: Pick<Reservation, "orderId" | "productId">,
): ReservationEvent[] =>
  reservation === undefined ? [{ type: "Released", data: { orderId, productId } }] : [];

/** Before its reserve this leaves a tombstone, which the reserve will find. */
export function release(
  reservation: Reservation | undefined,
  orderId: number,
  productId: number,
): ReservationEvent[] {
  return reservation?.status === "Released" ? [] : [{ type: "Released", data: { orderId, productId } }];
}

export function evolveProduct(product: Product | undefined, event: ProductEvent): Product {
  if (event.type === "ProductRegistered")
    return { ...fieldsOf(event.data), id: event.data.id, removed: false, sold: 0, open: {} };
  if (product === undefined) throw new Error(`${event.type} without a product`);
  switch (event.type) {
    case "ProductChanged":
      return { ...product, ...fieldsOf(event.data) };
    case "ProductRemoved":
      return { ...product, removed: true };
    case "StockDecreased":
      return { ...opened(product, event.data, "reserve"), sold: product.sold + 1 };
    case "StockRestored": {
      const { stock, orderId, undone } = event.data;
      const sold = product.sold - 1;
      if (!undone) return { ...opened(product, event.data, "restore"), sold };
      return { ...product, stock, sold, open: without(product.open, [orderId]) };
    }
    case "ChangesClosed":
      return { ...product, open: without(product.open, event.data.orderIds) };
  }
}

export function evolveReservation(
  reservation: Reservation | undefined,
  event: ReservationEvent,
): Reservation {
  switch (event.type) {
    case "Reserved":
      return { ...event.data, status: "Reserved" };
    case "Released":
      return { qty: 0, ...event.data, ...reservation, status: "Released" };
  }
}

export const isVisible = (product: Product): boolean => !product.removed;

export const PRODUCT: Aggregate<Product, ProductEvent> = {
  name: "product",
  listed: true,
  evolve: evolveProduct,
};
export const RESERVATION: Aggregate<Reservation, ReservationEvent> = {
  name: "reservation",
  listed: false,
  evolve: evolveReservation,
};

function opened(
  product: Product,
  change: { orderId: number; qty: number; stock: number; at: string },
  kind: OpenChange["kind"],
): Product {
  const { orderId, qty, stock, at } = change;
  return { ...product, stock, open: { ...product.open, [orderId]: { kind, qty, at } } };
}

function without(open: Product["open"], orderIds: readonly number[]): Product["open"] {
  return Object.fromEntries(Object.entries(open).filter(([id]) => !orderIds.includes(Number(id))));
}

function fieldsOf({ name, spec, price, stock, imageUrl, options }: ProductFields): ProductFields {
  return { name, spec, price, stock, imageUrl, options };
}
