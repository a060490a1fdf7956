import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { z } from "zod";
import { parseWith } from "#kit/yaml.js";

const schema = z.strictObject({
  name: z.string(),
  rows: z.array(z.strictObject({ id: z.int(), tags: z.record(z.string(), z.string()).default({}) })),
});
const read = (text: string) => parseWith(schema, text, "list.yaml");
const complaints = (text: string): string[] => {
  try {
    read(text);
  } catch (error) {
    return (error as Error).message.split("\n");
  }
  return [];
};

describe("a YAML text with a schema", () => {
  it("is what the schema makes of it, anchors and all", () => {
    const text =
      "name: a\nrows:\n  - { id: 1, tags: &tags { x: y } }\n  - id: 2\n    tags: *tags\n  - id: 3\n";
    assert.deepEqual(read(text), {
      name: "a",
      rows: [
        { id: 1, tags: { x: "y" } },
        { id: 2, tags: { x: "y" } },
        { id: 3, tags: {} },
      ],
    });
  });

  it("is refused with file, line and key of everything wrong, each on a line of its own", () => {
    const text = "name: 1\nrows:\n  - id: one\n  - id: 2\n    tags:\n      x: y\n      z: 3\n";
    const found = complaints(text).map((line) => line.replace(/(: [\w.]+): .*/, "$1"));
    assert.deepEqual(found, ["list.yaml:1: name", "list.yaml:3: rows.0.id", "list.yaml:7: rows.1.tags.z"]);
  });

  it("names the line of the nearest thing above a key that is missing", () => {
    const found = complaints("name: a\nrows:\n  - id: 1\n  - tags: {}\n");
    assert.equal(found.length, 1);
    assert.match(found[0] ?? "", /^list\.yaml:4: rows\.1\.id: /);
    assert.match(complaints("name: a\n")[0] ?? "", /^list\.yaml:1: rows: /);
  });

  it("names the file where it has no key at all", () => {
    for (const text of ["", "# nothing but a comment\n", "- 1\n", "just words\n"])
      assert.match(complaints(text)[0] ?? "", /^list\.yaml:1: \(file\): /, JSON.stringify(text));
  });

  it("that is none is refused with the parser's own words, which have the line", () => {
    assert.match(complaints("name: a\nrows: [1, 2\n").join("\n"), /^list\.yaml: .* at line [23], column /);
    assert.match(
      complaints("name: a\nname: b\n").join("\n"),
      /^list\.yaml: Map keys must be unique at line 2/,
    );
  });
});
