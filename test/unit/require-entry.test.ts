// Entries that come by import keep the rules of those that come by HTTP.

import { expect, test } from "bun:test";
import { requireEntry } from "../../src/kv/require-entry.ts";
import { HOSTILE_BUCKETS, HOSTILE_KEYS } from "../support/hostile-values.ts";
import { refusalOf } from "../support/refusal-of.ts";

const ENTRY = {
  bucket: "b",
  key: "k",
  contentType: null,
  metadata: null,
  creatorIp: null,
  value: new Uint8Array(0),
  createdAtMs: 0,
  updatedAtMs: 0,
  expiresAtMs: null,
};

test("an entry that a request could have stored is taken, in buckets of the server's services too", () => {
  const metadata = '{"a":"1","__proto__":"2"}';
  expect(refusalOf(() => requireEntry({ ...ENTRY, contentType: "text/plain", metadata }))).toBeNull();
  for (const key of HOSTILE_KEYS) expect([key, refusalOf(() => requireEntry({ ...ENTRY, key }))]).toEqual([key, null]);
  for (const bucket of [...HOSTILE_BUCKETS, "api"]) {
    expect([bucket, refusalOf(() => requireEntry({ ...ENTRY, bucket }))]).toEqual([bucket, null]);
  }
});

test("an entry that no request could reach or bring is refused", () => {
  for (const [part, code] of [
    [{ key: ".." }, "key_invalid"],
    [{ key: "." }, "key_invalid"],
    [{ key: "a/../b" }, "key_invalid"],
    [{ key: "a/." }, "key_invalid"],
    [{ key: "a\0b" }, "key_invalid"],
    [{ key: "\ufffd" }, "key_invalid"],
    [{ key: "\ud800" }, "key_invalid"],
    [{ key: "" }, "key_empty"],
    [{ key: "k".repeat(1025) }, "key_invalid"],
    [{ bucket: "" }, "bucket_empty"],
    [{ bucket: "_x" }, "bucket_reserved"],
    [{ bucket: "_" }, "bucket_reserved"],
    [{ bucket: ".." }, "bucket_invalid"],
    [{ bucket: "a/b" }, "bucket_invalid"],
    [{ bucket: "a\nb" }, "bucket_invalid"],
    [{ bucket: "b".repeat(129) }, "bucket_invalid"],
    [{ contentType: "text" }, "content_type_invalid"],
    [{ contentType: "" }, "content_type_invalid"],
    [{ contentType: "text/plain\r\nX-Injected: 1" }, "content_type_invalid"],
    [{ metadata: '{"A":"1"}' }, "metadata_invalid"],
    [{ metadata: '{"a":"\\r\\nX-Injected: 1"}' }, "metadata_invalid"],
    [{ metadata: `{"a":"${"v".repeat(2048)}"}` }, "metadata_invalid"],
  ] as const) {
    expect([part, refusalOf(() => requireEntry({ ...ENTRY, ...part }))]).toEqual([part, code]);
  }
});
