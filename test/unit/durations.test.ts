// Durations as people write them.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { formatDuration, parseDurationMs } from "../../src/shared/durations.ts";

test("a duration is numbers with units, summed", () => {
  for (const [text, ms] of [
    ["0", 0],
    ["0s", 0],
    ["1ns", 1e-6],
    ["1us", 1e-3],
    ["1µs", 1e-3],
    ["1μs", 1e-3],
    ["1ms", 1],
    ["1s", 1000],
    ["1m", 60_000],
    ["1h", 3_600_000],
    ["1d", 86_400_000],
    ["365d", 365 * 86_400_000],
    ["1.5h", 5_400_000],
    ["1h30m", 5_400_000],
    ["1h1h", 7_200_000],
    [".5s", 500],
    ["1.s", 1000],
    ["-1h", -3_600_000],
    ["+1h", 3_600_000],
    ["-0", 0],
    ["1d1h1m1s1ms", 90_061_001],
    ["72h3m0.5s", 259_380_500],
  ] as const) {
    expect([text, Math.abs(parseDurationMs(text)! - ms) < 1e-9]).toEqual([text, true]);
  }
});

test("fractions of a second are whole milliseconds, not almost", () => {
  for (let ms = 1; ms < 20_000; ms++) expect(parseDurationMs(`${ms / 1000}s`)).toBe(ms);
});

test("anything else is none", () => {
  for (const text of [
    "",
    "10",
    "1",
    "-1",
    "s",
    "5x",
    "1h30",
    "h1",
    "1 s",
    " 1s",
    "1s ",
    "1H",
    "1S",
    "1w",
    "1y",
    ".s",
    ".",
    "-",
    "+",
    "--1s",
    "1.2.3s",
    "1,5s",
    "1e3s",
    "0x1s",
    "٣s",
    "Infinity",
    "NaN",
    "1s\n",
    `${"9".repeat(400)}h`,
  ]) {
    expect([text, parseDurationMs(text)]).toEqual([text, null]);
  }
});

test("a duration that is written out is read back", () => {
  expect([formatDuration(86_400_000), formatDuration(5000), formatDuration(500), formatDuration(1500)]).toEqual([
    "1d",
    "5s",
    "500ms",
    "1.5s",
  ]);
  expect([formatDuration(0), formatDuration(3_600_000), formatDuration(60_000)]).toEqual(["0ms", "1h", "1m"]);
  fc.assert(
    fc.property(fc.nat({ max: 400 * 86_400_000 }), (ms) =>
      expect(parseDurationMs(formatDuration(ms))).toBeCloseTo(ms, 3),
    ),
  );
});
