// The parameters of the lists by position: defaults, bounds, and what is refused.

import { describe, expect, test } from "bun:test";
import { nextPageQuery, parseListParameters } from "../../src/token/list-parameters.ts";
import { refusalOf } from "../support/refusal-of.ts";

const URL_START = "http://h/kv/token/_keys";

function parse(query: string, limitMax = 1000) {
  return parseListParameters(URL_START + query, limitMax);
}

describe("list parameters", () => {
  test("left out are: by key, ascending, a hundred from the start", () => {
    const defaults = { sortBy: "key", isReverse: false, limit: 100, skip: 0 } as const;
    for (const query of ["", "?", "?token=kvt_x", "?other=1&other=2", "?SORTBY=value"]) {
      expect(parse(query)).toEqual(defaults);
    }
  });

  test("given are taken as they are", () => {
    expect(parse("?sortBy=updatedAt&sortDir=desc&limit=7&skip=9007199254740991")).toEqual({
      sortBy: "updatedAt",
      isReverse: true,
      limit: 7,
      skip: Number.MAX_SAFE_INTEGER,
    });
    for (const sortBy of ["key", "createdAt", "updatedAt", "creatorIp"]) {
      expect(parse(`?sortBy=${sortBy}`).sortBy as string).toBe(sortBy);
    }
  });

  test("take a direction in any letter case, a field in this one only", () => {
    for (const dir of ["DESC", "Desc", "desc"]) expect(parse(`?sortDir=${dir}`).isReverse).toBe(true);
    for (const dir of ["ASC", "aSc"]) expect(parse(`?sortDir=${dir}`).isReverse).toBe(false);
    expect(refusalOf(() => parse("?sortBy=KEY"))).toBe("invalid_parameter");
  });

  test("above the longest page are cut to it, however many digits they have", () => {
    for (const limit of ["1000", "1001", "999999999999999999999", "9".repeat(400)]) {
      expect(parse(`?limit=${limit}`).limit).toBe(1000);
    }
    expect([parse("?limit=50", 20).limit, parse("", 20).limit]).toEqual([20, 20]);
    expect([parse("?limit=0").limit, parse("?limit=0007").limit, parse("?limit=999").limit]).toEqual([0, 7, 999]);
  });

  test("that are no whole numbers, or too large to be counted with, are refused", () => {
    for (const bad of ["-1", "1.5", "1e3", "abc", "", "+1", "%2B1", "0x10", " 1", "1%20", "٣", "%00", "1,2", "%ZZ"]) {
      expect([bad, refusalOf(() => parse(`?limit=${bad}`))]).toEqual([bad, "invalid_parameter"]);
      expect([bad, refusalOf(() => parse(`?skip=${bad}`))]).toEqual([bad, "invalid_parameter"]);
    }
    for (const skip of ["9007199254740992", "9".repeat(400)]) {
      expect(refusalOf(() => parse(`?skip=${skip}`))).toBe("invalid_parameter");
    }
  });

  test("of unknown fields and directions are refused", () => {
    for (const field of ["value", "__proto__", "constructor", "key;drop table", "", "created_at", "key,createdAt"]) {
      expect(refusalOf(() => parse(`?sortBy=${encodeURIComponent(field)}`))).toBe("invalid_parameter");
    }
    for (const dir of ["up", "", "ascending", "1", "desc,asc", "DESC;"]) {
      expect(refusalOf(() => parse(`?sortDir=${encodeURIComponent(dir)}`))).toBe("invalid_parameter");
    }
  });

  test("given twice are refused, even with the same value", () => {
    for (const pair of ["sortBy=key", "sortDir=asc", "limit=1", "skip=0"]) {
      expect([pair, refusalOf(() => parse(`?${pair}&${pair}`))]).toEqual([pair, "invalid_parameter"]);
    }
  });

  test("of the next page differ in what is skipped", () => {
    const page = parse("?sortBy=creatorIp&sortDir=DESC&limit=5000&skip=3");
    expect(nextPageQuery(page)).toBe("sortBy=creatorIp&sortDir=desc&limit=1000&skip=1003");
    expect(parse(`?${nextPageQuery(page)}`)).toEqual({ ...page, skip: 1003 });
  });
});
