// Batch import: which members are stored, in which order they are answered, what is refused as a whole.

import { describe, expect, test } from "bun:test";
import { sendRaw } from "../support/raw-request.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import {
  expectRefusal,
  importBatch,
  keysOf,
  store,
  storedText,
  textOf,
  unannounced,
  WITHOUT_RATES,
} from "../support/token-answers.ts";
import { asApp, install } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;

export function tokenBatchSuite(name: string, open: OpenTarget): void {
  describe(`batches on ${name}: members`, () => memberTests(useTarget(open, WITHOUT_RATES)));
  describe(`batches on ${name}: hostile names`, () => hostileTests(useTarget(open, WITHOUT_RATES)));
  describe(`batches on ${name}: refused as a whole`, () => refusedTests(useTarget(open, WITHOUT_RATES)));
  describe(`batches on ${name}: bounds`, () => {
    const env = { ...WITHOUT_RATES, TOKEN_MAX_BATCH_KEYS: "3", TOKEN_MAX_BATCH_BYTES: "64" };
    boundTests(useTarget(open, WITHOUT_RATES), useTarget(open, env));
  });
}

function memberTests(target: () => Target): void {
  test("members are answered in the order they were sent in", async () => {
    const { uuid, token } = await install(target());
    const answer = await importBatch(target(), token, '{"1":1,"b":2,"0":3,"a":4,"10":5,"-1":6}');
    const results = ["1", "b", "0", "a", "10", "-1"].map((key) => ({ key, created: true }));
    expect(answer).toEqual({ namespace: uuid, total: 6, successful: 6, failed: 0, results });
    expect(await keysOf(target(), token)).toEqual(["-1", "0", "1", "10", "a", "b"]);
  });

  test("as many and as small values as fit into a batch are not too many", async () => {
    const { token } = await install(target());
    const value = JSON.stringify(new Array(200).fill("a"));
    const members = Array.from({ length: 9_900 }, (_, index) => `"k${index}":${value}`);
    const json = `{${members.join(",")}}`;
    expect(json.length).toBeWithin(7.5 * MiB, 8 * MiB);
    expect(await importBatch(target(), token, json)).toMatchObject({ total: 9_900, successful: 9_900 });
  });

  test("good members are stored, every other one is named once with its reason", async () => {
    const { uuid, token } = await install(target(), {
      permissionPrefix: "p",
      permissionKey: ["read:r"],
    });
    const long = `p.${"x".repeat(1023)}`;
    const members: readonly (readonly [key: string, value: string, code: string | null])[] = [
      ["p.first", "1", null],
      ["_keys", "1", "write_denied"],
      ["other", "1", "write_denied"],
      ["r", "1", "write_denied"],
      [long, "1", "key_invalid"],
      ["p.\u0001", "1", "key_invalid"],
      ["p.a\n", "1", "key_invalid"],
      ["p.\u007f", "1", "key_invalid"],
      ["p./../x", "1", "key_invalid"],
      ["p./.", "1", "key_invalid"],
      ["p.large", `"${"x".repeat(MiB)}"`, "body_too_large"],
      ["p.last", "[1.0]", null],
    ];
    const body = `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`;
    const answer = await importBatch(target(), token, body);
    expect(Object.keys(answer)).toEqual(["namespace", "total", "successful", "failed", "results", "errors"]);
    expect([answer.namespace, answer.total, answer.successful, answer.failed]).toEqual([uuid, 12, 2, 10]);
    expect(answer.results).toEqual([
      { key: "p.first", created: true },
      { key: "p.last", created: true },
    ]);
    const refused = members.filter((member) => member[2] !== null);
    expect(answer.errors!.map(({ key, code }) => [key, code as string | null])).toEqual(
      refused.map(([key, , code]) => [key.slice(0, 256), code]),
    );
    for (const error of answer.errors!) {
      expect(Object.keys(error)).toEqual(["key", "error", "code"]);
      expect(error.error.length).toBeGreaterThan(10);
    }
    expect(await keysOf(target(), token)).toEqual(["p.first", "p.last"]);
  });

  test("every reserved name is refused, and its neighbours are ordinary", async () => {
    const { token } = await install(target());
    const reserved = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];
    const near = ["_key", "_keys2", "_Keys", "a._keys", "_keys/a", "_x", "metadata"];
    const body = JSON.stringify(Object.fromEntries([...reserved, ...near].map((key) => [key, key])));
    const answer = await importBatch(target(), token, body);
    expect(answer.errors).toEqual(
      reserved.map((key) => ({ key, error: "this key name is reserved", code: "key_reserved" })),
    );
    expect(answer.results).toEqual(near.map((key) => ({ key, created: true })));
    expect((await keysOf(target(), token)).toSorted()).toEqual(near.toSorted());
  });

  test("when no member is good the answer is still 200, with no results", async () => {
    const { uuid, token } = await install(target());
    const answer = await importBatch(target(), token, '{"_keys":1,"":2,"a/..":3,"\\ud800":4}');
    expect({ ...answer, errors: answer.errors!.map(({ key, code }) => [key, code]) }).toEqual({
      namespace: uuid,
      total: 4,
      successful: 0,
      failed: 4,
      results: [],
      errors: [
        ["_keys", "key_reserved"],
        ["", "key_empty"],
        ["a/..", "key_invalid"],
        ["\ufffd", "key_invalid"],
      ] as never,
    });
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("values keep their bytes, whatever stands around them", async () => {
    const { token } = await install(target());
    await importBatch(target(), token, '\n{ "a" : { "b": 1.0,  "a": 12345678901234567890 } ,\t"c":[ ] }\n');
    expect(await storedText(target(), token, "a")).toBe('{ "b": 1.0,  "a": 12345678901234567890 }');
    expect(await storedText(target(), token, "c")).toBe("[ ]");
  });

  test("members that stay out of one batch can be in the next, old ones are replaced", async () => {
    const { token } = await install(target());
    await store(target(), token, "a", "0");
    const first = await importBatch(target(), token, '{"a":1,"_keys":2,"b":3}');
    expect(first.results).toEqual([
      { key: "a", created: false },
      { key: "b", created: true },
    ]);
    await target().restart();
    expect((await importBatch(target(), token, '{"c":1,"b":4}')).results).toEqual([
      { key: "c", created: true },
      { key: "b", created: false },
    ]);
    expect([await storedText(target(), token, "a"), await storedText(target(), token, "b")]).toEqual(["1", "4"]);
  });
}

const PROTOTYPE_NAMES = ["__proto__", "constructor", "hasOwnProperty", "toString", "valueOf", "prototype"];
const ODD_NAMES = ["%", "%25", "_x", "a:b", "😀", "a b", "日本", "a/b", "a.b", '"', "\\", "'", "null", "1e3", "\u0080"];

function hostileTests(target: () => Target): void {
  test("names of object members are ordinary keys: written, read, listed, deleted, singly and by batch", async () => {
    const { token } = await install(target());
    const names = [...PROTOTYPE_NAMES, ...ODD_NAMES];
    const batch = `{${names.map((name) => `${JSON.stringify(name)}:${JSON.stringify(name)}`).join(",")}}`;
    const answer = await importBatch(target(), token, batch);
    expect(answer.results).toEqual(names.map((key) => ({ key, created: true })));
    const listed = await keysOf(target(), token);
    expect(listed.toSorted()).toEqual(names.toSorted());
    for (const name of names) {
      const path = encodeURIComponent(name);
      expect(await storedText(target(), token, path)).toBe(JSON.stringify(name));
      expect((await store(target(), token, path, '{"__proto__":1}')).created).toBe(false);
      const metadata = JSON.parse(await textOf(await asApp(target(), token, `/${path}/metadata`))) as { key: string };
      expect(metadata.key).toBe(name);
    }
    const list = JSON.parse(await textOf(await asApp(target(), token, "/"))) as { items: { key: string }[] };
    expect(list.items.map(({ key }) => key)).toEqual(listed);
    for (const name of names) {
      const path = `/${encodeURIComponent(name)}`;
      expect((await asApp(target(), token, path, { method: "DELETE" })).status).toBe(204);
      expect(await storedText(target(), token, path.slice(1))).toBeNull();
      expect((await store(target(), token, path.slice(1), "1")).created).toBe(true);
    }
    const untouched = {} as Record<string, unknown>;
    expect([untouched.polluted, Object.getPrototypeOf(untouched) === Object.prototype]).toEqual([undefined, true]);
  });
}

function refusedTests(target: () => Target): void {
  test("what is no object, or has no key but the token's, is 400", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", "0");
    const send = (body: string) => asApp(target(), token, "/_batchimport", { method: "POST", body });
    for (const body of ["[]", '"x"', "1", "null", "true", '[{"a":1}]', "{", '{"a":1}{"b":2}', '{"a"}', "{a:1}"]) {
      await expectRefusal(await send(body), "invalid_json");
    }
    for (const body of ["{}", " { } ", `{"token":"${token}"}`]) await expectRefusal(await send(body), "empty_batch");
    expect(await keysOf(target(), token)).toEqual(["k"]);
  });

  test("a batch of far too many keys is refused before the rest of it is looked at", async () => {
    const { token } = await install(target());
    const members = Array.from({ length: 20_000 }, (_, index) => `"k${index}":1`);
    const body = `{${members.join(",")},"no JSON`;
    await expectRefusal(await asApp(target(), token, "/_batchimport", { method: "POST", body }), "too_many_keys");
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("a key that is named twice is 400, however it is spelt, and nothing is stored", async () => {
    const { token } = await install(target());
    for (const body of [
      '{"a":1,"b":2,"a":3}',
      '{"a":1,"\\u0061":1}',
      '{"__proto__":1,"__proto__":2}',
      '{"_keys":1,"_keys":2}',
    ]) {
      const response = await asApp(target(), token, "/_batchimport", { method: "POST", body });
      await expectRefusal(response, "duplicate_key");
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });
}

function boundTests(target: () => Target, small: () => Target): void {
  const keyed = (count: number) =>
    `{${Array.from({ length: count }, (_, index) => `"k${100_000 + index}":0`).join(",")}}`;
  const send = (to: Target, token: string, body: string | ReadableStream) =>
    asApp(to, token, "/_batchimport", { method: "POST", body });

  test("10 000 keys are stored together, 10 001 are 400 and nothing is stored", async () => {
    const { token } = await install(target());
    await expectRefusal(await send(target(), token, keyed(10_001)), "too_many_keys");
    expect(await keysOf(target(), token)).toEqual([]);
    const answer = await importBatch(target(), token, keyed(10_000));
    expect([answer.total, answer.successful, answer.results.length]).toEqual([10_000, 10_000, 10_000]);
    const page = JSON.parse(await textOf(await asApp(target(), token, "/_keys?limit=1"))) as { total_rows: number };
    expect(page.total_rows).toBe(10_000);
  });

  test("a body above 8 MiB is 413, announced or not, one of 8 MiB is stored", async () => {
    const { token } = await install(target());
    const sized = (bytes: number) => {
      const values = Array.from({ length: 9 }, (_, index) => `"k${index}":"${"x".repeat(900_000)}"`).join(",");
      const start = `{${values},"last":"`;
      return `${start}${"x".repeat(bytes - start.length - 2)}"}`;
    };
    const over = sized(8 * MiB + 1);
    for (const body of [over, unannounced(over)]) {
      await expectRefusal(await send(target(), token, body), "body_too_large");
    }
    const head = `POST /kv/token/_batchimport HTTP/1.1\r\nHost: h\r\nX-App-Token: ${token}\r\n`;
    const { statuses, text } = await sendRaw(target().url, `${head}Content-Length: 999999999999\r\n\r\n`);
    expect([statuses, text.includes('"code":"body_too_large"')]).toEqual([[413], true]);
    expect(await keysOf(target(), token)).toEqual([]);
    expect(await importBatch(target(), token, sized(8 * MiB))).toMatchObject({ total: 10, successful: 10, failed: 0 });
  });

  test("both bounds are settings, and the token in the body counts for neither", async () => {
    const { token } = await install(small());
    await expectRefusal(await send(small(), token, '{"a":1,"b":2,"c":3,"d":4}'), "too_many_keys");
    const padded = (bytes: number) => `{"a":1,"b":2,"c":"${"x".repeat(bytes - 20)}"}`;
    expect(padded(64).length).toBe(64);
    await expectRefusal(await send(small(), token, padded(65)), "body_too_large");
    const told = (await (await send(small(), token, padded(65))).json()) as { message: string };
    expect(told.message).toBe("A batch has at most 64 bytes.");
    const carrier = `{"token":"${token}",`;
    await expectRefusal(await send(small(), token, padded(65).replace("{", carrier)), "body_too_large");
    const byBody = await small().fetch("/kv/token/_batchimport", {
      method: "POST",
      body: padded(65).replace("{", carrier),
      headers: { Authorization: null, "Content-Type": "application/json" },
    });
    await expectRefusal(byBody, "body_too_large");
    const chunked = unannounced(padded(2000));
    await expectRefusal(await send(small(), token, chunked), "body_too_large");
    expect(await keysOf(small(), token)).toEqual([]);
    expect(await importBatch(small(), token, padded(64).replace("{", carrier))).toMatchObject({ total: 3 });
    expect(await keysOf(small(), token)).toEqual(["a", "b", "c"]);
  });
}
