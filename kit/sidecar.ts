/**
 * What a service can ask of its sidecar, and nothing more. kit/dapr.ts does it with a real one, kit/memory.ts is the
 * twin for domain speed and simulation; tests/conformance holds both to the same suite.
 */

/** A stored value and the ETag that a later save must name. */
export interface Entry {
  value: unknown;
  etag: string;
}

/** Somebody else wrote the key first: read again and decide again. */
export class Conflict extends Error {
  override name = "Conflict";
}

/** The sidecar, or what lies behind it, gave no answer; whether a write took effect is unknown. */
export class Unavailable extends Error {
  override name = "Unavailable";
}

/** One state component. Keys hold JSON values. */
export interface Store {
  /** Reads keys; those that do not exist are absent from the answer. @throws Unavailable */
  get(keys: readonly string[]): Promise<Map<string, Entry>>;
  /**
   * Writes one key if it still has this ETag, or, where `etag` is null, if it does not exist.
   * @param ttlSeconds the key disappears after so many seconds
   * @throws Conflict if it has changed, Unavailable if the outcome is unknown
   */
  save(key: string, value: unknown, etag: string | null, ttlSeconds?: number): Promise<void>;
  /** Removes one key if it still has this ETag. @throws Conflict, Unavailable */
  delete(key: string, etag: string): Promise<void>;
}

/** Reads one key. @throws Unavailable */
export async function readOne(store: Store, key: string): Promise<Entry | undefined> {
  return (await store.get([key])).get(key);
}

/** A CloudEvent 1.0 as it goes over the bus. https://github.com/cloudevents/spec */
export interface CloudEvent {
  specversion: "1.0";
  id: string;
  source: string;
  type: string;
  time: string;
  subject: string;
  datacontenttype: "application/json";
  data: Record<string, unknown>;
  traceparent?: string;
  /** the same again: daprd keeps an event's traceparent only if it has a traceid too (pubsub/envelope.go) */
  traceid?: string;
}

/** An answer from another service, whatever its status. */
export interface Reply {
  status: number;
  headers: Record<string, string>;
  body: unknown;
}

/** A call to another service. */
export interface Call {
  method: string;
  /** path and query, beginning with "/" */
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
  /** milliseconds until the caller gives up */
  timeoutMs?: number;
}

export interface Sidecar {
  readonly store: Store;
  /** Publishes to the topic; resolves once the broker has all of them. @throws Unavailable */
  publish(topic: string, events: CloudEvent[]): Promise<void>;
  /** Calls another service by its app-id. @throws Unavailable when there is no answer from it */
  invoke(app: string, call: Call): Promise<Reply>;
  /**
   * Hands something to the outside through an output binding; answers what the outside said.
   * @param binding name of the component
   * @param metadata what this kind of binding wants to know besides the data; others ignore it
   * @throws Unavailable when it was not taken, or perhaps not
   */
  bind(binding: string, data: unknown, metadata?: Record<string, string>): Promise<unknown>;
  /** Resolves when the sidecar and the store behind it answer. @throws Unavailable */
  ready(): Promise<void>;
  /** The topics that the sidecar listens to for this service. @throws Unavailable */
  heard(): Promise<ReadonlySet<string>>;
  /** Ends the sidecar; whoever keeps it running (Kubernetes, compose, `npm start`) starts it anew. @throws Unavailable */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** What a subscriber tells its sidecar about a message. */
export type Verdict = "SUCCESS" | "RETRY" | "DROP";
