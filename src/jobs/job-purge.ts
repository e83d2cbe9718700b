// Removes jobs that ended long ago, so that the queue stays small.

import type { Clock } from "../shared/clock.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import type { JobHandler, JobKind } from "./job-kinds.ts";
import { JOB_SLICE_ROWS, type purgeJobs } from "./job-management-units.ts";
import type { Schedule } from "./job-schedules.ts";

export const PURGE_KIND: JobKind = {
  kind: "job.purge",
  queue: "system",
  maxAttempts: 5,
  timeoutMs: 600_000,
  backoff: { baseMs: 60_000, factor: 2, capMs: 3_600_000 },
};

export const PURGE_SCHEDULE: Schedule = { name: "job.purge", expression: "37 * * * *", kind: PURGE_KIND };

/** Slices of bounded size, each a commit of its own; other writes come between them. */
export function createPurge(
  store: UnitRunner<{ "jobs.purge": typeof purgeJobs }>,
  clock: Clock,
  { keepDoneMs, keepDeadMs }: { readonly keepDoneMs: number; readonly keepDeadMs: number },
): JobHandler {
  return async function purge({ signal }) {
    const nowMs = clock();
    const limits = { doneBeforeMs: nowMs - keepDoneMs, deadBeforeMs: nowMs - keepDeadMs };
    for (let removed = JOB_SLICE_ROWS; removed === JOB_SLICE_ROWS; ) {
      signal.throwIfAborted();
      removed = await store.run("jobs.purge", limits);
    }
  };
}
