// The write units of tasks: one transaction each, from the right to do it to the event of it.

import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { announce } from "./feed-units.ts";
import { type Answered, answerOnce, type KeyedRequest } from "./idempotency-units.ts";
import {
  insertLabels,
  replaceLabels,
  requireActive,
  requireAssignable,
  requireOwner,
  scheduleReminders,
  takePlace,
  updateItem,
} from "./item-base-units.ts";
import {
  type Changes,
  changesBetween,
  columnsOf,
  completedAt,
  fieldsOf,
  type ItemFields,
  type ItemPatch,
  isGone,
  requireMatch,
  requireMayChange,
  requireMayDelete,
  roleOf,
  type VersionMatch,
} from "./item-rules.ts";
import { findItem, type LabelledItem, labelsOf, requireVisibleItem, taskNotFound } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";
import type { EventType } from "./task-tables.ts";
import { NO_DUE_MS } from "./task-tables.ts";
import { type TaskView, taskView } from "./task-view.ts";

/** Who acts, by which request. */
export interface Act {
  readonly userId: number;
  readonly requestId: string;
}

/** As an operator may act, too: `userId` null. */
interface SupervisedAct {
  readonly userId: number | null;
  readonly requestId: string;
}

interface ItemCreation extends Act {
  readonly fields: ItemFields;
  /** Tasks a user may have, deleted ones included until they are purged. */
  readonly itemsMax: number;
  readonly keyed: KeyedRequest | null;
  readonly nowMs: number;
}

export interface ItemChange extends Act {
  readonly taskId: number;
  readonly patch: ItemPatch;
  readonly match: VersionMatch;
  readonly isMatchRequired: boolean;
  readonly nowMs: number;
}

interface ItemDeletion {
  readonly taskId: number;
  readonly match: VersionMatch;
  readonly isMatchRequired: boolean;
}

export const ITEM_UNITS = {
  /** @throws AppError quota_exceeded, idempotency_mismatch, invalid_token; invalid_request for a wrong assignee */
  "task.createItem"(work: UnitOfWork, creation: ItemCreation): Promise<Changed<Answered<TaskView>>> {
    return answerOnce(work, creation.keyed, 201, () => createItem(work, creation));
  },

  /**
   * A patch that changes nothing leaves the task and its history as they are.
   * @throws AppError not_found, forbidden, version_mismatch, if_match_required, conflict; invalid_request as above
   */
  async "task.patchItem"(work: UnitOfWork, change: ItemChange): Promise<Changed<TaskView>> {
    const { userId, taskId, nowMs } = change;
    const db = taskTables(work);
    const { row, labels } = await requireVisibleItem(db, taskId, userId);
    const before = fieldsOf(row, labels);
    const fields = { ...before, ...change.patch };
    const changes = changesBetween(before, fields);
    requireMayChange(roleOf(row, userId)!, changes);
    requireMatch(row.version, change.match, change.isMatchRequired);
    if (Object.keys(changes).length === 0) return changed(taskView(row, labels));
    if (changes.assignee_id !== undefined) await requireAssignable(db, fields.assigneeId);
    const completed_at_ms = completedAt(row, fields.status, work.nowMs);
    const task = await updateItem(work, row, { ...columnsOf(fields, changes), completed_at_ms });
    if (changes.labels !== undefined) await replaceLabels(db, task, fields.labels);
    const type = changes.assignee_id === undefined ? "task.updated" : "task.assigned";
    return tell(work, { row: task, labels: fields.labels }, type, changes, { ...change, nowMs });
  },

  /**
   * Restorable for a while: see goneUntilMs.
   * @throws AppError not_found, forbidden, version_mismatch, if_match_required, conflict
   */
  async "task.deleteItem"(
    work: UnitOfWork,
    { taskId, match, isMatchRequired, ...act }: SupervisedAct & ItemDeletion,
  ): Promise<Changed<TaskView>> {
    const { row, labels } = await requireVisibleItem(taskTables(work), taskId, act.userId);
    requireMayDelete(roleOf(row, act.userId)!);
    requireMatch(row.version, match, isMatchRequired);
    const task = await updateItem(work, row, { deleted_at_ms: work.nowMs });
    return tell(work, { row: task, labels }, "task.deleted", { deleted: [false, true] }, act);
  },

  /**
   * What was deleted until `goneUntilMs` is no more.
   * @throws AppError not_found; state_conflict when the task is not deleted, or its owner is; conflict
   */
  async "task.restoreItem"(
    work: UnitOfWork,
    { taskId, goneUntilMs, ...act }: SupervisedAct & { readonly taskId: number; readonly goneUntilMs: number },
  ): Promise<Changed<TaskView>> {
    const db = taskTables(work);
    const row = await findItem(db, taskId);
    const role = row === null ? null : roleOf(row, act.userId);
    if (row === null || role === null || role === "assignee" || isGone(row, goneUntilMs)) throw taskNotFound();
    if (row.deleted_at_ms === 0) throw new AppError("state_conflict", "The task is not deleted.");
    await requireOwner(db, row);
    const labels = await labelsOf(db, taskId);
    const task = await updateItem(work, row, { deleted_at_ms: 0 });
    return tell(work, { row: task, labels }, "task.restored", { deleted: [true, false] }, act);
  },
} as const;

async function createItem(work: UnitOfWork, creation: ItemCreation): Promise<Changed<TaskView>> {
  const { userId, fields } = creation;
  const db = taskTables(work);
  await requireActive(db, userId);
  if (fields.assigneeId !== userId) await requireAssignable(db, fields.assigneeId);
  await takePlace(db, userId, creation.itemsMax);
  const changes = changesBetween(null, fields);
  const columns = {
    user_id: userId,
    assignee_id: null,
    title: "",
    description: "",
    search_text: "",
    status: fields.status,
    priority: 0,
    due_at_ms: NO_DUE_MS,
    remind_at_ms: null,
    ...columnsOf(fields, changes),
    completed_at_ms: completedAt(null, fields.status, work.nowMs),
    created_at_ms: work.nowMs,
    updated_at_ms: work.nowMs,
    deleted_at_ms: 0,
    version: 1,
  };
  const { id } = await db.insertInto("task_item").values(columns).returning("id").executeTakeFirstOrThrow();
  const row = { ...columns, id };
  if (fields.labels.length > 0) await insertLabels(db, row, fields.labels);
  return tell(work, { row, labels: fields.labels }, "task.created", changes, creation);
}

/** With `nowMs`, jobs for the times that the changes set. */
async function tell(
  work: UnitOfWork,
  { row, labels }: LabelledItem,
  type: Exclude<EventType, "task.gone">,
  changes: Changes,
  { userId, requestId, nowMs }: SupervisedAct & { readonly nowMs?: number },
): Promise<Changed<TaskView>> {
  if (nowMs !== undefined) await scheduleReminders(work, row, changes, nowMs, requestId);
  const effects = await announce(work, { type, task: row, labels, changes, actorId: userId, requestId });
  return changed(taskView(row, labels), effects);
}
