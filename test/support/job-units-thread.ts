// The threads of a store whose jobs are those of tests: kinds that note in the database how they were settled.

import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { sql } from "kysely";
import { enqueueJob, jobTables, type NewJob } from "../../src/jobs/job-base-units.ts";
import { byKind, type Requeued, type Settlement } from "../../src/jobs/job-kinds.ts";
import { createJobUnits } from "../../src/jobs/job-units.ts";
import { AppError } from "../../src/shared/errors.ts";
import { runReaderThread } from "../../src/storage/reader-thread.ts";
import { runStorageThread } from "../../src/storage/storage-thread.ts";
import type { UnitOfWork } from "../../src/storage/unit-of-work.ts";
import { TEST_KINDS } from "./job-rig.ts";

/** More than a full store has left. */
const GROWTH_BYTES = 1024 * 1024;

async function grow(work: UnitOfWork): Promise<void> {
  const name = `grown ${crypto.randomUUID()} ${"x".repeat(GROWTH_BYTES)}`;
  await jobTables(work).insertInto("job_queue").values({ name, paused: 0 }).execute();
}

/**
 * Notes each outcome as the name of a queue, which is nobody else's here. What the report asks for goes wrong; what the
 * payload asks for does each time.
 */
async function note(work: UnitOfWork, { jobId, attempt, outcome, report, payload }: Settlement): Promise<unknown> {
  await jobTables(work)
    .insertInto("job_queue")
    .values({ name: `settled ${jobId} ${attempt} ${outcome}`, paused: 0 })
    .execute();
  if (report === "grow") await grow(work);
  if (report === "refuse" || payload === "refuse") throw new AppError("conflict", "the settlement refuses");
  if (report === "break") throw new TypeError("the settlement has a defect");
  return { jobId, outcome, report };
}

/** Notes as above that a job runs once more, unless its payload says that it was its last time. */
const noteAgain = {
  async require(_: UnitOfWork, { payload }: Requeued): Promise<void> {
    if (payload === "last") throw new AppError("state_conflict", "the job is not to run again");
  },
  async settle(work: UnitOfWork, { jobId }: Requeued): Promise<void> {
    const name = `settled ${jobId} 0 again`;
    await jobTables(work).insertInto("job_queue").values({ name, paused: 0 }).execute();
  },
};

const RULES = {
  kinds: byKind(Object.values(TEST_KINDS)),
  settlements: { [TEST_KINDS.noted.kind]: note },
  requeues: { [TEST_KINDS.noted.kind]: noteAgain },
};

const UNITS = {
  ...createJobUnits(RULES),
  /** All or none; with `isRefused` none. */
  "test.enqueue": async (work: UnitOfWork, { jobs, isRefused }: { jobs: readonly NewJob[]; isRefused: boolean }) => {
    const ids: (string | null)[] = [];
    for (const job of jobs) ids.push(await enqueueJob(work, job));
    if (isRefused) throw new AppError("conflict", "nothing is stored");
    return ids;
  },
  /** Has the engine refuse changes of jobs to which `condition` applies; null = none any more. */
  "test.refuse": async (work: UnitOfWork, { condition }: { condition: string | null }) => {
    const refusal = `BEFORE UPDATE ON job WHEN ${condition} BEGIN SELECT RAISE(ABORT, 'refused'); END`;
    const statement = condition === null ? "DROP TRIGGER refusing" : `CREATE TRIGGER refusing ${refusal}`;
    await sql.raw(statement).execute(jobTables(work));
  },
  /** Makes the store larger; and what made it larger is gone. */
  "test.grow": grow,
  "test.shrink": async (work: UnitOfWork) => {
    await jobTables(work).deleteFrom("job_queue").where("name", "like", "grown %").execute();
  },
} as const;

export type TestUnits = typeof UNITS;

if (!isMainThread && parentPort !== null) {
  const { role } = workerData as { role: string };
  if (role === "storage") runStorageThread(parentPort, async () => ({ units: UNITS, growing: new Set() }));
  else runReaderThread(parentPort, workerData);
}
