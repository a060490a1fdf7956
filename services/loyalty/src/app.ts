import type { OrderInfo } from "#kit/events.js";
import { digest } from "#kit/ids.js";
import { keyReused } from "#kit/problem.js";
import type { Hint, Page, Records } from "#kit/records.js";
import type { Shop } from "#kit/shop.js";
import {
  beginDeduction,
  beginEarning,
  CARD,
  CARD_NO,
  type Card,
  type CardEvent,
  type CardNo,
  cardId,
  deduct,
  type Earning,
  earn,
  endDeduction,
  endEarning,
  GRANT,
  type Grant,
  type GrantEvent,
  give,
  number,
} from "./domain.js";

type Paid = Pick<OrderInfo, "orderId" | "phoneNumber" | "qty">;

/**
 * The use cases of the stamp cards.
 *
 * Many orders share a card, so its bounded memory of causes cannot tell a late repeat. A change of a card goes in three
 * steps, each of which may be repeated, by any number of processes: its grant begins it → the card is changed, and
 * keeps it in `open` → its grant ends it. A later write of the card forgets what has ended.
 *
 * Why a change never reaches the card twice: say that it was applied with version u of the card, and that a repeat
 * reads version v, then the grant, then writes if the card still has version v. If u > v, that write fails and the
 * repeat reads again. If u ≤ v, either v has the change in `open`, and the repeat does nothing; or a version up to v
 * has dropped it, because the grant was seen to have ended it; a grant never goes back, so the repeat, which reads the
 * grant after v, sees that as well and does nothing.
 */
export class Loyalty {
  constructor(
    private readonly records: Records,
    private readonly shop: Shop,
  ) {
    records.onResume(CARD, (_, card) => this.settle(card), { shared: true });
  }

  /** An order is paid: its stamps are earned, once. */
  async paid({ orderId, phoneNumber, qty }: Paid): Promise<void> {
    if (phoneNumber === null) return;
    const stamps = qty * this.shop.loyalty.stampsPerItem;
    await this.earn(String(orderId), orderId, { phoneNumber, qty: stamps });
  }

  /** A payment is cancelled: what was earned with it goes, once; what was not earned before, never will be. */
  async refunded({ orderId, phoneNumber }: Paid): Promise<void> {
    if (phoneNumber === null) return;
    const id = String(orderId);
    const begin = () => this.grant(id, "deduct", beginDeduction);
    let grant = await begin();
    if (grant?.status === "Earning") {
      await this.finishEarning(id, orderId, grant);
      grant = await begin();
    }
    if (grant?.status !== "Deducting") return;
    await this.change(grant.phoneNumber, `deduct:${id}`, [id], (card, grants) =>
      deduct(card, id, orderId, grants),
    );
    await this.grant(id, "deducted", endDeduction);
  }

  /**
   * Gives stamps by hand. With an idempotency key a repeated request gives them once.
   * @throws Problem 422 the key belongs to another request
   */
  async give(stamps: Earning, idempotencyKey?: string): Promise<Card> {
    const { phoneNumber, qty } = stamps;
    if (idempotencyKey === undefined) {
      const card = await this.change(phoneNumber, crypto.randomUUID(), [], (was, grants, no) =>
        give(was, { ...stamps, orderId: null }, grants, no),
      );
      return there(card, phoneNumber);
    }
    const id = `key-${digest(idempotencyKey)}`;
    const grant = await this.earn(id, null, stamps);
    if (grant?.phoneNumber !== phoneNumber || grant.qty !== qty) {
      throw keyReused("Other stamps need a new Idempotency-Key; a repeated request must have the same body.");
    }
    return there(await this.load(phoneNumber), phoneNumber);
  }

  load(phoneNumber: string): Promise<Card | undefined> {
    return this.records.load(CARD, cardId(phoneNumber));
  }

  /**
   * Newest first. A number that its card did not get (two processes opened it at once, or one died before it did) is
   * neither listed nor counted.
   */
  async page(request: { page: number; size: number }): Promise<Page<Card>> {
    const cards = new Map<string, Card>();
    const only = async (numbers: Page<CardNo>["items"]) => {
      const ids = numbers.map(({ state }) => cardId(state.phoneNumber));
      for (const [id, card] of await this.records.loadMany(CARD, ids)) cards.set(id, card);
      return numbers.filter(({ id, state }) => cards.get(cardId(state.phoneNumber))?.no === id);
    };
    const { items: numbers, ...counts } = await this.records.page(CARD_NO, { ...request, only });
    const items = numbers.flatMap(({ id, state: { phoneNumber } }) => {
      const state = cards.get(cardId(phoneNumber));
      return state === undefined ? [] : [{ id, state }];
    });
    return { items, ...counts };
  }

  private async earn(id: string, orderId: number | null, earning: Earning): Promise<Grant | undefined> {
    const grant = await this.grant(id, "earn", (was) => beginEarning(was, earning), { isNew: true });
    if (grant?.status === "Earning") await this.finishEarning(id, orderId, grant);
    return grant;
  }

  private async finishEarning(
    id: string,
    orderId: number | null,
    { phoneNumber, qty }: Grant,
  ): Promise<void> {
    await this.change(phoneNumber, `earn:${id}`, [id], (card, grants, no) =>
      earn(card, id, { phoneNumber, qty, orderId }, grants, no),
    );
    await this.grant(id, "earned", endEarning);
  }

  /** One step of a grant. It tells nobody, and whoever asked for it (a message, a client) asks again. */
  private async grant(
    id: string,
    step: string,
    decide: (was: Grant | undefined) => GrantEvent[],
    hint: Hint = {},
  ): Promise<Grant | undefined> {
    return (await this.records.handle(GRANT, id, { event: `${step}:${id}` }, decide, hint)).state;
  }

  /**
   * One change of a card. It is a command even where a message asks for it: when that comes again, the card may have
   * forgotten its cause, so the journal has to see to it that what it tells is published.
   */
  private async change(
    phoneNumber: string,
    cause: string,
    ids: string[],
    decide: (card: Card | undefined, grants: Map<string, Grant>, no: number) => CardEvent[],
  ): Promise<Card | undefined> {
    let no: number | undefined;
    const { state } = await this.records.handle(
      CARD,
      cardId(phoneNumber),
      { command: cause },
      async (card) => {
        // In this order: the card was read before this, its grants are read after it.
        const asked = new Set([...ids, ...Object.keys(card?.open ?? {})]);
        const grants = await this.records.loadMany(GRANT, [...asked]);
        no = card?.no ?? no ?? (await this.number(phoneNumber));
        return decide(card, grants, no);
      },
    );
    return state;
  }

  /** A place in the list, made before its card, so that no card is missing there. */
  private async number(phoneNumber: string): Promise<number> {
    const no = await this.records.ids(CARD_NO).next();
    const cause = { command: crypto.randomUUID() };
    await this.records.handle(CARD_NO, no, cause, (was) => number(was, phoneNumber), { isNew: true });
    return no;
  }

  /** What a dead process has changed on a card, its grants shall know; that it is open there proves that it happened. */
  private async settle(card: Card | undefined): Promise<void> {
    for (const [id, change] of Object.entries(card?.open ?? {})) {
      if (change === "earn") await this.grant(id, "earned", endEarning);
      else await this.grant(id, "deducted", endDeduction);
    }
  }
}

function there(card: Card | undefined, phoneNumber: string): Card {
  if (card === undefined) throw new Error(`${phoneNumber} has stamps and no card`);
  return card;
}
