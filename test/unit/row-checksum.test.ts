// The checksums that stores out there hold: another way of reckoning would take every one of their rows for damaged.

import { expect, test } from "bun:test";
import { checksumRow } from "../../src/storage/row-checksum.ts";

const ROW = { revision: 7, updatedAtMs: 1_700_000_000_123, expiresAtMs: null, contentType: null, metadata: null };

test.each([
  ["nothing besides", ROW, 271_197_264],
  ["an expiry", { ...ROW, expiresAtMs: 1_700_000_001_000 }, 3_984_131_252],
  ["a type", { ...ROW, contentType: "text/plain" }, 4_243_804_395],
  ["metadata", { ...ROW, metadata: '{"a":"b"}' }, 1_207_144_687],
  ["a type and metadata", { ...ROW, contentType: "text/plain", metadata: '{"a":"b"}' }, 2_447_227_320],
])("of a row with %s is what it always was", (_, row, expected) => {
  expect(checksumRow("bucket", "key/ü", row, new TextEncoder().encode("value"))).toBe(expected);
});
