// Byte counts as people write them.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { formatByteSize, parseByteSize } from "../../src/shared/byte-sizes.ts";

test("a size is a whole number, alone or with a binary unit", () => {
  for (const [text, bytes] of [
    ["0", 0],
    ["1", 1],
    ["007", 7],
    ["512B", 512],
    ["1KiB", 1024],
    ["25MiB", 26_214_400],
    ["25mib", 26_214_400],
    ["25 MiB", 26_214_400],
    ["1GiB", 1_073_741_824],
    ["8388607GiB", 8_388_607 * 1_073_741_824],
  ] as const) {
    expect([text, parseByteSize(text)]).toEqual([text, bytes]);
  }
});

test("anything else is none", () => {
  for (const text of [
    "",
    "-1",
    "+1",
    "1.5MiB",
    "MiB",
    "1MB",
    "1M",
    "1kB",
    "1TiB",
    "1  MiB",
    " 1",
    "1e3",
    "0x10",
    "1,000",
    "1_000",
    "NaN",
    "9007199254740993KiB",
    "8388608GiB",
    "9999999999999999",
    "1constructor",
    "1__proto__",
  ]) {
    expect([text, parseByteSize(text)]).toEqual([text, null]);
  }
});

test("a size that is written out is read back", () => {
  expect([0, 1, 1023, 1024, 1536, 26_214_400, 3_221_225_472].map(formatByteSize)).toEqual([
    "0",
    "1",
    "1023",
    "1KiB",
    "1536",
    "25MiB",
    "3GiB",
  ]);
  const sizes = fc.oneof(
    fc.nat(),
    fc.nat({ max: 4096 }).map((count) => count * 1024 * 1024),
  );
  fc.assert(fc.property(sizes, (bytes) => expect(parseByteSize(formatByteSize(bytes))).toBe(bytes)));
});
