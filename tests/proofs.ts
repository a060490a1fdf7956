/** What the seeds show of their systems under load and when parts fail, shown of this one: `npm run proof`. */
import { setTimeout as delay } from "node:timers/promises";
import type { StartOptions } from "#dapr/runner.js";
import { type TestShop, until } from "./shop.js";
import type { Siege } from "./siege.js";

/** Where a proof is performed, and seen. */
export interface Stage {
  shop: TestShop;
  /** Whether it may take less time than the seed's own (a test). */
  short: boolean;
  /** Tells what happens. */
  say(line: string): void;
  /** Tells what was found, and whether it is as it should be. */
  check(holds: boolean, what: string): void;
  /** Runs the proof's command, or another one, and shows its table beside the seed's. */
  siege(command?: string): Promise<Siege>;
}

export interface Proof {
  /** as typed behind `npm run proof --` */
  name: string;
  /** the items of the seeds that it shows */
  items: string[];
  title: string;
  start: StartOptions;
  /** the seed's own, where it is one of siege */
  command?: string;
  /** what the seed's README shows of it; empty where that is a picture */
  seed?: Partial<Siege>;
  perform(stage: Stage): Promise<void>;
}

const POST = '--content-type "application/json"';
const seconds = (since: number) => Math.round((performance.now() - since) / 100) / 10;
const percent = (part: number, whole: number) => Math.round((1_000 * part) / whole) / 10;

/** All answers are good ones. */
function allServed({ check }: Stage, table: Siege): void {
  const [served, failed] = [table["Successful transactions"], table["Failed transactions"]];
  check(served > 0 && failed === 0, `${served} served, ${failed} failed`);
}

const drill = async ({ system, ...shop }: TestShop & Pick<TestShop, "http">, body: object) => {
  throw new Error(`${system} ${shop} ${body}`);
};
