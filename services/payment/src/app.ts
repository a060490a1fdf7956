import type { OrderInfo } from "#kit/events.js";
import { failureOf, notFound, Problem } from "#kit/problem.js";
import type { Cause, FollowUp, Page, Records } from "#kit/records.js";
import type { Sidecar } from "#kit/sidecar.js";
import {
  attempt,
  cancel,
  type Due,
  isOpen,
  isVisible,
  type Method,
  PAYMENT,
  type Payment,
  type PaymentEvent,
  pay,
  payable,
  request,
  settle,
  type Verdict,
} from "./domain.js";
import type { PaymentGateway } from "./pg.js";

/** The use cases of payment. */
export class Payments {
  constructor(
    private readonly records: Records,
    private readonly pg: PaymentGateway,
    private readonly sidecar: Sidecar,
    private readonly now: () => Date,
  ) {
    records.onResume(PAYMENT, (_, payment) => this.uncharge(payment));
  }

  /**
   * Takes the payment of an order; a repeat answers what the first one got. A payment that the PG declined is an answer
   * too (PaymentFailed), not an error: it says nothing about this service's health, which a breaker watches.
   * @throws Problem 409 the order was given up, 503 the PG does not answer
   */
  take(due: Due): Promise<Payment> {
    return this.approve(due, { command: `pay:${due.orderId}` }, settle);
  }

  /** Announces the payment of an order that is to follow. @throws Problem 409 the order was given up, 503 as {@link take} */
  async request(due: Due, cause: Cause = { command: `request:${due.orderId}` }): Promise<Payment> {
    const { state } = await this.records.handle(PAYMENT, due.orderId, cause, async (payment) => {
      const events = request(payment, due, this.at());
      if (events.length > 0) await this.pg.announce(due);
      return events;
    });
    if (state === undefined) throw notFound("payment", due.orderId);
    isOpen(state, due);
    return state;
  }

  /**
   * The order stands although payment could not be reached: what was not heard of then is announced, or taken, now.
   * @param when whether the customer pays with the order, or says so later
   */
  async placedUnpaid(messageId: string, due: Due, when: "order" | "later"): Promise<void> {
    try {
      if (when === "later") await this.request(due, { event: messageId });
      else await this.approve(due, { event: messageId }, settle);
    } catch (error) {
      // Cancelled before this came: there is nothing left to pay.
      if (!(error instanceof Problem && error.code === "payment-voided")) throw error;
    }
  }

  /**
   * The customer pays what is due.
   * @throws Problem 402 declined, 404, 409 it cannot be paid any more, 503 the PG does not answer
   */
  async pay(id: number, method: Method | null): Promise<Payment> {
    const due = payable(await this.records.load(PAYMENT, id), id, method);
    const cause = { command: `pay:${id}:${crypto.randomUUID()}` };
    const then = (paid: Payment | undefined) => this.uncharge(paid);
    const payment = await this.approve(due, cause, pay, { then });
    if (payment.status !== "PaymentRequested") return payment;
    const reason = payment.reason ?? "declined";
    throw new Problem(
      402,
      "payment-declined",
      "The payment was declined",
      `The payment was declined: ${reason}. It can be tried again.`,
      { reason },
    );
  }

  /**
   * The customer wants the money back, so the order is cancelled first: whether that is still possible is its business.
   * @throws Problem as the order service refuses, 404, 503
   */
  async refund(id: number): Promise<Payment> {
    const payment = await this.load(id);
    if (payment === undefined) throw notFound("payment", id);
    if (payment.status === "PaymentCancelled" || payment.status === "PaymentFailed") return payment;
    const reply = await this.sidecar.invoke("order", {
      method: "DELETE",
      path: `/orders/${id}`,
      headers: { "idempotency-key": `refund:${id}` },
    });
    if (reply.status >= 300 || reply.body === undefined) throw failureOf(reply, `order ${id}`);
    await this.cancel({ command: `refund:${id}` }, payment, "cancelled by the customer");
    return (await this.load(id)) ?? payment;
  }

  /** The order is cancelled or given up: the money goes back, and before that is on record, so that a crash repeats it. */
  async cancel(cause: Cause, order: OrderInfo, reason: string): Promise<void> {
    await this.records.handle(PAYMENT, order.orderId, cause, async (payment) => {
      const events = cancel(payment, order, reason, this.at());
      // Of what was paid in cash the PG knows nothing; of anything else it may, even if nothing is on record here.
      const inCash = payment?.status === "PaymentApproved" && payment.method === "cash";
      if (events.length > 0 && !inCash) await this.pg.void(order.orderId);
      return events;
    });
  }

  /** Who has paid in cash is not charged as well: an earlier try by card may have been approved, and its answer lost. */
  private async uncharge(payment: Payment | undefined): Promise<void> {
    if (payment?.status === "PaymentApproved" && payment.method === "cash")
      await this.pg.void(payment.orderId);
  }

  async load(id: number): Promise<Payment | undefined> {
    const payment = await this.records.load(PAYMENT, id);
    return payment !== undefined && isVisible(payment) ? payment : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<Payment>> {
    return this.records.page(PAYMENT, { ...request, visible: isVisible });
  }

  /** Those of these that are anybody's, by id. */
  async recorded(ids: readonly number[]): Promise<[id: number, Payment][]> {
    const found = await this.records.loadMany(PAYMENT, ids);
    return [...found].filter(([, payment]) => isVisible(payment)).map(([id, one]) => [Number(id), one]);
  }

  private async approve(
    due: Due,
    cause: Cause,
    decide: (payment: Payment | undefined, due: Due, verdict: Verdict, at: string) => PaymentEvent[],
    followUp: FollowUp<Payment> = {},
  ): Promise<Payment> {
    let verdict: Verdict | undefined;
    try {
      const ask = async (payment: Payment | undefined) => {
        if (!isOpen(payment, due)) return [];
        verdict ??=
          due.method === "cash"
            ? { approved: true, approvalCode: null }
            : await this.pg.approve(due, attempt(payment));
        return decide(payment, due, verdict, this.at());
      };
      const { state } = await this.records.handle(PAYMENT, due.orderId, cause, ask, followUp);
      if (state === undefined) throw notFound("payment", due.orderId);
      // Another replica took it in cash, say, while the PG was thinking: one of them is enough.
      const inCard = state.status === "PaymentApproved" && state.method === "card";
      if (verdict?.approved && due.method === "card" && !inCard) await this.pg.void(due.orderId);
      isOpen(state, due); // a repeat is refused as well if its payment does not stand any more
      return state;
    } catch (error) {
      // Given up while the PG was thinking: what it approved goes back. (Any other failure is asked again by orderId.)
      if (
        verdict?.approved &&
        due.method !== "cash" &&
        error instanceof Problem &&
        error.code === "payment-voided"
      )
        await this.pg.void(due.orderId);
      throw error;
    }
  }

  private at(): string {
    return this.now().toISOString();
  }
}
