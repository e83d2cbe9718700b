// The rules of a task without its store: what a patch changes, who may change it, what a label is.

import { parseTagList } from "../http/entity-tags.ts";
import type { Clock } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import { formatTimeOrNull } from "../shared/iso-time.ts";
import type { Settings } from "../shared/settings.ts";
import { searchTextOf } from "./search-text.ts";
import { type ItemRow, NO_DUE_MS, type TaskPriority, type TaskStatus } from "./task-tables.ts";
import { dueOrNull, etagOf, priorityName, priorityNumber } from "./task-view.ts";

/** What people say of a task; everything else about it follows. */
export interface ItemFields {
  readonly title: string;
  readonly description: string;
  readonly status: TaskStatus;
  readonly priority: TaskPriority;
  readonly dueAtMs: number | null;
  readonly remindAtMs: number | null;
  readonly assigneeId: number | null;
  /** Sorted, unique ignoring case: see labelSet. */
  readonly labels: readonly string[];
}

/** Fields that are left out stay as they are. */
export type ItemPatch = Partial<ItemFields>;
/** By member, as clients name them: what it was and what it is. */
export type Changes = Readonly<Record<string, readonly [from: unknown, to: unknown]>>;
type Role = "owner" | "assignee" | "operator";
/** Versions that a change may be based on; `*` = any, null = nothing was said. */
export type VersionMatch = readonly number[] | "*" | null;

const MEMBERS: Readonly<Record<keyof ItemFields, string>> = {
  title: "title",
  description: "description",
  status: "status",
  priority: "priority",
  dueAtMs: "due_date",
  remindAtMs: "remind_at",
  assigneeId: "assignee_id",
  labels: "labels",
};
const NAMES = Object.keys(MEMBERS) as (keyof ItemFields)[];

export function fieldsOf(row: ItemRow, labels: readonly string[]): ItemFields {
  return {
    title: row.title,
    description: row.description,
    status: row.status,
    priority: priorityName(row.priority),
    dueAtMs: dueOrNull(row.due_at_ms),
    remindAtMs: row.remind_at_ms,
    assigneeId: row.assignee_id,
    labels,
  };
}

/** What is different; a member of a new task (`before` null) that is empty is not. */
export function changesBetween(before: ItemFields | null, after: ItemFields): Changes {
  const changes: Record<string, readonly [unknown, unknown]> = {};
  for (const name of NAMES) {
    const [from, to] = [before === null ? null : shown(name, before), shown(name, after)];
    const isChange = before === null ? !isEmpty(to) : JSON.stringify(from) !== JSON.stringify(to);
    if (isChange) changes[MEMBERS[name]] = [from, to];
  }
  return changes;
}

function shown(name: keyof ItemFields, fields: ItemFields): unknown {
  return name === "dueAtMs" || name === "remindAtMs" ? formatTimeOrNull(fields[name]) : fields[name];
}

function isEmpty(value: unknown): boolean {
  return value === null || value === "" || (Array.isArray(value) && value.length === 0);
}

/** The columns of a row that say the fields which `changes` names. */
export function columnsOf(fields: ItemFields, changes: Changes): Partial<ItemRow> {
  const { title, description, status, assigneeId } = fields;
  const has = (member: string) => Object.hasOwn(changes, member);
  return given({
    title: has("title") ? title : undefined,
    description: has("description") ? description : undefined,
    search_text: has("title") || has("description") ? searchTextOf({ title, description }) : undefined,
    status: has("status") ? status : undefined,
    priority: has("priority") ? priorityNumber(fields.priority) : undefined,
    due_at_ms: has("due_date") ? (fields.dueAtMs ?? NO_DUE_MS) : undefined,
    remind_at_ms: has("remind_at") ? fields.remindAtMs : undefined,
    assignee_id: has("assignee_id") ? assigneeId : undefined,
  });
}

/** Null: the task is not to be seen. `userId` null is an operator. A deleted task is its owner's alone. */
export function roleOf(
  row: Pick<ItemRow, "user_id" | "assignee_id" | "deleted_at_ms">,
  userId: number | null,
): Role | null {
  if (userId === null) return "operator";
  if (row.user_id === userId) return "owner";
  return row.assignee_id === userId && row.deleted_at_ms === 0 ? "assignee" : null;
}

/** An assignee reports progress, or leaves. @throws AppError forbidden */
export function requireMayChange(role: Role, changes: Changes): void {
  if (role !== "assignee") return;
  for (const [member, [, to]] of Object.entries(changes)) {
    if (member === "status" || (member === "assignee_id" && to === null)) continue;
    throw new AppError("forbidden", `Only the owner of the task may change its ${member}.`);
  }
}

/** @throws AppError forbidden */
export function requireMayDelete(role: Role): void {
  if (role === "assignee") throw new AppError("forbidden", "Only the owner of the task may delete it.");
}

/** A tag that etagOf makes. */
const VERSION_TAG = /^"v([1-9]\d{0,14})"$/;

/** If-Match; weak tags equal nothing. @throws AppError precondition_invalid */
export function parseVersionMatch(header: string | null): VersionMatch {
  return parseTagList(header, "strong", VERSION_TAG);
}

/** @throws AppError version_mismatch, if_match_required */
export function requireMatch(version: number, match: VersionMatch, isRequired: boolean): void {
  if (match === null && isRequired) {
    throw new AppError("if_match_required", "Say in If-Match which version of the task is to be changed.");
  }
  if (match === null || match === "*" || match.includes(version)) return;
  throw new AppError("version_mismatch", "task was changed by someone else", { details: { etag: etagOf(version) } });
}

/**
 * What was deleted by then, ms since 1970, is gone for good: nobody finds or restores it, whether the purge has come to
 * it or not.
 */
export function goneUntilMs({
  clock,
  settings,
}: {
  readonly clock: Clock;
  readonly settings: Pick<Settings, "taskPurgeAfterMs">;
}): number {
  return clock() - settings.taskPurgeAfterMs;
}

/** Was it deleted, and so long ago? */
export function isGone({ deleted_at_ms }: Pick<ItemRow, "deleted_at_ms">, untilMs: number): boolean {
  return deleted_at_ms !== 0 && deleted_at_ms <= untilMs;
}

/** Two labels with the same key are one. */
export function labelKeyOf(label: string): string {
  return label.toLowerCase();
}

/** Each once, the first of those that differ in case only; in the order of their keys. */
export function labelSet(labels: readonly string[]): string[] {
  const byKey = new Map<string, string>();
  for (const label of labels) if (!byKey.has(labelKeyOf(label))) byKey.set(labelKeyOf(label), label);
  return sortLabels([...byKey.values()]);
}

export function sortLabels(labels: readonly string[]): string[] {
  const byKey = (a: string, b: string) => (labelKeyOf(a) < labelKeyOf(b) ? -1 : 1);
  return [...labels].sort(byKey);
}

/** When the task was completed, ms since 1970; null while it is not. */
export function completedAt(
  before: Pick<ItemRow, "status" | "completed_at_ms"> | null,
  status: TaskStatus,
  nowMs: number,
) {
  if (status !== "completed") return null;
  return before?.status === "completed" ? before.completed_at_ms : nowMs;
}
