/** What an HTTP server takes from anybody, and how long it waits for it. What is too much is answered with a problem. */
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Socket } from "node:net";
import { networkOf } from "#kit/clients.js";
import { Problem } from "#kit/problem.js";

export interface Limits {
  /** of a request's first line and headers together */
  headBytes: number;
  headers: number;
  /** characters of path and query */
  urlLength: number;
  /** until the head of a request is there, and until all of it is; in ms, 0 for ever */
  headMs: number;
  requestMs: number;
  /** during a request, nothing sent and nothing taken for so long ends the connection; in ms, 0 never */
  silenceMs: number;
  /** a connection without a request ends after so long, in ms */
  keepAliveMs: number;
  connections: number;
  /** of one address */
  connectionsEach: number;
}

/** For a server that only sidecars reach: they keep their connections for 90 s, and whoever closes first must be the client. */
export const BEHIND: Limits = {
  // Dapr makes headers of a message's metadata; a message whose head is refused would come again for ever.
  headBytes: 256 * 1024,
  headers: 2_000,
  urlLength: 8_192,
  headMs: 125_000,
  requestMs: 300_000,
  silenceMs: 0,
  keepAliveMs: 120_000,
  connections: 4_096,
  connectionsEach: Number.POSITIVE_INFINITY,
};

/** For a server that strangers reach. */
export const FRONT: Limits = {
  headBytes: 16 * 1024,
  headers: 100,
  urlLength: 4_096,
  headMs: 10_000,
  requestMs: 20_000,
  silenceMs: 30_000, // longer than an answer may take
  keepAliveMs: 120_000,
  connections: 4_096,
  connectionsEach: 1_024,
};

/** How often it is looked who is too late, in ms. */
const LOOK_MS = 500;
/** How long an answer to what is no request may take to be sent, in ms. */
const LAST_WORD_MS = 1_000;

/**
 * A server within limits; it does not listen yet.
 * @param isTrusted whether an address is a proxy's, with more than one client behind it
 */
export function limitedServer(
  handler: RequestListener,
  limits: Limits,
  isTrusted: (address: string) => boolean = () => false,
): Server {
  const current = new WeakMap<Socket, { request: IncomingMessage; response: ServerResponse }>();
  const excess = new WeakSet<Socket>();
  const dismissed = new WeakSet<Socket>();
  const listener: RequestListener = (request, response) => {
    current.set(request.socket, { request, response });
    const problem = excess.has(request.socket) ? tooManyConnections(limits) : tooMuch(request, limits);
    if (problem === undefined) handler(request, response);
    else refuse(response, problem, request.url);
  };
  const server = createServer(
    {
      maxHeaderSize: limits.headBytes,
      headersTimeout: limits.headMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: LOOK_MS,
      requireHostHeader: false, // looked at below, for Node would answer in its own words
    },
    listener,
  );
  server.on("checkExpectation", listener); // an expectation may be ignored; Node would answer in its own words
  server.timeout = limits.silenceMs;
  server.maxConnections = limits.connections;
  // Without it Node would leave out what is over its own 2,000, and nobody would notice.
  server.maxHeadersCount = 0;
  countConnections(server, limits, excess, isTrusted);
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
    if (dismissed.has(socket)) return;
    if (!socket.writable || error.code === "ECONNRESET") return socket.destroy();
    dismissed.add(socket);
    const problem = problemOf(error.code, limits);
    const under = current.get(socket);
    if (under === undefined || under.response.writableEnded) return lastWord(socket, problem);
    // The request was understood, and is being worked on: another answer would not be its own.
    if (under.request.complete || under.response.headersSent) return socket.destroy();
    return refuse(under.response, problem, under.request.url);
  });
  return server;
}

/** Those beyond what one address may have are told so; those far beyond are not listened to at all. */
function countConnections(
  server: Server,
  limits: Limits,
  excess: WeakSet<Socket>,
  isTrusted: (address: string) => boolean,
): void {
  const most = limits.connectionsEach;
  const counts = new Map<string, number>();
  server.on("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    if (most === Number.POSITIVE_INFINITY || isTrusted(address)) return;
    const client = networkOf(address);
    const count = (counts.get(client) ?? 0) + 1;
    if (count > most + Math.ceil(most / 8)) {
      socket.destroy();
      return;
    }
    if (count > most) excess.add(socket);
    counts.set(client, count);
    socket.once("close", () => {
      const left = (counts.get(client) ?? 1) - 1;
      if (left === 0) counts.delete(client);
      else counts.set(client, left);
    });
  });
}

function tooMuch(request: IncomingMessage, limits: Limits): Problem | undefined {
  if ((request.url ?? "").length > limits.urlLength)
    return new Problem(
      414,
      "uri-too-long",
      "The address is too long",
      `Path and query may have ${limits.urlLength} characters at most.`,
      { limit: limits.urlLength },
    );
  if (request.rawHeaders.length / 2 > limits.headers) return headersTooLarge(limits);
  return request.httpVersion === "1.1" && request.headers.host === undefined ? malformed() : undefined;
}

const headersTooLarge = ({ headBytes, headers }: Limits): Problem =>
  new Problem(
    431,
    "headers-too-large",
    "The headers are too large",
    `A request may have ${headers} headers at most, and ${headBytes} bytes of them and its first line.`,
    { limit: headBytes, headers },
  );

const tooManyConnections = ({ connectionsEach }: Limits): Problem =>
  new Problem(
    429,
    "too-many-connections",
    "There are too many connections",
    `One address may have ${connectionsEach} connections; use them for more than one request.`,
    { limit: connectionsEach, retryAfter: 1 },
    { "retry-after": "1" },
  );

/** What Node's parser or its clock has against a request. */
function problemOf(code: string | undefined, limits: Limits): Problem {
  if (code === "HPE_HEADER_OVERFLOW") return headersTooLarge(limits);
  if (code === "ERR_HTTP_REQUEST_TIMEOUT")
    return new Problem(
      408,
      "request-timeout",
      "The request took too long to arrive",
      `The headers must be there within ${limits.headMs / 1_000} s, all of it within ${limits.requestMs / 1_000} s.`,
    );
  return malformed();
}

const malformed = (): Problem =>
  new Problem(400, "malformed-request", "This is no HTTP request", "It can't be understood as HTTP/1.1.");

/** Answers without the service, and lets the connection go: what follows on it may be anything. */
function refuse(response: ServerResponse, problem: Problem, url = "/"): void {
  const { status, headers, body } = written(problem, url.split("?", 1)[0]?.slice(0, 200));
  response.writeHead(status, headers).end(body);
}

/** The same where there is no response to write to. */
function lastWord(socket: Socket, problem: Problem): void {
  const { status, headers, body } = written(problem);
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head.join("")}\r\n${body}`);
  // Closed with something unread, it would take the answer with it; so it is read, for a moment.
  socket.resume();
  setTimeout(() => socket.destroy(), LAST_WORD_MS).unref();
}

function written(problem: Problem, instance?: string) {
  const body = JSON.stringify({ ...problem.toJSON(), ...(instance === undefined ? {} : { instance }) });
  return {
    status: problem.status,
    body,
    headers: {
      "content-type": "application/problem+json",
      "content-length": String(Buffer.byteLength(body)),
      connection: "close",
      ...problem.headers,
    },
  };
}
