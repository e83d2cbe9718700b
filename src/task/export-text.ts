// The text of an export in either format: what comes first, what each task adds, what comes last.

import { calendarEntry, calendarHead, calendarTail } from "./calendar-text.ts";
import { csvHead, csvRecord } from "./csv-text.ts";
import type { ListedItem } from "./task-list-store.ts";
import { taskView } from "./task-view.ts";

export interface FileText {
  readonly head: string;
  readonly entry: (item: ListedItem) => string;
  readonly tail: string;
}

/** `storeId` is for the ids of calendar entries. */
export function fileTextOf(format: "csv" | "ics", storeId: string): FileText {
  if (format === "csv") {
    return { head: csvHead(), entry: ({ row, labels }) => csvRecord(taskView(row, labels)), tail: "" };
  }
  const entry = ({ row, labels }: ListedItem) => calendarEntry(taskView(row, labels), storeId);
  return { head: calendarHead(), entry, tail: calendarTail() };
}
