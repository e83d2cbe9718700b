// A task as clients see it, wherever they meet it: in answers, lists, streams and webhooks.

import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import { type ItemRow, NO_DUE_MS, PRIORITIES, type TaskPriority, type TaskStatus } from "./task-tables.ts";

/** In the order in which its members are shown. */
export interface TaskView {
  readonly id: number;
  readonly title: string;
  readonly description: string;
  readonly status: TaskStatus;
  readonly priority: TaskPriority;
  readonly user_id: number;
  readonly assignee_id: number | null;
  readonly labels: readonly string[];
  readonly due_date: string | null;
  readonly remind_at: string | null;
  readonly completed_at: string | null;
  readonly created_at: string;
  readonly updated_at: string;
  readonly version: number;
}

export type ShownItem = Omit<ItemRow, "search_text" | "deleted_at_ms">;

/** `labels` as they are stored: sorted. */
export function taskView(row: ShownItem, labels: readonly string[]): TaskView {
  return {
    id: row.id,
    title: row.title,
    description: row.description,
    status: row.status,
    priority: priorityName(row.priority),
    user_id: row.user_id,
    assignee_id: row.assignee_id,
    labels,
    due_date: formatTimeOrNull(dueOrNull(row.due_at_ms)),
    remind_at: formatTimeOrNull(row.remind_at_ms),
    completed_at: formatTimeOrNull(row.completed_at_ms),
    created_at: formatTime(row.created_at_ms),
    updated_at: formatTime(row.updated_at_ms),
    version: row.version,
  };
}

/** Null for the far future, which stands for none. */
export function dueOrNull(dueAtMs: number): number | null {
  return dueAtMs === NO_DUE_MS ? null : dueAtMs;
}

export function priorityName(priority: number): TaskPriority {
  return PRIORITIES[priority - 1]!;
}

export function priorityNumber(name: TaskPriority): number {
  return PRIORITIES.indexOf(name) + 1;
}

/** The strong entity tag of a version of a task. */
export function etagOf(version: number): string {
  return `"v${version}"`;
}
