// The rate limiter against a plain count, with a clock that is moved by hand.

import { describe, expect, test } from "bun:test";
import { GcraLimiter } from "../../src/limits/gcra-limiter.ts";
import type { Rate } from "../../src/shared/setting-parsers.ts";
import { expectFigure } from "../support/figures-in-bounds.ts";
import { randomFrom } from "../support/seeded-random.ts";

const MEMORY_BYTES = 1024 * 1024;
/** A wall clock of these years: numbers of this size leave a double with a quarter of a microsecond. */
const NOW_MS = 1_790_000_000_123;
const MINUTE_MS = 60_000;

function createLimiter(memoryBytes = MEMORY_BYTES) {
  const clock = { nowMs: NOW_MS };
  return { clock, limiter: new GcraLimiter(() => clock.nowMs, memoryBytes) };
}

function perMinute(limit: number): Rate {
  return { limit, windowMs: MINUTE_MS };
}

describe("the limiter", () => {
  test("lets a whole burst through at one instant and nothing after it, for every limit", () => {
    for (const limit of [...Array.from({ length: 300 }, (_, index) => index + 1), 512, 999, 1024, 2047, 10_000]) {
      const { limiter } = createLimiter();
      const verdicts = Array.from({ length: limit + 2 }, () => limiter.take("k", perMinute(limit)));
      expect([limit, verdicts.filter(({ isAllowed }) => isAllowed).length]).toEqual([limit, limit]);
      expect(verdicts.slice(limit).some(({ isAllowed }) => isAllowed)).toBe(false);
    }
  });

  test("tells how many are left, counting down to nothing, for every limit", () => {
    for (const limit of [1, 2, 3, 7, 11, 60, 99, 128, 256, 333, 512, 1024]) {
      const { limiter } = createLimiter();
      const left = Array.from({ length: limit + 1 }, () => limiter.take("k", perMinute(limit)).remaining);
      const expected = Array.from({ length: limit + 1 }, (_, index) => Math.max(0, limit - 1 - index));
      expect([limit, ...left]).toEqual([limit, ...expected]);
    }
  });

  test("gives requests back one by one, evenly over the window", () => {
    const { limiter, clock } = createLimiter();
    for (let taken = 0; taken < 60; taken++) limiter.take("k", perMinute(60));
    for (let second = 1; second <= 10; second++) {
      clock.nowMs += 999;
      expect(limiter.take("k", perMinute(60)).isAllowed).toBe(false);
      clock.nowMs += 1;
      expect(limiter.take("k", perMinute(60)).isAllowed).toBe(true);
      expect(limiter.take("k", perMinute(60)).isAllowed).toBe(false);
    }
    clock.nowMs += MINUTE_MS;
    expect(limiter.take("k", perMinute(60)).remaining).toBe(59);
  });

  test("tells when the next request passes and when the whole burst is back", () => {
    const { limiter, clock } = createLimiter();
    const first = limiter.take("k", perMinute(4));
    expect(first).toEqual({ isAllowed: true, remaining: 3, resetMs: 15_000, retryAfterMs: 0 });
    for (let taken = 0; taken < 3; taken++) limiter.take("k", perMinute(4));
    const refused = limiter.take("k", perMinute(4));
    expect(refused).toEqual({ isAllowed: false, remaining: 0, resetMs: MINUTE_MS, retryAfterMs: 15_000 });
    clock.nowMs += refused.retryAfterMs;
    expect(limiter.take("k", perMinute(4)).isAllowed).toBe(true);
    clock.nowMs += MINUTE_MS;
    expect(limiter.take("k", perMinute(4)).remaining).toBe(3);
  });

  test("does not count what it refuses", () => {
    const { limiter, clock } = createLimiter();
    for (let asked = 0; asked < 1000; asked++) limiter.take("k", perMinute(2));
    clock.nowMs += MINUTE_MS / 2;
    expect(limiter.take("k", perMinute(2)).isAllowed).toBe(true);
  });

  test("is corrected both ways: what was not needed passes again, a debt drains before anything passes", () => {
    const { clock, limiter } = createLimiter();
    const limit = perMinute(60);
    limiter.take("a", limit, 60);
    limiter.correct("a", limit, -10);
    expect(limiter.take("a", limit, 10).isAllowed).toBe(true);
    limiter.correct("a", limit, 30);
    expect(limiter.take("a", limit)).toMatchObject({ isAllowed: false, remaining: 0, retryAfterMs: 31_000 });
    clock.nowMs += 31_000;
    expect(limiter.take("a", limit).isAllowed).toBe(true);
    limiter.correct("new", limit, 90);
    expect(limiter.take("new", limit).isAllowed).toBe(false);
    limiter.correct("new", limit, -1000);
    expect(limiter.take("new", limit, 60).isAllowed).toBe(true);
  });

  test("keeps keys apart", () => {
    const { limiter } = createLimiter();
    for (const key of ["a", "b", "a2", "__proto__"]) {
      expect([limiter.take(key, perMinute(1)).isAllowed, limiter.take(key, perMinute(1)).isAllowed]).toEqual([
        true,
        false,
      ]);
    }
  });

  test("never lets more through than a burst and the refill since, and never less than the refill", () => {
    const random = randomFrom(7);
    for (const limit of [1, 3, 10, 128, 1000]) {
      const { limiter, clock } = createLimiter();
      let allowed = 0;
      let refused = 0;
      for (let asked = 0; asked < 5000; asked++) {
        clock.nowMs += random.chance(0.5) ? 0 : random.below((3 * MINUTE_MS) / limit);
        if (limiter.take("k", perMinute(limit)).isAllowed) allowed++;
        else refused++;
        const refill = ((clock.nowMs - NOW_MS) * limit) / MINUTE_MS;
        expect(allowed).toBeLessThanOrEqual(Math.floor(limit + refill + 1e-3));
        if (refused > 0) expect(allowed).toBeGreaterThan(0);
      }
      expect([limit, allowed > 100, limit === 1000 || refused > 0]).toEqual([limit, true, true]);
    }
  });

  test("does not lock a client out for as long as the clock was set back", () => {
    const { limiter, clock } = createLimiter();
    for (let taken = 0; taken < 10; taken++) limiter.take("k", perMinute(60));
    clock.nowMs -= 3_600_000;
    const verdict = limiter.take("k", perMinute(60));
    expect(verdict.resetMs).toBeLessThanOrEqual(MINUTE_MS);
    clock.nowMs += 1000;
    expect(limiter.take("k", perMinute(60)).isAllowed).toBe(true);
  });

  test("forgets the keys used least recently instead of growing", () => {
    const { limiter } = createLimiter(64 * 1024);
    limiter.take("first", perMinute(1));
    for (let index = 0; index < 10_000; index++) limiter.take(`key ${index}`, perMinute(1));
    expect(limiter.take("first", perMinute(1)).isAllowed).toBe(true);
    expect(limiter.take("key 9999", perMinute(1)).isAllowed).toBe(false);
    expect(limiter.take("key 9900", perMinute(1)).isAllowed).toBe(false);
  });
});

test("each of a million addresses is judged in 20 us, although most are forgotten for others", () => {
  const { limiter } = createLimiter(20 * MEMORY_BYTES);
  const addresses = 1_000_000;
  const startMs = performance.now();
  for (let address = 0; address < addresses; address++) limiter.take(`ip 2001:db8:${address}::`, perMinute(60));
  const checkUs = ((performance.now() - startMs) * 1000) / addresses;
  expectFigure("a check of the limiter among a million addresses, in us", checkUs, 20);
});
