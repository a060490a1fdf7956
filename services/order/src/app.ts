import { z } from "zod";
import { KeyedLock } from "#kit/batch.js";
import type { OrderInfo } from "#kit/events.js";
import { digest } from "#kit/ids.js";
import { keyReused, notFound, Problem, tryLater } from "#kit/problem.js";
import type { Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import { Conflict, type Reply, readOne, type Sidecar, Unavailable } from "#kit/sidecar.js";
import {
  type Approval,
  abort,
  cancel,
  close,
  deliver,
  givenUp,
  isVisible,
  noteDecline,
  notePayment,
  ORDER,
  type Order,
  place,
  refuse,
  request,
  type Settlement,
  type Stage,
  takeBack,
} from "./domain.js";

export type PlaceOrder = Omit<OrderInfo, "orderId" | "productName" | "orderDate"> & {
  productName: string | null;
  /** null for now */
  orderDate: string | null;
  /** what the customer expects to pay, integer minor units; null where that is left to the shop */
  amount: number | null;
};

/** How long a repeated request finds the order that its first one made, in seconds. */
const REMEMBERED_S = 24 * 3600;

interface Remembered {
  orderId: number;
  fingerprint: string;
}

/** What an order costs, and what it is of. */
interface Quote {
  productName: string;
  price: number;
  amount: number;
}

/** The use cases of ordering, and the saga that keeps order, stock and payment in step. */
export class Orders {
  private readonly attempts = new KeyedLock();

  constructor(
    private readonly records: Records,
    private readonly sidecar: Sidecar,
    private readonly shop: Shop,
    private readonly now: () => Date,
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
   * Reserves the stock, takes the payment, commits the order, as far as the shop wants each. Whatever fails leaves
   * nothing behind. With an idempotency key a repeated request gets the order that the first one made.
   * @throws Problem 404 product, 409 stock, 402 declined, 422 price, or key used for something else, 503 try later
   */
  async place(command: PlaceOrder, idempotencyKey?: string): Promise<Order> {
    if (idempotencyKey === undefined) {
      return this.attempt(await this.records.ids(ORDER).next(), command, async () => {});
    }
    return this.attempts.run(idempotencyKey, () => this.placeOnce(command, idempotencyKey));
  }

  /** @throws Problem 404, 409 where something has begun that the shop does not let the customer stop */
  async cancel(id: number, commandId: string, reason = "cancelled by the customer"): Promise<Order> {
    const { state } = await this.records.handle(ORDER, id, { command: `cancel:${commandId}` }, (order) =>
      cancel(order, id, reason, this.at()),
    );
    if (state === undefined) throw notFound("order", id);
    return state;
  }

  /**
   * Something begins elsewhere that the customer may not stop any more. From here on it is so, or it was too late.
   * @throws Problem 409 the customer was first
   */
  async close(id: number, by: Stage): Promise<void> {
    await this.records.handle(ORDER, id, { command: `close:${by}` }, (order) => close(order, id, by));
  }

  /** The payment is approved, with the order or later. */
  async paymentApproved(id: number, messageId: string, { approvalCode, method }: Approval): Promise<void> {
    const payment = { approvalCode, method };
    await this.records.handle(ORDER, id, { event: messageId }, (order) => notePayment(order, payment));
  }

  /** It could not be paid after all: what is not paid does not stand. */
  async paymentFailed(id: number, messageId: string, reason: string): Promise<void> {
    await this.records.handle(ORDER, id, { event: messageId }, (order) =>
      noteDecline(order, id, reason, this.at()),
    );
  }

  /** The store would not make it: the customer gets everything back. */
  async rejected(id: number, messageId: string, reason: string): Promise<void> {
    await this.records.handle(ORDER, id, { event: messageId }, (order) =>
      order?.status === "OrderPlaced" ? takeBack(order, id, reason, this.at()) : [],
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

  /** Those of these that stand or stood, by id; and the highest id that may be in use. */
  async recorded(ids: readonly number[]): Promise<{ orders: Map<number, Order>; last: number }> {
    // First, so that nothing above it can have been there already when the orders were read.
    const last = await this.records.ids(ORDER).last();
    const found = await this.records.loadMany(ORDER, ids);
    const orders = [...found].filter(([, order]) => isVisible(order));
    return { orders: new Map(orders.map(([id, order]) => [Number(id), order])), last };
  }

  private async placeOnce(command: PlaceOrder, idempotencyKey: string): Promise<Order> {
    const key = `idempotency:${digest(idempotencyKey)}`;
    const fingerprint = digest(JSON.stringify(command));
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
      throw keyReused("A new order needs a new Idempotency-Key; a repeated one must have the same body.");
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
    const { amount: _expected, ...about } = command;
    const info: OrderInfo = {
      ...about,
      ...{ orderId: id, productName: command.productName ?? "", orderDate: command.orderDate ?? this.at() },
    };
    try {
      const [requested] = await Promise.all([
        this.records.handle(ORDER, id, { command: `request:${id}` }, (order) => request(order, info), {
          isNew: remember !== undefined,
        }),
        remember?.(),
      ]);
      if (requested.state !== undefined && isVisible(requested.state)) return requested.state;
      if (requested.state?.status === "OrderAborted") throw givenUp();
      const quote = this.settleOn(command, await this.quote(id, command));
      // Read for the last write while the payment is under way.
      const known = this.records.read(ORDER, id);
      const [payment] = await Promise.all([
        this.pay({ ...info, productName: quote.productName }, quote.amount),
        known,
      ]);
      const settled: Settlement = { ...quote, ...payment };
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
      error instanceof Conflict ||
      (error instanceof Problem && this.shop.stock === "reserve" && NOTHING_RESERVED.has(error.code));
    const undone = await (nothingDone
      ? this.records.handle(ORDER, id, { command: `refuse:${id}` }, (order) => refuse(order, reason))
      : this.giveUp(id, reason)
    ).catch(() => this.records.resumeLater(ORDER, id)); // what cannot be undone now is undone when the store is back
    return undone?.state !== undefined && isVisible(undone.state) ? undone.state : undefined;
  }

  private giveUp(id: number, reason: string) {
    return this.records.handle(ORDER, id, { command: `abort:${id}` }, (order) => abort(order, id, reason));
  }

  /** What the order costs by the catalogue; where the shop checks its stock, that is reserved with the same call. */
  private async quote(id: number, command: PlaceOrder): Promise<Quote> {
    const { productId, qty, productName, amount } = command;
    if (this.shop.stock === "reserve") {
      const reply = await this.call("inventory", "PUT", `/reservations/${id}`, { productId, qty });
      const reserved = reservedReply.safeParse(reply.body);
      if (reply.status < 300 && reserved.success) return reserved.data;
      throw (
        refusalOf(reply) ??
        tryLater("inventory-unavailable", "The stock cannot be checked at the moment; order a little later.")
      );
    }
    // What says its own price needs no catalogue.
    if (this.shop.payment.price === "order" && amount !== null && productName !== null)
      return { productName, price: Math.round(amount / qty), amount };
    return this.look(command);
  }

  /** The catalogue's price without a reservation; while inventory is away, that of the shop's file. */
  private async look({ productId, qty, productName }: PlaceOrder): Promise<Quote> {
    const reply = await this.call("inventory", "GET", `/products/${productId}`);
    const answer = productReply.safeParse(reply.body);
    const refusal = refusalOf(reply);
    if (refusal?.status === 404) throw productNotFound(productId);
    if (refusal !== undefined) throw refusal;
    const listed = this.shop.catalogue.find(({ id }) => id === productId);
    const product = reply.status < 300 && answer.success ? answer.data : listed;
    if (product === undefined)
      throw tryLater("inventory-unavailable", "The price cannot be looked up at the moment.");
    return { productName: productName ?? product.name, price: product.price, amount: product.price * qty };
  }

  /** What the customer expects to pay counts, or has to be right. */
  private settleOn({ amount, qty, productName }: PlaceOrder, quote: Quote): Quote {
    const named = { ...quote, productName: productName ?? quote.productName };
    if (amount === null || amount === quote.amount) return named;
    if (this.shop.payment.price === "order") return { ...named, amount, price: Math.round(amount / qty) };
    throw new Problem(
      422,
      "price-differs",
      "The price is another one",
      `The order costs ${quote.amount}, not ${amount}.`,
      { amount: quote.amount, errors: [{ field: "amount", reason: `is ${quote.amount}` }] },
    );
  }

  /** Takes the payment, or announces it, as the shop has it. */
  private async pay(
    info: OrderInfo,
    amount: number,
  ): Promise<{ paid: boolean; approvalCode: string | null }> {
    const { when, unreachable } = this.shop.payment;
    const reply = await this.call("payment", "POST", "/payments", { ...info, amount, when });
    const payment = paymentReply.safeParse(reply.body);
    if (reply.status < 300 && payment.success) {
      const { state, approvalCode, reason } = payment.data;
      if (state === "PaymentApproved") return { paid: true, approvalCode };
      if (state === "PaymentRequested") return { paid: false, approvalCode: null };
      throw new Problem(
        402,
        "payment-declined",
        "The payment was declined",
        `The payment was declined: ${reason ?? "declined"}.`,
        { reason: reason ?? "declined" },
      );
    }
    const refusal = refusalOf(reply);
    if (refusal !== undefined) throw refusal;
    if (unreachable === "register") return { paid: false, approvalCode: null };
    throw tryLater(
      "payment-unavailable",
      "Payment is not possible at the moment; please pay a little later.",
    );
  }

  private at(): string {
    return this.now().toISOString();
  }

  private async call(app: string, method: string, path: string, body?: object): Promise<Reply> {
    try {
      return await this.sidecar.invoke(app, { method, path, ...(body === undefined ? {} : { body }) });
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
const productReply = z.object({ name: z.string(), price: z.number() });
const paymentReply = z.object({
  state: z.enum(["PaymentRequested", "PaymentApproved", "PaymentFailed"]),
  approvalCode: z.string().nullable(),
  reason: z.string().nullish(),
});

/** Codes with which inventory says that it has reserved nothing, and will not for this order. */
const NOTHING_RESERVED = new Set(["product-not-found", "out-of-stock"]);

/** A step that was refused for the caller's reasons is refused to the caller in the same words. */
function refusalOf(reply: Reply): Problem | undefined {
  if (reply.status < 400 || reply.status >= 500 || typeof reply.body !== "object" || reply.body === null)
    return undefined;
  const problem = Problem.from(reply.status, reply.body);
  // A tombstone was there first: this order was given up while it was being placed, which is not the caller's fault.
  const givenUpHere = problem.code === "payment-voided" || problem.code === "reservation-released";
  return givenUpHere ? givenUp() : problem;
}

const productNotFound = (id: number): Problem =>
  new Problem(404, "product-not-found", "There is no such product", `There is no product ${id}.`, {
    resource: "product",
    id: String(id),
    errors: [{ field: "productId", reason: "names no product" }],
  });
