// Tasks as comma-separated values (RFC 4180), which spreadsheets open without taking a cell for a formula.

import type { TaskView } from "./task-view.ts";

const FIELDS = [
  "id",
  "title",
  "description",
  "status",
  "priority",
  "user_id",
  "assignee_id",
  "labels",
  "due_date",
  "remind_at",
  "completed_at",
  "created_at",
  "updated_at",
  "version",
] satisfies readonly (keyof TaskView)[];

/** For programs that would take UTF-8 for something else without it. */
export const BYTE_ORDER_MARK = "\uFEFF";

/** The first record, with its line end. */
export function csvHead(): string {
  return record(FIELDS);
}

/** The record of a task, with its line end. */
export function csvRecord(task: TaskView): string {
  return record(FIELDS.map((field) => (field === "labels" ? task.labels.join(",") : `${task[field] ?? ""}`)));
}

function record(cells: readonly string[]): string {
  return `${cells.map(cellOf).join(",")}\r\n`;
}

/** What a spreadsheet would compute begins with an apostrophe, which it hides: OWASP's list, CSV injection. */
function cellOf(text: string): string {
  const cell = /^[=+\-@＝＋－＠\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
