import { timingSafeEqual } from "node:crypto";
import type Koa from "koa";
import { Problem } from "#kit/problem.js";

/** The header in which a service and its sidecar show each other their tokens. */
export const TOKEN_HEADER = "dapr-api-token";

/** What probes ask for, of whomever: it tells no more than that a service is up. */
const OPEN = new Set(["/healthz", "/readyz", "/actuator/health", "/actuator/echo"]);

/**
 * Refuses whoever does not show the token that only this service and its sidecar know, but for questions about its health.
 * @param front the service has a door for strangers; then only what Dapr itself asks of an app needs the token
 * @throws Problem 401 not-through-the-sidecar
 */
export function demandToken(token: string, front: boolean): Koa.Middleware {
  const expected = Buffer.from(token);
  /** In a time that tells nothing but whether the lengths are equal, and the length is no secret. */
  const isRight = (shown: Buffer) => shown.length === expected.length && timingSafeEqual(shown, expected);
  const isOpen = ({ method, path }: Koa.Context) =>
    front ? !/^\/(dapr|events)\//i.test(path) : (method === "GET" || method === "HEAD") && OPEN.has(path);
  return (ctx, next) => {
    if (isOpen(ctx) || isRight(Buffer.from(ctx.get(TOKEN_HEADER)))) return next();
    throw new Problem(
      401,
      "not-through-the-sidecar",
      "The service is called through its sidecar",
      "Customers use the gateway; who operates the shop shows the service's token in the header dapr-api-token (docs/operations.md).",
      {},
      { "www-authenticate": "dapr-api-token" },
    );
  };
}
