// The write units of exports: one transaction each.

import type { Kysely } from "kysely";
import { enqueueJob, jobTables } from "../jobs/job-base-units.ts";
import type { Requeued, Settlement } from "../jobs/job-kinds.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { type Answered, answerOnce, type KeyedRequest } from "./idempotency-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed, type Effects, NO_EFFECTS } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { TaskTables } from "./task-tables.ts";

/** Of those that hold parts, or may get some. */
const PER_USER_MAX = 3;
/** How long the file of an export is kept, ms. */
const KEPT_MS = 86_400_000;
/** They have up to 256 KiB each: what one transaction removes of them. */
const SLICE_PARTS = 16;
const SLICE_ROWS = 500;
/** Of a deleted export, until its parts are gone: nobody has this id. */
const NOBODY = 0;

type Db = Kysely<TaskTables>;
type Wanted = Pick<TaskTables["task_export"], "user_id" | "state" | "expires_at_ms">;

/** Of the job that builds an export. */
export interface ExportPayload {
  readonly exportId: string;
}

/** What the job has made. */
export interface ExportReport {
  readonly rows: number;
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
  readonly nowMs: number;
}

/** Which run writes: an earlier one that wakes up late has lost its right to. */
export interface ExportRun {
  readonly exportId: string;
  readonly jobId: string;
  readonly fence: number;
}

interface NewExport {
  readonly userId: number;
  readonly format: "csv" | "ics";
  /** JSON: the parameters of the list. */
  readonly filter: string;
  readonly keyed: KeyedRequest | null;
  readonly requestId: string;
  readonly nowMs: number;
}

/** As an export is answered when it was asked for. */
interface QueuedExport {
  readonly id: string;
  readonly job_id: string;
  readonly state: "pending";
}

export const EXPORT_UNITS = {
  /** @throws AppError quota_exceeded, idempotency_mismatch */
  "task.createExport"(work: UnitOfWork, wanted: NewExport): Promise<Changed<Answered<QueuedExport>>> {
    return answerOnce(work, wanted.keyed, 202, () => createExport(work, wanted));
  },

  /**
   * A run begins: some of what an earlier one has left is removed, and nothing expires while it lasts. Returns how many
   * parts, 0 = nothing is left. @throws AppError conflict, not_found as below; quota_exceeded when it had given up its
   * place and others have taken it
   */
  async "task.beginExport"(
    work: UnitOfWork,
    { nowMs, ...run }: ExportRun & { nowMs: number },
  ): Promise<Changed<number>> {
    const row = await requireRun(work, run);
    const db = taskTables(work);
    if (!hasPlace(row, nowMs)) await requirePlace(db, { userId: row.user_id, exportId: run.exportId, nowMs });
    await awaitBuild(db, run.exportId, nowMs);
    return changed(await removeParts(db, run.exportId));
  },

  /** @throws AppError conflict when another run builds the export now; not_found when nobody wants it any more */
  async "task.writeExportPart"(
    work: UnitOfWork,
    { seq, data, ...run }: ExportRun & { readonly seq: number; readonly data: Uint8Array },
  ): Promise<Changed<null>> {
    await requireRun(work, run);
    await taskTables(work).insertInto("task_export_part").values({ export_id: run.exportId, seq, data }).execute();
    return changed(null);
  },

  /** What a run that has failed leaves, also when that has been noted meanwhile. Returns how many parts, as above. */
  async "task.dropExportParts"(work: UnitOfWork, { exportId, jobId, fence }: ExportRun): Promise<Changed<number>> {
    const latest = jobTables(work).selectFrom("job").select("id").where("id", "=", jobId).where("fence", "=", fence);
    if ((await latest.executeTakeFirst()) === undefined) return changed(0);
    return changed(await removeParts(taskTables(work), exportId));
  },

  /** Nobody finds it from now on; its parts are left to task.removeExports. @throws AppError not_found */
  async "task.deleteExport"(work: UnitOfWork, { id, userId }: { id: string; userId: number }): Promise<Changed<null>> {
    const { numUpdatedRows } = await taskTables(work)
      .updateTable("task_export")
      .set({ user_id: NOBODY, expires_at_ms: 0 })
      .where("id", "=", id)
      .where("user_id", "=", userId)
      .executeTakeFirst();
    if (numUpdatedRows === 0n) throw new AppError("not_found", "export not found");
    return changed(null);
  },

  /**
   * Parts of exports that have expired by `nowMs`, then the exports that had by `beforeMs`: until then it can be said
   * that they have. Returns how many rows it has removed, 0 = nothing is left to do.
   */
  async "task.removeExports"(
    work: UnitOfWork,
    { nowMs, beforeMs }: { nowMs: number; beforeMs: number },
  ): Promise<Changed<number>> {
    const db = taskTables(work);
    const due = await db
      .selectFrom("task_export as export")
      .innerJoin("task_export_part as part", "part.export_id", "export.id")
      .select("export.id")
      .where("export.expires_at_ms", "<=", nowMs)
      .limit(1)
      .executeTakeFirst();
    if (due !== undefined) return changed(await removeParts(db, due.id));
    const old = await db
      .selectFrom("task_export")
      .select("id")
      .where("expires_at_ms", "<=", beforeMs)
      .limit(SLICE_ROWS)
      .execute();
    if (old.length === 0) return changed(0);
    const ids = old.map(({ id }) => id);
    await db.deleteFrom("task_export").where("id", "in", ids).execute();
    return changed(ids.length);
  },
} as const;

export const EXPORT_SETTLEMENTS = { [TASK_JOBS.export.kind]: settleExport } as const;

export const EXPORT_REQUEUES = {
  [TASK_JOBS.export.kind]: {
    /** @throws AppError state_conflict; quota_exceeded when others have taken its place */
    async require(work: UnitOfWork, { payload, nowMs }: Requeued): Promise<void> {
      const { exportId } = payload as ExportPayload;
      const db = taskTables(work);
      const row = await findWanted(db, exportId);
      if (row === undefined) throw new AppError("state_conflict", "the export was deleted");
      if (!hasPlace(row, nowMs)) await requirePlace(db, { userId: row.user_id, exportId, nowMs });
    },

    /** It waits as one that was just asked for. */
    async settle(work: UnitOfWork, { payload, nowMs }: Requeued): Promise<void> {
      await awaitBuild(taskTables(work), (payload as ExportPayload).exportId, nowMs);
    },
  },
} as const;

async function createExport(work: UnitOfWork, wanted: NewExport): Promise<Changed<QueuedExport>> {
  const { userId, format, filter, requestId, nowMs } = wanted;
  const db = taskTables(work);
  const id = Bun.randomUUIDv7();
  await requirePlace(db, { userId, exportId: id, nowMs });
  const payload: ExportPayload = { exportId: id };
  const job = { kind: TASK_JOBS.export, payload, ownerId: userId, runAtMs: nowMs, requestId };
  // Never null: it has no key that another one could have.
  const job_id = (await enqueueJob(work, job))!;
  await db
    .insertInto("task_export")
    .values({
      id,
      user_id: userId,
      job_id,
      format,
      filter,
      state: "pending",
      row_count: null,
      byte_count: null,
      sha256: null,
      created_at_ms: nowMs,
      expires_at_ms: nowMs + KEPT_MS,
    })
    .execute();
  return changed({ id, job_id, state: "pending" }, { userIds: [], hasJobs: true });
}

function hasPlace({ state, expires_at_ms }: Wanted, nowMs: number): boolean {
  return state !== "failed" && expires_at_ms > nowMs;
}

async function awaitBuild(db: Db, exportId: string, nowMs: number): Promise<void> {
  const set = { state: "pending" as const, expires_at_ms: nowMs + KEPT_MS };
  await db.updateTable("task_export").set(set).where("id", "=", exportId).execute();
}

/** Is there one for `exportId` beside the others of its user? @throws AppError quota_exceeded */
async function requirePlace(
  db: Db,
  { userId, exportId, nowMs }: { userId: number; exportId: string; nowMs: number },
): Promise<void> {
  const { taken } = await db
    .selectFrom("task_export as export")
    .select(({ fn }) => fn.countAll<number>().as("taken"))
    .where("export.user_id", "=", userId)
    .where("export.id", "!=", exportId)
    .where(({ eb, and, or, exists, selectFrom }) => {
      const parts = selectFrom("task_export_part as part").select("part.seq");
      return or([
        and([eb("export.state", "!=", "failed"), eb("export.expires_at_ms", ">", nowMs)]),
        and([eb("export.state", "=", "failed"), exists(parts.whereRef("part.export_id", "=", "export.id"))]),
      ]);
    })
    .executeTakeFirstOrThrow();
  if (taken < PER_USER_MAX) return;
  throw new AppError(
    "quota_exceeded",
    `A user can have ${PER_USER_MAX} exports; delete one, or wait until it expires.`,
  );
}

/** A failed one has expired: what parts it has left are nobody's. The row stays for a while, to say so. */
async function settleExport(work: UnitOfWork, { payload, outcome, report }: Settlement): Promise<Effects> {
  if (outcome === "retry") return NO_EFFECTS;
  const { exportId } = payload as ExportPayload;
  const db = taskTables(work);
  await db
    .updateTable("task_export")
    .set(outcome === "done" ? readyColumns(report as ExportReport) : { state: "failed", expires_at_ms: work.nowMs })
    .where("id", "=", exportId)
    .where("user_id", "!=", NOBODY)
    .execute();
  if (outcome !== "done") await removeParts(db, exportId);
  return NO_EFFECTS;
}

function readyColumns({ rows, bytes, sha256, nowMs }: ExportReport): Partial<TaskTables["task_export"]> {
  return { state: "ready", row_count: rows, byte_count: bytes, sha256, expires_at_ms: nowMs + KEPT_MS };
}

/** Unless its user has deleted it. */
function findWanted(db: Db, exportId: string): Promise<Wanted | undefined> {
  return db
    .selectFrom("task_export")
    .select(["user_id", "state", "expires_at_ms"])
    .where("id", "=", exportId)
    .where("user_id", "!=", NOBODY)
    .executeTakeFirst();
}

async function requireRun(work: UnitOfWork, { exportId, jobId, fence }: ExportRun): Promise<Wanted> {
  const job = await jobTables(work)
    .selectFrom("job")
    .select("id")
    .where("id", "=", jobId)
    .where("state", "=", "running")
    .where("fence", "=", fence)
    .executeTakeFirst();
  const wanted = await findWanted(taskTables(work), exportId);
  if (job === undefined) throw new AppError("conflict", "Another run builds this export now.");
  if (wanted === undefined) throw new AppError("not_found", "export not found");
  return wanted;
}

/** As many as fit into one transaction. */
async function removeParts(db: Db, exportId: string): Promise<number> {
  const parts = db.selectFrom("task_export_part").select("seq").where("export_id", "=", exportId);
  const rows = await parts.orderBy("seq").limit(SLICE_PARTS).execute();
  const last = rows.at(-1);
  if (last === undefined) return 0;
  const slice = db.deleteFrom("task_export_part").where("export_id", "=", exportId).where("seq", "<=", last.seq);
  return Number((await slice.executeTakeFirst()).numDeletedRows);
}
