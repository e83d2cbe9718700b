// What the claims of a token allow, claim by claim.

import { describe, expect, test } from "bun:test";
import {
  kvRights,
  type Principal,
  type Right,
  requireAdmin,
  requireBucket,
  requireKeyRight,
  requireRelayRight,
  requireRight,
  rightsOf,
} from "../../src/auth/principal.ts";
import { AppError } from "../../src/shared/errors.ts";

const EVERYTHING: Principal = { rights: null, buckets: null, prefix: null, subject: null, tokenId: null };
const RIGHTS: readonly Right[] = ["kv:read", "kv:write", "kv:delete", "kv:list", "relay:read", "relay:write", "admin"];

const isAllowed = (judge: () => void): boolean => {
  try {
    judge();
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(AppError);
    expect((error as AppError).code).toBe("forbidden");
    return false;
  }
};

describe("scope words", () => {
  test("grant what they name, and nothing that they resemble", () => {
    const cases: [string, Right[]][] = [
      ["kv:read", ["kv:read"]],
      ["kv", ["kv:read", "kv:write", "kv:delete", "kv:list"]],
      ["kv admin", ["kv:read", "kv:write", "kv:delete", "kv:list", "admin"]],
      ["admin admin", ["admin"]],
      ["relay:read relay:write", ["relay:read", "relay:write"]],
      ["relay relay:* relay:admin", []],
      [" kv:list  kv:list ", ["kv:list"]],
      ["", []],
      [" ", []],
      ["Admin KV kv:READ kv: :read read kv:* * null true constructor __proto__", []],
      ["kv:read\u00a0kv:write", []],
      ["kv,admin", []],
    ];
    for (const [scope, rights] of cases) expect([scope, [...rightsOf(scope)].sort()]).toEqual([scope, rights.sort()]);
  });

  test("leave no trace in later tokens", () => {
    (kvRights() as Set<Right>).add("admin");
    (rightsOf("kv") as Set<Right>).add("admin");
    expect(kvRights().has("admin")).toBe(false);
    expect(rightsOf("kv").has("admin")).toBe(false);
  });
});

describe("a right", () => {
  test("is there when it was granted, or when nothing was limited", () => {
    for (const right of RIGHTS) {
      expect(isAllowed(() => requireRight(EVERYTHING, right))).toBe(true);
      for (const asked of RIGHTS) {
        const principal = { ...EVERYTHING, rights: new Set([right]) };
        expect(isAllowed(() => requireRight(principal, asked))).toBe(asked === right);
      }
    }
  });

  test("that is missing is named in the refusal", () => {
    try {
      requireKeyRight({ ...EVERYTHING, buckets: [] }, "kv:delete", "b", "k");
      expect.unreachable();
    } catch (error) {
      expect((error as AppError).details).toEqual({ scope: "kv:delete" });
    }
  });

  test("is refused with what the token lacks: the right, the bucket or the prefix", () => {
    const messageOf = (principal: Principal): string => {
      try {
        requireKeyRight(principal, "kv:write", "b", "k");
        return "";
      } catch (error) {
        return (error as AppError).message;
      }
    };
    const reader = { ...EVERYTHING, rights: rightsOf("kv:read") };
    expect(messageOf(reader)).toBe("This token may not do that: it needs kv:write.");
    expect(messageOf({ ...reader, buckets: [], prefix: "p" })).toContain("it needs kv:write");
    expect(messageOf({ ...EVERYTHING, buckets: ["c"] })).toBe("This token is not for this bucket.");
    expect(messageOf({ ...EVERYTHING, prefix: "p" })).toBe("This token is for keys with another prefix.");
  });
});

describe("bucket patterns", () => {
  test("cover a name exactly, or what begins like it when they end in a star", () => {
    const cases: [pattern: string, covered: string[], not: string[]][] = [
      ["b", ["b"], ["b2", "B", "ab", "", "b*"]],
      ["b*", ["b", "b2", "b*", "b/x"], ["B", "ab", ""]],
      ["*", ["b", "", "*", "é"], []],
      ["a*b", ["a*b"], ["ab", "axb", "a*bc"]],
      ["**", ["*", "**", "*x"], ["x"]],
      ["", [""], ["b"]],
      ["%", ["%"], ["b", "%x"]],
      ["_", ["_"], ["b"]],
      // Composed and decomposed: two names.
      ["\u00e9", ["\u00e9"], ["e\u0301"]],
      ["__proto__", ["__proto__"], ["constructor"]],
    ];
    for (const [pattern, covered, not] of cases) {
      const principal = { ...EVERYTHING, buckets: [pattern] };
      const verdict = (bucket: string) => isAllowed(() => requireBucket(principal, "kv:read", bucket));
      expect([pattern, covered.filter((bucket) => !verdict(bucket)), not.filter(verdict)]).toEqual([pattern, [], []]);
    }
  });

  test("add up, and none of them covers nothing", () => {
    const both = { ...EVERYTHING, buckets: ["a", "b*"] };
    const covered = ["a", "b", "bc", "c"].filter((name) => isAllowed(() => requireBucket(both, "kv:list", name)));
    expect(covered).toEqual(["a", "b", "bc"]);
    expect(isAllowed(() => requireBucket({ ...EVERYTHING, buckets: [] }, "kv:list", "a"))).toBe(false);
  });
});

describe("a key", () => {
  test("needs the right, the bucket and the prefix together", () => {
    const principal = { ...EVERYTHING, rights: rightsOf("kv:read"), buckets: ["b"], prefix: "p/" };
    const cases: [Right, string, string, boolean][] = [
      ["kv:read", "b", "p/1", true],
      ["kv:read", "b", "p/", true],
      ["kv:read", "b", "p", false],
      ["kv:read", "b", "P/1", false],
      ["kv:read", "b", "q/p/1", false],
      ["kv:read", "c", "p/1", false],
      ["kv:write", "b", "p/1", false],
    ];
    for (const [right, bucket, key, expected] of cases) {
      const result = isAllowed(() => requireKeyRight(principal, right, bucket, key));
      expect([right, bucket, key, result]).toEqual([right, bucket, key, expected]);
    }
    expect(isAllowed(() => requireKeyRight({ ...EVERYTHING, prefix: "" }, "kv:read", "b", "k"))).toBe(true);
  });
});

describe("what concerns the whole store", () => {
  const mayDo = (narrowing: Partial<Principal>) => isAllowed(() => requireAdmin({ ...EVERYTHING, ...narrowing }));

  test("opens to a plain token and to admin, and stays closed to whatever is narrowed otherwise", () => {
    const admin = { rights: rightsOf("kv admin") };
    expect([{}, admin].map(mayDo)).toEqual([true, true]);
    for (const narrowing of [
      { rights: kvRights() },
      { rights: rightsOf("relay:write") },
      { buckets: ["*"] },
      { prefix: "a" },
      { ...admin, buckets: ["*"] },
      { ...admin, buckets: [] },
      { ...admin, prefix: "" },
    ]) {
      expect([narrowing, mayDo(narrowing)]).toEqual([narrowing, false]);
    }
  });
});

describe("the management of the relay", () => {
  const mayDo = (narrowing: Partial<Principal>) =>
    (["relay:read", "relay:write"] as const).map((right) =>
      isAllowed(() => requireRelayRight({ ...EVERYTHING, ...narrowing }, right)),
    );

  test("opens to a plain token, to admin and to relay:write; relay:read may look", () => {
    for (const narrowing of [{}, { rights: rightsOf("admin") }, { rights: rightsOf("kv relay:write") }]) {
      expect(mayDo(narrowing)).toEqual([true, true]);
    }
    expect(mayDo({ rights: rightsOf("relay:read") })).toEqual([true, false]);
  });

  test("stays closed to whatever is narrowed otherwise", () => {
    for (const narrowing of [
      { rights: kvRights() },
      { rights: rightsOf("") },
      { rights: rightsOf("admin"), buckets: ["users"] },
      { buckets: ["*"] },
      { prefix: "a" },
      { rights: rightsOf("relay:write"), prefix: "" },
    ]) {
      expect(mayDo(narrowing)).toEqual([false, false]);
    }
  });
});
