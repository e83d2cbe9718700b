// The write unit that has the cache warmed after a start.

import { enqueueJob, jobTables } from "../jobs/job-base-units.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { type Changed, changed } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";

export const WARMING_UNITS = {
  /** One job that waits is enough. */
  async "task.requestWarming"(work: UnitOfWork, { runAtMs }: { readonly runAtMs: number }): Promise<Changed<null>> {
    const { warm } = TASK_JOBS;
    const waiting = await jobTables(work)
      .selectFrom("job")
      .select("id")
      .where("queue", "=", warm.queue)
      .where("state", "=", "ready")
      .where("kind", "=", warm.kind)
      .executeTakeFirst();
    if (waiting !== undefined) return changed(null);
    await enqueueJob(work, { kind: warm, payload: null, ownerId: null, runAtMs });
    return changed(null, { userIds: [], hasJobs: true });
  },
} as const;
