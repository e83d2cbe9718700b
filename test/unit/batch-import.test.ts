// The plan of a batch: which members become writes, which are refused, and what makes the whole of it invalid.

import { describe, expect, test } from "bun:test";
import { type BatchRules, jsonPut, planBatch } from "../../src/token/batch-import.ts";
import { refusalOf } from "../support/refusal-of.ts";

const RULES: BatchRules = {
  bucket: "room",
  installationId: "i",
  permissions: { permissionPrefix: null, permissionKey: [], isReadOnly: false },
  creatorIp: "10.0.0.1",
  keysMax: 4,
  valueBytesMax: 10,
};

function plan(text: string, rules: Partial<BatchRules> = {}) {
  const { total, puts, errors } = planBatch(text, { ...RULES, ...rules });
  return {
    total,
    stored: puts.map(({ key, value }) => [key, new TextDecoder().decode(value)]),
    refused: errors.map(({ key, code }) => [key, code]),
  };
}

describe("a batch", () => {
  test("becomes one write for each member, in order, with the bytes of its value", () => {
    expect(plan(' { "1" : 1.0 ,"b":{ "x":[ ]},"0":null , "\\u0061":"\\u0061"} ')).toEqual({
      total: 4,
      stored: [
        ["1", "1.0"],
        ["b", '{ "x":[ ]}'],
        ["0", "null"],
        ["a", '"\\u0061"'],
      ],
      refused: [],
    });
  });

  test("writes whole entries: JSON, without metadata, expiry or condition", () => {
    const value = new TextEncoder().encode("1");
    expect(planBatch('{"a":1}', RULES).puts).toEqual([jsonPut(RULES, "a", value)]);
    expect(jsonPut({ bucket: "room", installationId: "i", creatorIp: null }, "a", value)).toEqual({
      kind: "put",
      bucket: "room",
      key: "a",
      value,
      installationId: "i",
      contentType: "application/json",
      metadata: null,
      ttlMs: null,
      condition: null,
      creatorIp: null,
    });
  });

  test("goes on beside members that are refused", () => {
    expect(plan('{"a":1,"_keys":2,"..":3,"b":"123456789"}')).toEqual({
      total: 4,
      stored: [["a", "1"]],
      refused: [
        ["_keys", "key_reserved"],
        ["..", "key_invalid"],
        ["b", "body_too_large"],
      ],
    });
    expect(plan('{"":1,"a\\n":2}').refused).toEqual([
      ["", "key_empty"],
      ["a\n", "key_invalid"],
    ]);
  });

  test("measures values in bytes", () => {
    expect(plan('{"a":"12345678","b":"éééé","c":"ééééé"}').refused).toEqual([["c", "body_too_large"]]);
  });

  test("refuses what the permissions do not cover before it looks at the key, and the key before the value", () => {
    const permissions = { permissionPrefix: "p", permissionKey: ["read:r", "write:w"], isReadOnly: false };
    expect(plan('{"p.a":1,"p":2,"r":3,"w.x":4}', { permissions })).toEqual({
      total: 4,
      stored: [
        ["p.a", "1"],
        ["w.x", "4"],
      ],
      refused: [
        ["p", "write_denied"],
        ["r", "write_denied"],
      ],
    });
    expect(plan('{"_keys":1}', { permissions }).refused).toEqual([["_keys", "write_denied"]]);
    expect(plan('{"p":"123456789"}', { permissions }).refused).toEqual([["p", "write_denied"]]);
    expect(plan('{"p./..":"123456789"}', { permissions }).refused).toEqual([["p./..", "key_invalid"]]);
  });

  test("shows the first 256 characters of a refused key", () => {
    const [refused] = planBatch(`{"${"k".repeat(2000)}":1}`, RULES).errors;
    expect([refused!.key, refused!.code]).toEqual(["k".repeat(256), "key_invalid"]);
  });

  test("shows no half of a character of a refused key, so that every parser can read the answer", () => {
    const shown = (key: string) => plan(`{${JSON.stringify(key)}:1}`).refused[0]![0];
    const face = "\u{1f600}";
    expect(shown(`${"a".repeat(255)}${face.repeat(300)}`)).toBe(`${"a".repeat(255)}${face}`);
    expect(shown(face.repeat(300))).toBe(face.repeat(256));
    expect(shown("a\ud83d")).toBe("a\ufffd");
    expect(shown("\ude00a")).toBe("\ufffda");
  });

  test("is an object of at least one key, at most as many as allowed, none of them twice", () => {
    for (const [text, code] of [
      ["[]", "invalid_json"],
      ['"a"', "invalid_json"],
      ["null", "invalid_json"],
      ["{}", "empty_batch"],
      ['{"a":1,"b":1,"c":1,"d":1,"e":1}', "too_many_keys"],
      ['{"a":1,"b":1,"a":1}', "duplicate_key"],
      ['{"a":1,"\\u0061":1}', "duplicate_key"],
      ['{"__proto__":1,"__proto__":1}', "duplicate_key"],
      ['{"_keys":1,"_keys":1}', "duplicate_key"],
      ['{"a":1,"b":1,"c":1,"d":1}', null],
      ['{"__proto__":1,"constructor":1}', null],
    ] as const) {
      expect([text, refusalOf(() => plan(text))]).toEqual([text, code]);
    }
  });
});
