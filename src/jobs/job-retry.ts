// How long a job that has failed waits before it runs again.

import type { JobKind } from "./job-kinds.ts";

/**
 * Between half and all of min(capMs, baseMs * factor^(failures-1)), whole ms. The half keeps retries apart from the
 * failure, the random rest keeps jobs that failed together apart from each other. `random` is from 0 up to, not 1.
 */
export function retryDelayMs({ baseMs, factor, capMs }: JobKind["backoff"], failures: number, random: number): number {
  const fullMs = Math.min(capMs, baseMs * factor ** (failures - 1));
  return Math.round(fullMs / 2 + (random * fullMs) / 2);
}
