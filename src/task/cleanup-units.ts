// The write units that clean up: slices of bounded size, so that other writes get between.

import type { Kysely } from "kysely";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";
import type { TaskTables } from "./task-tables.ts";

/** Rows that one transaction removes at most, but for more of the same millisecond. */
const SLICE_ROWS = 500;
const LAST_OF_SLICE = SLICE_ROWS - 1;
/** They stand in a dozen indexes. */
const SLICE_ITEMS = 100;

type Db = Kysely<TaskTables>;
type EndingSession = Pick<TaskTables["task_session"], "revoked_at_ms" | "idle_until_ms" | "expires_at_ms">;

/** All return how many rows they have removed; 0 = nothing is left to do. */
export const CLEANUP_UNITS = {
  /**
   * Tasks that were deleted until `untilMs`, which nobody sees any more: their owners get their places back. What hangs
   * on them stays noted until task.purgeRemains has removed it.
   */
  async "task.purgeItems"(work: UnitOfWork, { untilMs }: { untilMs: number }): Promise<Changed<number>> {
    const db = taskTables(work);
    const rows = await db
      .selectFrom("task_item")
      .select(["id", "user_id"])
      .where("deleted_at_ms", ">", 0)
      .where("deleted_at_ms", "<=", untilMs)
      .orderBy("deleted_at_ms")
      .orderBy("id")
      .limit(SLICE_ITEMS)
      .execute();
    if (rows.length === 0) return changed(0);
    const ids = rows.map(({ id }) => id);
    await db.deleteFrom("task_item").where("id", "in", ids).execute();
    const notes = ids.map((task_id) => ({ task_id }));
    await db.insertInto("task_remains").values(notes).execute();
    await giveBackPlaces(
      db,
      rows.map(({ user_id }) => user_id),
    );
    return changed(rows.length);
  },

  /** Labels, comments and events of tasks that are gone. Their places in the feeds go when they are old enough. */
  async "task.purgeRemains"(work: UnitOfWork, _: null): Promise<Changed<number>> {
    const db = taskTables(work);
    const notes = await db.selectFrom("task_remains").select("task_id").limit(SLICE_ROWS).execute();
    if (notes.length === 0) return changed(0);
    const ids = notes.map(({ task_id }) => task_id);
    let removed = 0;
    for (const remove of [removeLabels, removeComments, removeEvents]) {
      removed += await remove(db, ids, SLICE_ROWS - removed);
      if (removed >= SLICE_ROWS) return changed(removed);
    }
    await db.deleteFrom("task_remains").where("task_id", "in", ids).execute();
    return changed(removed + ids.length);
  },

  /** Of these sessions: refresh tokens of those that have ended by `nowMs`, and those that ended before `beforeMs`. */
  async "task.removeSessions"(
    work: UnitOfWork,
    { ids, nowMs, beforeMs }: { ids: readonly string[]; nowMs: number; beforeMs: number },
  ): Promise<Changed<number>> {
    const db = taskTables(work);
    const sessions = await db.selectFrom("task_session").selectAll().where("id", "in", ids).execute();
    const ended = sessions.filter((session) => endOf(session) < nowMs);
    const tokens = await removeTokens(db, ended.map(idOf));
    if (tokens === SLICE_ROWS) return changed(tokens);
    const old = ended.filter((session) => endOf(session) < beforeMs).map(idOf);
    if (old.length > 0) await db.deleteFrom("task_session").where("id", "in", old).execute();
    return changed(tokens + old.length);
  },

  /** Answers that nobody may ask for again. */
  async "task.removeAnswers"(work: UnitOfWork, { beforeMs }: { beforeMs: number }): Promise<Changed<number>> {
    const db = taskTables(work);
    const due = db.selectFrom("task_idempotency").select("created_at_ms as ms").where("created_at_ms", "<", beforeMs);
    const last = await due.orderBy("created_at_ms").offset(LAST_OF_SLICE).limit(1).executeTakeFirst();
    const slice = db.deleteFrom("task_idempotency").where("created_at_ms", "<=", last?.ms ?? beforeMs - 1);
    return changed(countOf(await slice.executeTakeFirst()));
  },

  async "task.removeFeed"(work: UnitOfWork, { beforeMs }: { beforeMs: number }): Promise<Changed<number>> {
    const db = taskTables(work);
    const due = db.selectFrom("task_feed").select("at_ms as ms").where("at_ms", "<", beforeMs);
    const last = await due.orderBy("at_ms").offset(LAST_OF_SLICE).limit(1).executeTakeFirst();
    const slice = db.deleteFrom("task_feed").where("at_ms", "<=", last?.ms ?? beforeMs - 1);
    return changed(countOf(await slice.executeTakeFirst()));
  },
} as const;

/** When a session ended or will end, ms since 1970. */
export function endOf(session: EndingSession): number {
  return Math.min(session.revoked_at_ms ?? Number.POSITIVE_INFINITY, session.idle_until_ms, session.expires_at_ms);
}

/** In ascending order of user, as everywhere: two transactions never wait for each other. */
async function giveBackPlaces(db: Db, userIds: readonly number[]): Promise<void> {
  const places = [...Map.groupBy(userIds, (id) => id)].sort(([a], [b]) => a - b);
  for (const [userId, { length }] of places) {
    await db
      .updateTable("task_head")
      .set(({ eb }) => ({ item_count: eb("item_count", "-", length) }))
      .where("user_id", "=", userId)
      .execute();
  }
}

/** All labels of some of the tasks: none has more than fit. Returns how many. */
async function removeLabels(db: Db, taskIds: readonly number[], limit: number): Promise<number> {
  const rows = await db
    .selectFrom("task_label")
    .select("task_id")
    .where("task_id", "in", taskIds)
    .limit(limit)
    .execute();
  if (rows.length === 0) return 0;
  const ids = [...new Set(rows.map(({ task_id }) => task_id))];
  return countOf(await db.deleteFrom("task_label").where("task_id", "in", ids).executeTakeFirst());
}

async function removeComments(db: Db, taskIds: readonly number[], limit: number): Promise<number> {
  const rows = await db.selectFrom("task_comment").select("id").where("task_id", "in", taskIds).limit(limit).execute();
  if (rows.length > 0) await db.deleteFrom("task_comment").where("id", "in", rows.map(idOf)).execute();
  return rows.length;
}

async function removeEvents(db: Db, taskIds: readonly number[], limit: number): Promise<number> {
  const rows = await db.selectFrom("task_event").select("id").where("task_id", "in", taskIds).limit(limit).execute();
  if (rows.length > 0) await db.deleteFrom("task_event").where("id", "in", rows.map(idOf)).execute();
  return rows.length;
}

async function removeTokens(db: Db, sessionIds: readonly string[]): Promise<number> {
  if (sessionIds.length === 0) return 0;
  const tokens = db.selectFrom("task_refresh").select("hash").where("session_id", "in", sessionIds);
  const hashes = (await tokens.limit(SLICE_ROWS).execute()).map(({ hash }) => hash);
  if (hashes.length > 0) await db.deleteFrom("task_refresh").where("hash", "in", hashes).execute();
  return hashes.length;
}

function idOf<Id>({ id }: { readonly id: Id }): Id {
  return id;
}

function countOf({ numDeletedRows }: { readonly numDeletedRows: bigint }): number {
  return Number(numDeletedRows);
}
