// The kinds of jobs of the task service.

import type { JobKind } from "../jobs/job-kinds.ts";

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

const once = { baseMs: SECOND_MS, factor: 2, capMs: MINUTE_MS };
const short = { baseMs: 5 * SECOND_MS, factor: 2, capMs: 5 * MINUTE_MS };
const system = { baseMs: MINUTE_MS, factor: 2, capMs: HOUR_MS };

export const TASK_JOBS = {
  reminder: { kind: "task.reminder", queue: "default", maxAttempts: 5, backoff: short, timeoutMs: 10 * SECOND_MS },
  overdue: { kind: "task.overdue", queue: "default", maxAttempts: 5, backoff: short, timeoutMs: 10 * SECOND_MS },
  deliver: {
    kind: "webhook.deliver",
    queue: "webhook",
    maxAttempts: 8,
    backoff: { baseMs: 10 * SECOND_MS, factor: 4, capMs: 6 * HOUR_MS },
    /** The sender has a shorter one of its own: WEBHOOK_TIMEOUT. */
    timeoutMs: 2 * MINUTE_MS,
  },
  export: {
    kind: "export.build",
    queue: "export",
    maxAttempts: 3,
    backoff: { baseMs: 5 * SECOND_MS, factor: 2, capMs: MINUTE_MS },
    timeoutMs: 10 * MINUTE_MS,
  },
  purge: { kind: "task.purge", queue: "system", maxAttempts: 5, backoff: system, timeoutMs: 10 * MINUTE_MS },
  cleanup: { kind: "auth.cleanup", queue: "system", maxAttempts: 5, backoff: system, timeoutMs: 10 * MINUTE_MS },
  /** What a deleted account leaves behind. */
  erase: { kind: "account.erase", queue: "system", maxAttempts: 20, backoff: system, timeoutMs: 10 * MINUTE_MS },
  warm: { kind: "cache.warm", queue: "system", maxAttempts: 1, backoff: once, timeoutMs: 30 * SECOND_MS },
} as const satisfies Record<string, JobKind>;
