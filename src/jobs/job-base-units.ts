// What the write units of the job queue share: its tables, and how other units put a job beside their own rows.

import type { Kysely } from "kysely";
import { tablesOf, type UnitOfWork } from "../storage/unit-of-work.ts";
import type { JobKind } from "./job-kinds.ts";
import type { JobTables } from "./job-tables.ts";

/** Lower goes first. Those above `usual` share three quarters of the slots of a queue: usual ones always find some. */
export const JOB_PRIORITY = { usual: 0, later: 1, last: 2 } as const;

/** `last_error` of a cancelled job that nothing else had gone wrong with. */
export const CANCELLED = "cancelled";

export interface NewJob {
  readonly kind: JobKind;
  readonly payload: unknown;
  readonly ownerId: number | null;
  readonly runAtMs: number;
  readonly dedupKey?: string;
  readonly groupKey?: string;
  /** Usual without one. */
  readonly priority?: number;
  readonly requestId?: string;
}

export function jobTables({ tables }: Pick<UnitOfWork, "tables">): Kysely<JobTables> {
  return tablesOf<JobTables>(tables);
}

/** In the transaction of the caller. The id of the job, or null when one with this dedupKey is there already. */
export async function enqueueJob(work: UnitOfWork, job: NewJob): Promise<string | null> {
  const id = Bun.randomUUIDv7();
  const { queue, kind, maxAttempts } = job.kind;
  const insert = jobTables(work)
    .insertInto("job")
    .values({
      id,
      queue,
      kind,
      owner_id: job.ownerId,
      group_key: job.groupKey ?? null,
      payload: JSON.stringify(job.payload),
      state: "ready",
      run_at_ms: job.runAtMs,
      priority: job.priority ?? JOB_PRIORITY.usual,
      attempts: 0,
      max_attempts: maxAttempts,
      fence: 0,
      cancel_requested: 0,
      progress: 0,
      dedup_key: job.dedupKey ?? null,
      request_id: job.requestId ?? null,
      created_at_ms: work.nowMs,
    });
  if (job.dedupKey === undefined) {
    await insert.execute();
    return id;
  }
  const { numInsertedOrUpdatedRows } = await insert
    .onConflict((conflict) => conflict.column("dedup_key").doNothing())
    .executeTakeFirst();
  return numInsertedOrUpdatedRows === 0n ? null : id;
}
