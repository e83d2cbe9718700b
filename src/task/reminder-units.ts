// What happens when the time of a reminder or of a due date has come.

import type { Settlement } from "../jobs/job-kinds.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { announce } from "./feed-units.ts";
import { findItem, labelsOf } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import { type Effects, NO_EFFECTS } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { ItemRow } from "./task-tables.ts";

/** Of a job that waits for the reminder or the due date of a task. */
interface ReminderPayload {
  readonly taskId: number;
  /** The time it was made for, ms since 1970. */
  readonly atMs: number;
}

export const REMINDER_SETTLEMENTS = {
  [TASK_JOBS.reminder.kind]: (work: UnitOfWork, settlement: Settlement) =>
    announceTime(work, settlement, "task.reminder", ({ remind_at_ms }) => remind_at_ms),
  [TASK_JOBS.overdue.kind]: (work: UnitOfWork, settlement: Settlement) =>
    announceTime(work, settlement, "task.overdue", ({ due_at_ms }) => due_at_ms),
} as const;

/** Nothing when the time has been changed meanwhile, or the task is completed, deleted or gone. */
async function announceTime(
  work: UnitOfWork,
  { outcome, payload }: Settlement,
  type: "task.reminder" | "task.overdue",
  timeOf: (task: ItemRow) => number | null,
): Promise<Effects> {
  if (outcome !== "done") return NO_EFFECTS;
  const { taskId, atMs } = payload as ReminderPayload;
  const db = taskTables(work);
  const task = await findItem(db, taskId);
  if (task === null || task.deleted_at_ms !== 0 || task.status === "completed") return NO_EFFECTS;
  if (timeOf(task) !== atMs) return NO_EFFECTS;
  const labels = await labelsOf(db, taskId);
  return announce(work, { type, task, labels, changes: {}, actorId: null, requestId: null });
}
