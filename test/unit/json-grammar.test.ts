// Whether a text is JSON, told without its values: the same as the parser of the language tells, and far sooner.

import { expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { isJsonText } from "../../src/shared/json-grammar.ts";
import { isValid, parseJson } from "../../src/shared/json-text.ts";

/** A text of the public vectors: as it is, or as pieces and how often each is repeated. */
type Vector = string | readonly (readonly [piece: string, times: number])[];

function textOf(vector: Vector): string {
  return typeof vector === "string" ? vector : vector.map(([piece, times]) => piece.repeat(times)).join("");
}

function isParsed(text: string): boolean {
  return parseJson(text) !== undefined;
}

/** Where one character is missing, doubled or another one: most of it is still as it should be. */
const texts = fc
  .tuple(fc.json({ maxDepth: 4 }), fc.nat(), fc.stringMatching(/^[[\]{}",:0-9a-fEu.+\- \\\n\t\0]{0,2}$/), fc.nat(2))
  .map(([json, place, inserted, removed]) => {
    const at = place % (json.length + 1);
    return json.slice(0, at) + inserted + json.slice(at + removed);
  });

test("a text is JSON exactly when the parser takes it", async () => {
  const vectors = (await Bun.file(join(import.meta.dir, "../data/json_test_suite_parsing.json")).json()) as Record<
    string,
    Vector
  >;
  const known = [
    "",
    " ",
    "-",
    "-0",
    "01",
    "1.",
    "1.e1",
    "1e",
    "1E+0",
    '"\\u00g0"',
    '"\\uABcd"',
    '"\\',
    '{"a":1,}',
    "nul",
  ];
  for (const text of [...Object.values(vectors).map(textOf), ...known]) {
    // The parser would run out of stack on those that are nested without end.
    if (text.length < 10_000) expect([text, isJsonText(text)]).toEqual([text, isParsed(text)]);
  }
  fc.assert(
    fc.property(texts, (text) => {
      expect([text, isJsonText(text)]).toEqual([text, isParsed(text)]);
    }),
    { numRuns: 5000 },
  );
});

test("a text that is nested without end is no JSON, and no recursion", () => {
  expect(isJsonText("[".repeat(100_000))).toBe(false);
  expect(isJsonText("[".repeat(100_000) + "]".repeat(100_000))).toBe(true);
});

test("whether a long text with many names is JSON is known long before it could be parsed", () => {
  const members = Array.from({ length: 300_000 }, (_, index) => `"${index.toString(36)}":1`);
  const text = `{${members.join(",")}}`;
  const timed = (act: (text: string) => boolean) => {
    const startMs = performance.now();
    expect(act(text)).toBe(true);
    return performance.now() - startMs;
  };
  timed(isValid);
  const told = Math.min(timed(isValid), timed(isValid), timed(isValid));
  const parsed = Math.min(timed(isParsed), timed(isParsed), timed(isParsed));
  expect(told).toBeLessThan(parsed / 2);
});
