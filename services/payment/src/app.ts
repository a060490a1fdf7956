import { notFound, Problem } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import {
  cancel,
  isVisible,
  mayAsk,
  PAYMENT,
  type PayFor,
  type Payment,
  settle,
  type Verdict,
} from "./domain.js";
import type { PaymentGateway } from "./pg.js";

/** The use cases of payment. */
export class Payments {
  constructor(
    private readonly records: Records,
    private readonly pg: PaymentGateway,
  ) {}

  /**
   * Takes the payment of an order; a repeat answers what the first one got. A payment that the PG declined is an answer
   * too (PaymentFailed), not an error: it says nothing about this service's health, which a breaker watches.
   * @throws Problem 409 the order was given up, 503 the PG does not answer
   */
  async pay(pay: PayFor): Promise<Payment> {
    let verdict: Verdict | undefined;
    const decide = async (payment: Payment | undefined) => {
      if (!mayAsk(payment, pay)) return [];
      verdict ??= await this.pg.approve(pay);
      return settle(payment, pay, verdict);
    };
    try {
      const cause = { command: `pay:${pay.orderId}` };
      const { state } = await this.records.handle(PAYMENT, pay.orderId, cause, decide);
      if (state === undefined) throw notFound("payment", pay.orderId);
      mayAsk(state, pay); // a repeat is refused as well if its payment does not stand any more
      return state;
    } catch (error) {
      // Given up while the PG was thinking: what it approved goes back. (Any other failure is asked again by orderId.)
      if (verdict?.approved && error instanceof Problem && error.code === "payment-voided")
        await this.pg.void(pay.orderId);
      throw error;
    }
  }

  /** The order is cancelled or given up: the money goes back, and before that is on record, so that a crash repeats it. */
  async cancel(orderId: number, messageId: string, reason: string): Promise<void> {
    await this.records.handle(PAYMENT, orderId, { event: messageId }, async (payment) => {
      const events = cancel(payment, orderId, reason);
      if (events.length > 0) await this.pg.void(orderId);
      return events;
    });
  }

  async load(id: number): Promise<Payment | undefined> {
    const payment = await this.records.load(PAYMENT, id);
    return payment !== undefined && isVisible(payment) ? payment : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<Payment>> {
    return this.records.page(PAYMENT, { ...request, visible: isVisible });
  }
}
