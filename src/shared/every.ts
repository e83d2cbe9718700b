// What a service does again and again: never twice at once, and told when it fails.

import { causeTextOf } from "./errors.ts";
import type { Log } from "./log.ts";

/** A turn that fails is told as `failure`, with its cause, and comes again. Keeps no process alive. */
export function every(intervalMs: number, log: Log, failure: string, act: () => Promise<unknown>): Timer {
  let isAtWork = false;
  const timer = setInterval(async () => {
    if (isAtWork) return;
    isAtWork = true;
    await act().catch((error: unknown) => log.warn(failure, { cause: causeTextOf(error) }));
    isAtWork = false;
  }, intervalMs);
  return timer.unref();
}
