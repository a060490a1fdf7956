import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";
import { type Logger, type LoggerOptions, pino } from "pino";

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

/**
 * A JSON logger on standard output; every line carries the service, its replica and the trace id.
 * @param file each line is also appended to this file, such as one on a volume that others read (S3-O6). A file that can't be
 * written is said once, and the shop goes on without it.
 */
export function createLogger(service: string, replica: string, level: string, file?: string): Logger {
  const options: LoggerOptions = {
    level,
    base: { service, replica },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    mixin: () => {
      const trace = currentTrace();
      return trace === undefined ? {} : { traceId: trace.traceId };
    },
  };
  if (file === undefined) return pino(options);
  const streams = pino.multistream([]);
  // The logger's own level decides; the streams take whatever it lets through.
  streams.add({ level: "trace", stream: pino.destination({ dest: 1, sync: true }) });
  const log = pino(options, streams);
  const without = (err: unknown) => log.warn({ err, file }, "the log file can't be written");
  try {
    const stream = pino.destination({ dest: file, append: true, mkdir: true, sync: true });
    // Once: if the disk is full, each line would say so.
    let failed = false;
    stream.on("error", (error) => {
      if (!failed) without(error);
      failed = true;
    });
    streams.add({ level: "trace", stream });
  } catch (error) {
    without(error);
  }
  return log;
}

export type { Logger };
