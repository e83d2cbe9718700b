// One byte range: what it covers, when it lies outside, when it is ignored.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { parseRange } from "../../src/kv/byte-range.ts";
import { refusalOf } from "../support/refusal-of.ts";

test("a range covers what it says, cut to the value", () => {
  for (const [header, size, first, last] of [
    ["bytes=0-0", 10, 0, 0],
    ["bytes=5-", 10, 5, 9],
    ["bytes=-5", 10, 5, 9],
    ["bytes=-50", 10, 0, 9],
    ["bytes=9-9", 10, 9, 9],
    ["bytes=2-999999999999999", 10, 2, 9],
    ["Bytes=0-1", 10, 0, 1],
    ["bytes=007-8", 10, 7, 8],
  ] as const) {
    expect([header, parseRange(header, size)]).toEqual([header, { first, last }]);
  }
});

test("a range outside the value is refused", () => {
  for (const [header, size] of [
    ["bytes=10-", 10],
    ["bytes=10-12", 10],
    ["bytes=-0", 10],
    ["bytes=0-", 0],
    ["bytes=-1", 0],
    [`bytes=${"9".repeat(400)}-`, 10],
  ] as const) {
    expect([header, refusalOf(() => parseRange(header, size))]).toEqual([header, "range_not_satisfiable"]);
  }
});

test("several ranges, another unit and bad syntax are ignored", () => {
  for (const header of [
    "bytes=0-0,2-2",
    "bytes=0-0, 2-2",
    "items=0-1",
    "0-1",
    "bytes=",
    "bytes=-",
    "bytes=a-",
    "bytes=5-4",
    "bytes=1.0-2",
    "bytes= 0-1",
    "bytes=0 -1",
    "bytes=0-1 ",
    "bytes=+0-1",
    "bytes=0-1-2",
    "",
  ]) {
    expect([header, parseRange(header, 10)]).toEqual([header, null]);
  }
  expect(parseRange(null, 10)).toBeNull();
});

test("whatever is asked, a range lies inside the value and is not empty", () => {
  const bound = fc.oneof(fc.constant(""), fc.nat({ max: 30 }).map(String));
  fc.assert(
    fc.property(bound, bound, fc.nat({ max: 20 }), (start, end, size) => {
      const header = `bytes=${start}-${end}`;
      if (refusalOf(() => parseRange(header, size)) !== null) return;
      const range = parseRange(header, size);
      if (range === null) return;
      expect(range.first).toBeGreaterThanOrEqual(0);
      expect(range.last).toBeGreaterThanOrEqual(range.first);
      expect(range.last).toBeLessThan(size);
      if (start !== "") expect(range.first).toBe(Number(start));
    }),
  );
});
