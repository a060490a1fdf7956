import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decides, given } from "#kit/testing.js";
import {
  beginDeduction,
  beginEarning,
  CARD,
  CARD_NO,
  type CardEvent,
  cardId,
  deduct,
  earn,
  endDeduction,
  endEarning,
  GRANT,
  type Grant,
  type GrantEvent,
  give,
  number,
  type Stamps,
} from "./domain.js";

const phoneNumber = "01012341234";
const begun: GrantEvent = { type: "EarningBegun", data: { phoneNumber, qty: 3 } };
const ended: GrantEvent = { type: "EarningEnded", data: {} };
const going: GrantEvent = { type: "DeductionBegun", data: {} };
const gone: GrantEvent = { type: "DeductionEnded", data: {} };

describe("a grant", () => {
  decides(
    GRANT,
    {
      none: [],
      Earning: [begun],
      Earned: [begun, ended],
      Deducting: [begun, ended, going],
      Deducted: [begun, ended, going, gone],
      voided: [{ type: "GrantVoided", data: {} }],
    },
    {
      beginEarning: (grant) => beginEarning(grant, { phoneNumber, qty: 3 }),
      endEarning,
      beginDeduction,
      endDeduction,
    },
    {
      beginEarning: {
        ...{ none: "EarningBegun", Earning: "nothing", Earned: "nothing" },
        ...{ Deducting: "nothing", Deducted: "nothing", voided: "nothing" },
      },
      endEarning: {
        ...{ none: "nothing", Earning: "EarningEnded", Earned: "nothing" },
        ...{ Deducting: "nothing", Deducted: "nothing", voided: "nothing" },
      },
      beginDeduction: {
        ...{ none: "GrantVoided", Earning: "nothing", Earned: "DeductionBegun" },
        ...{ Deducting: "nothing", Deducted: "nothing", voided: "nothing" },
      },
      endDeduction: {
        ...{ none: "nothing", Earning: "nothing", Earned: "nothing" },
        ...{ Deducting: "DeductionEnded", Deducted: "nothing", voided: "nothing" },
      },
    },
  );

  it("goes from Earning to Deducted, and keeps what was earned", () => {
    const states = [[begun], [begun, ended], [begun, ended, going], [begun, ended, going, gone]].map(
      (history) => given(GRANT, ...history).state,
    );
    assert.deepEqual(
      states,
      ["Earning", "Earned", "Deducting", "Deducted"].map((status) => ({ phoneNumber, qty: 3, status })),
    );
  });

  it("that was taken back first is a tombstone without stamps", () => {
    const { state } = given(GRANT).when(beginDeduction);
    assert.deepEqual([state?.status, state?.qty], ["Deducted", 0]);
  });
});

const stamps: Stamps = { orderId: 7, phoneNumber, qty: 3 };
/** What the grant of order 7 says, and perhaps those of others. */
const says = (status: Grant["status"] | undefined, others: Record<string, Grant["status"]> = {}) =>
  new Map(
    Object.entries({ ...(status === undefined ? {} : { 7: status }), ...others }).map(
      ([id, status]): [string, Grant] => [id, { phoneNumber, qty: 3, status }],
    ),
  );

const opened: CardEvent = { type: "CardOpened", data: { phoneNumber, no: 1 } };
const earned: CardEvent = { type: "StampsEarned", data: { ...stamps, stampQty: 3 } };
const earnOpen: CardEvent = { type: "ChangeOpened", data: { grant: "7", change: "earn" } };
const deducted: CardEvent = {
  type: "StampsDeducted",
  data: { orderId: 7, phoneNumber, qty: 3, stampQty: 0 },
};
const deductOpen: CardEvent = { type: "ChangeOpened", data: { grant: "7", change: "deduct" } };
const closed: CardEvent = { type: "ChangesClosed", data: { grants: ["7"] } };

describe("a card", () => {
  const earnWhen = (status?: Grant["status"]) => (card: Parameters<typeof earn>[0]) =>
    earn(card, "7", stamps, says(status), 1);
  const deductWhen = (status?: Grant["status"]) => (card: Parameters<typeof earn>[0]) =>
    deduct(card, "7", 7, says(status));
  const nothing = { empty: "nothing", "earn open": "nothing", "earn closed": "nothing" };
  const never = { ...nothing, "deduct open": "nothing", "deduct closed": "nothing" };
  const again = "StampsEarned ChangeOpened"; // in no history that there is: its grant would not be Earning

  decides(
    CARD,
    {
      empty: [opened],
      "earn open": [opened, earned, earnOpen],
      "earn closed": [opened, earned, earnOpen, closed],
      "deduct open": [opened, earned, earnOpen, closed, deducted, deductOpen],
      "deduct closed": [opened, earned, earnOpen, closed, deducted, deductOpen, closed],
    },
    {
      "earn, with no grant": earnWhen(),
      "earn, while Earning": earnWhen("Earning"),
      "earn, once Earned": earnWhen("Earned"),
      "earn, while Deducting": earnWhen("Deducting"),
      "earn, once Deducted": earnWhen("Deducted"),
      "deduct, with no grant": deductWhen(),
      "deduct, while Earning": deductWhen("Earning"),
      "deduct, once Earned": deductWhen("Earned"),
      "deduct, while Deducting": deductWhen("Deducting"),
      "deduct, once Deducted": deductWhen("Deducted"),
    },
    {
      "earn, with no grant": never,
      "earn, while Earning": { ...never, empty: again, "earn closed": again, "deduct closed": again },
      "earn, once Earned": never,
      "earn, while Deducting": never,
      "earn, once Deducted": never,
      "deduct, with no grant": never,
      "deduct, while Earning": never,
      "deduct, once Earned": never,
      "deduct, while Deducting": {
        empty: "StampsDeducted ChangeOpened",
        "earn open": "ChangesClosed StampsDeducted ChangeOpened",
        "earn closed": "StampsDeducted ChangeOpened",
        "deduct open": "nothing",
        "deduct closed": "StampsDeducted ChangeOpened",
      },
      "deduct, once Deducted": never,
    },
  );

  it("is opened by its first stamps, and says how many it has afterwards (S3-P4)", () => {
    given(CARD).when(earnWhen("Earning")).thenHappens(opened, earned, earnOpen);
    given(CARD)
      .when((card) => give(card, { ...stamps, orderId: null }, says(undefined), 1))
      .thenHappens(opened, {
        type: "StampsEarned",
        data: { orderId: null, phoneNumber, qty: 3, stampQty: 3 },
      });
  });

  it("gains stamps, and loses exactly what was earned (S3-P5)", () => {
    const history = [opened, earned, earnOpen];
    const more = { type: "StampsEarned", data: { ...stamps, orderId: 8, qty: 2, stampQty: 5 } } as const;
    const open = { type: "ChangeOpened", data: { grant: "8", change: "earn" } } as const;
    const other = says("Earning", { 8: "Earning" });
    given(CARD, ...history)
      .when((card) => earn(card, "8", { ...stamps, orderId: 8, qty: 2 }, other, 9))
      .thenHappens(more, open);
    const { state } = given(CARD, ...history, more, open).when(deductWhen("Deducting"));
    assert.deepEqual(state, { phoneNumber, no: 1, stampQty: 2, open: { 8: "earn", 7: "deduct" } });
  });

  it("forgets the changes that have ended, with whatever it writes next, and only those", () => {
    const another: CardEvent = { type: "ChangeOpened", data: { grant: "8", change: "deduct" } };
    const card = given(CARD, opened, earned, earnOpen, another);
    const left = (grants: ReadonlyMap<string, Grant>) =>
      card.when((was) => give(was, { ...stamps, orderId: null }, grants, 1)).state?.open;
    assert.deepEqual(left(says("Earning", { 8: "Deducting" })), { 7: "earn", 8: "deduct" });
    assert.deepEqual(left(says("Earned", { 8: "Deducting" })), { 8: "deduct" });
    assert.deepEqual(left(says("Deducted", { 8: "Deducted" })), {});
    assert.deepEqual(left(says(undefined)), { 7: "earn", 8: "deduct" });
  });

  it("that is not there cannot lose stamps", () => {
    assert.throws(() => given(CARD).when(deductWhen("Deducting")), /on no card/);
  });

  it("has a number that is given once", () => {
    const numbered = { type: "CardNumbered", data: { phoneNumber } } as const;
    given(CARD_NO)
      .when((known) => number(known, phoneNumber))
      .thenHappens(numbered);
    given(CARD_NO, numbered)
      .when((known) => number(known, "0109999"))
      .thenHappens();
  });

  it("has a key that is no number, or the journal would look for it without its zero", () => {
    assert.ok(Number.isNaN(Number(cardId(phoneNumber))));
  });
});
