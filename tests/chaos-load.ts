/** The people of a shop in trouble: customers, owners and onlookers who ask again until they are answered, and keep the answers. */
import { setTimeout as delay } from "node:timers/promises";
import { pick, weighted } from "./chaos-plan.js";
import type { Done, Promised } from "./invariants.js";

/** What an answer was worth. `later`: 503; `none`: no answer at all. */
export type Outcome = "done" | "refused" | "later" | "none";

/** What people do. */
const DEEDS = { order: 10, own: 7, look: 6, cancel: 2, stamps: 2 };
export type Deed = keyof typeof DEEDS;

/** An answer, or that there was none. */
export interface Heard {
  outcome: Outcome;
  /** 0 where there was no answer */
  status: number;
  /** as JSON; undefined where there is none */
  body: Record<string, unknown> | undefined;
  /** performance.now() when it was asked, and when it was answered or given up */
  asked: number;
  ended: number;
}

/** Longest wait for one answer, in ms: who waits longer has found something wrong. */
const PATIENCE_MS = 20_000;
/** Some more, to see whether it would have come at all. */
const HANG_MS = 40_000;
/** How long people ask again for one thing, in ms. */
const INSISTING_MS = 120_000;
/** Between two things that somebody does, up to so many ms pass. */
const THINK_MS = 200;
/** Owners and customers deal with the newest of the orders. */
const NEWEST = 150;
const CUSTOMERS = 40;

/** The refusals that are right now and then: what somebody wants is too late, too early, or was done by another. */
const MAY_REFUSE: Record<Deed, readonly string[]> = {
  order: [],
  cancel: ["order-closed", "order-delivered"],
  stamps: [],
  own: [
    ...["not-found", "store-order-closed", "not-accepted", "making-not-started", "no-cancel-requested"],
    ...["order-cancelled", "delivery-not-started", "delivery-cancelled"],
  ],
  look: ["not-found"],
};

/** What an owner or courier does next with what is in a state. */
const NEXT: Record<string, readonly Done[]> = {
  Received: ["accept", "accept", "accept", "reject"],
  StoreAccepted: ["start", "start", "start", "reject"],
  MakeStarted: ["complete"],
  MakeCompleted: ["deliver"],
  CancelRequested: ["confirmcancel"],
};

/** What people have been told, and how they were treated. */
export class Crowd {
  readonly promised: Promised[] = [];
  readonly cancelled = new Set<number>();
  readonly done: { orderId: number; what: Done }[] = [];
  /** stamps given by hand, by phone number */
  readonly given = new Map<string, number>();
  /** how often each deed was answered how */
  readonly counts = new Map<Deed, Record<Outcome, number>>();
  /** the orders that were answered with 201: when they were asked for, and when that was answered (performance.now()) */
  readonly created: { asked: number; ended: number }[] = [];
  /** what must not happen, in sentences */
  readonly findings: string[] = [];
  private ordered = 0;
  private stopping = false;

  /**
   * @param gateway its base URL
   * @param isExcused whether no answer may be the gateway's own end: it was hit, or not back yet, between these times
   */
  constructor(
    private readonly gateway: string,
    private readonly random: () => number,
    private readonly isExcused: (from: number, to: number) => boolean,
  ) {}

  /** Lets so many people in. Resolves when the last one has had an answer to the last question, after {@link stop}. */
  async run(people: number): Promise<void> {
    const person = async () => {
      while (!this.stopping) {
        await this.act(weighted(this.random, DEEDS));
        await delay(this.random() * THINK_MS);
      }
    };
    await Promise.all(Array.from({ length: people }, person));
  }

  /** Nobody begins anything new. */
  stop(): void {
    this.stopping = true;
  }

  private async act(deed: Deed): Promise<void> {
    if (deed === "order") return this.order();
    if (deed === "stamps") return this.stamps();
    const orderId = this.promised.at(-1 - Math.floor(this.random() * NEWEST))?.orderId;
    if (orderId === undefined) return;
    if (deed === "cancel") return this.cancel(orderId);
    if (deed === "own") return this.own(orderId);
    return this.look(orderId);
  }

  private async order(): Promise<void> {
    const request = `chaos-order-${++this.ordered}`;
    const product = { productId: 1 + Math.floor(this.random() * 5), qty: 1 + Math.floor(this.random() * 3) };
    const who = 1 + Math.floor(this.random() * CUSTOMERS);
    const body = { ...product, customerId: `customer-${who}`, phoneNumber: phoneOf(who) };
    const headers = { "idempotency-key": request };
    const place = () => this.insist("order", "POST", "/orders", body, headers);
    const heard = await place();
    if (heard?.outcome !== "done") return;
    this.created.push(heard);
    const orderId = Number(heard.body?.id);
    this.promised.push({ orderId, request, ...product });
    // Not sure whether it was heard, some ask once more.
    if (this.random() > 0.1) return;
    const again = await place();
    if (again?.outcome === "done")
      this.promised.push({ orderId: Number(again.body?.id), request, ...product });
  }

  private async cancel(orderId: number): Promise<void> {
    const headers = { "idempotency-key": `chaos-cancel-${orderId}` };
    const heard = await this.insist("cancel", "DELETE", `/orders/${orderId}`, undefined, headers);
    if (heard?.outcome === "done") this.cancelled.add(orderId);
  }

  private async stamps(): Promise<void> {
    const phoneNumber = phoneOf(1 + Math.floor(this.random() * CUSTOMERS));
    const stampQty = 1 + Math.floor(this.random() * 3);
    const headers = { "idempotency-key": `chaos-stamps-${crypto.randomUUID()}` };
    const heard = await this.insist("stamps", "POST", "/stamps", { phoneNumber, stampQty }, headers);
    if (heard?.outcome === "done") this.given.set(phoneNumber, (this.given.get(phoneNumber) ?? 0) + stampQty);
  }

  /** The owner, or a courier, takes an order one step further. */
  private async own(orderId: number): Promise<void> {
    const ticket = await this.insist("own", "GET", `/storeOrders/${orderId}`);
    const steps = NEXT[String(ticket?.body?.state)];
    if (ticket?.outcome !== "done" || steps === undefined) return;
    const what = pick(this.random, steps);
    const path = what === "deliver" ? `/deliveries/${orderId}/complete` : `/storeOrders/${orderId}/${what}`;
    const heard = await this.insist("own", "PUT", path);
    if (heard?.outcome === "done") this.done.push({ orderId, what });
  }

  private async look(orderId: number): Promise<void> {
    const order = `/orders/${orderId}`;
    const path = pick(this.random, [
      ...[order, order, `/payments/${orderId}`, `/orderStatuses/${orderId}`, `/deliveries/${orderId}`],
      ...["/products/1", "/orders?size=5", "/orderStatuses?size=5", "/messages?size=5", "/stamps?size=5"],
      `/history?phoneNumber=${phoneOf(1)}&size=5`,
    ]);
    const heard = await this.ask("look", "GET", path);
    if (path === order && heard.outcome === "refused")
      this.findings.push(`order ${orderId} was promised, and is not there: ${heard.status} to GET ${path}`);
  }

  /** Asks until there is an answer; undefined if none has come in the end. */
  private async insist(
    deed: Deed,
    method: string,
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<Heard | undefined> {
    for (const end = performance.now() + INSISTING_MS; performance.now() < end; ) {
      const heard = await this.ask(deed, method, path, body, headers);
      if (heard.outcome === "done" || heard.outcome === "refused") return heard;
      await delay(250 + this.random() * 750);
    }
    this.findings.push(`${method} ${path}: no answer but "later" for ${INSISTING_MS / 1000} s`);
    return undefined;
  }

  /** Asks once, counts the answer, and keeps what is wrong with it. */
  private async ask(
    deed: Deed,
    method: string,
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<Heard> {
    const heard = await hear(this.gateway + path, method, body, headers);
    const counts = this.counts.get(deed) ?? { done: 0, refused: 0, later: 0, none: 0 };
    counts[heard.outcome]++;
    this.counts.set(deed, counts);
    const excused = this.isExcused(heard.asked, heard.ended);
    for (const wrong of faultsOf(heard, MAY_REFUSE[deed], excused))
      this.findings.push(`${method} ${path}: ${wrong}`);
    return heard;
  }
}

const phoneOf = (who: number) => `010${String(who).padStart(8, "0")}`;

/** One request. Whatever goes wrong on its way is an answer too. */
async function hear(
  url: string,
  method: string,
  body: object | undefined,
  headers: Record<string, string>,
): Promise<Heard & { said: string; headers: Headers }> {
  const asked = performance.now();
  try {
    const answer = await fetch(url, {
      method,
      headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
      signal: AbortSignal.timeout(HANG_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const said = await answer.text();
    const { status } = answer;
    const outcome = status < 300 ? "done" : status === 503 ? "later" : "refused";
    const ended = performance.now();
    return { outcome, status, body: parsed(said), asked, ended, said, headers: answer.headers };
  } catch (error) {
    const { message, cause } = error as Error;
    const said = cause instanceof Error ? cause.message : message;
    const headers = new Headers();
    return { outcome: "none", status: 0, body: undefined, asked, ended: performance.now(), said, headers };
  }
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** What is wrong with an answer, or with its absence. */
function faultsOf(
  { outcome, status, body, asked, ended, said, headers }: Heard & { said: string; headers: Headers },
  mayRefuse: readonly string[],
  excused: boolean,
): string[] {
  const took = ended - asked;
  const late = took > PATIENCE_MS && !excused ? [`took ${Math.round(took / 1000)} s`] : [];
  if (outcome === "none") return excused ? [] : [...late, `no answer (${said})`];
  const answer = `${status} ${said.slice(0, 300)}`;
  if (outcome === "done")
    return body === undefined ? [...late, `an answer that is no JSON: ${answer}`] : late;
  const isProblem = headers.get("content-type")?.startsWith("application/problem+json") ?? false;
  const code = /^urn:jangteo:problem:([a-z-]+)$/.exec(String(body?.type))?.[1];
  if (!isProblem || code === undefined || body?.status !== status)
    return [...late, `an answer that is no problem of ours: ${answer}`];
  if (outcome === "later")
    return Number(headers.get("retry-after")) > 0 ? late : [...late, `503 without Retry-After: ${answer}`];
  return mayRefuse.includes(code) ? late : [...late, answer];
}
