// Which keys the token API reads and stores.

import { describe, expect, test } from "bun:test";
import { isReservedKey, requireReadableKey, requireWritableKey } from "../../src/token/token-keys.ts";
import { refusalOf } from "../support/refusal-of.ts";

const RESERVED = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];

describe("a key", () => {
  test("is any text of 1 to 1024 bytes without control characters and segments of dots", () => {
    const good = [
      "a",
      "_x",
      "__proto__",
      "constructor",
      "%",
      "%2F",
      "a:b",
      "a b",
      "😀",
      "é",
      "...",
      "a..b",
      ".a",
      "a.",
      "/",
      "a//b",
      "x".repeat(1024),
      "é".repeat(512),
      "😀".repeat(256),
      "\u0080",
      "\u2028",
      "\u200b",
      "metadata",
    ];
    for (const key of good) {
      expect([key, refusalOf(() => requireReadableKey(key))]).toEqual([key, null]);
      expect([key, refusalOf(() => requireWritableKey(key))]).toEqual([key, null]);
    }
  });

  test("is refused for what it holds or lacks, in reading and writing alike", () => {
    const controls = Array.from({ length: 32 }, (_, code) => `a${String.fromCharCode(code)}`);
    const bad = [
      ".",
      "..",
      "a/..",
      "../a",
      "a/./b",
      "x".repeat(1025),
      "é".repeat(513),
      "\ud800",
      "\ufffd",
      "\u007f",
      ...controls,
    ];
    for (const key of bad) {
      expect([key, refusalOf(() => requireReadableKey(key))]).toEqual([key, "key_invalid"]);
      expect([key, refusalOf(() => requireWritableKey(key))]).toEqual([key, "key_invalid"]);
    }
    expect(refusalOf(() => requireReadableKey(""))).toBe("key_empty");
    expect(refusalOf(() => requireWritableKey(""))).toBe("key_empty");
  });

  test("that is the whole name of a route may be asked for, but not stored", () => {
    for (const key of RESERVED) {
      expect(isReservedKey(key)).toBe(true);
      expect(refusalOf(() => requireReadableKey(key))).toBeNull();
      expect(refusalOf(() => requireWritableKey(key))).toBe("key_reserved");
      for (const near of [`${key}s`, `a/${key}`, `${key}/a`, key.toUpperCase(), key.slice(1), `${key}.`]) {
        expect([near, isReservedKey(near), refusalOf(() => requireWritableKey(near))]).toEqual([near, false, null]);
      }
    }
  });
});
