/** The proofs that take little time are performed here; `npm run proof -- all` performs the others too. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { prove } from "./proof.js";
import { PROOFS } from "./proofs.js";
import { aimedAt, parseTable } from "./siege.js";

/** Ports of their own, beside those of the other tests. */
const PORTS = 13_000;

describe("what the seeds show of their systems", () => {
  for (const name of ["s3-o5", "s4-n5"]) {
    const proof = PROOFS.find((one) => one.name === name);
    assert.ok(proof);
    it(`${name}: ${proof.title} (${proof.items.join(", ")})`, async () => {
      const lines: string[] = [];
      const wrong = await prove(proof, { ports: PORTS, short: true }, (line) => lines.push(line));
      assert.deepEqual(wrong, [], lines.join("\n"));
    });
  }

  it("has one name for each proof, and commands that siege understands", () => {
    const names = PROOFS.map(({ name }) => name);
    assert.deepEqual(new Set(names).size, names.length);
    for (const { name, command } of PROOFS)
      if (command !== undefined) {
        assert.match(command, /^siege -c\d+ -t\d+S /, name);
        assert.match(aimedAt(command, "http://127.0.0.1:8088"), /[ ']http:\/\/127\.0\.0\.1:8088\//, name);
      }
  });
});

describe("siege's table", () => {
  const text = `** SIEGE 4.0.7
Lifting the server siege...
Transactions:		        1863 hits
Availability:		       50.00 %
Elapsed time:		        1.60 secs
Data transferred:	        0.58 MB
Response time:		        0.00 secs
Transaction rate:	     1164.38 trans/sec
Throughput:		        0.36 MB/sec
Concurrency:		        0.86
Successful transactions:        1863
Failed transactions:	        1863
Longest transaction:	        0.03
Shortest transaction:	        0.00
`;

  it("is read as siege prints it", () => {
    const table = parseTable(text);
    assert.deepEqual(
      [table.Transactions, table.Availability, table["Transaction rate"], table["Failed transactions"]],
      [1863, 50, 1164.38, 1863],
    );
  });

  it("is no table if a line is missing", () => {
    assert.throws(() => parseTable(text.replace(/^Concurrency.*\n/m, "")), /"Concurrency"/);
  });
});
