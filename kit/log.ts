import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";
import { type Logger, pino } from "pino";

/** The trace that the current piece of work belongs to. https://www.w3.org/TR/trace-context/ */
export interface Trace {
  traceparent: string;
  traceId: string;
}

const traces = new AsyncLocalStorage<Trace>();

/** The trace of the request or message being handled, if any. */
export function currentTrace(): Trace | undefined {
  return traces.getStore();
}

/** Runs `work` within the trace that `traceparent` names; a missing or malformed one starts a new trace. */
export function inTrace<T>(traceparent: string | undefined, work: () => T): T {
  const traceId = /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(traceparent ?? "")?.[1];
  if (traceId !== undefined && traceparent !== undefined) return traces.run({ traceparent, traceId }, work);
  const fresh = randomBytes(16).toString("hex");
  return traces.run(
    { traceparent: `00-${fresh}-${randomBytes(8).toString("hex")}-00`, traceId: fresh },
    work,
  );
}

/** A JSON logger on standard output; every line carries the service, its replica and the trace id. */
export function createLogger(service: string, replica: string, level: string): Logger {
  return pino({
    level,
    base: { service, replica },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    mixin: () => {
      const trace = currentTrace();
      return trace === undefined ? {} : { traceId: trace.traceId };
    },
  });
}

export type { Logger };
