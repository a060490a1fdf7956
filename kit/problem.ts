import { type Reply, Unavailable } from "#kit/sidecar.js";

/**
 * Errors that a client may see, as RFC 9457 problem+json. Thrown wherever something is refused, written once, at the
 * edge (kit/http.ts). `type` is stable: clients may branch on it.
 */
export class Problem extends Error {
  override name = "Problem";

  constructor(
    readonly status: number,
    /** last part of the type, e.g. "out-of-stock" → urn:jangteo:problem:out-of-stock */
    readonly code: string,
    readonly title: string,
    detail: string,
    readonly extra: Record<string, unknown> = {},
    readonly headers: Record<string, string> = {},
  ) {
    super(detail);
  }

  /** A problem that another service answered, to pass it on. */
  static from(status: number, body: unknown): Problem {
    const {
      type,
      title,
      detail,
      status: _status,
      instance: _instance,
      ...extra
    } = (typeof body === "object" && body !== null ? body : {}) as Record<string, unknown>;
    // Whoever answers without a problem of ours says nothing that could be passed on.
    const code = typeof type === "string" ? (type.split(":").at(-1) ?? "refused") : "refused";
    return new Problem(
      status,
      code,
      typeof title === "string" ? title : "Refused",
      typeof detail === "string" ? detail : `Another service answered ${status}.`,
      extra,
    );
  }

  toJSON(): Record<string, unknown> {
    return {
      type: `urn:jangteo:problem:${this.code}`,
      title: this.title,
      status: this.status,
      detail: this.message,
      ...this.extra,
    };
  }
}

/** Why another service did not do what it was asked: it refused, and may be quoted; or it failed, and may be asked again. */
export const failureOf = (reply: Reply, asked: string): Problem | Unavailable =>
  reply.status >= 400 && reply.status < 500
    ? Problem.from(reply.status, reply.body)
    : new Unavailable(`${asked} cannot be asked (${reply.status})`);

/** One thing wrong with what the caller sent. */
export interface FieldError {
  field: string;
  reason: string;
}

export const invalid = (errors: FieldError[]): Problem =>
  new Problem(
    422,
    "invalid-field",
    "A field is not acceptable",
    errors.map((error) => `${error.field}: ${error.reason}`).join("; "),
    { errors },
  );

/** @param detail what has to be done instead */
export const keyReused = (detail: string): Problem =>
  new Problem(422, "idempotency-key-reused", "The Idempotency-Key belongs to another request", detail, {
    errors: [{ field: "Idempotency-Key", reason: "was used with a different body" }],
  });

export const notFound = (what: string, id: string | number): Problem =>
  new Problem(404, "not-found", "There is no such thing", `There is no ${what} ${id}.`, {
    resource: what,
    id: String(id),
  });

export const conflict = (code: string, detail: string, extra: Record<string, unknown> = {}): Problem =>
  new Problem(409, code, "The present state does not allow this", detail, extra);

/** Ours to mend, and worth trying again after `seconds`. */
export const tryLater = (
  code: string,
  detail: string,
  seconds = 2,
  extra: Record<string, unknown> = {},
): Problem =>
  new Problem(
    503,
    code,
    "Try again a little later",
    detail,
    { ...extra, retryAfter: seconds },
    {
      "retry-after": String(seconds),
    },
  );

/** More than one client may ask for. https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ */
export const tooManyRequests = (perSecond: number, seconds: number): Problem =>
  new Problem(
    429,
    "too-many-requests",
    "There are too many requests",
    `One client may send ${perSecond} requests per second.`,
    { limit: perSecond, retryAfter: seconds },
    {
      "retry-after": String(seconds),
      "ratelimit-policy": `"client";q=${perSecond};w=1`,
      ratelimit: `"client";r=0;t=${seconds}`,
    },
  );

export const noSuchRoute = (path: string): Problem =>
  new Problem(404, "no-such-route", "There is no such route", `Nothing is at ${path}.`);

export const methodNotAllowed = (path: string, allow: string): Problem =>
  new Problem(
    405,
    "method-not-allowed",
    "The method is not allowed",
    `${path} allows ${allow}.`,
    {},
    { allow },
  );

export const bodyTooLarge = (limit: number, headers: Record<string, string> = {}): Problem =>
  new Problem(
    413,
    "body-too-large",
    "The body is too large",
    `A body may have ${limit} bytes at most.`,
    { limit },
    headers,
  );
