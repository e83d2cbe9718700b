// When schedules fire: five fields of cron, in UTC.

import type { JobKind } from "./job-kinds.ts";

/** One job of `kind` at each time of `expression`. */
export interface Schedule {
  readonly name: string;
  readonly expression: string;
  readonly kind: JobKind;
}

const UTC = { tz: "UTC" } as const;
const MINUTE_MS = 60_000;

/** The first time after `afterMs`. Null when there is none. @throws TypeError for what is no expression */
export function nextFireMs(expression: string, afterMs: number): number | null {
  return Bun.cron.parse(expression, afterMs, UTC)?.getTime() ?? null;
}

/** The last time after `afterMs` until `nowMs`, null without one. However many there were, one is due. */
export function dueFireMs(expression: string, afterMs: number, nowMs: number): number | null {
  let due = nextFireMs(expression, afterMs);
  if (due === null || due > nowMs) return null;
  // Steps of growing length back from now: a year of minutes is not walked through.
  for (let stepMs = MINUTE_MS; nowMs - stepMs > afterMs; stepMs *= 2) {
    const found = nextFireMs(expression, nowMs - stepMs);
    if (found === null || found > nowMs) continue;
    due = found;
    break;
  }
  for (let next: number | null = due; next !== null && next <= nowMs; next = nextFireMs(expression, next)) due = next;
  return due;
}
