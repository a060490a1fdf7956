import { z } from "zod";
import { check, collection, created, get, number, post, put, type Route, whole } from "#kit/http.js";
import type { Payments } from "./app.js";
import type { Payment } from "./domain.js";
import type { DemoPaymentGateway } from "./pg.js";

const MAX = Number.MAX_SAFE_INTEGER;
const body = z.object({
  orderId: whole(1, MAX),
  amount: whole(0, MAX),
  method: z.enum(["card", "cash"]).default("card"),
});

export function represent(id: number, payment: Payment): object {
  const { status, ...rest } = payment;
  return { id, ...rest, paymentStatus: status };
}

export function routes(payments: Payments): Route[] {
  return [
    post("/payments", async ({ body: sent }) => {
      const payment = await payments.pay(check(body, sent));
      return created(`/payments/${payment.orderId}`, represent(payment.orderId, payment));
    }),
    ...collection<Payment>("payments", "payment", {
      page: (request) => payments.page(request),
      load: (id) => payments.load(id),
      represent,
      links: (id) => ({ order: `/orders/${id}` }),
    }),
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
