// Rate limits by the generic cell rate algorithm: a burst up to the limit, then an even refill, two numbers per key.

import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import type { Rate } from "../shared/setting-parsers.ts";
import { createBoundedCache } from "./bounded-cache.ts";

export interface RateVerdict {
  readonly isAllowed: boolean;
  /** Requests that would be allowed right now, after this one. */
  readonly remaining: number;
  /** Until the whole burst is there again. */
  readonly resetMs: number;
  /** Until the next request is allowed; 0 when one is. */
  readonly retryAfterMs: number;
}

/** What an entry costs: key, two numbers, bookkeeping. */
const ENTRY_BYTES = 200;
/** In requests: what rounding may add to a level that should be whole. */
const ROUNDING = 1e-6;

interface Level {
  /** Requests that have not drained yet. */
  requests: number;
  /** When that was so. */
  timeMs: number;
}

/**
 * GCRA (ITU-T I.371, annex A) in its form as a leaky bucket: it decides as the virtual scheduling form does, but
 * counting requests is exact for every limit, where adding shares of a window to the time is not, and a clock that is
 * set back locks nobody out. Memory is bounded: the keys used least recently are forgotten, which forgives them.
 */
export class GcraLimiter {
  readonly #clock: Clock;
  readonly #levels;

  constructor(clock: Clock, memoryBytes: number) {
    this.#clock = clock;
    this.#levels = createBoundedCache<Level>(memoryBytes)!;
  }

  /** Counts a request of `key` that costs as much as `cost` ones. A refused one does not count. */
  take(key: string, { limit, windowMs }: Rate, cost = 1): RateVerdict {
    const perRequestMs = windowMs / limit;
    const level = this.#drained(key, perRequestMs);
    const isAllowed = level.requests + cost <= limit + ROUNDING;
    if (isAllowed) level.requests += cost;
    return {
      isAllowed,
      remaining: Math.max(0, Math.floor(limit - level.requests + ROUNDING)),
      resetMs: level.requests * perRequestMs,
      retryAfterMs: isAllowed ? 0 : (level.requests + cost - limit) * perRequestMs,
    };
  }

  /** The level of `key` now. */
  #drained(key: string, perRequestMs: number): Level {
    const timeMs = this.#clock();
    const known = this.#levels.get(key);
    if (known === undefined) {
      const level = { requests: 0, timeMs };
      this.#levels.set(key, level, ENTRY_BYTES + 2 * key.length);
      return level;
    }
    const elapsedMs = Math.max(0, timeMs - known.timeMs);
    known.requests = Math.max(0, known.requests - elapsedMs / perRequestMs);
    known.timeMs = timeMs;
    return known;
  }

  /**
   * Corrects what `take` counted: `cost` more, or less when it is negative. More than the limit is a debt, which
   * drains like everything else.
   */
  correct(key: string, { limit, windowMs }: Rate, cost: number): void {
    const level = this.#drained(key, windowMs / limit);
    level.requests = Math.max(0, level.requests + cost);
  }
}

export function perMinute(limit: number): Rate {
  return { limit, windowMs: 60_000 };
}

/** What who came too often is told: come back in so long. */
export function rateLimited(waitMs: number): AppError {
  return new AppError("rate_limited", "Rate limit exceeded", {
    details: { retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)) },
  });
}
