// Bounds of key ranges in byte order, where UTF-16 order would be wrong.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  boundAfterKey,
  boundAfterPrefix,
  compareByteOrder,
  earlierBound,
  laterBound,
} from "../../src/storage/key-bounds.ts";
import { byBytes } from "../support/list-model.ts";

const MAX = "\u{10ffff}";
const edges = fc.constantFrom(
  "a",
  "b",
  "\x7f",
  "\u0080",
  "\u07ff",
  "\u0800",
  "\ud7ff",
  "\ue000",
  "\uffff",
  "\u{10000}",
  MAX,
);
const names = fc.oneof(
  fc.array(edges, { maxLength: 6 }).map((parts) => parts.join("")),
  fc.string({ unit: "binary", maxLength: 8 }),
);

describe("the bound after a prefix", () => {
  test("is its last code point raised by one, past surrogates and past the highest", () => {
    for (const [prefix, bound] of [
      ["a", "b"],
      ["az", "a{"],
      ["a/", "a0"],
      ["\x7f", "\u0080"],
      ["\ud7ff", "\ue000"],
      ["\uffff", "\u{10000}"],
      ["😀", "😁"],
      [`a${MAX}`, "b"],
      [`a${MAX}${MAX}`, "b"],
      [`\ud7ff${MAX}`, "\ue000"],
      ["\u{10fffe}", MAX],
      ["a\0", "a\x01"],
      ["", null],
      [MAX, null],
      [`${MAX}${MAX}`, null],
    ] as const) {
      expect([prefix, boundAfterPrefix(prefix)]).toEqual([prefix, bound]);
    }
  });

  test("lies above every text with the prefix and not above any other that follows", () => {
    fc.assert(
      fc.property(names, names, (prefix, name) => {
        const bound = boundAfterPrefix(prefix);
        const isInside = byBytes(name, prefix) >= 0 && (bound === null || byBytes(name, bound) < 0);
        expect(isInside).toBe(name.startsWith(prefix));
        const longer = prefix + name;
        expect(bound === null || byBytes(longer, bound) < 0).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });
});

test("nothing lies between a key and the bound after it", () => {
  fc.assert(
    fc.property(names, names, (key, other) => {
      const isBetween = byBytes(other, key) > 0 && byBytes(other, boundAfterKey(key)) < 0;
      expect(isBetween && !other.includes("\0")).toBe(false);
    }),
  );
});

test("names are compared as their UTF-8 bytes, not as UTF-16", () => {
  expect("\uffff" < "😀").toBe(false);
  expect(compareByteOrder("\uffff", "😀")).toBe(-1);
  fc.assert(
    fc.property(names, names, (a, b) => expect(Math.sign(compareByteOrder(a, b))).toBe(Math.sign(byBytes(a, b)))),
  );
});

test("of two bounds the later and the earlier; no upper bound is above all", () => {
  expect([laterBound("a", "b"), laterBound("b", "a"), laterBound("a", "a")]).toEqual(["b", "b", "a"]);
  expect(laterBound("\uffff", "😀")).toBe("😀");
  expect([earlierBound("a", "b"), earlierBound("b", "a")]).toEqual(["a", "a"]);
  expect([earlierBound(null, "b"), earlierBound("a", null), earlierBound(null, null)]).toEqual(["b", "a", null]);
  expect(earlierBound("\uffff", "😀")).toBe("\uffff");
});
