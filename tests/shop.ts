/** A running shop as its customers, its owner and its auditor see it. For end-to-end tests. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type StartOptions, type System, startSystem } from "#dapr/runner.js";
import { unpacked } from "#kit/store.js";

export interface Reply {
  status: number;
  headers: Headers;
  // A test looks into answers whose shape is the very thing under test.
  // biome-ignore lint/suspicious/noExplicitAny: see above
  body: any;
}

/** A shop at some address, as its customers and its owner see it. */
export class ShopAt {
  constructor(readonly gateway: string) {}

  /** What a call to another base URL than the gateway's shows. */
  protected headersFor(_base: string): Record<string, string> {
    return {};
  }

  /** A call to the gateway; or, with the token that is demanded there, to the base URL of a service or a sidecar. */
  async http(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
    base = this.gateway,
  ): Promise<Reply> {
    const answer = await fetch(base + path, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        // Customers have no token.
        ...(base === this.gateway ? {} : this.headersFor(base)),
        ...headers,
      },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    return {
      status: answer.status,
      headers: answer.headers,
      body: text === "" ? undefined : parsed(text),
    };
  }

  /** Places an order and answers its id. */
  async order(body: object = {}, headers: Record<string, string> = {}): Promise<number> {
    const reply = await this.http(
      "POST",
      "/orders",
      { productId: 1, productName: "Outwear-1", qty: 1, ...body },
      headers,
    );
    assert.equal(reply.status, 201, JSON.stringify(reply.body));
    return reply.body.id;
  }

  /** Waits until the item at `path` has these fields. */
  async shows(path: string, fields: object, withinMs = 20_000): Promise<Reply["body"]> {
    let last: Reply | undefined;
    await until(`${path} shows ${JSON.stringify(fields)}`, withinMs, async () => {
      last = await this.http("GET", path);
      return Object.entries(fields).every(([name, value]) => last?.body?.[name] === value);
    }).catch((error: Error) => {
      throw new Error(`${error.message}; last seen: ${JSON.stringify(last?.body)}`);
    });
    return last?.body;
  }

  async stock(productId = 1): Promise<number> {
    return (await this.http("GET", `/products/${productId}`)).body.stock;
  }

  /** Every item of a collection. */
  async all(name: string): Promise<Reply["body"][]> {
    const items: Reply["body"][] = [];
    for (let page = 0; ; page++) {
      const { status, body } = await this.http("GET", `/${name}?page=${page}&size=500`);
      assert.equal(status, 200, JSON.stringify(body));
      items.push(...body._embedded[name]);
      if (page + 1 >= body.page.totalPages) {
        assert.equal(items.length, body.page.totalElements, `${name}: totalElements`);
        return items;
      }
    }
  }

  /**
   * Waits until the books balance: every order that stands is paid once, accepted once, delivered once and shown; nothing else
   * is; stock and orders add up.
   * @param placed the orders that stand
   * @param initialStock of the product that they ordered, one piece each
   */
  async balances(placed: readonly number[], initialStock: number, withinMs = 60_000): Promise<void> {
    const standing = new Set(placed);
    const differs = async (name: string, field: string, value: string): Promise<string | undefined> => {
      const ids = (await this.all(name))
        .filter((item) => item[field] === value)
        .map((item) => item.orderId as number);
      if (new Set(ids).size !== ids.length) return `${name}: an order twice`;
      const missing = placed.filter((id) => !ids.includes(id));
      const extra = ids.filter((id) => !standing.has(id));
      return missing.length + extra.length === 0
        ? undefined
        : `${name}: missing ${missing}; too many ${extra}`;
    };
    const books = async (): Promise<string | undefined> =>
      (await differs("orders", "state", "OrderPlaced")) ??
      (await differs("payments", "state", "PaymentApproved")) ??
      (await differs("storeOrders", "state", "StoreAccepted")) ??
      (await differs("deliveries", "state", "DeliveryStarted")) ??
      (await differs("orderStatuses", "deliveryStatus", "DeliveryStarted")) ??
      ((await this.stock()) === initialStock - placed.length
        ? undefined
        : `stock: ${await this.stock()} for ${initialStock} less ${placed.length}`);
    let wrong: string | undefined;
    await until("the books balance", withinMs, async () => {
      wrong = await books();
      return wrong === undefined;
    }).catch((error: Error) => {
      throw new Error(`${error.message}: ${wrong}`);
    });
  }
}

/** A shop that this process has started. */
export class TestShop extends ShopAt {
  private constructor(
    readonly system: System,
    readonly data: string,
  ) {
    super(system.gateway);
  }

  protected override headersFor(base: string): Record<string, string> {
    return this.system.headersFor(base);
  }

  /** Starts a shop on its own data directory and ports. */
  static async open(ports: number, options: StartOptions = {}): Promise<TestShop> {
    const data = options.data ?? (await mkdtemp(join(tmpdir(), "jangteo-e2e-")));
    try {
      return new TestShop(await startSystem({ ...options, data, ports }), data);
    } catch (error) {
      // The message has what matters of the logs. What the caller keeps somewhere stays.
      if (options.data === undefined) await rm(data, { recursive: true, force: true, maxRetries: 10 });
      throw error;
    }
  }

  /** Stops it; with `keep`, its data stays for the next {@link open}. */
  async close(keep = false): Promise<void> {
    await this.system.stop({ now: !keep }); // what is thrown away needs no farewell
    // Of a server that was killed, a part may still write for a moment.
    if (!keep) await rm(this.data, { recursive: true, force: true, maxRetries: 10 });
  }

  /** What the order service has on record, hidden orders included: status by id. Asked of its sidecar. */
  async recorded(): Promise<Map<number, string>> {
    type Row = { key: string; data?: { next?: number; state?: { status: string } | null } };
    const state = async (keys: string[]) => {
      const asked = { keys, parallelism: 10 };
      const sidecar = this.system.sidecarUrl("order");
      const answer = await this.http("POST", "/v1.0/state/orders/bulk", asked, {}, sidecar);
      assert.equal(answer.status, 200);
      return (answer.body as Row[]).map(({ key, data }) => ({
        key,
        data: unpacked({ value: data, etag: "" })?.value,
      })) as Row[];
    };
    const [counter] = await state(["ids:order"]);
    const last = (counter?.data?.next ?? 1) - 1;
    const rows = new Map<number, string>();
    for (let from = 1; from <= last; from += 500) {
      const ids = Array.from({ length: Math.min(500, last - from + 1) }, (_, i) => from + i);
      for (const { key, data } of await state(ids.map((id) => `order:${id}`))) {
        if (data?.state) rows.set(Number(key.split(":")[1]), data.state.status);
      }
    }
    return rows;
  }

  /**
   * Waits until nothing is under way, then checks that the {@link balances books balance}.
   * @param promised ids that customers were told
   */
  async audit(promised: readonly number[], initialStock: number, withinMs = 60_000): Promise<void> {
    assert.equal(new Set(promised).size, promised.length, "an id was given to two customers");
    await until(
      "no order is pending",
      withinMs,
      async () => ![...(await this.recorded()).values()].includes("Pending"),
    );
    const placed = [...(await this.recorded())]
      .filter(([, status]) => status === "OrderPlaced")
      .map(([id]) => id);
    const standing = new Set(placed);
    for (const id of promised) assert.ok(standing.has(id), `order ${id} was promised and does not stand`);
    await this.balances(placed, initialStock, withinMs);
  }
}

/** What is no JSON (a sidecar's own words, now and then) stays text. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Waits for a condition, looking again every few ms. */
export async function until(what: string, withinMs: number, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const held = await holds().catch(() => false);
    if (held) return;
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
