// The write units that end an account: at once for its owner, in slices for what it leaves behind.

import { sql } from "kysely";
import { enqueueJob } from "../jobs/job-units.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { requireUser } from "./account-units.ts";
import { announce } from "./feed-units.ts";
import { labelsOf } from "./item-store.ts";
import { endSessions, requireCurrent, toldTo } from "./session-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed, type Effects, NO_EFFECTS, together } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { ItemRow } from "./task-tables.ts";
import { deleteWebhooksOf } from "./webhook-units.ts";

/** In one transaction: each of them may be announced to others. */
const ASSIGNED_SLICE = 200;
const OWNED_SLICE = 500;

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

export const USER_DELETION_UNITS = {
  /**
   * With this commit the names are free, and sessions and webhooks have ended. A first slice of its tasks goes with it,
   * of most accounts all of them; else a job does the rest.
   * @throws AppError wrong_password, not_found
   */
  async "task.deleteUser"(work: UnitOfWork, { userId, expectedHash, nowMs }: Deletion): Promise<Changed<null>> {
    const db = taskTables(work);
    if (expectedHash === null) await requireUser(db, userId);
    else await requireCurrent(db, userId, expectedHash, "wrong_password");
    await db
      .updateTable("task_user")
      .set((eb) => ({
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
      await enqueueJob(work, { kind: TASK_JOBS.erase, payload: { userId }, ownerId: null, runAtMs: nowMs });
    }
    return changed(null, together(toldTo(userId), effects, { userIds: [], hasJobs: !isLast }));
  },

  /** The next tasks of a deleted account; whether they were the last. */
  async "task.eraseItems"(work: UnitOfWork, { userId }: { userId: number }): Promise<Changed<boolean>> {
    const { isLast, effects } = await eraseSlice(work, userId);
    return changed(isLast, effects);
  },
} as const;

async function eraseSlice(work: UnitOfWork, userId: number): Promise<Slice> {
  const left = await leaveAssigned(work, userId);
  const deleted = await deleteOwned(work, userId);
  return { isLast: left.isLast && deleted.isLast, effects: together(left.effects, deleted.effects) };
}

/** Tasks of others that the user was to do have nobody for them now, deleted ones as well. */
async function leaveAssigned(work: UnitOfWork, userId: number): Promise<Slice> {
  const rows = await taskTables(work)
    .selectFrom("task_item")
    .selectAll()
    .where("assignee_id", "=", userId)
    .where("user_id", "!=", userId)
    .limit(ASSIGNED_SLICE)
    .execute();
  const effects = await changeEach(work, rows, { assignee_id: null }, (row) =>
    announced(work, "task.assigned", row, { assignee_id: [userId, null] }, userId),
  );
  return { isLast: rows.length < ASSIGNED_SLICE, effects };
}

/** What nobody else could see gets its event and no more: there is nobody to be told. */
async function deleteOwned(work: UnitOfWork, userId: number): Promise<Slice> {
  const db = taskTables(work);
  const rows = await db
    .selectFrom("task_item")
    .selectAll()
    .where("user_id", "=", userId)
    .where("deleted_at_ms", "=", 0)
    .limit(OWNED_SLICE)
    .execute();
  const shared = rows.filter((row) => row.assignee_id !== null && row.assignee_id !== userId);
  const own = rows.filter((row) => !shared.includes(row)).map(({ id }) => id);
  const set = { deleted_at_ms: work.nowMs };
  const effects = await changeEach(work, shared, set, (row) =>
    announced(work, "task.deleted", row, { deleted: [false, true] }, userId),
  );
  if (own.length > 0) {
    await db
      .updateTable("task_item")
      .set((eb) => ({ ...set, updated_at_ms: work.nowMs, version: eb("version", "+", 1) }))
      .where("id", "in", own)
      .execute();
    const changes = JSON.stringify({ deleted: [false, true] });
    await db
      .insertInto("task_event")
      .columns(["task_id", "type", "actor_id", "version", "changes", "at_ms"])
      .expression((eb) =>
        eb
          .selectFrom("task_item")
          .select(["id", sql.lit("task.deleted").as("type"), sql.val(userId).as("actor"), "version"])
          .select([sql.val(changes).as("changes"), sql.val(work.nowMs).as("at")])
          .where("id", "in", own),
      )
      .execute();
  }
  return { isLast: rows.length < OWNED_SLICE, effects };
}

async function changeEach(
  work: UnitOfWork,
  rows: readonly ItemRow[],
  columns: Partial<ItemRow>,
  tell: (row: ItemRow) => Promise<Effects>,
): Promise<Effects> {
  let effects = NO_EFFECTS;
  for (const row of rows) {
    const set = { ...columns, updated_at_ms: work.nowMs, version: row.version + 1 };
    await taskTables(work).updateTable("task_item").set(set).where("id", "=", row.id).execute();
    effects = together(effects, await tell({ ...row, ...set }));
  }
  return effects;
}

async function announced(
  work: UnitOfWork,
  type: "task.assigned" | "task.deleted",
  task: ItemRow,
  changes: Parameters<typeof announce>[1]["changes"],
  actorId: number,
): Promise<Effects> {
  const labels = await labelsOf(taskTables(work), task.id);
  return announce(work, { type, task, labels, changes, actorId, requestId: null });
}
