import { catalogue, on, type Subscription } from "#kit/events.js";
import type { Shop } from "#kit/shop.js";
import type { Messages } from "./app.js";

/** One for each event that the shop tells its customers of. @throws Error where it is none that customers can be told of */
export function subscriptions(messages: Messages, { notifications }: Shop): Subscription[] {
  return [...new Set(notifications.map((entry) => entry.on))].map((event) => {
    if (!Object.hasOwn(catalogue[event].shape, "orderId"))
      throw new Error(`notifications: ${event} is about no order, so there is nobody to be told of it.`);
    if (event === "MessageSent") throw new Error("notifications: MessageSent would tell of itself.");
    return on(event, (message) => messages.tell(message));
  });
}
