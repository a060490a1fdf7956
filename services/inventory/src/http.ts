import { z } from "zod";
import {
  check,
  collection,
  created,
  del,
  get,
  idOf,
  ok,
  patch,
  post,
  put,
  type Route,
  resource,
  whole,
} from "#kit/http.js";
import type { Inventory } from "./app.js";
import { type Product, productNotFound } from "./domain.js";

const MAX = 1_000_000_000;

const fields = {
  name: z.string().trim().min(1).max(200),
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
  imageUrl: fields.imageUrl.default(""),
  options: fields.options.default([]),
});
const part = z
  .object(fields)
  .partial()
  .refine((changes) => Object.keys(changes).length > 0, "names no field that can be changed");
const reservation = z.object({ productId: whole(1, Number.MAX_SAFE_INTEGER), qty: whole(1, 100_000) });

export function represent(id: number, product: Product): object {
  const { name, price, stock, imageUrl } = product;
  return { "@id": id, id, name, price, stock, imageUrl };
}

const links = (id: number) => ({ productOptions: `/products/${id}/productOptions` });

export function routes(inventory: Inventory): Route[] {
  const answer = (id: number, product: Product) =>
    ok(`/products/${id}`, represent(id, product), { product: `/products/${id}`, ...links(id) });
  return [
    post("/products", async ({ body }) => {
      const product = await inventory.register(check(complete, body));
      const self = `/products/${product.id}`;
      return created(self, represent(product.id, product), { product: self, ...links(product.id) });
    }),
    put("/products/:id", async ({ params, body }) => {
      const id = idOf(params.id, "product");
      return answer(id, await inventory.change(id, check(complete, body)));
    }),
    patch("/products/:id", async ({ params, body }) => {
      const id = idOf(params.id, "product");
      return answer(id, await inventory.change(id, check(part, body)));
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
    put("/reservations/:id", async ({ params, body }) => {
      const { productId, qty } = check(reservation, body);
      const orderId = idOf(params.id, "order");
      return ok(`/reservations/${orderId}`, await inventory.reserve(orderId, productId, qty));
    }),
    ...collection<Product>("products", "product", {
      page: (request) => inventory.page(request),
      load: (id) => inventory.load(id),
      represent,
      links,
    }),
  ];
}
