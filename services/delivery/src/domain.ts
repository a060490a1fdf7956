import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type DeliveryStatus =
  | "DeliveryPrepared"
  | "DeliveryStarted"
  | "DeliveryCompleted"
  | "DeliveryCancelled";

/** The delivery of one order; its id is the order's. Times are ISO 8601. */
export interface Delivery extends OrderInfo {
  status: DeliveryStatus;
  startDate: string | null;
  completeDate: string | null;
  cancelDate: string | null;
}

export type DeliveryEvent =
  | Event<"DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled">
  /** what is to be delivered is being made; nobody else's business */
  | { type: "DeliveryPrepared"; data: OrderInfo };

/** The store has accepted, and has to make it first. */
export function prepare(delivery: Delivery | undefined, info: OrderInfo): DeliveryEvent[] {
  return delivery === undefined ? [{ type: "DeliveryPrepared", data: orderInfo(info) }] : [];
}

/** It can go. After its own cancellation it starts nothing. */
export function start(delivery: Delivery | undefined, info: OrderInfo, at: string): DeliveryEvent[] {
  const fresh = delivery === undefined || delivery.status === "DeliveryPrepared";
  return fresh ? [happened("DeliveryStarted", info, at)] : [];
}

export function complete(delivery: Delivery | undefined, id: number, at: string): DeliveryEvent[] {
  if (delivery === undefined) throw notFound("delivery", id);
  switch (delivery.status) {
    case "DeliveryStarted":
      return [happened("DeliveryCompleted", delivery, at)];
    case "DeliveryCompleted":
      return [];
    case "DeliveryPrepared":
      throw conflict("delivery-not-started", `Delivery ${id} has not started yet.`);
    case "DeliveryCancelled":
      throw conflict("delivery-cancelled", `Delivery ${id} is cancelled and cannot be completed.`);
  }
}

/** The store has cancelled, perhaps before its acceptance arrived here. What has been delivered stays delivered. */
export function cancel(delivery: Delivery | undefined, info: OrderInfo, at: string): DeliveryEvent[] {
  switch (delivery?.status) {
    case undefined:
    case "DeliveryPrepared":
    case "DeliveryStarted":
      return [happened("DeliveryCancelled", info, at)];
    case "DeliveryCompleted":
    case "DeliveryCancelled":
      return [];
  }
}

export function evolve(delivery: Delivery | undefined, event: DeliveryEvent): Delivery {
  const was = {
    startDate: null,
    completeDate: null,
    cancelDate: null,
    ...delivery,
    ...orderInfo(event.data),
  };
  switch (event.type) {
    case "DeliveryPrepared":
      return { ...was, status: event.type };
    case "DeliveryStarted":
      return { ...was, status: event.type, startDate: event.data.at };
    case "DeliveryCompleted":
      return { ...was, status: event.type, completeDate: event.data.at };
    case "DeliveryCancelled":
      return { ...was, status: event.type, cancelDate: event.data.at };
  }
}

export const DELIVERY: Aggregate<Delivery, DeliveryEvent> = { name: "delivery", listed: true, evolve };

function happened(
  type: "DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled",
  info: OrderInfo,
  at: string,
): DeliveryEvent {
  return { type, data: { ...orderInfo(info), id: info.orderId, deliveryStatus: type, at } };
}
