// The write units that end an account: at once for its owner, in slices for what it leaves behind.

import { sql } from "kysely";
import { enqueueJob, jobTables } from "../jobs/job-base-units.ts";
import { MiB } from "../shared/bounds.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { deletedUsername } from "./account-rules.ts";
import { requireUser } from "./account-units.ts";
import { announceAll } from "./feed-units.ts";
import { endSessions, requireCurrent, toldTo } from "./session-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed, type Effects, together } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { ItemRow } from "./task-tables.ts";
import { countWebhooks, deleteWebhooksOf } from "./webhook-units.ts";

/** Tasks of one transaction: others write between two. */
const SLICE_ROWS = 500;
/** The same of what webhooks are told of them: a delivery with its job takes as long as several tasks. */
const SLICE_DELIVERIES = 250;
/** And of their texts, which are written anew with their rows. */
const SLICE_BYTES = 4 * MiB;
/** Then a job goes on with what nobody has erased by then: the request was cut short, or the server was. */
export const ERASED_WITHIN_MS = 30_000;

interface Deletion {
  readonly userId: number;
  /** The password was verified against this one; null = an operator asks. */
  readonly expectedHash: string | null;
  readonly nowMs: number;
}

interface Slice {
  readonly isLast: boolean;
  readonly effects: Effects;
}

interface FoundItem extends Pick<ItemRow, "id" | "user_id" | "assignee_id"> {
  readonly bytes: number;
}

/** Lengths stand at the head of a row: no text is read for them. */
const TEXT_BYTES = sql<number>`octet_length(description) + octet_length(search_text)`.as("bytes");

export const USER_DELETION_UNITS = {
  /**
   * With this commit the names are free, and sessions and webhooks have ended. A first slice of its tasks goes with it,
   * of most accounts all of them: returns whether they were the last. The others are the caller's to erase; a job stays
   * behind for what it leaves.
   * @throws AppError wrong_password, invalid_token, not_found
   */
  async "task.deleteUser"(work: UnitOfWork, { userId, expectedHash, nowMs }: Deletion): Promise<Changed<boolean>> {
    const db = taskTables(work);
    if (expectedHash === null) await requireUser(db, userId);
    else await requireCurrent(db, userId, expectedHash, "wrong_password");
    await db
      .updateTable("task_user")
      .set((eb) => ({
        username: deletedUsername(userId),
        username_key: null,
        email_key: null,
        email: "",
        password_hash: "",
        token_version: eb("token_version", "+", 1),
        updated_at_ms: work.nowMs,
        deleted_at_ms: work.nowMs,
      }))
      .where("id", "=", userId)
      .execute();
    await endSessions(db, userId, "account_deleted", nowMs);
    await deleteWebhooksOf(work, userId);
    const { isLast, effects } = await eraseSlice(work, userId);
    if (!isLast) {
      const runAtMs = nowMs + ERASED_WITHIN_MS;
      const dedupKey = erasureKey(userId);
      await enqueueJob(work, { kind: TASK_JOBS.erase, payload: { userId }, ownerId: null, runAtMs, dedupKey });
    }
    return changed(isLast, together(toldTo(userId), effects));
  },

  /** The next tasks of a deleted account; whether they were the last. */
  async "task.eraseItems"(work: UnitOfWork, { userId }: { userId: number }): Promise<Changed<boolean>> {
    const { isLast, effects } = await eraseSlice(work, userId);
    if (isLast) {
      const waiting = jobTables(work).deleteFrom("job").where("dedup_key", "=", erasureKey(userId));
      await waiting.where("state", "=", "ready").execute();
    }
    return changed(isLast, effects);
  },
} as const;

function erasureKey(userId: number): string {
  return `${TASK_JOBS.erase.kind}:${userId}`;
}

async function eraseSlice(work: UnitOfWork, userId: number): Promise<Slice> {
  const left = await leaveAssigned(work, userId);
  const deleted = await deleteOwned(work, userId);
  return { isLast: left.isLast && deleted.isLast, effects: together(left.effects, deleted.effects) };
}

/** Tasks of others that the user was to do have nobody for them now, deleted ones as well. */
async function leaveAssigned(work: UnitOfWork, userId: number): Promise<Slice> {
  const found = await taskTables(work)
    .selectFrom("task_item")
    .select(["id", "user_id", "assignee_id", TEXT_BYTES])
    .where("assignee_id", "=", userId)
    .where("user_id", "!=", userId)
    .limit(SLICE_ROWS)
    .execute();
  const ids = await withinOneCommit(work, found, userId);
  const tasks = await changeAll(work, ids, { assignee_id: null });
  const changes = { assignee_id: [userId, null] } as const;
  const effects = await announceAll(work, { type: "task.assigned", tasks, changes, actorId: userId });
  return { isLast: ids.length < SLICE_ROWS && ids.length === found.length, effects };
}

async function deleteOwned(work: UnitOfWork, userId: number): Promise<Slice> {
  const found = await taskTables(work)
    .selectFrom("task_item")
    .select(["id", "user_id", "assignee_id", TEXT_BYTES])
    .where("user_id", "=", userId)
    .where("deleted_at_ms", "=", 0)
    .limit(SLICE_ROWS)
    .execute();
  const ids = await withinOneCommit(work, found, userId);
  const tasks = await changeAll(work, ids, { deleted_at_ms: work.nowMs });
  const changes = { deleted: [false, true] } as const;
  const effects = await announceAll(work, { type: "task.deleted", tasks, changes, actorId: userId });
  return { isLast: ids.length < SLICE_ROWS && ids.length === found.length, effects };
}

/** Those of the tasks that one transaction may change, and tell others of; at least one, if there is any. */
async function withinOneCommit(
  work: UnitOfWork,
  found: readonly FoundItem[],
  userId: number,
): Promise<readonly number[]> {
  const others = found.map(({ user_id, assignee_id }) => (user_id === userId ? assignee_id : user_id));
  const people = new Set(others.filter((id) => id !== null && id !== userId));
  const hooks = await countWebhooks(work, [...people] as number[]);
  const ids: number[] = [];
  let deliveries = 0;
  let textBytes = 0;
  for (const [index, { id, bytes }] of found.entries()) {
    deliveries += hooks.get(others[index] ?? userId) ?? 0;
    textBytes += bytes;
    if ((deliveries > SLICE_DELIVERIES || textBytes > SLICE_BYTES) && ids.length > 0) break;
    ids.push(id);
  }
  return ids;
}

/** The rows as they are afterwards. */
async function changeAll(
  work: UnitOfWork,
  ids: readonly number[],
  columns: Partial<ItemRow>,
): Promise<readonly ItemRow[]> {
  if (ids.length === 0) return [];
  const set = { ...columns, updated_at_ms: work.nowMs };
  return taskTables(work)
    .updateTable("task_item")
    .set((eb) => ({ ...set, version: eb("version", "+", 1) }))
    .where("id", "in", [...ids])
    .returningAll()
    .execute();
}
