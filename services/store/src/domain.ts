import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";

export type TicketStatus =
  | "Received"
  | "StoreAccepted"
  | "StoreRejected"
  | "MakeStarted"
  | "MakeCompleted"
  | "CancelRequested"
  | "StoreCancelled";

/** What the store knows of an order; its id is the order's. */
export interface Ticket extends OrderInfo {
  status: TicketStatus;
  reason: string | null;
}

/** What a shop file says about the store's part. */
export type Policy = Pick<Shop, "store" | "delivery" | "cancel">;

export type TicketEvent =
  | Event<"StoreAccepted" | "StoreRejected" | "MakeStarted" | "MakeCompleted" | "StoreCancelled">
  /** waits for the owner to accept */
  | { type: "TicketReceived"; data: OrderInfo }
  /** waits for the owner to confirm */
  | { type: "CancelRequested"; data: { reason: string } };

/** A paid order arrives. After its own cancellation it changes nothing. */
export function receive(ticket: Ticket | undefined, info: OrderInfo, policy: Policy): TicketEvent[] {
  if (ticket !== undefined) return [];
  switch (policy.store.accept) {
    case "automatic":
      return accepted(info, policy);
    case "owner":
      return [{ type: "TicketReceived", data: orderInfo(info) }];
  }
}

export function accept(ticket: Ticket | undefined, id: number, policy: Policy): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "Received":
      return accepted(ticket, policy);
    case "StoreAccepted":
    case "MakeStarted":
    case "MakeCompleted":
      return [];
    case "StoreRejected":
    case "CancelRequested":
    case "StoreCancelled":
      throw closed(id, ticket, "accepted");
  }
}

/** By the shop, for as long as it lets itself. */
export function reject(
  ticket: Ticket | undefined,
  id: number,
  reason: string,
  policy: Policy,
): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "Received":
    case "StoreAccepted":
    case "MakeStarted":
      if (!mayStillReject(ticket.status, policy)) throw closed(id, ticket, "cancelled by the shop");
      return [{ type: "StoreRejected", data: { ...about(ticket), reason } }];
    case "StoreRejected":
      return [];
    case "MakeCompleted":
    case "CancelRequested":
    case "StoreCancelled":
      throw closed(id, ticket, "cancelled by the shop");
  }
}

function mayStillReject(status: "Received" | "StoreAccepted" | "MakeStarted", policy: Policy): boolean {
  if (status === "Received") return true;
  switch (policy.cancel.shop) {
    case "acceptance":
      return false;
    case "making":
      return status === "StoreAccepted";
    case "delivery":
      return policy.delivery === "made";
  }
}

export function startMaking(ticket: Ticket | undefined, id: number, policy: Policy): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  if (policy.store.making === "none")
    throw conflict("nothing-made", "Nothing is made here: the shop sells what it has.");
  switch (ticket.status) {
    case "StoreAccepted":
      return [{ type: "MakeStarted", data: about(ticket) }];
    case "MakeStarted":
    case "MakeCompleted":
      return [];
    case "Received":
      throw conflict("not-accepted", `Store order ${id} has not been accepted yet.`);
    case "StoreRejected":
    case "CancelRequested":
    case "StoreCancelled":
      throw closed(id, ticket, "made");
  }
}

export function completeMaking(ticket: Ticket | undefined, id: number): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "MakeStarted":
      return [{ type: "MakeCompleted", data: about(ticket) }];
    case "MakeCompleted":
      return [];
    case "Received":
    case "StoreAccepted":
      throw conflict("making-not-started", `The making of store order ${id} has not started.`);
    case "StoreRejected":
    case "CancelRequested":
    case "StoreCancelled":
      throw closed(id, ticket, "completed");
  }
}

/** The order was cancelled, perhaps before it arrived here. What the store has accepted may need its owner's word. */
export function cancel(
  ticket: Ticket | undefined,
  info: OrderInfo,
  reason: string,
  policy: Policy,
): TicketEvent[] {
  const cancelled: TicketEvent = { type: "StoreCancelled", data: { ...about(info), reason } };
  switch (ticket?.status) {
    case undefined:
    case "Received":
      return [cancelled];
    case "StoreAccepted":
    case "MakeStarted":
    case "MakeCompleted":
      return policy.store.confirmCancel === "owner"
        ? [{ type: "CancelRequested", data: { reason } }]
        : [cancelled];
    case "StoreRejected":
    case "CancelRequested":
    case "StoreCancelled":
      return [];
  }
}

export function confirmCancel(ticket: Ticket | undefined, id: number): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "CancelRequested":
      return [{ type: "StoreCancelled", data: { ...about(ticket), reason: ticket.reason ?? "" } }];
    case "StoreCancelled":
      return [];
    case "Received":
    case "StoreAccepted":
    case "MakeStarted":
    case "MakeCompleted":
    case "StoreRejected":
      throw conflict(
        "no-cancel-requested",
        `Nobody has asked to cancel store order ${id}; it is ${ticket.status}.`,
      );
  }
}

/**
 * What begins for the customer with these events that the shop does not let the customer stop; the order has to be
 * asked before they happen, or a cancellation and they could both be true.
 */
export function closes(events: readonly TicketEvent[], policy: Policy): "acceptance" | "making" | undefined {
  const until = policy.cancel.customer;
  if (until === "acceptance" && events.some(({ type }) => type === "StoreAccepted")) return until;
  if (until === "making" && events.some(({ type }) => type === "MakeStarted")) return until;
  return undefined;
}

export function evolve(ticket: Ticket | undefined, event: TicketEvent): Ticket {
  switch (event.type) {
    case "TicketReceived":
      return { ...orderInfo(event.data), status: "Received", reason: null };
    case "StoreAccepted":
    case "MakeStarted":
    case "MakeCompleted":
      return { ...orderInfo(event.data), status: event.type, reason: null };
    case "StoreRejected":
    case "StoreCancelled":
      return { ...orderInfo(event.data), status: event.type, reason: event.data.reason };
    case "CancelRequested":
      if (ticket === undefined) throw new Error("CancelRequested without a ticket");
      return { ...ticket, status: "CancelRequested", reason: event.data.reason };
  }
}

export const TICKET: Aggregate<Ticket, TicketEvent> = { name: "ticket", listed: true, evolve };

const about = (info: OrderInfo) => ({ ...orderInfo(info), id: info.orderId });

function accepted(info: OrderInfo, policy: Policy): TicketEvent[] {
  const events: TicketEvent[] = [{ type: "StoreAccepted", data: about(info) }];
  if (policy.store.making === "acceptance") events.push({ type: "MakeStarted", data: about(info) });
  return events;
}

const closed = (id: number, { status }: Ticket, what: string) =>
  conflict("store-order-closed", `Store order ${id} is ${status} and cannot be ${what}.`);
