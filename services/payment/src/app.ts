import { Problem } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import {
  cancel,
  declined,
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
   * Takes the payment of an order; a repeat answers what the first one got.
   * @throws Problem 402 declined, 409 the order was given up, 503 the PG does not answer
   */
  async pay(pay: PayFor): Promise<Payment> {
    let verdict: Verdict | undefined;
    try {
      const { state } = await this.records.handle(
        PAYMENT,
        pay.orderId,
        { command: `pay:${pay.orderId}` },
        async (payment) => {
          if (!mayAsk(payment, pay)) return [];
          verdict ??= await this.pg.approve(pay);
          return settle(payment, pay, verdict);
        },
      );
      if (state === undefined || state.status === "PaymentFailed")
        throw declined(state?.reason ?? "declined");
      return state;
    } catch (error) {
      // Given up while the PG was thinking: what it approved goes back. (Any other failure is asked again by orderId.)
      if (verdict?.approved && error instanceof Problem && error.code === "payment-voided")
        await this.pg.void(pay.orderId);
      throw error;
    }
  }

  /** The order is cancelled or given up: the money goes back. */
  async cancel(orderId: number, messageId: string, reason: string): Promise<void> {
    const { events } = await this.records.handle(PAYMENT, orderId, { event: messageId }, (payment) =>
      cancel(payment, orderId, reason),
    );
    if (events.length > 0) await this.pg.void(orderId);
  }

  async load(id: number): Promise<Payment | undefined> {
    const payment = await this.records.load(PAYMENT, id);
    return payment !== undefined && isVisible(payment) ? payment : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<Payment>> {
    return this.records.page(PAYMENT, { ...request, visible: isVisible });
  }
}
