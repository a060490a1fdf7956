import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { OrderInfo } from "#kit/events.js";
import { decides, given } from "#kit/testing.js";
import { accept, cancel, confirmCancel, receive, reject, TICKET, type TicketEvent } from "./domain.js";

const info: OrderInfo = {
  orderId: 7,
  productId: 1,
  productName: "Outwear-1",
  qty: 3,
  customerId: null,
  customerName: null,
  customerAddr: "seoul",
};
const automatic = { accept: "automatic", confirmCancel: "automatic" } as const;
const owner = { accept: "owner", confirmCancel: "owner" } as const;
const about = { ...info, id: 7 };

const received: TicketEvent = { type: "TicketReceived", data: info };
const accepted: TicketEvent = { type: "StoreAccepted", data: about };
const rejected: TicketEvent = { type: "StoreRejected", data: { ...about, reason: "sold out" } };
const asked: TicketEvent = { type: "CancelRequested", data: { reason: "changed my mind" } };
const cancelled: TicketEvent = { type: "StoreCancelled", data: { ...about, reason: "changed my mind" } };

const histories = {
  none: [],
  received: [received],
  accepted: [accepted],
  "accepted by the owner": [received, accepted],
  rejected: [received, rejected],
  "cancel asked": [accepted, asked],
  cancelled: [accepted, cancelled],
  "cancelled before it came": [cancelled],
};
/** The same in every state but those said. */
const all = <T extends string>(usual: T, but: Partial<Record<keyof typeof histories, string>>) => ({
  none: usual,
  received: usual,
  accepted: usual,
  "accepted by the owner": usual,
  rejected: usual,
  "cancel asked": usual,
  cancelled: usual,
  "cancelled before it came": usual,
  ...but,
});

describe("a store order", () => {
  decides(
    TICKET,
    histories,
    {
      "receive, accepted automatically": (ticket) => receive(ticket, info, automatic),
      "receive, for the owner": (ticket) => receive(ticket, info, owner),
      accept: (ticket) => accept(ticket, 7),
      reject: (ticket) => reject(ticket, 7, "sold out"),
      "cancel, automatically": (ticket) => cancel(ticket, info, "changed my mind", automatic),
      "cancel, asking the owner": (ticket) => cancel(ticket, info, "changed my mind", owner),
      confirmCancel: (ticket) => confirmCancel(ticket, 7),
    },
    {
      "receive, accepted automatically": all("nothing", { none: "StoreAccepted" }),
      "receive, for the owner": all("nothing", { none: "TicketReceived" }),
      accept: all("409 store-order-closed", {
        none: "404 not-found",
        received: "StoreAccepted",
        accepted: "nothing",
        "accepted by the owner": "nothing",
      }),
      reject: all("409 store-order-closed", {
        none: "404 not-found",
        received: "StoreRejected",
        rejected: "nothing",
      }),
      "cancel, automatically": all("StoreCancelled", {
        rejected: "nothing",
        "cancel asked": "nothing",
        cancelled: "nothing",
        "cancelled before it came": "nothing",
      }),
      "cancel, asking the owner": all("nothing", {
        none: "StoreCancelled",
        received: "StoreCancelled",
        accepted: "CancelRequested",
        "accepted by the owner": "CancelRequested",
      }),
      confirmCancel: all("409 no-cancel-requested", {
        none: "404 not-found",
        "cancel asked": "StoreCancelled",
        cancelled: "nothing",
        "cancelled before it came": "nothing",
      }),
    },
  );

  it("tells what was accepted, by orderId", () => {
    const decided = given(TICKET).when((ticket) => receive(ticket, info, automatic));
    decided.thenHappens(accepted);
    assert.deepEqual(decided.state, { ...info, status: "StoreAccepted", reason: null });
  });

  it("tells the same when its owner accepts, rejects, or confirms a cancellation", () => {
    given(TICKET, received)
      .when((ticket) => accept(ticket, 7))
      .thenHappens(accepted);
    given(TICKET, received)
      .when((ticket) => reject(ticket, 7, "sold out"))
      .thenHappens(rejected);
    const confirmed = given(TICKET, accepted, asked).when((ticket) => confirmCancel(ticket, 7));
    confirmed.thenHappens(cancelled);
    assert.equal(confirmed.state?.status, "StoreCancelled");
  });

  it("is a tombstone when the cancellation comes first: the order that follows is not accepted", () => {
    const decided = given(TICKET).when((ticket) => cancel(ticket, info, "changed my mind", owner));
    decided.thenHappens(cancelled);
    given(TICKET, cancelled)
      .when((ticket) => receive(ticket, info, automatic))
      .thenHappens();
  });

  it("cannot ask to cancel what never came", () => {
    assert.throws(() => given(TICKET, asked), /CancelRequested without a ticket/);
  });
});
