// Reads single tasks and what hangs on them: comments, history.

import type { Kysely, Selectable } from "kysely";
import { MiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { formatTime } from "../shared/iso-time.ts";
import { type Changes, roleOf, sortLabels } from "./item-rules.ts";
import type { ItemRow, TaskTables } from "./task-tables.ts";

type Db = Kysely<TaskTables>;

export interface LabelledItem {
  readonly row: ItemRow;
  /** Sorted. */
  readonly labels: readonly string[];
}

/** Deleted or not, whoever asks. */
export async function findItem(db: Db, id: number): Promise<ItemRow | null> {
  return (await db.selectFrom("task_item").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

export async function labelsOf(db: Db, taskId: number): Promise<string[]> {
  const rows = await db.selectFrom("task_label").select("label").where("task_id", "=", taskId).execute();
  return sortLabels(rows.map(({ label }) => label));
}

/** A live task that the user owns or has been assigned; any live one for an operator, `userId` null. */
async function findVisibleItem(db: Db, id: number, userId: number | null): Promise<LabelledItem | null> {
  const row = await findItem(db, id);
  if (row === null || row.deleted_at_ms !== 0 || roleOf(row, userId) === null) return null;
  return { row, labels: await labelsOf(db, id) };
}

/** @throws AppError not_found */
export async function requireVisibleItem(db: Db, id: number, userId: number | null): Promise<LabelledItem> {
  const found = await findVisibleItem(db, id, userId);
  if (found === null) throw taskNotFound();
  return found;
}

/** What is not there and what is not to be seen is the same. */
export function taskNotFound(): AppError {
  return new AppError("not_found", "task not found");
}

export interface CommentView {
  readonly id: number;
  readonly task_id: number;
  readonly user: { readonly id: number; readonly username: string };
  readonly body: string;
  readonly created_at: string;
}

type CommentRow = Omit<Selectable<TaskTables["task_comment"]>, "deleted_at_ms"> & { readonly username: string };

export function commentView({ id, task_id, user_id, username, body, created_at_ms }: CommentRow): CommentView {
  return { id, task_id, user: { id: user_id, username }, body, created_at: formatTime(created_at_ms) };
}

interface EventView {
  readonly id: number;
  readonly type: string;
  readonly actor_id: number | null;
  readonly version: number;
  readonly changes: Changes;
  readonly at: string;
}

interface HistoryQuery {
  readonly taskId: number;
  /** Only what has a greater id. */
  readonly afterId: number;
  readonly limit: number;
}

/** Oldest first; a page ends early when what it holds grows large. */
export type HistoryReader = (
  db: Db,
  query: HistoryQuery,
) => Promise<{ readonly items: readonly { readonly id: number }[]; readonly hasMore: boolean }>;

export const listComments: HistoryReader = (db, query) =>
  readSlices(query, async (afterId, count) => {
    const rows = await db
      .selectFrom("task_comment")
      .innerJoin("task_user", "task_user.id", "task_comment.user_id")
      .selectAll("task_comment")
      .select("task_user.username")
      .where("task_comment.task_id", "=", query.taskId)
      .where("task_comment.id", ">", afterId)
      .where("task_comment.deleted_at_ms", "is", null)
      .orderBy("task_comment.id")
      .limit(count)
      .execute();
    return rows.map((row) => ({ item: commentView(row), length: row.body.length }));
  });

export const listEvents: HistoryReader = (db, query) =>
  readSlices(query, async (afterId, count) => {
    const rows = await db
      .selectFrom("task_event")
      .selectAll()
      .where("task_id", "=", query.taskId)
      .where("id", ">", afterId)
      .orderBy("id")
      .limit(count)
      .execute();
    return rows.map((row) => ({ item: eventView(row), length: row.changes.length }));
  });

function eventView({ id, type, actor_id, version, changes, at_ms }: Selectable<TaskTables["task_event"]>): EventView {
  return { id, type, actor_id, version, changes: JSON.parse(changes) as Changes, at: formatTime(at_ms) };
}

const SLICE_ROWS = 50;
/** Texts of a page, characters: descriptions and comments may be long. */
export const PAGE_LENGTH_MAX = 2 * MiB;

interface Sized {
  readonly item: { readonly id: number };
  /** Characters. */
  readonly length: number;
}

/** One row more than is wanted tells whether there are more. */
async function readSlices(
  { afterId, limit }: HistoryQuery,
  read: (afterId: number, count: number) => Promise<readonly Sized[]>,
): ReturnType<HistoryReader> {
  const items: { readonly id: number }[] = [];
  let length = 0;
  for (;;) {
    const wanted = Math.min(SLICE_ROWS, limit - items.length);
    const slice = await read(items.at(-1)?.id ?? afterId, wanted + 1);
    for (const sized of slice.slice(0, wanted)) {
      items.push(sized.item);
      length += sized.length;
    }
    const hasMore = slice.length > wanted;
    if (!hasMore || items.length === limit || length > PAGE_LENGTH_MAX) return { items, hasMore };
  }
}
