import { z } from "zod";
import type { Dialects } from "#kit/dialects.js";
import {
  check,
  collection,
  created,
  del,
  get,
  idempotencyKey,
  idOf,
  itemOf,
  optional,
  patch,
  post,
  put,
  type Route,
  resource,
  type Source,
  whole,
} from "#kit/http.js";
import { MAX_CHOSEN_ID } from "#kit/shop.js";
import type { Inventory } from "./app.js";
import { type Product, productNotFound } from "./domain.js";

const MAX = 1_000_000_000;

const fields = {
  name: z.string().trim().min(1).max(200),
  spec: z.string().max(2_000),
  price: whole(0, MAX),
  stock: whole(0, MAX),
  imageUrl: z.string().max(2_000),
  options: z
    .array(
      z.object({ name: z.string().trim().min(1).max(200), description: z.string().max(2_000).default("") }),
    )
    .max(100),
};
const complete = z.object({
  ...fields,
  spec: fields.spec.default(""),
  imageUrl: fields.imageUrl.default(""),
  options: fields.options.default([]),
});
const numbered = complete.extend({ id: optional(whole(1, MAX_CHOSEN_ID)) });
const part = z
  .object(fields)
  .partial()
  .refine((changes) => Object.keys(changes).length > 0, "names no field that can be changed");
const reservation = z.object({ productId: whole(1, Number.MAX_SAFE_INTEGER), qty: whole(1, 100_000) });

export function represent(id: number, product: Product): object {
  const { name, spec, price, stock, sold, imageUrl } = product;
  return { id, name, spec, price, stock, sold, imageUrl };
}

const links = (id: number) => ({ productOptions: `/products/${id}/productOptions` });

export function routes(inventory: Inventory, dialects: Dialects): Route[] {
  const ways = dialects.ways("products", "product");
  const own = dialects.own("products", "product");
  const source: Source<Product> = {
    page: (request) => inventory.page(request),
    load: (id) => inventory.load(id),
    represent,
    links,
  };
  const said = (product: Product) =>
    itemOf(own, product.id, represent(product.id, product), links(product.id));
  return [
    post("/products", async ({ body, headers }) => {
      const key = idempotencyKey(headers);
      const { id, ...fields } = dialects.check("products", numbered, body);
      const product = await inventory.register(fields, id, key);
      return created(`/products/${product.id}`, said(product));
    }),
    put("/products/:id", async ({ params, body }) => {
      const id = idOf(params.id, "product");
      const changed = await inventory.change(id, dialects.check("products", complete, body));
      return { status: 200, body: said(changed) };
    }),
    patch("/products/:id", async ({ params, body }) => {
      const id = idOf(params.id, "product");
      const changed = await inventory.change(id, dialects.check("products", part, body));
      return { status: 200, body: said(changed) };
    }),
    del("/products/:id", async ({ params }) => {
      await inventory.remove(idOf(params.id, "product"));
      return { status: 204 };
    }),
    get("/products/:id/productOptions", async ({ params }) => {
      const id = idOf(params.id, "product");
      const product = await inventory.load(id);
      if (product === undefined) throw productNotFound(id);
      const self = `/products/${id}/productOptions`;
      return { status: 200, body: resource(self, { _embedded: { productOptions: product.options } }) };
    }),
    // Not for the outside: a step of placing an order.
    put("/reservations/:id", async ({ params, body }) => {
      const { productId, qty } = check(reservation, body);
      const orderId = idOf(params.id, "order");
      const reserved = await inventory.reserve(orderId, productId, qty);
      return { status: 200, body: resource(`/reservations/${orderId}`, reserved) };
    }),
    ...collection<Product>(ways, source),
  ];
}
