/** One schedule of the simulation: a shop with some orders and some bad luck, all of it decided by a seed. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Dialects, readDialects } from "#kit/dialects.js";
import type { Stored } from "#kit/records.js";
import type { ServiceDefinition } from "#kit/service.js";
import { parseShop, type Shop } from "#kit/shop.js";
import type { Call, Reply } from "#kit/sidecar.js";
import { delivery } from "../services/delivery/src/main.js";
import { inventory } from "../services/inventory/src/main.js";
import { loyalty } from "../services/loyalty/src/main.js";
import { notification } from "../services/notification/src/main.js";
import { order } from "../services/order/src/main.js";
import { orderview } from "../services/orderview/src/main.js";
import { payment } from "../services/payment/src/main.js";
import { store } from "../services/store/src/main.js";
import { type Done, type Dump, type Facts, type Promised, violations } from "./invariants.js";
import { Chance, type Fault, type Tampering, type Target, type Trouble, World } from "./world.js";

export interface Outcome {
  seed: number;
  /** in a sentence: which shop, how many of what */
  plan: string;
  /** what does not hold; [] when all is well */
  violations: string[];
  /** how many things happened, and how many of them went wrong */
  steps: number;
  faults: number;
}

/**
 * Plays one schedule. Only one at a time may be played in a process: its clocks and timers are replaced meanwhile.
 * @param seed a whole number; it decides everything
 * @param tampering what is put between the services and their stores, to see whether its harm is noticed
 * @param trace hears every step
 */
export async function simulate(
  seed: number,
  {
    tampering,
    trace,
  }: { tampering?: Tampering | undefined; trace?: ((line: string) => void) | undefined } = {},
): Promise<Outcome> {
  const chance = new Chance(seed);
  const shop = shopOf(chance);
  const definitions = definitionsFor(shop);
  const replicas = new Map(definitions.map(({ app }) => [app, chance.maybe(0.3) ? 2 : 1]));
  const trouble = troubleOf(chance, [...replicas.keys()]);
  const customers = chance.between(2, 4);
  const some = [...replicas].filter(([, count]) => count > 1).map(([app]) => app);
  const { store: s, payment: p, cancel: c } = shop;
  const forgetful = chance.maybe(0.3);
  const plan =
    `${forgetful ? "busy " : ""}${shop.name}: paid ${p.when}/${p.unreachable}, stock ${shop.stock}, accept ${s.accept}, making ${s.making}, ` +
    `confirm ${s.confirmCancel}, delivery ${shop.delivery}, cancel ${c.customer}/${c.shop}; ${customers} customers; ` +
    `two of ${some.join(" ") || "none"}; up to ${trouble.most} of ${trouble.kinds.join(", ")} ` +
    `(${trouble.rate}) at ${trouble.at.join(" ") || "all"} of ${trouble.apps.join(" ") || "all"}`;
  const world = new World({
    ...{ seed: chance.between(1, 2 ** 30), shop, dialects: dialectsOf(shop), definitions, replicas },
    ...{ tampering: tampering ?? (forgetful ? forgetsCauses : undefined), trace },
  });
  const people = new People(world, shop, chance);
  trace?.(plan);
  const troubles: string[] = [];
  const unhandled = (reason: unknown) => {
    troubles.push(`a rejection that nobody handles would end the process: ${(reason as Error).message}`);
  };
  process.on("unhandledRejection", unhandled);
  world.enter();
  try {
    world.restart();
    if (!(await world.run(() => world.allStarted(), 60_000))) troubles.push("the services do not start");
    world.trouble = trouble;
    people.come(customers);
    if (!(await world.run(() => people.allDone(), 600_000)))
      troubles.push("somebody still waits for an answer");
    world.heal();
    const atRest = () => world.allStarted() && world.isQuiet() && world.time() - world.lastNews > REST_MS;
    if (!(await world.run(atRest, 900_000))) troubles.push("the services do not come to rest");
    world.leave();
    await new Promise((resolve) => setImmediate(resolve)); // Node speaks of such rejections before its next turn
    const found = violations(dumpOf(world), people.facts());
    return {
      ...{ seed, plan, violations: [...troubles, ...world.deadLetters, ...found] },
      ...{ steps: world.steps, faults: world.faults },
    };
  } finally {
    world.leave();
    process.off("unhandledRejection", unhandled);
  }
}

/** What is used stays in a journal for 20 s, and a dead replica's is taken over after 6 s. */
const REST_MS = 35_000;

/**
 * As if each product and each stamp card had thousands of changes: its record forgets at once which causes it has seen. Nothing
 * may depend on that, for it remembers only so many.
 */
const forgetsCauses: Tampering = (store) => ({
  ...store,
  save: (key, value, etag, ttlSeconds) => {
    const shared = key.startsWith("product:") || key.startsWith("card:");
    return store.save(key, shared ? { ...(value as Stored<unknown>), seen: [] } : value, etag, ttlSeconds);
  },
});

const dumpOf = (world: World): Dump =>
  new Map(
    [...world.twin.stores].map(([name, rows]) => [
      name,
      new Map([...rows].map(([key, { value }]) => [key, value])),
    ]),
  );

// --- the shop ------------------------------------------------------------------------------------------------------

const root = fileURLToPath(new URL("../../", import.meta.url));
const cache = new Map<string, Shop>();
const table = new Map<string, Dialects>();

const dialectsOf = ({ dialect }: Shop): Dialects => {
  const known = table.get(dialect);
  if (known !== undefined) return known;
  const read = readDialects(join(root, "shops", "dialects.yaml"), dialect);
  table.set(dialect, read);
  return read;
};

const PG = "pg";
/** So few that they run out. */
const STOCK = 7;

/** One of the five shops, or one whose rules are drawn. */
function shopOf(chance: Chance): Shop {
  if (chance.maybe(0.6))
    return small(fileOf(chance.pick(["fashion", "bookstore", "flower", "coffee", "cafe"])));
  for (;;) {
    const rules = {
      name: "drawn",
      title: { en: "Drawn", ko: "추첨" },
      payment: { when: chance.pick(["order", "later"]), unreachable: chance.pick(["refuse", "register"]) },
      stock: chance.pick(["reserve", "none"]),
      store: {
        accept: chance.pick(["automatic", "owner"]),
        making: chance.pick(["none", "acceptance", "owner"]),
        confirmCancel: chance.pick(["automatic", "owner"]),
      },
      delivery: chance.pick(["acceptance", "made", "none"]),
      cancel: {
        customer: chance.pick(["acceptance", "making", "delivery", "completion"]),
        shop: chance.pick(["acceptance", "making", "delivery"]),
      },
      loyalty: { stampsPerItem: chance.pick([0, 0, 2]) },
      notifications: chance.maybe(0.3)
        ? ["OrderPaid", "OrderCancelled"].map((on) => ({ on, channel: "sms", text: { en: on, ko: on } }))
        : [],
      catalogue: [1, 2].map((id) => ({ id, name: `Thing ${id}`, price: 1000 * id, stock: STOCK })),
    };
    try {
      return small(parseShop(JSON.stringify(rules), "drawn.yaml"));
    } catch {
      // These rules contradict each other; a shop file would not be taken either.
    }
  }
}

function fileOf(name: string): Shop {
  const known = cache.get(name);
  if (known !== undefined) return known;
  const read = parseShop(readFileSync(join(root, "shops", `${name}.yaml`), "utf8"), name);
  cache.set(name, read);
  return read;
}

/** With two products, few of each, and a payment gateway outside. */
const small = (shop: Shop): Shop => ({
  ...shop,
  payment: { ...shop.payment, gateway: PG },
  catalogue: shop.catalogue.slice(0, 2).map((product) => ({ ...product, stock: STOCK })),
});

function definitionsFor({ loyalty: { stampsPerItem }, notifications }: Shop): ServiceDefinition[] {
  return [
    ...[order, payment, inventory, store, delivery, orderview],
    ...(stampsPerItem > 0 ? [loyalty] : []),
    ...(notifications.length > 0 ? [notification] : []),
  ];
}

const ALL_FAULTS: readonly Fault[] = [
  ...(["refused", "answer lost", "late", "slow", "crash before", "crash after"] as const),
  ...(["pause before", "pause after", "twice", "standstill"] as const),
];

const TARGETS: readonly Target[] = ["store", "publish", "invoke", "bind", "message"];

/** Not every kind of fault each time: what hides behind one kind shows better without the others. */
function troubleOf(chance: Chance, apps: readonly string[]): Trouble {
  return {
    kinds: ALL_FAULTS.filter(() => chance.maybe(0.5)),
    most: chance.between(0, 15),
    rate: chance.pick([0.004, 0.01, 0.03, 0.1]),
    apps: chance.maybe(0.5) ? apps.filter(() => chance.maybe(0.3)) : [],
    at: chance.maybe(0.5) ? TARGETS.filter(() => chance.maybe(0.4)) : [],
  };
}

// --- the people ----------------------------------------------------------------------------------------------------

/** Customers, the owner, a courier and a payment gateway: what they do, and what they were told. */
class People {
  private readonly promised: Promised[] = [];
  private readonly cancelled = new Set<number>();
  private readonly paid = new Set<number>();
  private readonly done: { orderId: number; what: Done }[] = [];
  private readonly given = new Map<string, number>();
  private readonly sent = new Map<number, number>();
  private readonly gateway: Gateway;
  private busy = 0;
  private refused = false;
  /** how much time there is between what people do, in ms: from a crowd that does all at once to a quiet day */
  private readonly pace: number;

  constructor(
    private readonly world: World,
    private readonly shop: Shop,
    private readonly chance: Chance,
  ) {
    this.gateway = new Gateway(chance);
    this.pace = chance.pick([20, 100, 1_000, 4_000]);
    world.outside = (binding, data, metadata) => {
      if (binding === PG) return this.gateway.ask(data as GatewayRequest, metadata["Idempotency-Key"] ?? "");
      const id = Number((metadata["Idempotency-Key"] ?? "").slice("message-".length));
      this.sent.set(id, (this.sent.get(id) ?? 0) + 1);
      return undefined;
    };
  }

  come(customers: number): void {
    for (let i = 1; i <= customers; i++) this.start(() => this.customer(i));
    if (this.shop.loyalty.stampsPerItem > 0 && this.chance.maybe(0.3)) this.start(() => this.gift());
  }

  allDone = (): boolean => this.busy === 0;

  facts(): Facts {
    const { shop, promised, cancelled, paid, done, given, sent } = this;
    return {
      ...{ shop, promised, cancelled, paid, done, given, sent },
      ...{ charged: this.gateway.charged, everyoneAnswered: !this.refused, rested: true },
    };
  }

  private start(what: () => Promise<void>): void {
    this.busy++;
    void what().then(() => this.busy--);
  }

  private wait(most: number): Promise<void> {
    return this.world.pauseOfPeople(this.chance.between(0, most));
  }

  /** Asks until there is an answer that is one. */
  private async insist(app: string, call: Call): Promise<Reply> {
    for (;;) {
      const reply = await this.world.request(app, call).catch(() => undefined);
      if (reply !== undefined && reply.status < 500) return reply;
      await this.wait(3_000);
    }
  }

  private async customer(i: number): Promise<void> {
    const { chance } = this;
    await this.wait(this.pace);
    const request = `key-${i}`;
    const product = chance.pick(this.shop.catalogue);
    const qty = chance.between(1, 3);
    const body = {
      ...{ productId: product.id, productName: product.name, qty },
      ...{ customerId: `customer-${chance.between(1, 2)}`, phoneNumber: `0101234000${chance.between(1, 2)}` },
      method: chance.maybe(0.8) ? "card" : "cash",
      ...(this.shop.payment.price === "order" ? { amount: product.price * qty } : {}),
    };
    const call = { method: "POST", path: "/orders", body, headers: { "idempotency-key": request } };
    const ask = async () => {
      const { status, body: order } = await this.insist("order", call);
      if (status !== 201) {
        this.refused = true;
        return undefined;
      }
      const { id } = order as { id: number };
      this.promised.push({ orderId: id, request, productId: product.id, qty });
      return id;
    };
    const impatient = chance.maybe(0.2) ? this.wait(this.pace).then(ask) : undefined;
    const id = await ask();
    await impatient;
    if (id === undefined) return;
    this.start(() => this.owner(id));
    if (this.shop.payment.when === "later") this.start(() => this.payer(id));
    if (chance.maybe(0.4)) this.start(() => this.regret(id));
    if (chance.maybe(0.1)) this.start(() => this.regret(id));
  }

  private async regret(id: number): Promise<void> {
    await this.wait(this.chance.pick([1, 2]) * this.pace);
    const path = this.chance.maybe(0.8) ? `orders/${id}` : `payments/${id}`;
    const { status, body } = await this.insist(path.startsWith("o") ? "order" : "payment", {
      method: "DELETE",
      path: `/${path}`,
    });
    const { state } = body as { state?: string };
    if (status === 200 && (state === "OrderCancelled" || state === "PaymentCancelled"))
      this.cancelled.add(id);
  }

  /** Pays by card or cash, and in another way if that does not work at once. */
  private async payer(id: number): Promise<void> {
    await this.wait(this.pace);
    if (this.chance.maybe(0.15)) return;
    for (let tries = 0; tries < 20; tries++) {
      const method = this.chance.pick(["card", "cash"]);
      const call = { method: "PUT", path: `/payments/${id}/pay`, body: { method } };
      const reply = await this.world.request("payment", call).catch(() => undefined);
      if (reply?.status === 200) this.paid.add(id);
      if (reply !== undefined && reply.status < 500 && reply.status !== 402) return;
      await this.wait(3_000);
    }
  }

  /** The owner, and the courier after them, each with an order of their own mind. */
  private async owner(id: number): Promise<void> {
    const { store: rules, delivery: delivers } = this.shop;
    const rejects = this.chance.maybe(0.15);
    if (rules.accept === "owner") {
      if (rejects) return void (await this.command(id, "reject"));
      if (!(await this.command(id, "accept"))) return;
    } else if (rejects) return void (await this.command(id, "reject"));
    if (this.chance.maybe(0.3)) return this.confirm(id);
    if (rules.making === "owner" && !(await this.command(id, "start"))) return this.confirm(id);
    if (rules.making !== "none" && !(await this.command(id, "complete"))) return this.confirm(id);
    if (delivers !== "none" && this.chance.maybe(0.6)) await this.command(id, "deliver");
    await this.confirm(id);
  }

  private async confirm(id: number): Promise<void> {
    if (this.shop.store.confirmCancel === "owner" && this.chance.maybe(0.7))
      await this.command(id, "confirmcancel");
  }

  /** Tries for a while: what it is about may have to come here first. */
  private async command(id: number, what: Done): Promise<boolean> {
    const [app, path] =
      what === "deliver"
        ? ["delivery", `/deliveries/${id}/complete`]
        : ["store", `/storeOrders/${id}/${what}`];
    for (let tries = 0; tries < 5; tries++) {
      await this.wait(tries === 0 ? this.pace : 2_500);
      const { status } = await this.insist(app, { method: "PUT", path });
      if (status !== 200) continue;
      this.done.push({ orderId: id, what });
      return true;
    }
    return false;
  }

  private async gift(): Promise<void> {
    await this.wait(this.pace);
    const phoneNumber = "01012340001";
    const body = { phoneNumber, stampQty: 3 };
    const headers = { "idempotency-key": "gift" };
    await this.insist("loyalty", { method: "POST", path: "/stamps", body, headers });
    this.given.set(phoneNumber, 3);
  }
}

type GatewayRequest = { action: "approve" | "void"; orderId: number };

/** A payment gateway as docs/operations.md asks for: it knows a repeat by its key, and what was given back stays so. */
class Gateway {
  readonly charged = new Set<number>();
  private readonly verdicts = new Map<string, object>();
  private readonly voided = new Set<number>();

  constructor(private readonly chance: Chance) {}

  ask({ action, orderId }: GatewayRequest, key: string): object {
    if (action === "void") {
      this.voided.add(orderId);
      this.charged.delete(orderId);
      return {};
    }
    const known = this.verdicts.get(key);
    if (known !== undefined) return known;
    const approved = !this.voided.has(orderId) && this.chance.maybe(0.95);
    if (approved) this.charged.add(orderId);
    const verdict = approved ? { approved, approvalCode: `code-${key}` } : { approved, reason: "declined" };
    this.verdicts.set(key, verdict);
    return verdict;
  }
}
