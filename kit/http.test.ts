import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { z } from "zod";
import { parseDialects } from "#kit/dialects.js";
import {
  check,
  collection,
  commands,
  date,
  idsIn,
  itemOf,
  listing,
  MOST_AT_ONCE,
  onRecord,
  optional,
  optionalText,
  phone,
  type Source,
  whole,
} from "#kit/http.js";
import { MemoryDapr } from "#kit/memory.js";
import { conflict, type FieldError, type Problem } from "#kit/problem.js";
import { assertProblem, embedded, hostInMemory } from "#kit/testing.js";

/** What a field is read as; "!" and the reason where it is refused. */
function read(field: z.ZodType, value: unknown): unknown {
  try {
    return check(z.object({ field }), { field: value }).field;
  } catch (error) {
    return ((error as Problem).extra.errors as FieldError[])
      .map((one) => `!${one.field} ${one.reason}`)
      .join();
  }
}
const table = (field: z.ZodType, rows: readonly (readonly [unknown, unknown])[]) => {
  for (const [sent, meant] of rows)
    assert.deepEqual(read(field, sent), meant, JSON.stringify(sent) ?? "nothing");
};

describe("a field of a request", () => {
  it("that is a phone number may be written as people write it, and is one number", () => {
    const no = "!field must be a phone number";
    table(phone, [
      ["01012341234", "01012341234"],
      ["010-1234-1234", "01012341234"],
      ["010 1234 1234", "01012341234"],
      ["(010) 1234.1234", "01012341234"],
      ["+82 10-1234-1234", "+821012341234"],
      [1012341234, "1012341234"],
      ["112", "112"],
      ["12", no],
      ["0".repeat(20), "0".repeat(20)],
      ["0".repeat(21), no],
      ["+", no],
      ["010-1234-123x", no],
      ["", no],
      [1.5, no],
      [null, no],
      [{}, no],
      [undefined, "!field is required"],
    ]);
  });

  it("that is a date may be ISO text, a day, or milliseconds, also as text, and is one ISO text", () => {
    const no = "!field must be a date";
    table(date, [
      ["2026-11-21T01:02:03.004Z", "2026-11-21T01:02:03.004Z"],
      ["2026-11-21T09:00:00+09:00", "2026-11-21T00:00:00.000Z"],
      ["2026-11-21", "2026-11-21T00:00:00.000Z"],
      [1650000000000, "2022-04-15T05:20:00.000Z"],
      ["1650000000000", "2022-04-15T05:20:00.000Z"],
      [0, no],
      ["20220408", no], // a day without its dashes, which would be a time in 1970
      ["today", no],
      ["2022-13-45", no],
      [1e20, no],
      ["", no],
      [true, no],
      [null, no],
      [{}, no],
    ]);
  });

  it("that may be left out is null then, and is checked when it is there", () => {
    table(optional(whole(1, 9)), [
      [undefined, null],
      [null, null],
      ["", null],
      ["5", 5],
      [0, "!field must be at least 1"],
      ["x", "!field must be a whole number"],
    ]);
    table(optional(phone), [
      [undefined, null],
      ["", null],
      ["010-1", "0101"],
      ["x", "!field must be a phone number"],
    ]);
  });

  it("that is text and may be left out is null when it says nothing", () => {
    table(optionalText(3), [
      [undefined, null],
      [null, null],
      ["", null],
      ["  ", null],
      [" ab ", "ab"],
      [0, "0"],
      ["abcd", "!field Too big: expected string to have <=3 characters"],
    ]);
  });

  it("is refused where some store would refuse it for ever", () => {
    const no = "has characters that are no text";
    const any = z.looseObject({});
    table(optionalText(9), [
      ["a\0b", `!field ${no}`],
      ["\ud83d", `!field ${no}`],
      ["\ude00\ud83d", `!field ${no}`],
      ["😀 한국어", "😀 한국어"],
    ]);
    table(any, [
      [{ list: [{ name: "\0" }] }, `!field.list.0.name ${no}`],
      [{ list: [{ name: 1 }] }, { list: [{ name: 1 }] }],
    ]);
  });
});

// --- a collection under several names ------------------------------------------------------------------------------

const words = parseDialects(
  `
plain:
  boxes: {}
post:
  boxes:
    fields: { weight: grams }
    commands: { seal: shut }
  parcels:
    of: boxes
    one: parcel
    fields: { parcelId: id, status: { of: state, words: { Shut: SEALED } } }
    commands: { seal: shut }
`,
  "words.yaml",
  "post",
);

interface Box {
  grams: number;
  state: "Open" | "Shut";
}

/** A service with three boxes. */
async function boxes() {
  const rows = new Map<number, Box>([1, 2, 3].map((id) => [id, { grams: 10 * id, state: "Open" }]));
  const source: Source<Box> = {
    load: async (id) => rows.get(id),
    page: async ({ page, size }) => ({
      items: [...rows].map(([id, state]) => ({ id, state })).slice(page * size, (page + 1) * size),
      ...{ size, number: page, totalElements: rows.size },
    }),
    represent: (id, box) => ({ id, ...box }),
    links: (id) => ({ shut: `/boxes/${id}/shut` }),
  };
  const shut = async (id: number): Promise<Box> => {
    const box = rows.get(id);
    if (box?.state === "Shut") throw conflict("shut", `Box ${id} is shut already.`);
    const now: Box = { grams: box?.grams ?? 0, state: "Shut" };
    rows.set(id, now);
    return now;
  };
  const ways = words.ways("boxes", "box");
  return hostInMemory(new MemoryDapr(), {
    app: "boxes",
    compose: () => ({ routes: [...commands<Box>(ways, source, { shut }), ...collection<Box>(ways, source)] }),
  });
}

const links = (self: string, one: string) => ({
  _links: { self: { href: self }, [one]: { href: self }, shut: { href: "/boxes/1/shut" } },
});

describe("an item of a collection", () => {
  it("links to itself under the name that it was asked for, and speaks in that name's words", async () => {
    const { http } = await boxes();
    assert.deepEqual((await http("GET", "/boxes/1")).body, {
      ...{ id: 1, grams: 10, state: "Open", weight: 10 },
      ...links("/boxes/1", "box"),
    });
    assert.deepEqual((await http("GET", "/parcels/1")).body, {
      ...{ parcelId: 1, status: "Open" },
      ...links("/parcels/1", "parcel"),
    });
  });

  it("that is not there is missed under the name that it was asked for", async () => {
    const { http } = await boxes();
    for (const [path, resource] of [
      ["/boxes/9", "box"],
      ["/parcels/9", "parcel"],
      ["/parcels/zero", "parcel"],
    ] as const)
      assert.equal(assertProblem(await http("GET", path), 404, "not-found").resource, resource, path);
  });

  it("is the same wherever it is told", () => {
    const [way] = words.ways("boxes", "box");
    assert.ok(way);
    assert.deepEqual(itemOf(way, 1, { id: 1 }), {
      ...{ id: 1, weight: null },
      _links: { self: { href: "/boxes/1" }, box: { href: "/boxes/1" } },
    });
  });
});

describe("a list", () => {
  it("is there under each name, and links to its own pages", async () => {
    const { http } = await boxes();
    for (const [name, field] of [
      ["boxes", "id"],
      ["parcels", "parcelId"],
    ] as const) {
      const page = await http("GET", `/${name}?page=1&size=1`);
      assert.deepEqual(
        embedded(page, name).map((item) => item[field]),
        [2],
      );
      const hrefs = Object.values(page.body._links ?? {}).map((link) => String(link?.href));
      assert.deepEqual(
        hrefs.filter((href) => !href.startsWith(`/${name}`) && href !== `/profile/${name}`),
        [],
      );
      for (const href of hrefs) assert.equal((await http("GET", href)).status, 200, href);
    }
  });

  it("can be searched by order under each name", async () => {
    const { http } = await boxes();
    const found = await http("GET", "/parcels/search/findByOrderId?orderId=3");
    assert.deepEqual(
      embedded(found, "parcels").map((item) => item.parcelId),
      [3],
    );
  });

  it("keeps what was asked for in the links to its other pages", () => {
    const page = { items: [], size: 2, number: 1, totalElements: 5 };
    const asked = { customerId: "a b&c=d", status: "ORDER CANCEL" };
    const { _links } = listing("history", page, (row) => row, asked) as {
      _links: Record<string, { href: string }>;
    };
    for (const [relation, number] of Object.entries({
      self: "1",
      first: "0",
      prev: "0",
      next: "2",
      last: "2",
    })) {
      const url = new URL(_links[relation]?.href ?? "", "http://x");
      assert.equal(url.pathname, "/history");
      assert.deepEqual(Object.fromEntries(url.searchParams), { ...asked, page: number, size: "2" }, relation);
    }
  });
});

describe("a command on an item", () => {
  it("is there under each name of the collection and of the command, and answers the item in those words", async () => {
    for (const [path, said, one] of [
      ["/boxes/1/shut", { id: 1, grams: 10, state: "Shut", weight: 10 }, "box"],
      ["/boxes/1/seal", { id: 1, grams: 10, state: "Shut", weight: 10 }, "box"],
      ["/parcels/1/seal", { parcelId: 1, status: "SEALED" }, "parcel"],
    ] as const) {
      const { http } = await boxes();
      const { status, body } = await http("PUT", path);
      assert.deepEqual(
        [status, body],
        [200, { ...said, ...links(path.slice(0, path.lastIndexOf("/")), one) }],
      );
    }
  });

  it("is not there under the name that another collection has for it", async () => {
    const { http } = await boxes();
    assertProblem(await http("PUT", "/parcels/1/shut"), 404, "no-such-route");
  });

  it("answers what is refused, and what is not an item", async () => {
    const { http } = await boxes();
    await http("PUT", "/parcels/1/seal");
    assertProblem(await http("PUT", "/boxes/1/shut"), 409, "shut");
    const { resource } = assertProblem(await http("PUT", "/parcels/x/seal"), 404, "not-found");
    assert.equal(resource, "parcel");
  });

  it("is a PUT", async () => {
    const { http } = await boxes();
    assertProblem(await http("POST", "/boxes/1/shut"), 405, "method-not-allowed");
  });
});

describe("a range of ids", () => {
  const reasons = (asked: unknown) => {
    try {
      return idsIn(asked);
    } catch (error) {
      return ((error as Problem).extra.errors as FieldError[]).map(
        ({ field, reason }) => `${field} ${reason}`,
      );
    }
  };

  it("has both its ends, and is not longer than can be answered at once", () => {
    assert.deepEqual(idsIn({ from: "3", to: "5" }), [3, 4, 5]);
    assert.deepEqual(idsIn({ from: 7, to: 7 }), [7]);
    assert.equal(idsIn({ from: 1, to: MOST_AT_ONCE }).length, MOST_AT_ONCE);
    assert.deepEqual(reasons({ from: 1, to: MOST_AT_ONCE + 1 }), ["to must be at most 127 above from"]);
    assert.deepEqual(reasons({ from: 5, to: 4 }), ["to must not be below from"]);
    assert.deepEqual(reasons({ from: 0, to: 1.5 }), [
      ...["from must be at least 1", "to must be a whole number"],
    ]);
    assert.deepEqual(reasons({}), ["from is required", "to is required"]);
  });

  it("is how a service is asked what it has on record", async () => {
    const asked: (readonly number[])[] = [];
    const read = async (ids: readonly number[]) => {
      asked.push(ids);
      return { records: [{ id: 2 }] };
    };
    const host = await hostInMemory(new MemoryDapr(), {
      app: "boxes",
      compose: () => ({ routes: [onRecord(read)] }),
    });
    const answer = await host.http("GET", "/records?from=1&to=3");
    assert.deepEqual([answer.status, answer.body], [200, { records: [{ id: 2 }] }]);
    assert.match(answer.headers["content-type"] ?? "", /^application\/json/);
    assertProblem(await host.http("GET", "/records?from=1"), 422, "invalid-field");
    assert.deepEqual(asked, [[1, 2, 3]]);
    await host.stop();
  });
});
