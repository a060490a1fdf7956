import { createHash } from "node:crypto";
import { z } from "zod";
import { KeyedLock } from "#kit/batch.js";
import type { OrderInfo } from "#kit/events.js";
import { notFound, Problem, tryLater } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import { Conflict, type Reply, readOne, type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  abort,
  cancel,
  deliver,
  givenUp,
  isVisible,
  ORDER,
  type Order,
  place,
  refuse,
  request,
  type Settlement,
} from "./domain.js";

export type PlaceOrder = Omit<OrderInfo, "orderId" | "productName"> & { productName: string | null };

/** How long a repeated request finds the order that its first one made, in seconds. */
const REMEMBERED_S = 24 * 3600;

interface Remembered {
  orderId: number;
  fingerprint: string;
}

/** The use cases of ordering, and the saga that keeps order, stock and payment in step. */
export class Orders {
  private readonly attempts = new KeyedLock();

  constructor(
    private readonly records: Records,
    private readonly sidecar: Sidecar,
  ) {
    records.onResume(ORDER, async (id, order) => {
      if (order === undefined || order.status === "Pending") await this.giveUp(Number(id), "interrupted");
    });
  }

  /** Gives up what dead replicas left pending. */
  async start(): Promise<void> {
    await this.records.sweep(ORDER);
  }

  /**
   * Reserves the stock, takes the payment, commits the order. Answers only for a paid order; whatever fails leaves
   * nothing behind. With an idempotency key a repeated request gets the order that the first one made.
   * @throws Problem 404 product, 409 stock, 402 declined, 422 key used for something else, 503 try later
   */
  async place(command: PlaceOrder, idempotencyKey?: string): Promise<Order> {
    if (idempotencyKey === undefined) {
      return this.attempt(await this.records.ids(ORDER).next(), command, async () => {});
    }
    return this.attempts.run(idempotencyKey, () => this.placeOnce(command, idempotencyKey));
  }

  async cancel(id: number, commandId: string, reason = "cancelled by the customer"): Promise<Order> {
    const { state } = await this.records.handle(ORDER, id, { command: `cancel:${commandId}` }, (order) =>
      cancel(order, id, reason),
    );
    if (state === undefined) throw notFound("order", id);
    return state;
  }

  /** The store would not make it: the customer gets everything back. */
  async rejectedByStore(id: number, messageId: string, reason: string): Promise<void> {
    await this.records.handle(ORDER, id, { event: messageId }, (order) =>
      order?.status === "OrderPlaced" ? cancel(order, id, reason) : [],
    );
  }

  async delivered(id: number, messageId: string): Promise<void> {
    await this.records.handle(ORDER, id, { event: messageId }, deliver);
  }

  async load(id: number): Promise<Order | undefined> {
    const order = await this.records.load(ORDER, id);
    return order !== undefined && isVisible(order) ? order : undefined;
  }

  page(request: { page: number; size: number }): Promise<Page<Order>> {
    return this.records.page(ORDER, { ...request, visible: isVisible });
  }

  private async placeOnce(command: PlaceOrder, idempotencyKey: string): Promise<Order> {
    const key = `idempotency:${hash(idempotencyKey)}`;
    const fingerprint = hash(JSON.stringify(command));
    const { store } = this.sidecar;
    const remember = (orderId: number, etag: string | null) => () =>
      store.save(key, { orderId, fingerprint } satisfies Remembered, etag, REMEMBERED_S);
    try {
      // Nearly every key is new: put it on record without looking, in one write with the order.
      const orderId = await this.records.ids(ORDER).next();
      return await this.attempt(orderId, command, remember(orderId, null));
    } catch (error) {
      if (!(error instanceof Conflict)) throw error;
    }
    const entry = await readOne(store, key);
    const known = entry?.value as Remembered | undefined;
    if (known !== undefined && known.fingerprint !== fingerprint) {
      throw new Problem(
        422,
        "idempotency-key-reused",
        "The Idempotency-Key belongs to another request",
        "A new order needs a new Idempotency-Key; a repeated one must have the same body.",
        { errors: [{ field: "Idempotency-Key", reason: "was used with a different body" }] },
      );
    }
    const order = known && (await this.records.load(ORDER, known.orderId));
    // Perhaps still pending elsewhere: every step is idempotent by orderId, so driving it twice is safe.
    if (known !== undefined && order?.status !== "OrderAborted") return this.attempt(known.orderId, command);
    const orderId = await this.records.ids(ORDER).next();
    return this.attempt(orderId, command, remember(orderId, entry?.etag ?? null)).catch((error) => {
      throw error instanceof Conflict
        ? tryLater("order-in-flight", "The same request is being worked on.", 1)
        : error;
    });
  }

  /**
   * @param remember puts the idempotency key of a new order on record; absent where the order may exist already
   * @throws Conflict when another request has the key
   */
  private async attempt(id: number, command: PlaceOrder, remember?: () => Promise<void>): Promise<Order> {
    const info = { ...command, orderId: id, productName: command.productName ?? "" };
    try {
      const [requested] = await Promise.all([
        this.records.handle(ORDER, id, { command: `request:${id}` }, (order) => request(order, info), {
          isNew: remember !== undefined,
        }),
        remember?.(),
      ]);
      if (requested.state !== undefined && isVisible(requested.state)) return requested.state;
      if (requested.state?.status === "OrderAborted") throw givenUp();
      const reserved = await this.reserve(id, command);
      // Read for the last write while the payment is under way.
      const known = this.records.read(ORDER, id);
      const [approvalCode] = await Promise.all([this.pay(id, reserved.amount), known]);
      const settled: Settlement = {
        productName: command.productName ?? reserved.productName,
        price: reserved.price,
        amount: reserved.amount,
        approvalCode,
      };
      const { state } = await this.records.handle(
        ORDER,
        id,
        { command: `place:${id}` },
        (order) => place(order, id, settled),
        { known },
      );
      if (state === undefined) throw new Unavailable(`order ${id} has gone`);
      return state;
    } catch (error) {
      const standing = await this.undo(id, error);
      if (standing !== undefined) return standing;
      throw error;
    }
  }

  /** Answers the order if it stands after all (the answer to its commit was lost). */
  private async undo(id: number, error: unknown): Promise<Order | undefined> {
    const reason = error instanceof Error ? error.message : "failed";
    const nothingDone =
      error instanceof Conflict || (error instanceof Problem && NOTHING_RESERVED.has(error.code));
    // What cannot be undone now stays in the journal, and is undone when the store is back.
    const undone = await (nothingDone
      ? this.records.handle(ORDER, id, { command: `refuse:${id}` }, (order) => refuse(order, reason))
      : this.giveUp(id, reason)
    ).catch(() => undefined);
    return undone?.state !== undefined && isVisible(undone.state) ? undone.state : undefined;
  }

  private giveUp(id: number, reason: string) {
    return this.records.handle(ORDER, id, { command: `abort:${id}` }, (order) => abort(order, id, reason));
  }

  private async reserve(
    orderId: number,
    { productId, qty }: PlaceOrder,
  ): Promise<z.infer<typeof reservedReply>> {
    const reply = await this.call("inventory", "PUT", `/reservations/${orderId}`, { productId, qty });
    const reserved = reservedReply.safeParse(reply.body);
    if (reply.status < 300 && reserved.success) return reserved.data;
    throw (
      refusalOf(reply) ??
      tryLater("inventory-unavailable", "The stock cannot be checked at the moment; order a little later.")
    );
  }

  private async pay(orderId: number, amount: number): Promise<string | null> {
    const reply = await this.call("payment", "POST", "/payments", { orderId, amount });
    const payment = paymentReply.safeParse(reply.body);
    if (reply.status < 300 && payment.success) {
      const { paymentStatus, approvalCode, reason } = payment.data;
      if (paymentStatus === "PaymentApproved") return approvalCode;
      throw new Problem(
        402,
        "payment-declined",
        "The payment was declined",
        `The payment was declined: ${reason ?? "declined"}.`,
        { reason: reason ?? "declined" },
      );
    }
    throw (
      refusalOf(reply) ??
      tryLater("payment-unavailable", "Payment is not possible at the moment; please pay a little later.")
    );
  }

  private async call(app: string, method: string, path: string, body: object): Promise<Reply> {
    try {
      return await this.sidecar.invoke(app, { method, path, body });
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      return { status: 503, headers: {}, body: undefined };
    }
  }
}

/**
 * Answers are looked at before they are believed: a sidecar whose other end is cut off half-way may answer 200 with no
 * body at all (seen with Dapr 1.18.2, while both were being stopped).
 */
const reservedReply = z.object({ productName: z.string(), price: z.number(), amount: z.number() });
const paymentReply = z.object({
  paymentStatus: z.enum(["PaymentApproved", "PaymentFailed"]),
  approvalCode: z.string().nullable(),
  reason: z.string().nullish(),
});

/** Codes with which inventory says that it has reserved nothing. */
const NOTHING_RESERVED = new Set(["product-not-found", "out-of-stock"]);

/** A step that was refused for the caller's reasons is refused to the caller in the same words. */
function refusalOf(reply: Reply): Problem | undefined {
  if (reply.status < 400 || reply.status >= 500 || typeof reply.body !== "object" || reply.body === null)
    return undefined;
  const {
    type,
    title,
    detail,
    status: _status,
    instance: _instance,
    ...extra
  } = reply.body as Record<string, unknown>;
  const code = String(type).split(":").at(-1) ?? "refused";
  // A tombstone was there first: this order was given up while it was being placed, which is not the caller's fault.
  if (code === "payment-voided" || code === "reservation-released") return givenUp();
  return new Problem(reply.status, code, String(title), String(detail), extra);
}

const hash = (text: string): string => createHash("sha256").update(text).digest("base64url");
