import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given, info, shopWith } from "#kit/testing.js";
import {
  accept,
  cancel,
  closes,
  completeMaking,
  confirmCancel,
  type Policy,
  receive,
  reject,
  startMaking,
  TICKET,
  type TicketEvent,
} from "./domain.js";

const shop = (store: Partial<Policy["store"]>, cancel: Partial<Policy["cancel"]> = {}): Policy =>
  shopWith({ store, cancel });

const automatic = shop({});
const owner = shop({ accept: "owner", confirmCancel: "owner" });
/** coffee (S3): made as soon as it is accepted */
const made = shop({ making: "acceptance" });
/** cafe (S4): the owner accepts, and that starts the making */
const madeOnAcceptance = shop({ accept: "owner", making: "acceptance" });
const madeByOwner = shop({ making: "owner" });

const reason = "changed my mind";
const about = { ...info, id: 7 };
const received: TicketEvent = { type: "TicketReceived", data: info };
const accepted: TicketEvent = { type: "StoreAccepted", data: about };
const rejected: TicketEvent = { type: "StoreRejected", data: { ...about, reason: "sold out" } };
const making: TicketEvent = { type: "MakeStarted", data: about };
const ready: TicketEvent = { type: "MakeCompleted", data: about };
const asked: TicketEvent = { type: "CancelRequested", data: { reason } };
const cancelled: TicketEvent = { type: "StoreCancelled", data: { ...about, reason } };

const histories = {
  none: [],
  received: [received],
  accepted: [accepted],
  "accepted by the owner": [received, accepted],
  "in the making": [accepted, making],
  made: [accepted, making, ready],
  rejected: [received, rejected],
  "cancel asked": [accepted, asked],
  "cancel asked in the making": [accepted, making, asked],
  cancelled: [accepted, cancelled],
  "cancelled in the making": [accepted, making, cancelled],
  "cancelled before it came": [cancelled],
};
type State = keyof typeof histories;
/** The same in every state but those said. */
const all = (usual: string, but: Partial<Record<State, string>>) =>
  Object.fromEntries(Object.keys(histories).map((state) => [state, but[state as State] ?? usual])) as Record<
    State,
    string
  >;

const acceptedBoth = (summary: string) => ({ accepted: summary, "accepted by the owner": summary });
const cancelledAll = (summary: string) => ({
  cancelled: summary,
  "cancelled in the making": summary,
  "cancelled before it came": summary,
});
const askedBoth = (summary: string) => ({
  "cancel asked": summary,
  "cancel asked in the making": summary,
});
const rejecting = (but: Partial<Record<State, string>> = {}) =>
  all("409 store-order-closed", {
    none: "404 not-found",
    received: "StoreRejected",
    rejected: "nothing",
    ...but,
  });

describe("a store order", () => {
  decides(
    TICKET,
    histories,
    {
      "receive, accepted automatically": (ticket) => receive(ticket, info, automatic),
      "receive, for the owner": (ticket) => receive(ticket, info, owner),
      "receive, made on acceptance": (ticket) => receive(ticket, info, made),
      "receive, made when the owner says so": (ticket) => receive(ticket, info, madeByOwner),
      accept: (ticket) => accept(ticket, 7, owner),
      "accept, which starts the making": (ticket) => accept(ticket, 7, madeOnAcceptance),
      "reject until acceptance": (ticket) => reject(ticket, 7, "sold out", automatic),
      "reject until the making": (ticket) =>
        reject(ticket, 7, "sold out", shop({ making: "owner" }, { shop: "making" })),
      "reject until the delivery, of what is made": (ticket) =>
        reject(
          ticket,
          7,
          "sold out",
          shopWith({ store: { making: "owner" }, delivery: "made", cancel: { shop: "delivery" } }),
        ),
      "reject until the delivery, which acceptance starts": (ticket) =>
        reject(ticket, 7, "sold out", shopWith({ delivery: "acceptance", cancel: { shop: "delivery" } })),
      "start making": (ticket) => startMaking(ticket, 7, madeByOwner),
      "start making where nothing is made": (ticket) => startMaking(ticket, 7, automatic),
      "complete making": (ticket) => completeMaking(ticket, 7),
      "cancel, automatically": (ticket) => cancel(ticket, info, reason, automatic),
      "cancel, asking the owner": (ticket) => cancel(ticket, info, reason, owner),
      confirmCancel: (ticket) => confirmCancel(ticket, 7),
    },
    {
      "receive, accepted automatically": all("nothing", { none: "StoreAccepted" }),
      "receive, for the owner": all("nothing", { none: "TicketReceived" }),
      "receive, made on acceptance": all("nothing", { none: "StoreAccepted MakeStarted" }),
      "receive, made when the owner says so": all("nothing", { none: "StoreAccepted" }),
      accept: all("409 store-order-closed", {
        none: "404 not-found",
        received: "StoreAccepted",
        ...{ ...acceptedBoth("nothing"), "in the making": "nothing", made: "nothing" },
      }),
      "accept, which starts the making": all("409 store-order-closed", {
        none: "404 not-found",
        received: "StoreAccepted MakeStarted",
        ...{ ...acceptedBoth("nothing"), "in the making": "nothing", made: "nothing" },
      }),
      "reject until acceptance": rejecting(),
      "reject until the making": rejecting(acceptedBoth("StoreRejected")),
      "reject until the delivery, of what is made": rejecting({
        ...acceptedBoth("StoreRejected"),
        "in the making": "StoreRejected",
      }),
      "reject until the delivery, which acceptance starts": rejecting(),
      "start making": all("409 store-order-closed", {
        none: "404 not-found",
        received: "409 not-accepted",
        ...{ ...acceptedBoth("MakeStarted"), "in the making": "nothing", made: "nothing" },
      }),
      "start making where nothing is made": all("409 nothing-made", { none: "404 not-found" }),
      "complete making": all("409 store-order-closed", {
        none: "404 not-found",
        received: "409 making-not-started",
        ...acceptedBoth("409 making-not-started"),
        ...{ "in the making": "MakeCompleted", made: "nothing" },
      }),
      "cancel, automatically": all("StoreCancelled", {
        rejected: "nothing",
        ...{ ...askedBoth("nothing"), ...cancelledAll("nothing") },
      }),
      "cancel, asking the owner": all("nothing", {
        none: "StoreCancelled",
        received: "StoreCancelled",
        ...acceptedBoth("CancelRequested"),
        ...{ "in the making": "CancelRequested", made: "CancelRequested" },
      }),
      confirmCancel: all("409 no-cancel-requested", {
        none: "404 not-found",
        ...{ ...askedBoth("StoreCancelled"), ...cancelledAll("nothing") },
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
      .when((ticket) => accept(ticket, 7, owner))
      .thenHappens(accepted);
    given(TICKET, received)
      .when((ticket) => reject(ticket, 7, "sold out", owner))
      .thenHappens(rejected);
    const confirmed = given(TICKET, accepted, asked).when((ticket) => confirmCancel(ticket, 7));
    confirmed.thenHappens(cancelled);
    assert.equal(confirmed.state?.status, "StoreCancelled");
  });

  it("tells what is being made, and when it is ready (S3-F4, S4-F8)", () => {
    const begun = given(TICKET, received).when((ticket) => accept(ticket, 7, madeOnAcceptance));
    begun.thenHappens(accepted, making);
    assert.deepEqual(begun.state, { ...info, status: "MakeStarted", reason: null });
    const done = given(TICKET, accepted, making).when((ticket) => completeMaking(ticket, 7));
    done.thenHappens(ready);
    assert.equal(done.state?.status, "MakeCompleted");
  });

  it("waits for its owner's word also when it is cancelled in the making", () => {
    const { state } = given(TICKET, accepted, making).when((ticket) => cancel(ticket, info, reason, owner));
    assert.deepEqual([state?.status, state?.reason], ["CancelRequested", reason]);
    given(TICKET, accepted, making, asked)
      .when((ticket) => confirmCancel(ticket, 7))
      .thenHappens(cancelled);
  });

  it("is a tombstone when the cancellation comes first: the order that follows is not accepted", () => {
    const decided = given(TICKET).when((ticket) => cancel(ticket, info, reason, owner));
    decided.thenHappens(cancelled);
    given(TICKET, cancelled)
      .when((ticket) => receive(ticket, info, automatic))
      .thenHappens();
  });

  it("cannot ask to cancel what never came", () => {
    assert.throws(() => given(TICKET, asked), /CancelRequested without a ticket/);
  });

  it("closes the order for its customer with what the shop names, and with nothing else", () => {
    const closing = (customer: Policy["cancel"]["customer"], ...events: TicketEvent[]) =>
      closes(events, shop({ making: "acceptance" }, { customer }));
    assert.equal(closing("acceptance", accepted), "acceptance");
    assert.equal(closing("acceptance", accepted, making), "acceptance");
    assert.equal(closing("making", accepted, making), "making");
    assert.equal(closing("making", making), "making");
    assert.equal(closing("making", accepted), undefined);
    assert.equal(closing("acceptance", making), undefined, "it has been accepted before");
    for (const other of [received, ready, rejected, asked, cancelled])
      for (const customer of ["acceptance", "making"] as const)
        assert.equal(closing(customer, other), undefined, other.type);
    for (const customer of ["delivery", "completion"] as const)
      assert.equal(closing(customer, accepted, making, ready), undefined, customer);
    assert.equal(closing("acceptance"), undefined);
  });
});
