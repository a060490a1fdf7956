import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { given, info, permutations } from "#kit/testing.js";
import {
  evolve,
  INDEX,
  INDEX_PAGE,
  type IndexEvent,
  index,
  isVisible,
  type OnRecord,
  ORDER_STATUS,
  type OrderStatus,
  type Policy,
  progress,
  rowOf,
  see,
  turnPage,
  type ViewedEvent,
} from "./domain.js";

const about = { ...info, id: 7 };
const priced = { ...about, price: 10_000, amount: 30_000 };
const reason = "changed my mind";
const at = "2026-11-21T00:00:01.000Z";

const order = { ...priced, paymentId: 7, approvalCode: "1" };
const placed: ViewedEvent = { type: "OrderPlaced", data: { ...order, paid: true } };
const unpaid: ViewedEvent = { type: "OrderPlaced", data: { ...order, approvalCode: null, paid: false } };
const paid: ViewedEvent = { type: "OrderPaid", data: order };
const cancelled: ViewedEvent = { type: "OrderCancelled", data: { ...priced, reason, at } };
const payment = { ...about, amount: 30_000, approvalCode: "1", reason, at };
const refunded: ViewedEvent = { type: "PaymentCancelled", data: { ...payment, refunded: 30_000 } };
const declined: ViewedEvent = { type: "PaymentFailed", data: payment };
const accepted: ViewedEvent = { type: "StoreAccepted", data: about };
const making: ViewedEvent = { type: "MakeStarted", data: about };
const made: ViewedEvent = { type: "MakeCompleted", data: about };
const rejected: ViewedEvent = { type: "StoreRejected", data: { ...about, reason } };
const storeCancelled: ViewedEvent = { type: "StoreCancelled", data: { ...about, reason } };
const delivery = (type: "DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled"): ViewedEvent => ({
  type,
  data: { ...about, deliveryStatus: type, at },
});
const started = delivery("DeliveryStarted");
const completed = delivery("DeliveryCompleted");
const deliveryCancelled = delivery("DeliveryCancelled");
const message = (messageId: number) => ({
  ...{ messageId, event: "OrderPaid", channel: "kakao", text: `message ${messageId}`, at },
});
const sent = (messageId: number): ViewedEvent => ({
  type: "MessageSent",
  data: { orderId: 7, ...message(messageId) },
});

/** What can happen to an order in one kind of shop, and what its row says in the end. */
interface Life {
  /** those that the view of such a shop hears */
  events: ViewedEvent[];
  order: string;
  payment: string;
  store: string | null;
  delivery: string | null;
  progress: string;
  messages?: number[];
}

const lives: Record<string, Life> = {
  // fashion, bookstore, flower: paid with the order, delivered once accepted
  "placed and on its way": {
    events: [placed, started],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "StoreAccepted" },
    ...{ delivery: "DeliveryStarted", progress: "DeliveryStarted" },
  },
  delivered: {
    events: [placed, started, completed],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "StoreAccepted" },
    ...{ delivery: "DeliveryCompleted", progress: "DeliveryCompleted" },
  },
  "delivered, and told so": {
    events: [placed, started, completed, sent(1), sent(2), sent(10)],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "StoreAccepted" },
    ...{ delivery: "DeliveryCompleted", progress: "DeliveryCompleted", messages: [1, 2, 10] },
  },
  "cancelled on its way": {
    events: [placed, started, cancelled, refunded, storeCancelled, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCancelled", progress: "DeliveryCancelled" },
  },
  "cancelled before the store had heard of it": {
    events: [placed, cancelled, refunded, storeCancelled, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCancelled", progress: "PaymentCancelled" },
  },
  "rejected by the store": {
    events: [placed, rejected, cancelled, refunded],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreRejected" },
    ...{ delivery: null, progress: "PaymentCancelled" },
  },
  "cancelled when it had been delivered": {
    events: [placed, started, completed, cancelled, refunded, storeCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCompleted", progress: "PaymentCancelled" },
  },
  // flower: stands while payment is away
  "registered, then paid and on its way": {
    events: [unpaid, paid, started],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "StoreAccepted" },
    ...{ delivery: "DeliveryStarted", progress: "DeliveryStarted" },
  },
  "registered, then declined": {
    events: [unpaid, declined, cancelled, storeCancelled, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentFailed", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCancelled", progress: "PaymentFailed" },
  },
  // coffee: paid later, made, then delivered
  "not paid yet": {
    events: [unpaid],
    ...{ order: "OrderPlaced", payment: "PaymentRequested", store: null },
    ...{ delivery: null, progress: "OrderPlaced" },
  },
  "paid later": {
    events: [unpaid, paid],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: null },
    ...{ delivery: null, progress: "OrderPaid" },
  },
  "paid later, in the making": {
    events: [unpaid, paid, making],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "MakeStarted" },
    ...{ delivery: null, progress: "MakeStarted" },
  },
  "paid later, made and delivered": {
    events: [unpaid, paid, making, made, started, completed],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "MakeCompleted" },
    ...{ delivery: "DeliveryCompleted", progress: "DeliveryCompleted" },
  },
  "paid later, cancelled in the making": {
    events: [unpaid, paid, making, cancelled, refunded, storeCancelled, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCancelled", progress: "PaymentCancelled" },
  },
  "never paid and cancelled": {
    events: [unpaid, cancelled, refunded, storeCancelled, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: "DeliveryCancelled", progress: "PaymentCancelled" },
  },
  // cafe: the cafe approves and makes, the customer picks up
  "made for pick-up": {
    events: [placed, making, made],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "MakeCompleted" },
    ...{ delivery: null, progress: "MakeCompleted" },
  },
  "cancelled before the cafe approved": {
    events: [placed, cancelled, refunded, storeCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreCancelled" },
    ...{ delivery: null, progress: "PaymentCancelled" },
  },
  // a shop whose owner starts the making
  "accepted, made when the owner says so, and on its way": {
    events: [placed, accepted, making, made, started],
    ...{ order: "OrderPlaced", payment: "PaymentApproved", store: "MakeCompleted" },
    ...{ delivery: "DeliveryStarted", progress: "DeliveryStarted" },
  },
  "rejected after its acceptance": {
    events: [placed, accepted, rejected, cancelled, refunded, deliveryCancelled],
    ...{ order: "OrderCancelled", payment: "PaymentCancelled", store: "StoreRejected" },
    ...{ delivery: "DeliveryCancelled", progress: "PaymentCancelled" },
  },
};

/** What the view makes of events as they arrive: it sees each, and keeps those that say something new. */
const rowAfter = (events: ViewedEvent[]) =>
  events.reduce<OrderStatus | undefined>((row, event) => see(row, event).reduce(evolve, row), undefined);

describe("the row of an order", () => {
  for (const [life, ends] of Object.entries(lives)) {
    it(`is the same in whatever order the events of one ${life} arrive, each perhaps twice`, () => {
      const { events } = ends;
      const row: OrderStatus = {
        ...{ ...info, amount: 30_000, orderStatus: ends.order, paymentStatus: ends.payment },
        ...{ storeStatus: ends.store, deliveryStatus: ends.delivery },
        deliveryId: events.includes(started) ? 7 : null,
        messages: (ends.messages ?? []).map(message),
      };
      for (const arrival of permutations(events)) {
        const arrived = arrival.map(({ type }) => type).join(" ");
        const seen = rowAfter(arrival);
        assert.deepEqual(seen, row, arrived);
        assert.deepEqual(rowAfter([...arrival, ...arrival]), row, `twice ${arrived}`);
        assert.equal(seen && progress(seen), ends.progress, arrived);
      }
    });
  }

  it("says in one word how far the order has come, step by step (S3-F5, S4-F9)", () => {
    const words = (...events: ViewedEvent[]) =>
      events.map((_, i) => {
        const row = rowAfter(events.slice(0, i + 1));
        return row && progress(row);
      });
    assert.deepEqual(words(unpaid, paid, accepted, making, made, started, completed), [
      ...["OrderPlaced", "OrderPaid", "StoreAccepted", "MakeStarted", "MakeCompleted"],
      ...["DeliveryStarted", "DeliveryCompleted"],
    ]);
    assert.deepEqual(words(placed, started, cancelled, refunded, deliveryCancelled), [
      ...["OrderPaid", "DeliveryStarted", "OrderCancelled", "PaymentCancelled", "DeliveryCancelled"],
    ]);
    assert.deepEqual(words(placed, making, cancelled, storeCancelled, refunded), [
      ...["OrderPaid", "MakeStarted", "OrderCancelled", "OrderCancelled", "PaymentCancelled"],
    ]);
    assert.deepEqual(words(placed, rejected, cancelled, refunded), [
      ...["OrderPaid", "StoreRejected", "StoreRejected", "PaymentCancelled"],
    ]);
    assert.deepEqual(words(unpaid, declined), ["OrderPlaced", "OrderPlaced"]);
    assert.deepEqual(words(sent(1)), [null]);
  });

  it("changes with what is new, and only with that", () => {
    const sees = (event: ViewedEvent, ...history: ViewedEvent[]) =>
      given(ORDER_STATUS, ...history).when((row) => see(row, event));
    sees(placed).thenHappens(placed);
    sees(placed, placed).thenHappens();
    sees(started, placed).thenHappens(started);
    sees(storeCancelled, placed, started).thenHappens(storeCancelled);
    sees(placed, placed, cancelled).thenHappens();
    sees(paid, placed).thenHappens();
    sees(paid, unpaid).thenHappens(paid);
    sees(accepted, placed, making).thenHappens();
    sees(sent(1), placed).thenHappens(sent(1));
    sees(sent(1), placed, sent(1)).thenHappens();
    sees(sent(2), placed, sent(1)).thenHappens(sent(2));
    sees(deliveryCancelled, deliveryCancelled).thenHappens();
    // It was cancelled before; that it had begun is still new.
    sees(started, deliveryCancelled).thenHappens(started);
  });

  it("is shown once the order service has spoken", () => {
    const visible = (...events: ViewedEvent[]) => {
      const { state } = given(ORDER_STATUS, ...events);
      return state !== undefined && isVisible(state);
    };
    assert.equal(visible(refunded), false, "a payment that was taken back for an order that never stood");
    assert.equal(visible(storeCancelled, started, paid, sent(1)), false);
    assert.equal(visible(placed), true);
    assert.equal(visible(unpaid), true);
    assert.equal(visible(cancelled), true);
    assert.equal(visible(refunded, started, placed), true);
  });

  it("belongs to the order that the event names, not to the event's own id", () => {
    const { state } = given(ORDER_STATUS, { ...started, data: { ...started.data, id: 99 } } as ViewedEvent);
    assert.deepEqual([state?.orderId, state?.deliveryId], [7, 99]);
  });
});

/** tests/rebuild.test.ts compares the two for whatever all services do in whatever shop. */
describe("the row of an order from its records", () => {
  const usual: Policy = {
    store: { accept: "automatic", making: "none", confirmCancel: "owner" },
    delivery: "acceptance",
  };
  const policy = (making: Policy["store"]["making"], delivery: Policy["delivery"]): Policy => ({
    store: { ...usual.store, making },
    delivery,
  });
  const standing: OnRecord = {
    order: { ...info, state: "OrderPlaced", amount: 30_000, paid: true },
    ...{ payment: null, ticket: null, delivery: null, messages: [] },
  };
  const cancelling: OnRecord = {
    ...standing,
    order: { ...standing.order, state: "OrderCancelled" },
    payment: { state: "PaymentCancelled" },
    ticket: { state: "CancelRequested" },
  };
  const under = (state: string) => ({ state, startDate: at });
  const storeOf = (on: OnRecord, by: Policy, was?: string) =>
    rowOf(on, was === undefined ? undefined : { ...rowOf(on, undefined, by), storeStatus: was }, by)
      .storeStatus;

  it("is what its events make it", () => {
    const cases: [OnRecord, ViewedEvent[], Policy][] = [
      [{ ...standing, order: { ...standing.order, paid: false } }, [unpaid], usual],
      [standing, [unpaid, paid], usual],
      [{ ...standing, payment: { state: "PaymentApproved" } }, [placed], usual],
      [
        { ...standing, ticket: { state: "StoreAccepted" }, delivery: under("DeliveryStarted") },
        [placed, started],
        usual,
      ],
      [{ ...standing, ticket: { state: "Received" } }, [placed], usual],
      [
        {
          ...standing,
          order: { ...standing.order, state: "OrderDelivered" },
          ticket: { state: "MakeCompleted" },
          delivery: under("DeliveryCompleted"),
          messages: [message(10), message(2)],
        },
        [placed, making, made, started, completed, sent(2), sent(10)],
        policy("acceptance", "made"),
      ],
      [
        {
          ...cancelling,
          ticket: { state: "StoreCancelled" },
          delivery: { state: "DeliveryCancelled", startDate: null },
        },
        [placed, cancelled, refunded, storeCancelled, deliveryCancelled],
        usual,
      ],
      [
        { ...cancelling, ticket: { state: "StoreCancelled" }, delivery: under("DeliveryCancelled") },
        [placed, started, cancelled, refunded, storeCancelled, deliveryCancelled],
        usual,
      ],
      [
        {
          ...cancelling,
          order: { ...cancelling.order, paid: false },
          ...{ payment: { state: "PaymentFailed" }, ticket: { state: "StoreRejected" } },
        },
        [unpaid, declined, cancelled, rejected],
        usual,
      ],
    ];
    for (const [on, events, by] of cases) {
      const row = rowAfter(events);
      assert.deepEqual(rowOf(on, undefined, by), row, events.map(({ type }) => type).join(" "));
      assert.deepEqual(rowOf(on, row, by), row);
    }
  });

  it("takes nothing from the row as it is, with one exception", () => {
    const on: OnRecord = {
      ...standing,
      ticket: { state: "StoreAccepted" },
      delivery: under("DeliveryStarted"),
    };
    const right = rowOf(on, undefined, usual);
    const wrong: OrderStatus = {
      ...{ ...right, qty: 99, customerId: "x", amount: 1, orderStatus: "OrderCancelled" },
      ...{ paymentStatus: null, storeStatus: "StoreCancelled", deliveryId: null, deliveryStatus: null },
      messages: [message(1)],
    };
    assert.deepEqual(rowOf(on, wrong, usual), right);
  });

  it("has accepted only where the view hears of that", () => {
    const on: OnRecord = { ...standing, ticket: { state: "StoreAccepted" } };
    assert.equal(storeOf(on, policy("owner", "made")), "StoreAccepted");
    assert.equal(storeOf(on, usual), null, "DeliveryStarted will say so");
    assert.equal(storeOf(on, policy("acceptance", "none")), null, "MakeStarted will say so");
  });

  it("goes on to say how far the store had come while its owner is asked to confirm the cancellation", () => {
    const started: OnRecord = { ...cancelling, delivery: under("DeliveryStarted") };
    assert.equal(storeOf(started, usual), "StoreAccepted");
    assert.equal(storeOf(started, policy("owner", "made")), "MakeCompleted", "or it would not be under way");
    const prepared: OnRecord = { ...cancelling, delivery: { state: "DeliveryPrepared", startDate: null } };
    assert.equal(storeOf(prepared, policy("acceptance", "made")), "MakeStarted");
    // Its ticket does not know any more; the row does, if it is there.
    const owner = policy("owner", "none");
    assert.equal(storeOf(cancelling, owner), "StoreAccepted", "at least");
    for (const was of ["StoreAccepted", "MakeStarted", "MakeCompleted"])
      assert.equal(storeOf(cancelling, owner, was), was);
    for (const was of ["StoreCancelled", "StoreRejected", "Nonsense"])
      assert.equal(storeOf(cancelling, owner, was), "StoreAccepted");
    assert.equal(storeOf(cancelling, policy("acceptance", "none"), "StoreAccepted"), "MakeStarted");
  });
});

describe("the index of somebody's orders", () => {
  const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const indexed = (orderId: number): IndexEvent => ({ type: "OrderIndexed", data: { orderId } });
  const full = numbers(1, INDEX_PAGE);

  it("has each order once", () => {
    const added = given(INDEX, indexed(1)).when((was) => index(was, 2));
    added.thenHappens(indexed(2));
    assert.deepEqual(added.state, { orderIds: [1, 2], pages: 0 });
    given(INDEX, indexed(1), indexed(2))
      .when((was) => index(was, 1))
      .thenHappens();
  });

  it("turns a page when it is full, once", () => {
    given(INDEX)
      .when((was) => turnPage(was, 0, full))
      .thenHappens();
    given(INDEX, ...full.slice(1).map(indexed))
      .when((was) => turnPage(was, 0, full))
      .thenHappens();
    const turned = given(INDEX, ...full.map(indexed)).when((was) => turnPage(was, 0, full));
    turned.thenHappens({ type: "PageTurned", data: { pages: 1, kept: [] } });
    assert.deepEqual(turned.state, { orderIds: [], pages: 1 });
    given(INDEX, ...full.map(indexed), { type: "PageTurned", data: { pages: 1, kept: [] } })
      .when((was) => turnPage(was, 0, full))
      .thenHappens();
  });

  it("turns no page twice, though the next one is full too", () => {
    const next = numbers(INDEX_PAGE + 1, 2 * INDEX_PAGE);
    const turned: IndexEvent = { type: "PageTurned", data: { pages: 1, kept: [] } };
    const later = given(INDEX, ...full.map(indexed), turned, ...next.map(indexed));
    later.when((was) => turnPage(was, 0, full)).thenHappens();
    later
      .when((was) => turnPage(was, 1, next))
      .thenHappens({ type: "PageTurned", data: { pages: 2, kept: [] } });
  });

  it("keeps what came while the page was being written", () => {
    const late = [INDEX_PAGE + 1, INDEX_PAGE + 2];
    const turned = given(INDEX, ...[...full, ...late].map(indexed)).when((was) => turnPage(was, 0, full));
    assert.deepEqual(turned.state, { orderIds: late, pages: 1 });
  });
});
