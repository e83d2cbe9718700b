// Where an app token is looked for, in which order, and which members of a body carry it.

import { describe, expect, test } from "bun:test";
import type { TokenSource } from "../../src/shared/setting-parsers.ts";
import { credentialMembers, tokenOfBody, tokenOutsideBody } from "../../src/token/credential.ts";
import { refusalOf } from "../support/refusal-of.ts";

const ALL: ReadonlySet<TokenSource> = new Set(["header", "query", "body"]);
const [FIRST, SECOND, THIRD] = ["first-token-00000", "second-token-0000", "third-token-00000"];

interface Place {
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly query?: string;
}

function find({ headers = [], query = "" }: Place, sources = ALL): string | null {
  const request = new Request(`http://h/kv/token/k${query}`);
  for (const [name, value] of headers) request.headers.append(name, value);
  return tokenOutsideBody(request, sources);
}

describe("outside the body", () => {
  test("Authorization comes before X-App-Token, and both before the query", () => {
    const bearer = ["Authorization", `Bearer ${FIRST}`] as const;
    const header = ["X-App-Token", SECOND] as const;
    const query = `?token=${THIRD}`;
    expect(find({ headers: [bearer, header], query })).toBe(FIRST);
    expect(find({ headers: [header], query })).toBe(SECOND);
    expect(find({ query })).toBe(THIRD);
    expect(find({})).toBeNull();
  });

  test("the scheme is Bearer in any case, with any number of spaces", () => {
    for (const scheme of ["Bearer ", "bearer ", "BEARER ", "bEaReR    "]) {
      expect(find({ headers: [["Authorization", scheme + FIRST]] })).toBe(FIRST);
    }
  });

  test("what is empty or of another scheme is passed over", () => {
    for (const value of ["", "Bearer", "Bearer ", "Basic eDp5", FIRST, `Token ${FIRST}`, `Bearer${FIRST}`]) {
      const headers = [["Authorization", value]] as const;
      expect([value, find({ headers, query: `?token=${THIRD}` })]).toEqual([value, THIRD]);
      expect([value, find({ headers })]).toEqual([value, null]);
    }
    expect(find({ headers: [["X-App-Token", ""]], query: `?token=${THIRD}` })).toBe(THIRD);
    for (const query of ["?", "?token", "?token=", "?tokens=x", "?Token=x", "?a=token", "?a&b=1"]) {
      expect([query, find({ query })]).toEqual([query, null]);
    }
  });

  test("what is there but malformed is refused, whatever else there is", () => {
    for (const bad of [
      "short",
      "x".repeat(15),
      "x".repeat(513),
      "spaces in the middle of it",
      'quotes"quotes"quotes"',
    ]) {
      for (const place of [
        { headers: [["Authorization", `Bearer ${bad}`]] },
        { headers: [["X-App-Token", bad]] },
        { query: `?token=${encodeURIComponent(bad)}` },
      ] as Place[]) {
        expect([bad, refusalOf(() => find(place))]).toEqual([bad, "token_invalid"]);
        const headers = [...(place.headers ?? []), ["X-Other", "1"] as const];
        if (place.headers !== undefined) {
          expect(refusalOf(() => find({ headers, query: `?token=${THIRD}` }))).toBe("token_invalid");
        }
      }
    }
    expect(refusalOf(() => find({ query: "?token=%ff%ff%ff%ff%ff%ff" }))).toBe("token_invalid");
    for (const good of ["x".repeat(16), "x".repeat(512), "AZaz09._~+/=-AZaz09"]) {
      expect(find({ headers: [["Authorization", `Bearer ${good}`]] })).toBe(good);
      expect(find({ query: `?token=${good}` })).toBe(good);
    }
  });

  test("the same one twice is refused", () => {
    for (const place of [
      {
        headers: [
          ["Authorization", `Bearer ${FIRST}`],
          ["Authorization", `Bearer ${FIRST}`],
        ],
      },
      {
        headers: [
          ["Authorization", "Basic x"],
          ["Authorization", `Bearer ${FIRST}`],
        ],
      },
      {
        headers: [
          ["Authorization", `Bearer ${FIRST}`],
          ["Authorization", "Basic x"],
        ],
      },
      {
        headers: [
          ["X-App-Token", FIRST],
          ["X-App-Token", FIRST],
        ],
      },
      { query: `?token=${FIRST}&token=${FIRST}` },
      { query: `?token=&token=${FIRST}` },
      { query: `?token=${FIRST}&a=b&token` },
    ] as Place[]) {
      expect([place, refusalOf(() => find(place))]).toEqual([place, "token_invalid"]);
    }
  });

  test("only in the sources that are switched on", () => {
    const place: Place = { headers: [["Authorization", `Bearer ${FIRST}`]], query: `?token=${THIRD}` };
    expect(find(place, new Set(["query"]))).toBe(THIRD);
    expect(find(place, new Set(["header"]))).toBe(FIRST);
    expect(find(place, new Set(["body"]))).toBeNull();
    expect(find({ query: "?token=a&token=b" }, new Set(["header"]))).toBeNull();
  });
});

describe("in the body", () => {
  test("it is the top-level member of that name, however that is spelt, when it is a string", () => {
    for (const text of [`{"token":"${FIRST}"}`, `{"a":1, "\\u0074oken" : "${FIRST}"}`]) {
      expect(tokenOfBody(text)).toBe(FIRST);
    }
    expect(tokenOfBody('{"token":"\\u0066irst-token-00000"}')).toBe(FIRST);
  });

  test("anything else is none", () => {
    for (const text of [
      "{}",
      "[]",
      "null",
      `"${FIRST}"`,
      `["${FIRST}"]`,
      `[{"token":"${FIRST}"}]`,
      `{"a":{"token":"${FIRST}"}}`,
      '{"token":1}',
      '{"token":null}',
      '{"token":""}',
      `{"token":["${FIRST}"]}`,
      `{"Token":"${FIRST}"}`,
    ]) {
      expect([text, tokenOfBody(text)]).toEqual([text, null]);
    }
  });

  test("two are refused, and so is a malformed one", () => {
    for (const text of [
      `{"token":"${FIRST}","token":"${FIRST}"}`,
      `{"token":1,"\\u0074oken":"${FIRST}"}`,
      '{"token":"short"}',
      '{"token":"with a space in it"}',
    ]) {
      expect([text, refusalOf(() => tokenOfBody(text))]).toEqual([text, "token_invalid"]);
    }
  });

  test("the members that carry the credential are those whose string equals it", () => {
    const text = `{"token":"${FIRST}","token":"${SECOND}","\\u0074oken":"\\u0066irst-token-00000","token":[]}`;
    const members = credentialMembers(text, FIRST!);
    expect(members.map(({ start, end }) => text.slice(start, end))).toEqual([
      `"token":"${FIRST}"`,
      '"\\u0074oken":"\\u0066irst-token-00000"',
    ]);
    expect(credentialMembers(text, THIRD!)).toEqual([]);
    for (const other of ["[]", `"${FIRST}"`, `{"a":{"token":"${FIRST}"}}`]) {
      expect(credentialMembers(other, FIRST!)).toEqual([]);
    }
  });
});
