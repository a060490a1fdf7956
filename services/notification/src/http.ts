import type { Dialects } from "#kit/dialects.js";
import { collection, get, idOf, itemOf, onRecord, type Route, type Source } from "#kit/http.js";
import type { Shop } from "#kit/shop.js";
import type { Messages } from "./app.js";
import { type Message, textOf } from "./domain.js";

export function represent(id: number, message: Message, language: Shop["language"]): object {
  const { status, sender: _sender, textEn, textKo, ...rest } = message;
  return { id, ...rest, text: textOf(message, language), texts: { en: textEn, ko: textKo }, state: status };
}

export function routes(messages: Messages, dialects: Dialects, { language }: Shop): Route[] {
  const ways = dialects.ways("messages", "message");
  const source: Source<Message> = {
    page: (request) => messages.page(request),
    load: (id) => messages.load(id),
    represent: (id, message) => represent(id, message, language),
  };
  return [
    // An order has several (S2-T5), so this comes before the collection's own search, which knows of one.
    ...ways.map((way) =>
      get(`/${way.name}/search/findByOrderId`, async ({ query }) => {
        const found = await messages.ofOrder(idOf(query.orderId, "order"));
        const items = found.map(({ id, state }) => itemOf(way, id, represent(id, state, language)));
        return { status: 200, body: { _embedded: { [way.name]: items } } };
      }),
    ),
    // As MessageSent told of them.
    onRecord(async (orderIds) => ({
      records: (await messages.sentOf(orderIds)).map(([messageId, message]) => {
        const { orderId, event, channel, sentDate: at } = message;
        return { orderId, messageId, event, channel, text: textOf(message, language), at };
      }),
    })),
    ...collection<Message>(ways, source),
  ];
}
