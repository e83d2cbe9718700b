// What people do with jobs and queues: retry, cancel, pause; and what schedules and the purge do.

import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { CANCELLED, enqueueJob, jobTables } from "./job-base-units.ts";
import type { JobRules } from "./job-finish-units.ts";
import type { JobKind, Requeued } from "./job-kinds.ts";
import type { JobRow, JobState } from "./job-tables.ts";

/** Rows of one transaction of what may touch many. */
export const JOB_SLICE_ROWS = 500;
/** Each of them may have to do with several rows of its service. */
const RETRIED_ROWS = 100;

/** `ownerId` null: whoever owns it. */
export interface NamedJob {
  readonly id: string;
  readonly ownerId: number | null;
  readonly nowMs: number;
}

/**
 * At once, but never before its time, and from attempt 1 on. The row as it is then.
 * @throws AppError not_found, state_conflict; what its kind has against it
 */
export async function retryJob({ requeues }: JobRules, work: UnitOfWork, named: NamedJob): Promise<JobRow> {
  const row = await requireJob(work, named);
  requireState(row, ["dead", "cancelled"]);
  const requeue = requeues[row.kind];
  const job = requeuedOf(row, named.nowMs);
  await requeue?.require(work, job);
  // One that never ran waits for what it was made for.
  const runAtMs = row.attempts === 0 ? Math.max(named.nowMs, row.run_at_ms) : named.nowMs;
  await change(work, row, againAt(row, runAtMs));
  await requeue?.settle(work, job);
  return requireJob(work, named);
}

/**
 * A ready one is cancelled, and settled; of a running one its node is told with the next heartbeat. The row as it is
 * then, and what the settlement returned.
 * @throws AppError not_found, state_conflict unless ready, running
 */
export async function cancelJob(
  { settlements }: JobRules,
  work: UnitOfWork,
  named: NamedJob,
): Promise<{ job: JobRow; result: unknown }> {
  const row = await requireJob(work, named);
  requireState(row, ["ready", "running"]);
  if (row.state === "running") return { job: await change(work, row, { cancel_requested: 1 }), result: null };
  const job = await change(work, row, {
    state: "cancelled",
    cancel_requested: 1,
    finished_at_ms: named.nowMs,
    last_error: row.last_error ?? CANCELLED,
    // It stands in the way of no other: the same may be asked for again.
    dedup_key: null,
  });
  const settle = settlements[row.kind];
  if (settle === undefined) return { job, result: null };
  const result = await settle(work, {
    jobId: row.id,
    ownerId: row.owner_id,
    payload: JSON.parse(row.payload),
    attempt: row.attempts,
    outcome: "cancelled",
    report: null,
    error: null,
  });
  return { job, result };
}

/** A place in the order in which jobs have ended. */
export interface EndedAt {
  readonly finishedMs: number;
  readonly id: string;
}

/** Those of a kind that died until `nowMs`, behind `after`. */
export interface DeadJobs {
  readonly kind: string;
  readonly nowMs: number;
  readonly after: EndedAt | null;
}

/** One slice of them, but for those that their kind refuses; `last` is where the next one begins, null = nowhere. */
export async function retryDeadJobs(
  { requeues }: JobRules,
  work: UnitOfWork,
  { kind, nowMs, after }: DeadJobs,
): Promise<{ retried: number; last: EndedAt | null }> {
  // Those that die again meanwhile are not tried again and again.
  let dead = jobTables(work)
    .selectFrom("job")
    .selectAll()
    .where("state", "=", "dead")
    .where("kind", "=", kind)
    .where("finished_at_ms", "<=", nowMs);
  if (after !== null) {
    const { finishedMs, id } = after;
    dead = dead.where(({ eb, refTuple, tuple }) => eb(refTuple("finished_at_ms", "id"), ">", tuple(finishedMs, id)));
  }
  const rows = await dead.orderBy("finished_at_ms").orderBy("id").limit(RETRIED_ROWS).execute();
  let retried = 0;
  for (const row of rows) {
    const requeue = requeues[row.kind];
    const job = requeuedOf(row, nowMs);
    if (requeue !== undefined && (await isRefused(requeue.require(work, job)))) continue;
    await change(work, row, againAt(row, nowMs));
    await requeue?.settle(work, job);
    retried++;
  }
  const last = rows.length < RETRIED_ROWS ? undefined : rows.at(-1);
  return { retried, last: last === undefined ? null : { finishedMs: last.finished_at_ms!, id: last.id } };
}

export async function pauseQueue(
  work: UnitOfWork,
  { name, isPaused }: { readonly name: string; readonly isPaused: boolean },
): Promise<void> {
  const paused = isPaused ? 1 : 0;
  await jobTables(work)
    .insertInto("job_queue")
    .values({ name, paused })
    .onConflict((conflict) => conflict.column("name").doUpdateSet({ paused }))
    .execute();
}

/** One slice of what has ended long ago; fewer than JOB_SLICE_ROWS when it was the last. */
export async function purgeJobs(
  work: UnitOfWork,
  { doneBeforeMs, deadBeforeMs }: { readonly doneBeforeMs: number; readonly deadBeforeMs: number },
): Promise<number> {
  const db = jobTables(work);
  let removed = 0;
  for (const [state, beforeMs] of [
    ["done", doneBeforeMs],
    ["cancelled", doneBeforeMs],
    ["dead", deadBeforeMs],
  ] as const) {
    const old = db.selectFrom("job").select("id").where("state", "=", state).where("finished_at_ms", "<", beforeMs);
    const limit = JOB_SLICE_ROWS - removed;
    if (limit === 0) break;
    const { numDeletedRows } = await db.deleteFrom("job").where("id", "in", old.limit(limit)).executeTakeFirst();
    removed += Number(numDeletedRows);
  }
  return removed;
}

/** Notes schedules that are new or have another time. A new one counts from now on. */
export async function planSchedules(
  work: UnitOfWork,
  { schedules, nowMs }: { readonly schedules: readonly { name: string; expression: string }[]; readonly nowMs: number },
): Promise<void> {
  for (const { name, expression } of schedules) {
    await jobTables(work)
      .insertInto("job_schedule")
      .values({ name, expression, last_fire_ms: -nowMs })
      .onConflict((conflict) => conflict.column("name").doUpdateSet({ expression }))
      .execute();
  }
}

/**
 * The job of a schedule for its time `atMs`, unless some node has enqueued it for that time or a later one; one that is
 * later than `nowMs` was noted by a clock that was ahead, and does not count. With `atMs` null: one out of turn. The id
 * of the job or null.
 */
export async function fireSchedule(
  work: UnitOfWork,
  fire: { readonly name: string; readonly kind: JobKind; readonly atMs: number | null; readonly nowMs: number },
): Promise<string | null> {
  const { name, kind, atMs, nowMs } = fire;
  const job = { kind, payload: {}, ownerId: null, runAtMs: nowMs };
  if (atMs === null) return enqueueJob(work, job);
  const { numUpdatedRows } = await jobTables(work)
    .updateTable("job_schedule")
    .set({ last_fire_ms: atMs })
    .where("name", "=", name)
    .where((row) => row.or([row("last_fire_ms", "<", atMs), row("last_fire_ms", ">", nowMs)]))
    .executeTakeFirst();
  return numUpdatedRows === 0n ? null : enqueueJob(work, { ...job, dedupKey: `${name}@${atMs}` });
}

function requeuedOf({ id, payload }: JobRow, nowMs: number): Requeued {
  return { jobId: id, payload: JSON.parse(payload), nowMs };
}

/** Rejects with anything but an AppError. */
async function isRefused(check: Promise<void>): Promise<boolean> {
  try {
    await check;
    return false;
  } catch (error) {
    if (error instanceof AppError) return true;
    throw error;
  }
}

function againAt({ last_error }: JobRow, runAtMs: number): Partial<JobRow> {
  return {
    state: "ready",
    run_at_ms: runAtMs,
    attempts: 0,
    cancel_requested: 0,
    progress: 0,
    finished_at_ms: null,
    started_at_ms: null,
    // What went wrong is still told; that it was called off holds no more.
    last_error: last_error === CANCELLED ? null : last_error,
  };
}

async function requireJob(work: UnitOfWork, { id, ownerId }: NamedJob): Promise<JobRow> {
  const row = await jobTables(work).selectFrom("job").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined || (ownerId !== null && row.owner_id !== ownerId)) {
    throw new AppError("not_found", "job not found");
  }
  return row;
}

function requireState({ state }: JobRow, allowed: readonly JobState[]): void {
  if (!allowed.includes(state)) throw new AppError("state_conflict", `the job is ${state}`);
}

/** Guarded by what was read, for engines on which something may come between. @throws AppError conflict */
async function change(work: UnitOfWork, { id, state, fence }: JobRow, fields: Partial<JobRow>): Promise<JobRow> {
  const row = await jobTables(work)
    .updateTable("job")
    .set(fields)
    .where("id", "=", id)
    .where("state", "=", state)
    .where("fence", "=", fence)
    .returningAll()
    .executeTakeFirst();
  if (row === undefined) throw new AppError("conflict", "The job was changed meanwhile. Try again.");
  return row;
}
