// Time as a value that can be passed in, so that expiry can be tested without waiting.

/** Wall-clock time in milliseconds since 1970 (UTC). It can step, in both directions. */
export type Clock = () => number;

export const systemClock: Clock = Date.now;

/** Milliseconds that never step and mean the same on every thread of the process. Only differences carry meaning. */
export function monotonicMs(): number {
  return performance.timeOrigin + performance.now();
}
