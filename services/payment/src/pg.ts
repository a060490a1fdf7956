import { randomInt } from "node:crypto";
import { z } from "zod";
import { tryLater } from "#kit/problem.js";
import { type Sidecar, Unavailable } from "#kit/sidecar.js";
import type { Due, Verdict } from "./domain.js";

/** The payment gateway (PG) that a shop uses: approves, declines, or does not answer. Repeatable by orderId and attempt. */
export interface PaymentGateway {
  /**
   * @param attempt 1, and one more after each time that it declined and the customer tries again
   * @throws Problem 503 when it does not answer
   */
  approve(due: Due, attempt: number): Promise<Verdict>;
  /** Hears of a payment that is to follow. @throws Problem 503 when it does not answer */
  announce(due: Due): Promise<void>;
  /** Takes an approval back; also for one that was never recorded here. Nothing is approved for this order from then on. */
  void(orderId: number): Promise<void>;
}

/** How the demo PG behaves; rates are between 0 and 1, times in ms. */
export interface Drill {
  delayMs: number;
  jitterMs: number;
  declineRate: number;
  failureRate: number;
}

/** A PG built in for development and drills. By default it approves everything at once. */
export class DemoPaymentGateway implements PaymentGateway {
  drill: Drill = { delayMs: 0, jitterMs: 0, declineRate: 0, failureRate: 0 };

  async approve(_due: Due): Promise<Verdict> {
    await this.answer();
    if (Math.random() < this.drill.declineRate)
      return { approved: false, reason: "declined by the card issuer" };
    return { approved: true, approvalCode: String(randomInt(10_000_000, 99_999_999)) };
  }

  announce(_due: Due): Promise<void> {
    return this.answer();
  }

  async void(_orderId: number): Promise<void> {}

  private async answer(): Promise<void> {
    const { delayMs, jitterMs, failureRate } = this.drill;
    const delay = delayMs + Math.random() * jitterMs;
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    if (Math.random() < failureRate) throw unavailable();
  }
}

/** What an external PG answers. */
const reply = z.union([
  z.object({
    approved: z.literal(true),
    approvalCode: z.union([z.string().min(1), z.number()]).transform(String),
  }),
  z.object({ approved: z.literal(false), reason: z.string().default("declined") }),
]);

/**
 * A PG outside, behind a Dapr output binding (bindings.http, say). It is sent `{action, orderId, amount, method, …}`,
 * action being `approve` or `void`, with an Idempotency-Key (`approve-7`, `void-7`; `approve-7-2` when the customer tries
 * again after it declined), and answers `{approved: true, approvalCode}` or `{approved: false, reason}`. Asked again with
 * the same key it must answer the same and charge nothing more, and after a void it must approve that order no more.
 */
export class BindingPaymentGateway implements PaymentGateway {
  constructor(
    private readonly sidecar: Sidecar,
    /** name of the component */
    private readonly binding: string,
  ) {}

  async approve(due: Due, attempt: number): Promise<Verdict> {
    const { orderId, amount, method, customerId, customerName, phoneNumber, productName } = due;
    const about = { orderId, amount, method, customerId, customerName, phoneNumber, productName };
    const answer = reply.safeParse(await this.ask("approve", keyOf(orderId, attempt), about));
    if (answer.success) return answer.data;
    throw unavailable();
  }

  /** It is asked when there is something to approve. */
  async announce(_due: Due): Promise<void> {}

  async void(orderId: number): Promise<void> {
    await this.ask("void", String(orderId), { orderId });
  }

  private async ask(action: "approve" | "void", key: string, about: object): Promise<unknown> {
    const metadata = { "Idempotency-Key": `${action}-${key}` };
    try {
      return await this.sidecar.bind(this.binding, { action, ...about }, metadata);
    } catch (error) {
      throw error instanceof Unavailable ? unavailable() : error;
    }
  }
}

/** With the same key it would have to decline for ever. */
const keyOf = (orderId: number, attempt: number) => (attempt === 1 ? `${orderId}` : `${orderId}-${attempt}`);

const unavailable = () =>
  tryLater("pg-unavailable", "The payment gateway does not answer; please pay a little later.");
