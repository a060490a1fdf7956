import type { Event } from "#kit/events.js";
import type { Aggregate } from "#kit/records.js";

/** Stamps for one reason, most often an order: a key of its own, so that a repeat is recognised however late it comes. */
export interface Grant {
  phoneNumber: string;
  /** stamps */
  qty: number;
  status: "Earning" | "Earned" | "Deducting" | "Deducted";
}

/** A change that a card has had but whose grant may not say so yet. */
export type OpenChange = "earn" | "deduct";

/** The stamps of one phone number. */
export interface Card {
  phoneNumber: string;
  /** its number in the list */
  no: number;
  stampQty: number;
  /** by grant; see the design: a key that many orders share cannot remember them all, only those under way */
  open: Record<string, OpenChange>;
}

/** A place in the list of cards. The card says whether it is its own. */
export interface CardNo {
  phoneNumber: string;
}

/** Whom stamps are for, and how many. */
export interface Earning {
  phoneNumber: string;
  qty: number;
}

/** An earning with the order that it comes from; null where the stamps are given by hand. */
export interface Stamps extends Earning {
  orderId: number | null;
}

export type GrantEvent =
  | { type: "EarningBegun"; data: Earning }
  | { type: "EarningEnded" | "DeductionBegun" | "DeductionEnded"; data: object }
  /** a tombstone: taken back before it was earned, so it never will be */
  | { type: "GrantVoided"; data: object };

export type CardEvent =
  | Event<"StampsEarned" | "StampsDeducted">
  | { type: "CardOpened"; data: { phoneNumber: string; no: number } }
  | { type: "ChangeOpened"; data: { grant: string; change: OpenChange } }
  /** these changes are on record with their grants and need not be remembered here any more */
  | { type: "ChangesClosed"; data: { grants: string[] } };

export type CardNoEvent = { type: "CardNumbered"; data: CardNo };

export const beginEarning = (grant: Grant | undefined, earning: Earning): GrantEvent[] =>
  grant === undefined ? [{ type: "EarningBegun", data: earning }] : [];

export const endEarning = (grant: Grant | undefined): GrantEvent[] =>
  grant?.status === "Earning" ? [{ type: "EarningEnded", data: {} }] : [];

/** What is being earned must have been earned first; where that has not begun, it never will. */
export function beginDeduction(grant: Grant | undefined): GrantEvent[] {
  switch (grant?.status) {
    case undefined:
      return [{ type: "GrantVoided", data: {} }];
    case "Earned":
      return [{ type: "DeductionBegun", data: {} }];
    case "Earning":
    case "Deducting":
    case "Deducted":
      return [];
  }
}

export const endDeduction = (grant: Grant | undefined): GrantEvent[] =>
  grant?.status === "Deducting" ? [{ type: "DeductionEnded", data: {} }] : [];

/** The grants that matter to a card: the one that changes it, and those of its open changes. */
type Grants = ReadonlyMap<string, Grant>;

/**
 * Puts the stamps of a grant on its card, once.
 * @param grants as they are after the card was read: see the proof in app.ts
 * @param no the number that the card gets if it is not there yet
 */
export function earn(
  card: Card | undefined,
  id: string,
  stamps: Stamps,
  grants: Grants,
  no: number,
): CardEvent[] {
  if (grants.get(id)?.status !== "Earning" || card?.open[id] !== undefined) return [];
  return [...give(card, stamps, grants, no), { type: "ChangeOpened", data: { grant: id, change: "earn" } }];
}

/** Takes what a grant has put on its card off it again, once. */
export function deduct(card: Card | undefined, id: string, orderId: number, grants: Grants): CardEvent[] {
  const grant = grants.get(id);
  if (grant?.status !== "Deducting" || card?.open[id] === "deduct") return [];
  if (card === undefined) throw new Error(`the stamps of ${id} are on no card`);
  const { phoneNumber, stampQty } = card;
  const { qty } = grant;
  return [
    ...close(card, grants),
    { type: "StampsDeducted", data: { orderId, phoneNumber, qty, stampQty: stampQty - qty } },
    { type: "ChangeOpened", data: { grant: id, change: "deduct" } },
  ];
}

/** Puts stamps on a card, which is opened if need be. */
export function give(card: Card | undefined, stamps: Stamps, grants: Grants, no: number): CardEvent[] {
  const { phoneNumber, qty, orderId } = stamps;
  const stampQty = (card?.stampQty ?? 0) + qty;
  return [
    ...(card === undefined
      ? [{ type: "CardOpened" as const, data: { phoneNumber, no } }]
      : close(card, grants)),
    { type: "StampsEarned", data: { orderId, phoneNumber, qty, stampQty } },
  ];
}

function close({ open }: Card, known: Grants): CardEvent[] {
  const grants = Object.entries(open)
    .filter(([id, change]) => isOver(change, known.get(id)))
    .map(([id]) => id);
  return grants.length === 0 ? [] : [{ type: "ChangesClosed", data: { grants } }];
}

/** Whether a grant says that this change of its card has happened. */
function isOver(change: OpenChange, grant: Grant | undefined): boolean {
  switch (change) {
    case "earn":
      return grant !== undefined && grant.status !== "Earning";
    case "deduct":
      return grant?.status === "Deducted";
  }
}

export const number = (known: CardNo | undefined, phoneNumber: string): CardNoEvent[] =>
  known === undefined ? [{ type: "CardNumbered", data: { phoneNumber } }] : [];

function evolveGrant(grant: Grant | undefined, event: GrantEvent): Grant {
  if (event.type === "EarningBegun") return { ...event.data, status: "Earning" };
  if (event.type === "GrantVoided") return { phoneNumber: "", qty: 0, status: "Deducted" };
  if (grant === undefined) throw new Error(`${event.type} without a grant`);
  switch (event.type) {
    case "EarningEnded":
      return { ...grant, status: "Earned" };
    case "DeductionBegun":
      return { ...grant, status: "Deducting" };
    case "DeductionEnded":
      return { ...grant, status: "Deducted" };
  }
}

function evolveCard(card: Card | undefined, event: CardEvent): Card {
  if (event.type === "CardOpened") return { ...event.data, stampQty: 0, open: {} };
  if (card === undefined) throw new Error(`${event.type} without a card`);
  switch (event.type) {
    case "StampsEarned":
    case "StampsDeducted":
      return { ...card, stampQty: event.data.stampQty };
    case "ChangeOpened":
      return { ...card, open: { ...card.open, [event.data.grant]: event.data.change } };
    case "ChangesClosed": {
      const left = Object.entries(card.open).filter(([id]) => !event.data.grants.includes(id));
      return { ...card, open: Object.fromEntries(left) };
    }
  }
}

export const GRANT: Aggregate<Grant, GrantEvent> = { name: "grant", listed: false, evolve: evolveGrant };
export const CARD: Aggregate<Card, CardEvent> = { name: "card", listed: false, evolve: evolveCard };
export const CARD_NO: Aggregate<CardNo, CardNoEvent> = {
  name: "cardno",
  listed: true,
  evolve: (_, { data }) => data,
};

/** The key of a card. A bare number would be taken for a sequential id, and lose its leading zero. */
export const cardId = (phoneNumber: string): string => `tel:${phoneNumber}`;
