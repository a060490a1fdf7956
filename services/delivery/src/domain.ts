import { type Event, type OrderInfo, orderInfo } from "#kit/events.js";
import { conflict, notFound } from "#kit/problem.js";
import type { Aggregate } from "#kit/records.js";

export type DeliveryStatus = "DeliveryStarted" | "DeliveryCompleted" | "DeliveryCancelled";

/** The delivery of one order; its id is the order's. */
export interface Delivery extends OrderInfo {
  status: DeliveryStatus;
}

export type DeliveryEvent = Event<DeliveryStatus>;

/** The store has accepted. After its own cancellation it starts nothing. */
export function start(delivery: Delivery | undefined, info: OrderInfo): DeliveryEvent[] {
  return delivery === undefined ? [happened("DeliveryStarted", info)] : [];
}

export function complete(delivery: Delivery | undefined, id: number): DeliveryEvent[] {
  if (delivery === undefined) throw notFound("delivery", id);
  switch (delivery.status) {
    case "DeliveryStarted":
      return [happened("DeliveryCompleted", delivery)];
    case "DeliveryCompleted":
      return [];
    case "DeliveryCancelled":
      throw conflict("delivery-cancelled", `Delivery ${id} is cancelled and cannot be completed.`);
  }
}

/** The store has cancelled, perhaps before its acceptance arrived here. What has been delivered stays delivered. */
export function cancel(delivery: Delivery | undefined, info: OrderInfo): DeliveryEvent[] {
  switch (delivery?.status) {
    case undefined:
    case "DeliveryStarted":
      return [happened("DeliveryCancelled", info)];
    case "DeliveryCompleted":
    case "DeliveryCancelled":
      return [];
  }
}

export function evolve(_delivery: Delivery | undefined, event: DeliveryEvent): Delivery {
  switch (event.type) {
    case "DeliveryStarted":
    case "DeliveryCompleted":
    case "DeliveryCancelled":
      return { ...orderInfo(event.data), status: event.type };
  }
}

export const DELIVERY: Aggregate<Delivery, DeliveryEvent> = { name: "delivery", listed: true, evolve };

function happened(type: DeliveryStatus, info: OrderInfo): DeliveryEvent {
  return { type, data: { ...orderInfo(info), id: info.orderId, deliveryStatus: type } };
}
