// Paths to bucket and key: split before decoding, decode once, refuse what is doubtful.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { requireNoFragment } from "../../src/http/request-path.ts";
import { isBucketName, isReserved, parseKvPath, requireKey } from "../../src/kv/kv-path.ts";
import { HOSTILE_BUCKETS, HOSTILE_KEYS, REFUSED_BUCKETS, REFUSED_KEYS } from "../support/hostile-values.ts";
import { keyPath } from "../support/kv-requests.ts";
import { refusalOf } from "../support/refusal-of.ts";

const RESERVED = new Set(["api", "kv", "v1"]);
const DOTS = /(?:^|\/)\.\.?(?:\/|$)/;

function parse(path: string): [bucket: string, key: string] {
  const { bucket, key } = parseKvPath(path, RESERVED);
  return [bucket, key];
}

describe("a path", () => {
  test("is a bucket, a slash and a key that may hold slashes", () => {
    for (const [path, bucket, key] of [
      ["/b/k", "b", "k"],
      ["/b/user/1", "b", "user/1"],
      ["/b/user%2F1", "b", "user/1"],
      ["/b/user%252F1", "b", "user%2F1"],
      ["/b//k", "b", "/k"],
      ["/b/%2Fk", "b", "/k"],
      ["/b/k/", "b", "k/"],
      ["/b///", "b", "//"],
      ["/b/%25ff", "b", "%ff"],
      ["/a%3Ab/c", "a:b", "c"],
      ["/a/b:c", "a", "b:c"],
      ["/b/a+b", "b", "a+b"],
      ["/%E2%82%AC/%F0%9F%98%80", "€", "😀"],
      ["/b/...", "b", "..."],
      ["/b/a..b", "b", "a..b"],
    ] as const) {
      expect([path, ...parse(path)]).toEqual([path, bucket, key]);
    }
  });

  test("whose key or bucket is refused says which rule it breaks", () => {
    for (const [key, code] of REFUSED_KEYS) {
      expect([key, refusalOf(() => parse(`/b/${key}`))]).toEqual([key, code]);
    }
    for (const [bucket, code] of REFUSED_BUCKETS) {
      expect([bucket, refusalOf(() => parse(`/${bucket}/k`))]).toEqual([bucket, code]);
    }
  });

  test("without a bucket or a key is refused", () => {
    for (const path of ["/", "//", "//k", "///"])
      expect([path, refusalOf(() => parse(path))]).toEqual([path, "bucket_empty"]);
    for (const path of ["/b", "/b/"]) expect([path, refusalOf(() => parse(path))]).toEqual([path, "key_empty"]);
  });

  test("of one dot or two as the bucket is refused, should one ever arrive undecoded", () => {
    for (const bucket of [".", "..", "%2E", "%2e%2E"]) {
      expect([bucket, refusalOf(() => parse(`/${bucket}/k`))]).toEqual([bucket, "bucket_invalid"]);
    }
    for (const key of [".", "..", "a/..", "../a", "a/./b"]) {
      expect([key, refusalOf(() => parse(`/b/${key}`))]).toEqual([key, "key_invalid"]);
    }
  });

  test("in a reserved bucket is refused before its key is looked at", () => {
    for (const bucket of ["api", "kv", "v1", "_x", "_", "__proto__"]) {
      expect(refusalOf(() => parse(`/${bucket}/k`))).toBe("bucket_reserved");
      expect(refusalOf(() => parse(`/${bucket}`))).toBe("bucket_reserved");
    }
    expect(() => parse("/kv/k")).toThrow("This name belongs to a service of the server.");
    expect(() => parse("/_x/k")).toThrow("Names must not begin with an underscore.");
    expect(parseKvPath("/api/k", new Set())).toEqual({ bucket: "api", key: "k" });
    expect([isReserved("API", RESERVED), isReserved("api2", RESERVED), isReserved("a_", RESERVED)]).toEqual([
      false,
      false,
      false,
    ]);
  });

  test("of any legal bucket and key, encoded, leads back to them", () => {
    const isKey = (key: string) =>
      key !== "" && Buffer.byteLength(key) <= 1024 && !/[\0\ufffd]/.test(key) && !DOTS.test(key);
    const keys = fc.oneof(fc.string({ unit: "binary", maxLength: 40 }), fc.constantFrom(...HOSTILE_KEYS)).filter(isKey);
    const buckets = fc.constantFrom(...HOSTILE_BUCKETS);
    fc.assert(
      fc.property(buckets, keys, (bucket, key) => {
        expect(parse(keyPath(bucket, key))).toEqual([bucket, key]);
        expect(parse(`/${encodeURIComponent(bucket)}/${key.split("/").map(encodeURIComponent).join("/")}`)).toEqual([
          bucket,
          key,
        ]);
      }),
      { numRuns: 2000 },
    );
  });

  test("decodes the key exactly once, whatever it is made of", () => {
    const pieces = fc.constantFrom(
      "/",
      "%2F",
      "%252F",
      "%25",
      "a",
      "%61",
      "%ff",
      "%C3%BF",
      "ÿ",
      ".",
      "%2e",
      "+",
      "%2B",
    );
    const paths = fc.array(pieces, { minLength: 1, maxLength: 6 }).map((parts) => `/b/${parts.join("")}`);
    fc.assert(
      fc.property(paths, (path) => {
        const code = refusalOf(() => parse(path));
        if (code !== null) return;
        const [, key] = parse(path);
        expect(key).toBe(decodeURIComponent(path.slice("/b/".length)));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("a name", () => {
  test("is measured in bytes of UTF-8", () => {
    for (const [name, isLegal] of [
      ["b".repeat(128), true],
      ["b".repeat(129), false],
      ["é".repeat(64), true],
      ["é".repeat(65), false],
      ["€".repeat(42), true],
      ["€".repeat(43), false],
      ["😀".repeat(32), true],
      ["😀".repeat(33), false],
    ] as const) {
      expect([name, isBucketName(name)]).toEqual([name, isLegal]);
    }
    expect(refusalOf(() => requireKey("k".repeat(1024)))).toBeNull();
    expect(refusalOf(() => requireKey("k".repeat(1025)))).toBe("key_invalid");
    expect(refusalOf(() => requireKey("😀".repeat(256)))).toBeNull();
    expect(refusalOf(() => requireKey(`${"😀".repeat(256)}k`))).toBe("key_invalid");
  });

  test("with half of a surrogate pair is refused: its UTF-8 would be that of another name", () => {
    expect([isBucketName("a\ud800"), isBucketName("\udc00a")]).toEqual([false, false]);
    expect(refusalOf(() => requireKey("a\ud800b"))).toBe("key_invalid");
  });

  test("of a bucket holds no control character, slash or dot alone; every hostile one is legal", () => {
    const controls = [...Array(32).keys(), ...Array.from({ length: 33 }, (_, index) => 0x7f + index)];
    for (const control of controls) expect(isBucketName(`a${String.fromCharCode(control)}`)).toBe(false);
    for (const name of ["", ".", "..", "a/b", "\ufffd"]) expect(isBucketName(name)).toBe(false);
    for (const name of HOSTILE_BUCKETS) expect([name, isBucketName(name)]).toEqual([name, true]);
    for (const key of HOSTILE_KEYS) expect([key, refusalOf(() => requireKey(key))]).toEqual([key, null]);
  });
});

test("a raw # anywhere in the URL is refused", () => {
  for (const url of ["http://h/b/k#", "http://h/b#/k", "http://h/b/k?x=1#y"]) {
    expect(refusalOf(() => requireNoFragment(url))).toBe("path_invalid");
  }
  expect(refusalOf(() => requireNoFragment("http://h/b/k%23?x=%23"))).toBeNull();
});
