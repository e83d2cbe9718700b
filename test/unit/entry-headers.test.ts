// Content type, metadata and TTL as a write brings them.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  metadataHeaders,
  parseContentType,
  parseMetadata,
  parseTtlMs,
  requireContentType,
  requireMetadata,
} from "../../src/kv/entry-headers.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { refusalOf } from "../support/refusal-of.ts";

describe("a content type", () => {
  test("is kept verbatim when it is a media type", () => {
    for (const type of [
      "text/plain",
      "TEXT/Html",
      "a/b",
      "text/plain; charset=utf-8",
      "text/plain;charset=utf-8",
      "a/b ; c=d",
      "a/b;",
      'a/b; c="d; e=\\"f\\""',
      "a/b;c=d;e=f",
      "application/vnd.x.y+json",
      "!#$%&'*+-.^_`|~/x",
      "a/b; c=d ",
      `a/${"x".repeat(253)}`,
    ]) {
      expect([type, parseContentType(type)]).toEqual([type, type]);
    }
  });

  test("counts as not given when it is absent, empty or a form", () => {
    for (const type of [
      null,
      "",
      "application/x-www-form-urlencoded",
      "Application/X-WWW-Form-Urlencoded",
      "application/x-www-form-urlencoded;charset=utf-8",
      "application/x-www-form-urlencoded ; x",
      "application/x-www-form-urlencoded ",
    ]) {
      expect([type, parseContentType(type)]).toEqual([type, null]);
    }
    // Given twice.
    expect(() => parseContentType("application/x-www-form-urlencoded; a=b, text/html")).toThrow();
    expect(parseContentType("application/x-www-form-urlencodedx")).toBe("application/x-www-form-urlencodedx");
  });

  test("is refused when it is malformed or longer than 255 bytes", () => {
    for (const type of [
      "text",
      "text/",
      "/plain",
      "a/b/c",
      "a b/c",
      "a/b c",
      "a/b; c",
      "a/b; c=",
      'a/b; c="d',
      "a/b; =d",
      "a/b, c/d",
      "a/b; c = d",
      "a/b\n",
      "a/b; c=\u00e9",
      "ä/b",
      " a/b",
      "\0",
      `a/${"x".repeat(254)}`,
    ]) {
      expect([type, refusalOf(() => parseContentType(type))]).toEqual([type, "content_type_invalid"]);
    }
    expect(refusalOf(() => requireContentType(""))).toBe("content_type_invalid");
  });

  test("that is hostile is judged in no time", () => {
    for (const text of [
      `a/b${";".repeat(250)}x`,
      `a/b${"; ".repeat(120)}"`,
      `a/b; c="${"\\".repeat(240)}`,
      "a".repeat(255),
    ]) {
      const startMs = performance.now();
      refusalOf(() => parseContentType(text));
      expectTime("reading", performance.now() - startMs, 50);
    }
  });
});

describe("metadata", () => {
  const parse = (entries: Record<string, string>) =>
    parseMetadata(new Headers(Object.entries(entries).map(([name, value]) => [`X-Meta-${name}`, value])));

  test("is the JSON of all X-Meta headers, names in lower case, or null without any", () => {
    expect(parseMetadata(new Headers({ "Content-Type": "a/b", "X-Metal-a": "1" }))).toBeNull();
    expect(JSON.parse(parse({ Author: "Ada", "B.c_d-0": "~ !", e: "" })!)).toEqual({
      author: "Ada",
      "b.c_d-0": "~ !",
      e: "",
    });
    expect(parse({ __proto__x: "1" })).toBe('{"__proto__x":"1"}');
    expect(parseMetadata(new Headers([["X-Meta-__proto__", "1"]]))).toBe('{"__proto__":"1"}');
  });

  test("keeps its bounds: 32 entries, 2048 bytes of JSON, names of 64 characters", () => {
    const entries = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`n${index}`, "v"]));
    expect(refusalOf(() => parse(entries(32)))).toBeNull();
    expect(refusalOf(() => parse(entries(33)))).toBe("metadata_invalid");
    expect(parse({ a: "v".repeat(2040) })?.length).toBe(2048);
    expect(refusalOf(() => parse({ a: "v".repeat(2041) }))).toBe("metadata_invalid");
    expect(parse({ a: "\\".repeat(1020) })?.length).toBe(2048);
    expect(refusalOf(() => parse({ a: "\\".repeat(1021) }))).toBe("metadata_invalid");
    expect(refusalOf(() => parse({ ["n".repeat(64)]: "v" }))).toBeNull();
    expect(refusalOf(() => parse({ ["n".repeat(65)]: "v" }))).toBe("metadata_invalid");
  });

  test("takes no odd names and no values but printable ASCII", () => {
    for (const name of ["", "a~", "a!", "a+b", "a'b"])
      expect(refusalOf(() => parse({ [name]: "v" }))).toBe("metadata_invalid");
    for (const value of ["é", "\u0080", "a\tb"]) expect(refusalOf(() => parse({ a: value }))).toBe("metadata_invalid");
    for (const [name, value] of [
      ["A", "upper case, as only an import can bring it"],
      ["a", "\u{1f600}"],
      ["a", "a\nb"],
      ["a", "\x7f"],
    ] as const) {
      expect(refusalOf(() => requireMetadata({ [name]: value }))).toBe("metadata_invalid");
    }
  });

  test("comes back as the headers that brought it", () => {
    const name = fc.string({ unit: fc.constantFrom(..."abcxyz019._-"), minLength: 1, maxLength: 20 });
    const value = fc.string({ unit: "grapheme-ascii", maxLength: 40 }).map((text) => text.trim());
    fc.assert(
      fc.property(fc.dictionary(name, value, { minKeys: 1, maxKeys: 20 }), (entries) => {
        const headers = metadataHeaders(parse(entries)!);
        expect(headers).toEqual(
          Object.fromEntries(Object.entries(entries).map(([key, text]) => [`X-Meta-${key}`, text])),
        );
      }),
    );
  });
});

describe("a TTL", () => {
  const DAY_MS = 86_400_000;

  test("is whole seconds or a duration from 1 s to 3650 days", () => {
    for (const [text, ms] of [
      ["1", 1000],
      ["60", 60_000],
      ["007", 7000],
      ["1s", 1000],
      ["90s", 90_000],
      ["1h30m", 5_400_000],
      ["1500ms", 1500],
      ["1.001s", 1001],
      ["8639999.999s", 8_639_999_999],
      ["1000000us", 1000],
      ["7d", 7 * DAY_MS],
      ["3650d", 3650 * DAY_MS],
      ["315360000", 3650 * DAY_MS],
    ] as const) {
      expect([text, parseTtlMs(text, null)]).toEqual([text, ms]);
      expect([text, parseTtlMs(null, text)]).toEqual([text, ms]);
      expect([text, parseTtlMs(text, text)]).toEqual([text, ms]);
    }
    expect(parseTtlMs(null, null)).toBeNull();
    expect(parseTtlMs("60", "1m")).toBe(60_000);
  });

  test("is refused outside these bounds, in any other form, and when query and header differ", () => {
    for (const text of [
      "",
      "0",
      "-1",
      "+1",
      "999ms",
      "0.9s",
      "-1h",
      "3651d",
      "315360001",
      "1700000000",
      "9999999999999",
      "1.5",
      "1e3",
      "5x",
      "s",
      "1h30",
      " 5",
      "5 ",
      "٣",
      "1,5s",
      "Infinity",
    ]) {
      expect([text, refusalOf(() => parseTtlMs(text, null))]).toEqual([text, "ttl_invalid"]);
      expect([text, refusalOf(() => parseTtlMs(null, text))]).toEqual([text, "ttl_invalid"]);
      expect([text, refusalOf(() => parseTtlMs("60", text))]).toEqual([text, "ttl_invalid"]);
    }
    expect(refusalOf(() => parseTtlMs("60", "61"))).toBe("ttl_invalid");
  });
});
