import { randomInt } from "node:crypto";
import { tryLater } from "#kit/problem.js";
import type { Verdict } from "./domain.js";

/** The payment gateway (PG) that a shop uses: approves, declines, or does not answer. Repeatable by orderId. */
export interface PaymentGateway {
  /** @throws Problem 503 when it does not answer */
  approve(payment: { orderId: number; amount: number }): Promise<Verdict>;
  /** Takes an approval back; also for one that was never recorded here. */
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

  async approve(_payment: { orderId: number; amount: number }): Promise<Verdict> {
    const { delayMs, jitterMs, declineRate, failureRate } = this.drill;
    const delay = delayMs + Math.random() * jitterMs;
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    if (Math.random() < failureRate) {
      throw tryLater("pg-unavailable", "The payment gateway does not answer; please pay a little later.");
    }
    if (Math.random() < declineRate) return { approved: false, reason: "declined by the card issuer" };
    return { approved: true, approvalCode: String(randomInt(10_000_000, 99_999_999)) };
  }

  async void(_orderId: number): Promise<void> {}
}
