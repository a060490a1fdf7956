import { z } from "zod";
import type { Dialects } from "#kit/dialects.js";
import {
  check,
  created,
  get,
  idempotencyKey,
  itemOf,
  linksOf,
  listing,
  paging,
  phone,
  post,
  profile,
  type Route,
  whole,
} from "#kit/http.js";
import { notFound } from "#kit/problem.js";
import type { Loyalty } from "./app.js";
import type { Card } from "./domain.js";

const stamps = z.object({ phoneNumber: phone, stampQty: whole(1, 10_000) });
const asked = z.object({ phoneNumber: phone });

export function represent({ phoneNumber, stampQty }: Card): object {
  return { phoneNumber, stampQty };
}

export function routes(loyalty: Loyalty, dialects: Dialects): Route[] {
  const own = dialects.own("stamps", "stamp");
  const said = (card: Card) => itemOf(own, card.phoneNumber, represent(card));
  return [
    post("/stamps", async ({ body, headers }) => {
      const key = idempotencyKey(headers);
      const { phoneNumber, stampQty } = dialects.check("stamps", stamps, body);
      const card = await loyalty.give({ phoneNumber, qty: stampQty }, key);
      return created(`/stamps/${card.phoneNumber}`, said(card));
    }),
    get("/stamps", async ({ query }) => {
      const page = await loyalty.page(check(paging, query));
      return {
        status: 200,
        body: listing("stamps", page, ({ state }) => said(state), {}, linksOf("stamps")),
      };
    }),
    get("/stamps/search", async () => ({
      status: 200,
      body: {
        _links: {
          findByPhoneNumber: { href: "/stamps/search/findByPhoneNumber{?phoneNumber}", templated: true },
        },
      },
    })),
    get("/stamps/search/findByPhoneNumber", async ({ query }) => {
      const card = await loyalty.load(check(asked, query).phoneNumber);
      return { status: 200, body: { _embedded: { stamps: card === undefined ? [] : [said(card)] } } };
    }),
    get("/stamps/:phoneNumber", async ({ params }) => {
      const number = phone.safeParse(params.phoneNumber);
      const card = number.success ? await loyalty.load(number.data) : undefined;
      if (card === undefined) throw notFound("stamp", params.phoneNumber ?? "");
      return { status: 200, body: said(card) };
    }),
    profile(own),
  ];
}
