import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";

export type TicketStatus =
  | "Received"
  | "StoreAccepted"
  | "StoreRejected"
  | "CancelRequested"
  | "StoreCancelled";

/** What the store knows of an order; its id is the order's. */
export interface Ticket extends OrderInfo {
  status: TicketStatus;
  reason: string | null;
}

export type TicketEvent =
  | Event<"StoreAccepted" | "StoreRejected" | "StoreCancelled">
  /** waits for the owner to accept */
  | { type: "TicketReceived"; data: OrderInfo }
  /** waits for the owner to confirm */
  | { type: "CancelRequested"; data: { reason: string } };

/** A paid order arrives. After its own cancellation it changes nothing. */
export function receive(ticket: Ticket | undefined, info: OrderInfo, policy: Shop["store"]): TicketEvent[] {
  if (ticket !== undefined) return [];
  switch (policy.accept) {
    case "automatic":
      return [{ type: "StoreAccepted", data: { ...info, id: info.orderId } }];
    case "owner":
      return [{ type: "TicketReceived", data: info }];
  }
}

export function accept(ticket: Ticket | undefined, id: number): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "Received":
      return [{ type: "StoreAccepted", data: { ...orderInfo(ticket), id } }];
    case "StoreAccepted":
      return [];
    case "StoreRejected":
    case "CancelRequested":
    case "StoreCancelled":
      throw conflict("store-order-closed", `Store order ${id} is ${ticket.status} and cannot be accepted.`);
  }
}

export function reject(ticket: Ticket | undefined, id: number, reason: string): TicketEvent[] {
  if (ticket === undefined) throw notFound("storeOrder", id);
  switch (ticket.status) {
    case "Received":
      return [{ type: "StoreRejected", data: { ...orderInfo(ticket), id, reason } }];
    case "StoreRejected":
      return [];
    case "StoreAccepted":
    case "CancelRequested":
    case "StoreCancelled":
      throw conflict("store-order-closed", `Store order ${id} is ${ticket.status} and cannot be rejected.`);
  }
}

/** The order was cancelled, perhaps before it arrived here. What the store has accepted may need its owner's word. */
export function cancel(
  ticket: Ticket | undefined,
  info: OrderInfo,
  reason: string,
  policy: Shop["store"],
): TicketEvent[] {
  const cancelled: TicketEvent = { type: "StoreCancelled", data: { ...info, id: info.orderId, reason } };
  switch (ticket?.status) {
    case undefined:
    case "Received":
      return [cancelled];
    case "StoreAccepted":
      return policy.confirmCancel === "owner" ? [{ type: "CancelRequested", data: { reason } }] : [cancelled];
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
      return [{ type: "StoreCancelled", data: { ...orderInfo(ticket), id, reason: ticket.reason ?? "" } }];
    case "StoreCancelled":
      return [];
    case "Received":
    case "StoreAccepted":
    case "StoreRejected":
      throw conflict(
        "no-cancel-requested",
        `Nobody has asked to cancel store order ${id}; it is ${ticket.status}.`,
      );
  }
}

export function evolve(ticket: Ticket | undefined, event: TicketEvent): Ticket {
  switch (event.type) {
    case "TicketReceived":
      return { ...orderInfo(event.data), status: "Received", reason: null };
    case "StoreAccepted":
      return { ...orderInfo(event.data), status: "StoreAccepted", reason: null };
    case "StoreRejected":
      return { ...orderInfo(event.data), status: "StoreRejected", reason: event.data.reason };
    case "StoreCancelled":
      return { ...orderInfo(event.data), status: "StoreCancelled", reason: event.data.reason };
    case "CancelRequested":
      if (ticket === undefined) throw new Error("CancelRequested without a ticket");
      return { ...ticket, status: "CancelRequested", reason: event.data.reason };
  }
}

export const TICKET: Aggregate<Ticket, TicketEvent> = { name: "ticket", listed: true, evolve };
