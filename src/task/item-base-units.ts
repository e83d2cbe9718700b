// What the write units of tasks share: rows written, places taken, jobs for the times of a task.

import type { Kysely } from "kysely";
import { enqueueJob } from "../jobs/job-base-units.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { type Changes, labelKeyOf } from "./item-rules.ts";
import { fieldsError } from "./request-bodies.ts";
import { taskTables } from "./task-base-units.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { ItemRow, TaskTables } from "./task-tables.ts";
import { dueOrNull } from "./task-view.ts";

/** For a time that is past already there is no job. None is due now, so no worker has to be woken. */
export async function scheduleReminders(
  work: UnitOfWork,
  row: ItemRow,
  changes: Changes,
  nowMs: number,
  requestId: string,
): Promise<void> {
  const times = [
    [TASK_JOBS.reminder, changes.remind_at, row.remind_at_ms],
    [TASK_JOBS.overdue, changes.due_date, dueOrNull(row.due_at_ms)],
  ] as const;
  for (const [kind, change, atMs] of times) {
    if (change === undefined || atMs === null || atMs <= nowMs) continue;
    const dedupKey = `${kind.kind}:${row.id}:${atMs}`;
    const payload = { taskId: row.id, atMs };
    await enqueueJob(work, { kind, payload, ownerId: row.user_id, runAtMs: atMs, dedupKey, requestId });
  }
}

/** The next version. @throws AppError conflict when another transaction has made it meanwhile */
export async function updateItem(work: UnitOfWork, row: ItemRow, columns: Partial<ItemRow>): Promise<ItemRow> {
  const set = { ...columns, updated_at_ms: work.nowMs, version: row.version + 1 };
  const { numUpdatedRows } = await taskTables(work)
    .updateTable("task_item")
    .set(set)
    .where("id", "=", row.id)
    .where("version", "=", row.version)
    .executeTakeFirst();
  if (numUpdatedRows === 0n) throw new AppError("conflict", "The task is being changed by someone else. Try again.");
  return { ...row, ...set };
}

/** @throws AppError invalid_request */
export async function requireAssignable(db: Kysely<TaskTables>, userId: number | null): Promise<void> {
  if (userId === null || (await isActive(db, userId))) return;
  throw fieldsError({ assignee_id: "no active user has this id" });
}

/** An account may have ended since the request was let in; it leaves no tasks behind. @throws AppError invalid_token */
export async function requireActive(db: Kysely<TaskTables>, userId: number): Promise<void> {
  if (!(await isActive(db, userId))) throw new AppError("invalid_token", "Invalid token");
}

/** What an account has left behind stays deleted. @throws AppError state_conflict */
export async function requireOwner(db: Kysely<TaskTables>, { user_id }: Pick<ItemRow, "user_id">): Promise<void> {
  const user = await db.selectFrom("task_user").select("deleted_at_ms").where("id", "=", user_id).executeTakeFirst();
  if (user?.deleted_at_ms !== null) throw new AppError("state_conflict", "The account of its owner was deleted.");
}

async function isActive(db: Kysely<TaskTables>, userId: number): Promise<boolean> {
  const user = await db
    .selectFrom("task_user")
    .select("id")
    .where("id", "=", userId)
    .where("disabled_at_ms", "is", null)
    .where("deleted_at_ms", "is", null)
    .executeTakeFirst();
  return user !== undefined;
}

/** @throws AppError quota_exceeded */
export async function takePlace(db: Kysely<TaskTables>, userId: number, itemsMax: number): Promise<void> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto("task_head")
    .values({ user_id: userId, rev: 0, item_count: 1 })
    .onConflict((conflict) =>
      conflict
        .column("user_id")
        .doUpdateSet((eb) => ({ item_count: eb("task_head.item_count", "+", 1) }))
        .where("task_head.item_count", "<", itemsMax),
    )
    .executeTakeFirst();
  if (numInsertedOrUpdatedRows === 0n) {
    throw new AppError(
      "quota_exceeded",
      `A user can have ${itemsMax} tasks; deleted ones count until they are purged.`,
    );
  }
}

export async function replaceLabels(db: Kysely<TaskTables>, row: ItemRow, labels: readonly string[]): Promise<void> {
  await db.deleteFrom("task_label").where("task_id", "=", row.id).execute();
  if (labels.length > 0) await insertLabels(db, row, labels);
}

export async function insertLabels(db: Kysely<TaskTables>, row: ItemRow, labels: readonly string[]): Promise<void> {
  const values = labels.map((label) => ({
    task_id: row.id,
    label_key: labelKeyOf(label),
    label,
    user_id: row.user_id,
  }));
  await db.insertInto("task_label").values(values).execute();
}
