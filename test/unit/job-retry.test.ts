// The delay of retries: it grows, stays under its cap, and is never the same for all.

import { describe, expect, test } from "bun:test";
import { retryDelayMs } from "../../src/jobs/job-retry.ts";

const BACKOFF = { baseMs: 10_000, factor: 4, capMs: 600_000 };
const ALMOST_ONE = 1 - Number.EPSILON;

describe("the delay of a retry", () => {
  test("lies between half and all of base times factor to the failures before", () => {
    for (const [failures, fullMs] of [
      [1, 10_000],
      [2, 40_000],
      [3, 160_000],
    ] as const) {
      expect(retryDelayMs(BACKOFF, failures, 0)).toBe(fullMs / 2);
      expect(retryDelayMs(BACKOFF, failures, 0.5)).toBe((fullMs * 3) / 4);
      expect(retryDelayMs(BACKOFF, failures, ALMOST_ONE)).toBe(fullMs);
    }
  });

  test("never exceeds its cap, however often a job has failed", () => {
    for (const failures of [4, 10, 1_000_000]) {
      expect(retryDelayMs(BACKOFF, failures, 0)).toBe(300_000);
      expect(retryDelayMs(BACKOFF, failures, ALMOST_ONE)).toBe(600_000);
    }
  });
});
