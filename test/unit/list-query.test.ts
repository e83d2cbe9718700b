// The query of a list: what the parameters mean, which contradict each other, and the cursor between two pages.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nextPageHeaders } from "../../src/http/pagination.ts";
import { formatCursor, parseListQuery } from "../../src/kv/list-query.ts";
import { refusalOf } from "../support/refusal-of.ts";

const parse = (query: string) => parseListQuery(`http://h/_list${query}`);

describe("a query", () => {
  test("without parameters lists all buckets in one go", () => {
    for (const query of ["", "?", "?bucket=", "?&&"]) {
      expect(parse(query)).toMatchObject({
        bucket: null,
        lower: "",
        upper: null,
        prefix: "",
        isReverse: false,
        limit: null,
        delimiter: null,
        hasDetails: false,
        isCount: false,
      });
    }
  });

  test("turns prefix, start and end into one range", () => {
    for (const [query, lower, upper] of [
      ["?bucket=b&prefix=a", "a", "b"],
      ["?bucket=b&prefix=a&start=aa", "aa", "b"],
      ["?bucket=b&prefix=b&start=a", "b", "c"],
      ["?bucket=b&prefix=a&end=ab", "a", "ab"],
      ["?bucket=b&prefix=a&end=z", "a", "b"],
      ["?bucket=b&start=m", "m", null],
      ["?bucket=b&end=m", "", "m"],
      ["?bucket=b&end=", "", null],
      ["?bucket=b&prefix=%F4%8F%BF%BF", "\u{10ffff}", null],
      ["?bucket=b&start=%EE%80%80&prefix=", "\ue000", null],
      ["?prefix=a+b", "a b", "a c"],
    ] as const) {
      expect([query, parse(query)]).toEqual([query, expect.objectContaining({ lower, upper })]);
    }
  });

  test("is paged when a limit, a cursor or details are asked for", () => {
    expect(parse("?bucket=b&limit=7").limit).toBe(7);
    expect(parse("?bucket=b&limit=007").limit).toBe(7);
    expect(parse("?bucket=b&details=1").limit).toBe(1000);
    expect(parse("?bucket=b&details=1&limit=5").limit).toBe(5);
    const cursor = formatCursor(parse("?bucket=b"), "k");
    expect(parse(`?bucket=b&cursor=${cursor}`).limit).toBe(1000);
    expect(parse("?bucket=b&delimiter=/&reverse=1").limit).toBeNull();
  });

  test("that is misspelt, doubled or contradictory is refused", () => {
    for (const query of [
      "?limit=0",
      "?limit=1001",
      "?limit=-1",
      "?limit=",
      "?limit=1.0",
      "?reverse=0",
      "?reverse=",
      "?reverse",
      "?details=1",
      "?count=1",
      "?delimiter=/",
      "?bucket=&count=1",
      "?bucket=b&details=true",
      "?bucket=b&count=2",
      "?bucket=b&delimiter=",
      `?bucket=b&delimiter=${"x".repeat(17)}`,
      `?bucket=b&delimiter=${"%C3%A9".repeat(9)}`,
      ...["limit=5", "cursor=x", "reverse=1", "delimiter=/", "details=1"].map((more) => `?bucket=b&count=1&${more}`),
      "?x=1",
      "?Bucket=b",
      "?bucket=b&bucket=b",
      "?prefix=%ff",
      "?prefix=%",
      "?__proto__=1",
    ]) {
      expect([query, refusalOf(() => parse(query))]).toEqual([query, "query_invalid"]);
    }
    expect(refusalOf(() => parse(`?bucket=b&delimiter=${"%C3%A9".repeat(8)}&limit=1000`))).toBeNull();
  });
});

describe("a cursor", () => {
  const own = { bucket: "b", prefix: "p", start: "p1", end: "p9", delimiter: "/" };
  const queryOf = (parameters: Record<string, string>) => `?${new URLSearchParams(parameters)}`;

  test("goes on where it says, forwards and backwards", () => {
    const forwards = parse(queryOf(own));
    expect(parse(queryOf({ ...own, cursor: formatCursor(forwards, "p5") }))).toMatchObject({
      lower: "p5",
      upper: "p9",
    });
    const backwards = parse(queryOf({ ...own, reverse: "1" }));
    const cursor = formatCursor(backwards, "p5");
    expect(parse(queryOf({ ...own, reverse: "1", cursor }))).toMatchObject({ lower: "p1", upper: "p5" });
  });

  test("never widens the range of its query", () => {
    const forwards = formatCursor(parse(queryOf(own)), "a");
    expect(parse(queryOf({ ...own, cursor: forwards }))).toMatchObject({ lower: "p1", upper: "p9" });
    const backwards = formatCursor(parse(queryOf({ ...own, reverse: "1" })), "z");
    expect(parse(queryOf({ ...own, reverse: "1", cursor: backwards }))).toMatchObject({ lower: "p1", upper: "p9" });
  });

  test("belongs to one bucket, prefix, start, end, delimiter and direction, whatever the limit", () => {
    const cursor = formatCursor(parse(queryOf(own)), "p5");
    for (const other of [
      { bucket: "b2" },
      { bucket: "" },
      { prefix: "" },
      { prefix: "p1" },
      { start: "" },
      { start: "p" },
      { end: "" },
      { end: "p8" },
      { delimiter: "//" },
      { reverse: "1" },
    ]) {
      const { delimiter, ...rest } = { ...own, ...other };
      const asked = rest.bucket === "" ? rest : { ...rest, delimiter };
      expect([other, refusalOf(() => parse(queryOf({ ...asked, cursor })))]).toEqual([other, "cursor_invalid"]);
    }
    expect(refusalOf(() => parse(queryOf({ ...own, limit: "7", cursor })))).toBeNull();
    expect(refusalOf(() => parse(queryOf({ ...own, details: "1", cursor })))).toBeNull();
  });

  test("of any name travels through a URL and leads back to the name", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 60 }), (name) => {
        const cursor = formatCursor(parse("?bucket=b"), name);
        expect(cursor).toMatch(/^[\w-]+$/);
        expect(parse(`?bucket=b&cursor=${cursor}`).lower).toBe(name);
      }),
    );
  });

  test("that was altered or cut is refused or leads somewhere inside the range", () => {
    const cursor = formatCursor(parse(queryOf(own)), "p5");
    for (const forged of [`${cursor}=`, ` ${cursor}`, `${cursor}+`, "x", "AAAAA", cursor.slice(0, 5), "p5"]) {
      expect([forged, refusalOf(() => parse(queryOf({ ...own, cursor: forged })))]).toEqual([forged, "cursor_invalid"]);
    }
    const longer = parse(queryOf({ ...own, cursor: formatCursor(parse(queryOf(own)), "\u{10ffff}") }));
    expect([longer.lower, longer.upper]).toEqual(["\u{10ffff}", "p9"]);
  });
});

test("the path of the next page holds every parameter as given, and the cursor", () => {
  const given = { bucket: "b &=#", prefix: "é/", limit: "5", reverse: "1", delimiter: "/" };
  const query = parse(`?${new URLSearchParams(given)}`);
  const pathOf = (parameters: Record<string, string>, cursor: string) =>
    /^<(\/_list\?[\w%=&.~+-]+)>; rel="next"$/.exec(nextPageHeaders("http://h/_list?x", parameters, cursor).Link!)![1]!;
  const path = pathOf(query.given, "CURSOR");
  expect(Object.fromEntries(new URL(path, "http://h").searchParams)).toEqual({ ...given, cursor: "CURSOR" });
  const second = parse(path.slice("/_list".length).replace("CURSOR", formatCursor(query, "é/x")));
  const again = pathOf(second.given, "SECOND");
  expect(new URL(again, "http://h").searchParams.getAll("cursor")).toEqual(["SECOND"]);
});
