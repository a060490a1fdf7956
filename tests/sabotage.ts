/**
 * The guards of the protocol, each with a way to take it away: not in the code, but between the services and their
 * stores. A simulation that does not notice that one is missing would not notice either that it never worked.
 */
import type { Journaled } from "#kit/journal.js";
import type { Stored } from "#kit/records.js";
import type { Tampering } from "./world.js";

type Value = Stored<Record<string, unknown>>;

/** Changes what is saved; undefined: it is said to be saved, and is not. */
const saving =
  (change: (key: string, value: Value, isNew: boolean) => unknown): Tampering =>
  (store) => ({
    ...store,
    save: async (key, value, etag, ttlSeconds) => {
      const changed = change(key, value as Value, etag === null);
      if (changed !== undefined) await store.save(key, changed, etag, ttlSeconds);
    },
  });

const isRecord = (value: Value): boolean => Array.isArray(value.outbox);

/** What a service writes of something that it is told to take back before it has heard of it. */
const TOMBSTONES: Record<string, string> = {
  ...{ order: "OrderAborted", payment: "PaymentVoided", reservation: "Released", grant: "Deducted" },
  ...{ ticket: "StoreCancelled", delivery: "DeliveryCancelled" },
};

export const GUARDS = {
  /** which causes a record has seen */
  seen: saving((_, value) => (isRecord(value) ? { ...value, seen: [] } : value)),
  /** what a commit has to tell, in the same write */
  outbox: saving((_, value) => (isRecord(value) ? { ...value, outbox: [] } : value)),
  /** what a replica is changing, on record before it does */
  journal: saving((key, value) =>
    key.startsWith("journal:") ? { ...(value as unknown as Journaled), tokens: [] } : value,
  ),
  /** a write fails if somebody else has written since */
  etag: (store) => ({
    ...store,
    save: async (key, value, _etag, ttlSeconds) => {
      const now = (await store.get([key])).get(key);
      await store.save(key, value, now?.etag ?? null, ttlSeconds);
    },
  }),
  /** what is taken back before it came never comes */
  tombstones: saving((key, value, isNew) => {
    const kind = key.slice(0, key.indexOf(":"));
    return isNew && TOMBSTONES[kind] === value.state?.status ? undefined : value;
  }),
  /** what a product or a card has had, and its reservation or grant may not say yet */
  open: saving((key, value) =>
    /^(product|card):/.test(key) && value.state !== null
      ? { ...value, state: { ...value.state, open: {} } }
      : value,
  ),
  /** which order an Idempotency-Key has made */
  idempotency: saving((key, value) => (key.startsWith("idempotency:") ? undefined : value)),
  /** that something has begun which the customer may not stop any more */
  closing: saving((key, value) =>
    key.startsWith("order:") && value.state !== null
      ? { ...value, state: { ...value.state, closedBy: null } }
      : value,
  ),
  /** an order is on record before anything is done for it */
  pending: saving((key, value) =>
    key.startsWith("order:") && value.state?.status === "Pending" ? undefined : value,
  ),
} satisfies Record<string, Tampering>;

export type Guard = keyof typeof GUARDS;
