// What every change of a task leaves behind, in its transaction: one event, a place in the feeds, deliveries.

import type { UnitOfWork } from "../storage/unit-of-work.ts";
import type { Changes } from "./item-rules.ts";
import { taskTables } from "./task-base-units.ts";
import type { Effects } from "./task-effects.ts";
import type { ItemRow } from "./task-tables.ts";
import { queueDeliveries } from "./webhook-units.ts";

export const EVENT_TYPES = [
  "task.created",
  "task.updated",
  "task.assigned",
  "task.deleted",
  "task.restored",
  "task.reminder",
  "task.overdue",
  "task.gone",
  "comment.created",
  "comment.deleted",
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

export interface Announcement {
  /** `task.gone` is how others hear of it, never what happened. */
  readonly type: Exclude<EventType, "task.gone">;
  /** As it is after the change. */
  readonly task: ItemRow;
  readonly labels: readonly string[];
  readonly changes: Changes;
  /** Null: the server itself or an operator. */
  readonly actorId: number | null;
  readonly requestId: string | null;
}

/**
 * One event; its place in the feeds of the owner, of the assignee and of the one before; a delivery for each hook that
 * wants it. Heads are raised in ascending order of user, so that two transactions never wait for each other.
 */
export async function announce(work: UnitOfWork, event: Announcement): Promise<Effects> {
  const { type, task, changes, actorId } = event;
  const db = taskTables(work);
  const row = { task_id: task.id, type, actor_id: actorId, version: task.version, changes: JSON.stringify(changes) };
  const { id } = await db
    .insertInto("task_event")
    .values({ ...row, at_ms: work.nowMs })
    .returning("id")
    .executeTakeFirstOrThrow();
  const recipients = recipientsOf(event);
  for (const userId of recipients) {
    const rev = await raiseHead(work, userId);
    await db.insertInto("task_feed").values({ user_id: userId, rev, event_id: id, at_ms: work.nowMs }).execute();
  }
  const deliveries = await queueDeliveries(work, { ...event, recipients });
  return { userIds: recipients, hasJobs: deliveries > 0 };
}

function recipientsOf({ task, changes }: Announcement): number[] {
  const people = [task.user_id, task.assignee_id, changes.assignee_id?.[0]];
  return [...new Set(people.filter((id) => typeof id === "number"))].sort((a, b) => a - b);
}

/** The next number in the feed of a user. */
async function raiseHead(work: UnitOfWork, userId: number): Promise<number> {
  const { rev } = await taskTables(work)
    .insertInto("task_head")
    .values({ user_id: userId, rev: 1, item_count: 0 })
    .onConflict((conflict) => conflict.column("user_id").doUpdateSet((eb) => ({ rev: eb("task_head.rev", "+", 1) })))
    .returning("rev")
    .executeTakeFirstOrThrow();
  return rev;
}
