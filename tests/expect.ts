/** Compares an answer with what a scenario expects of it: a part of it, written as plain YAML. */
import { isDeepStrictEqual } from "node:util";

type Fields = Record<string, unknown>;
type Check = (actual: unknown, wanted: unknown, at: string) => string[];

/** What can be said of a value besides what it is: `{ matches: "^010" }`, `{ count: 2, contains: [a, b] }`. */
const CHECKS: Record<string, Check> = {
  absent: (actual, wanted, at) =>
    (actual === undefined) === (wanted === true) ? [] : [`${at} is ${short(actual)}`],
  matches: (actual, wanted, at) =>
    actual != null && new RegExp(String(wanted), "s").test(String(actual))
      ? []
      : [`${at} is ${short(actual)}, which does not match ${wanted}`],
  differs: (actual, wanted, at) =>
    differences(actual, wanted, at).length > 0 ? [] : [`${at} is ${short(actual)}`],
  count: (actual, wanted, at) =>
    Array.isArray(actual) && actual.length === wanted
      ? []
      : [`${at} has ${Array.isArray(actual) ? actual.length : "no"} items, not ${wanted}: ${short(actual)}`],
  atLeast: (actual, wanted, at) =>
    Number(actual) >= Number(wanted) ? [] : [`${at} is ${short(actual)}, less than ${wanted}`],
  contains: (actual, wanted, at) =>
    [wanted]
      .flat()
      .flatMap((one) =>
        Array.isArray(actual) && actual.some((item) => differences(item, one).length === 0)
          ? []
          : [`${at} has no ${short(one)}, but ${short(actual)}`],
      ),
  lacks: (actual, wanted, at) =>
    Array.isArray(actual)
      ? actual
          .filter((item) => differences(item, wanted).length === 0)
          .map((item) => `${at} has ${short(item)}`)
      : [`${at} is no list but ${short(actual)}`],
};

/**
 * What is not as expected, in a line each. An object may have more fields than expected, a list may not have more items.
 * A field whose name has dots leads into the answer: `_embedded.orders.0.id`.
 */
export function differences(actual: unknown, expected: unknown, at = "the answer"): string[] {
  const checks = checksOf(expected);
  if (checks !== undefined) return checks.flatMap(([check, wanted]) => check(actual, wanted, at));
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual) || actual.length !== expected.length)
      return [`${at} is ${short(actual)}, not a list of ${expected.length}`];
    return expected.flatMap((one, i) => differences(actual[i], one, `${at}[${i}]`));
  }
  if (isFields(expected))
    return Object.entries(expected).flatMap(([name, one]) => differences(valueAt(actual, name), one, name));
  return isDeepStrictEqual(actual, expected) ? [] : [`${at} is ${short(actual)}, not ${short(expected)}`];
}

/** The part of an answer that something was expected of: what a reader wants to see of it. */
export function relevant(actual: unknown, expected: unknown): unknown {
  if (Array.isArray(actual) && Array.isArray(expected))
    return actual.map((one, i) => relevant(one, expected[i]));
  if (!isFields(expected)) return actual;
  if (checksOf(expected) !== undefined) {
    if (!Array.isArray(actual) || expected.contains === undefined) return actual;
    const wanted = [expected.contains].flat();
    return actual.flatMap((item) => {
      const found = wanted.find((one) => differences(item, one).length === 0);
      return found === undefined ? [] : [relevant(item, found)];
    });
  }
  return Object.fromEntries(
    Object.entries(expected).map(([name, one]) => [name, relevant(valueAt(actual, name), one)]),
  );
}

/** The value under a name, or under a path with dots. */
export function valueAt(from: unknown, path: string): unknown {
  if (isFields(from) && Object.hasOwn(from, path)) return from[path];
  return path
    .split(".")
    .reduce<unknown>(
      (here, key) => (typeof here === "object" && here !== null ? (here as Fields)[key] : undefined),
      from,
    );
}

/** A value in one line. */
export function short(value: unknown, length = 240): string {
  const text = value === undefined ? "absent" : (JSON.stringify(value) ?? String(value));
  return text.length <= length ? text : `${text.slice(0, length)} …`;
}

/** Where every field is called as a check is; else they are fields of the answer. */
function checksOf(expected: unknown): [Check, unknown][] | undefined {
  if (!isFields(expected) || Object.keys(expected).length === 0) return undefined;
  const checks: [Check, unknown][] = [];
  for (const [name, wanted] of Object.entries(expected)) {
    const check = Object.hasOwn(CHECKS, name) ? CHECKS[name] : undefined;
    if (check === undefined) return undefined;
    checks.push([check, wanted]);
  }
  return checks;
}

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);
