// How long rows of the usage log wait, how many are written together, and how many may wait while the store takes none.

import { afterEach, beforeEach, expect, jest, test } from "bun:test";
import type { RelayUnits } from "../../src/relay/relay-units.ts";
import { UsageLog } from "../../src/relay/usage-log.ts";
import type { UnitRunner } from "../../src/storage/unit-of-work.ts";
import { QUIET } from "../support/job-rig.ts";
import { logRow } from "../support/relay-store.ts";

/** How many rows each write had. */
let writes: number[];
let usageLog: UsageLog;
beforeEach(() => {
  jest.useFakeTimers();
  writes = [];
  const units = {
    async run(_name: string, { rows }: { rows: string }) {
      writes.push((JSON.parse(rows) as unknown[]).length);
      return null;
    },
  } as unknown as UnitRunner<RelayUnits>;
  usageLog = new UsageLog(units, () => [], QUIET);
});
afterEach(() => {
  jest.useRealTimers();
});

function record(count: number): void {
  for (let row = 0; row < count; row++) usageLog.record(logRow());
}

test("rows wait for others up to 100 ms", () => {
  record(1);
  jest.advanceTimersByTime(99);
  expect(writes).toEqual([]);
  jest.advanceTimersByTime(1);
  expect(writes).toEqual([1]);
});

test("500 rows wait no longer", () => {
  record(499);
  jest.advanceTimersByTime(1);
  expect(writes).toEqual([]);
  record(1);
  jest.advanceTimersByTime(1);
  expect(writes).toEqual([500]);
});

test("no more than 500 rows are written together", async () => {
  record(1_001);
  await usageLog[Symbol.asyncDispose]();
  expect(writes).toEqual([500, 500, 1]);
});

test("10 000 rows wait while the store takes none, those beyond are dropped and counted", () => {
  record(10_000);
  expect([usageLog.waiting, usageLog.dropped]).toEqual([10_000, 0]);
  record(3);
  expect([usageLog.waiting, usageLog.dropped]).toEqual([10_000, 3]);
});
