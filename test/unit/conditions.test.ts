// Entity tags as text: which are well-formed, which revisions they can equal, under which comparison.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatEtag, parseTags, parseWriteCondition } from "../../src/kv/conditions.ts";
import { holds, matchesRevision } from "../../src/storage/write-condition.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { refusalOf } from "../support/refusal-of.ts";

describe("a list of tags", () => {
  test("becomes the revisions that it can equal", () => {
    for (const [header, strong, weak] of [
      ["*", "*", "*"],
      ["  * ", "*", "*"],
      ['"1"', [1], [1]],
      ['"1","2", "3"', [1, 2, 3], [1, 2, 3]],
      ['"1" ,\t"2"', [1, 2], [1, 2]],
      ['"1",, "2",', [1, 2], [1, 2]],
      ['W/"1"', [], [1]],
      ['W/"1", "2"', [2], [1, 2]],
      ['"abc"', [], []],
      ['""', [], []],
      ['"0"', [], []],
      ['"01"', [], []],
      ['"-1"', [], []],
      ['"1.0"', [], []],
      ['"1e3"', [], []],
      ['"12345678901234567"', [], []],
      ['"9007199254740991"', [9007199254740991], [9007199254740991]],
      ['"a,b", "2"', [2], [2]],
      ['"\u00e9"', [], []],
    ] as const) {
      expect([header, parseTags(header, "strong")]).toEqual([header, strong as never]);
      expect([header, parseTags(header, "weak")]).toEqual([header, weak as never]);
    }
    expect(parseTags(null, "strong")).toBeNull();
  });

  test("that is malformed, too many or too long is refused", () => {
    const seventeen = Array.from({ length: 17 }, (_, index) => `"${index}"`).join(",");
    for (const header of [
      "",
      " ",
      ",",
      "1",
      "abc",
      '"1',
      '1"',
      "W/1",
      'w/"1"',
      'W/ "1"',
      '"1" "2"',
      '"1"2',
      '"1";"2"',
      "*, *",
      '*,"1"',
      '"1",*',
      ", ,",
      "'1'",
      '"a b"',
      '"\x7f"',
      '"a\tb"',
      seventeen,
      `"${"1".repeat(1023)}"`,
    ]) {
      expect([header, refusalOf(() => parseTags(header, "strong"))]).toEqual([header, "precondition_invalid"]);
    }
    expect(parseTags(`"${"a".repeat(1022)}"`, "strong")).toEqual([]);
    expect(parseTags(seventeen.slice(0, seventeen.lastIndexOf(",")), "weak")?.length).toBe(15);
  });

  test("may have empty elements wherever they stand", () => {
    for (const header of [',"1"', ' , "1"', '"1",', '"1",,"2"', ',\t, "1" , ,"2",']) {
      expect([header, parseTags(header, "strong")]).toEqual([header, header.includes("2") ? [1, 2] : [1]]);
    }
  });

  test("of whatever characters is read or refused, in no time", () => {
    const startMs = performance.now();
    const text = fc.string({ unit: fc.constantFrom('"', ",", " ", "\t", "1", "W", "/", "*", "a"), maxLength: 1024 });
    fc.assert(
      fc.property(text, (header) => {
        const code = refusalOf(() => parseTags(header, "weak"));
        expect([null, "precondition_invalid"]).toContain(code);
      }),
      { numRuns: 2000 },
    );
    expectTime("all of them", performance.now() - startMs, 4000);
  });

  test("made of our own ETags leads back to the revisions", () => {
    const revisions = fc.array(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), { minLength: 1, maxLength: 16 });
    fc.assert(
      fc.property(revisions, (list) => {
        expect(parseTags(list.map(formatEtag).join(", "), "strong")).toEqual(list);
      }),
    );
  });
});

describe("a write condition", () => {
  const parse = (headers: Record<string, string>) => parseWriteCondition(new Headers(headers));

  test("is null when nothing is asked, and knows both headers", () => {
    expect(parse({})).toBeNull();
    expect(parse({ "If-Modified-Since": "x" })).toBeNull();
    expect(parse({ "If-Match": '"1"' })).toEqual({ ifMatch: [1], ifNoneMatch: null });
    expect(parse({ "If-None-Match": "*" })).toEqual({ ifMatch: null, ifNoneMatch: "*" });
    expect(parse({ "If-Match": 'W/"1"', "If-None-Match": 'W/"1"' })).toEqual({ ifMatch: [], ifNoneMatch: [1] });
  });

  test("with If-Unmodified-Since is refused, whatever it says", () => {
    for (const date of ["", "x", "Thu, 01 Jan 1970 00:00:00 GMT"]) {
      expect(refusalOf(() => parse({ "If-Unmodified-Since": date }))).toBe("precondition_unsupported");
    }
  });

  test("is judged against the live revision; nothing equals a missing entry", () => {
    expect(matchesRevision("*", 1)).toBe(true);
    expect(matchesRevision("*", null)).toBe(false);
    expect(matchesRevision([1, 2], 2)).toBe(true);
    expect(matchesRevision([], 2)).toBe(false);
    expect(matchesRevision([1], null)).toBe(false);
    for (const [ifMatch, ifNoneMatch, revision, isMet] of [
      [null, null, 1, true],
      [null, null, null, true],
      ["*", null, null, false],
      ["*", null, 7, true],
      [[7], null, 7, true],
      [[6], null, 7, false],
      [[], null, 7, false],
      [null, "*", 7, false],
      [null, "*", null, true],
      [null, [7], 7, false],
      [null, [6], 7, true],
      [[7], [7], 7, false],
      [[7], [6], 7, true],
      [[6], [6], 7, false],
    ] as const) {
      const condition = { ifMatch, ifNoneMatch };
      expect([condition, revision, holds(condition, revision)]).toEqual([condition, revision, isMet]);
    }
  });
});
