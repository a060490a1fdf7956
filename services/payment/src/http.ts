import { z } from "zod";
import type { Dialects } from "#kit/dialects.js";
import { orderData } from "#kit/events.js";
import {
  check,
  collection,
  commands,
  created,
  del,
  get,
  idOf,
  itemOf,
  number,
  onRecord,
  optional,
  patch,
  post,
  put,
  type Request,
  type Route,
  resource,
  type Source,
  whole,
} from "#kit/http.js";
import { invalid, notFound } from "#kit/problem.js";
import type { Payments } from "./app.js";
import type { Payment } from "./domain.js";
import type { DemoPaymentGateway } from "./pg.js";

const MAX = Number.MAX_SAFE_INTEGER;

/** What the order service sends. */
const due = z.object({
  ...orderData.shape,
  orderId: whole(1, MAX),
  productId: whole(1, MAX),
  qty: whole(1, MAX),
  amount: whole(0, MAX),
  when: z.enum(["order", "later"]).default("order"),
});

/** What a customer says to pay: by the word for "paid", or by the command that is called pay. */
const method = optional(z.enum(["card", "cash"], { error: 'must be "card" or "cash"' }));
const payment = z.object({
  state: z.string().optional(),
  method,
  /** the same under the name that tells a cancelled payment too */
  type: method,
  amount: optional(whole(0, MAX)),
});

export function represent(id: number, payment: Payment): object {
  const { status, history: _history, ...rest } = payment;
  const type = status === "PaymentCancelled" ? status : payment.method;
  return { id, ...rest, type, state: status };
}

export function routes(payments: Payments, dialects: Dialects): Route[] {
  const ways = dialects.ways("payments", "payment");
  const own = dialects.own("payments", "payment");
  const links = (id: number) => ({ order: `/orders/${id}`, history: `/payments/${id}/history` });
  const source: Source<Payment> = {
    page: (request) => payments.page(request),
    load: (id) => payments.load(id),
    represent,
    links,
  };
  const said = (id: number, payment: Payment) => itemOf(own, id, represent(id, payment), links(id));

  const pay = async (id: number, { body }: Request) => {
    const { method, type, amount } = dialects.check("payments", payment, body);
    if (amount !== null) {
      const known = await payments.load(id);
      if (known === undefined) throw notFound("payment", id);
      if (known.amount !== amount) throw invalid([{ field: "amount", reason: `is ${known.amount}` }]);
    }
    return payments.pay(id, method ?? type);
  };
  const setState = (request: Request) =>
    dialects.answering("payments", request.body, () => changeTo(request));
  const changeTo = async (request: Request) => {
    const id = idOf(request.params.id, "payment");
    const { state } = dialects.check("payments", payment, request.body);
    const meant = state === undefined ? [] : dialects.meant("payments", "state", state);
    if (meant.includes("PaymentApproved")) return { status: 200, body: said(id, await pay(id, request)) };
    if (meant.includes("PaymentCancelled")) return { status: 200, body: said(id, await payments.refund(id)) };
    throw invalid([{ field: "state", reason: "can only be set to a word for paid, or for cancelled" }]);
  };

  return [
    post("/payments", async ({ body }) => {
      const { when, ...sent } = check(due, body);
      const payment = when === "later" ? await payments.request(sent) : await payments.take(sent);
      return created(`/payments/${payment.orderId}`, said(payment.orderId, payment));
    }),
    put("/payments/:id", setState),
    patch("/payments/:id", setState),
    del("/payments/:id", async ({ params }) => {
      const id = idOf(params.id, "payment");
      return { status: 200, body: said(id, await payments.refund(id)) };
    }),
    ...commands<Payment>(ways, source, {
      pay: (id, request) => dialects.answering("payments", request.body, () => pay(id, request)),
      cancel: (id) => payments.refund(id),
    }),
    get("/payments/:id/history", async ({ params }) => {
      const id = idOf(params.id, "payment");
      const payment = await payments.load(id);
      if (payment === undefined) throw notFound("payment", id);
      return {
        status: 200,
        body: resource(`/payments/${id}/history`, { _embedded: { history: payment.history } }),
      };
    }),
    onRecord(async (ids) => ({
      records: (await payments.recorded(ids)).map(([id, payment]) => represent(id, payment)),
    })),
    ...collection<Payment>(ways, source),
  ];
}

const rate = z.preprocess(
  (value) => (typeof value === "string" ? Number(value) : number(value)),
  z.number().min(0).max(1),
);
const drill = z.object({
  delayMs: whole(0, 60_000).default(0),
  jitterMs: whole(0, 60_000).default(0),
  declineRate: rate.default(0),
  failureRate: rate.default(0),
});

/** Makes the demo PG slow, choosy or silent while it runs. Only where the drills are open. */
export function drillRoutes(pg: DemoPaymentGateway): Route[] {
  const answer = () => ({ status: 200, body: pg.drill, type: "application/json" });
  return [
    get("/drill", async () => answer()),
    put("/drill", async ({ body: sent }) => {
      pg.drill = check(drill, sent);
      return answer();
    }),
  ];
}
