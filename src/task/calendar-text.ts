// Tasks as to-dos of a calendar (RFC 5545, section 3.6.2).

import type { TaskPriority, TaskStatus } from "./task-tables.ts";
import type { TaskView } from "./task-view.ts";

/** Of a content line, its line end left out (section 3.1). */
const LINE_OCTETS_MAX = 75;
/** Section 3.3.8. Versions get there by some restores; from then on DTSTAMP tells which is newer (RFC 5546, 2.1.5). */
const INTEGER_MAX = 2 ** 31 - 1;

const STATUS: Readonly<Record<TaskStatus, string>> = {
  pending: "NEEDS-ACTION",
  in_progress: "IN-PROCESS",
  completed: "COMPLETED",
};
/** 1 is the highest, 9 the lowest (section 3.8.1.9). */
const PRIORITY: Readonly<Record<TaskPriority, number>> = { high: 1, medium: 5, low: 9 };

/** That of all times below, which say so themselves: a calendar needs one component, also without a task (3.6). */
const TIME_ZONE = [
  "BEGIN:VTIMEZONE",
  "TZID:Etc/UTC",
  "BEGIN:STANDARD",
  "DTSTART:19700101T000000",
  "TZOFFSETFROM:+0000",
  "TZOFFSETTO:+0000",
  "TZNAME:UTC",
  "END:STANDARD",
  "END:VTIMEZONE",
];

export function calendarHead(): string {
  const head = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//gokv//tasks//EN", "CALSCALE:GREGORIAN"];
  return lines([...head, ...TIME_ZONE]);
}

export function calendarTail(): string {
  return lines(["END:VCALENDAR"]);
}

/** One VTODO. The id of its store makes its UID unique in the world (RFC 7986, section 5.3). */
export function calendarEntry(task: TaskView, storeId: string): string {
  return lines([
    "BEGIN:VTODO",
    `UID:task-${task.id}@${storeId}`,
    `DTSTAMP:${timeOf(task.updated_at)}`,
    `CREATED:${timeOf(task.created_at)}`,
    `LAST-MODIFIED:${timeOf(task.updated_at)}`,
    `SEQUENCE:${Math.min(task.version, INTEGER_MAX)}`,
    `SUMMARY:${textOf(task.title)}`,
    ...(task.description === "" ? [] : [`DESCRIPTION:${textOf(task.description)}`]),
    ...(task.due_date === null ? [] : [`DUE:${timeOf(task.due_date)}`]),
    `STATUS:${STATUS[task.status]}`,
    ...(task.completed_at === null ? [] : [`COMPLETED:${timeOf(task.completed_at)}`]),
    `PRIORITY:${PRIORITY[task.priority]}`,
    ...(task.labels.length === 0 ? [] : [`CATEGORIES:${task.labels.map(textOf).join(",")}`]),
    "END:VTODO",
  ]);
}

function lines(content: readonly string[]): string {
  return content.map((line) => `${fold(line)}\r\n`).join("");
}

/** `20260201T000000Z` (section 3.3.5). */
function timeOf(iso: string): string {
  return iso.replace(/[-:]|\.\d+/g, "");
}

/** Section 3.3.11; control characters have no place in it. */
function textOf(text: string): string {
  return (
    text
      .replace(/\r\n?/g, "\n")
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
      .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "")
      .replace(/[\\;,]/g, "\\$&")
      .replaceAll("\n", "\\n")
  );
}

/** A long line goes on in the next one behind a space; no character is cut in two. */
function fold(line: string): string {
  const bytes = Buffer.from(line);
  if (bytes.length <= LINE_OCTETS_MAX) return line;
  const folded: string[] = [];
  for (let [start, octetsMax] = [0, LINE_OCTETS_MAX]; start < bytes.length; octetsMax = LINE_OCTETS_MAX - 1) {
    let end = Math.min(start + octetsMax, bytes.length);
    while (isInsideCharacter(bytes[end])) end--;
    folded.push(bytes.toString("utf8", start, end));
    start = end;
  }
  return folded.join("\r\n ");
}

/** Of UTF-8. Undefined = the end. */
function isInsideCharacter(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}
