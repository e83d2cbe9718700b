// Times of the task API: which texts are one, and which moment they name.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatTime, formatTimeOrNull } from "../../src/shared/iso-time.ts";
import { parseTime } from "../../src/task/task-time.ts";

const TWO_DIGITS = (value: number) => `${value}`.padStart(2, "0");

describe("a time", () => {
  test("is read back as the moment that was written, with any offset", () => {
    const moment = fc.integer({ min: -62_167_132_800_000, max: 253_402_214_400_000 });
    const offset = fc.integer({ min: -1439, max: 1439 });
    fc.assert(
      fc.property(moment, offset, (ms, minutes) => {
        expect(parseTime(formatTime(ms))).toBe(ms);
        const local = formatTime(ms + minutes * 60_000).slice(0, -1);
        const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
        const zone = `${minutes < 0 ? "-" : "+"}${TWO_DIGITS(hours)}:${TWO_DIGITS(rest)}`;
        expect(parseTime(`${local}${zone}`)).toBe(ms);
      }),
    );
  });

  test("needs a day that its month has", () => {
    for (const year of [1900, 2000, 2023, 2024, 2100]) {
      for (let month = 1; month <= 12; month++) {
        const days = new Date(Date.UTC(year, month, 0)).getUTCDate();
        for (let day = 0; day <= 32; day++) {
          const text = `${year}-${TWO_DIGITS(month)}-${TWO_DIGITS(day)}T12:00:00Z`;
          expect([text, parseTime(text) !== null]).toEqual([text, day >= 1 && day <= days]);
        }
      }
    }
  });

  test("is cut off below the millisecond, not rounded", () => {
    expect(parseTime("1970-01-01T00:00:00.0019999Z")).toBe(1);
    expect(parseTime("1970-01-01T00:00:00.9Z")).toBe(900);
    expect(formatTimeOrNull(null)).toBeNull();
  });

  test("is nothing else", () => {
    const texts = [
      "1970-01-01",
      "1970-01-01T00:00:00",
      "1970-01-01T00:00:00.Z",
      "1970-01-01 00:00:00Z",
      "19700101T000000Z",
      "1970-1-1T00:00:00Z",
      " 1970-01-01T00:00:00Z",
      "1970-01-01T00:00:00Z\n",
      "1970-01-01T00:00:60Z",
      "0000-01-01T00:00:00+00:01",
      "9999-12-31T23:59:59.999-00:01",
      "１970-01-01T00:00:00Z",
      "",
    ];
    for (const text of texts) expect([text, parseTime(text)]).toEqual([text, null]);
  });
});
