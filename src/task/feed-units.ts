// What every change of a task leaves behind, in its transaction: one event, a place in the feeds, deliveries.

import type { UnitOfWork } from "../storage/unit-of-work.ts";
import type { Changes } from "./item-rules.ts";
import { labelsOf } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import type { Effects } from "./task-effects.ts";
import type { EventType, ItemRow } from "./task-tables.ts";
import { countWebhooks, queueDeliveries } from "./webhook-units.ts";

interface Announcement {
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

/** What is done to many tasks at once; `tasks` as they are after it. */
interface SharedChange extends Pick<Announcement, "type" | "changes"> {
  readonly tasks: readonly ItemRow[];
  readonly actorId: number;
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

/**
 * The same change of many tasks, by somebody who is not to be told of it: an event of each, and a place of each in the
 * feeds of the others concerned, in as many statements as there are people.
 */
export async function announceAll(work: UnitOfWork, { type, tasks, changes, actorId }: SharedChange): Promise<Effects> {
  const eventIds = await insertEvents(work, { type, tasks, changes, actorId });
  const events = tasks.map((task) => ({ type, task, labels: [], changes, actorId, requestId: null }));
  const told = events.map((event) => ({ event, recipients: recipientsOf(event).filter((id) => id !== actorId) }));
  const userIds = [...new Set(told.flatMap(({ recipients }) => recipients))].sort((a, b) => a - b);
  for (const userId of userIds) {
    const ids = told
      .filter(({ recipients }) => recipients.includes(userId))
      .map(({ event }) => eventIds(event.task.id));
    const firstRev = (await raiseHead(work, userId, ids.length)) - ids.length + 1;
    const places = ids
      .sort((a, b) => a - b)
      .map((event_id, index) => ({ user_id: userId, rev: firstRev + index, event_id, at_ms: work.nowMs }));
    await taskTables(work).insertInto("task_feed").values(places).execute();
  }
  const listening = await countWebhooks(work, userIds);
  let deliveries = 0;
  for (const { event, recipients } of told) {
    if (!recipients.some((id) => listening.has(id))) continue;
    const labels = await labelsOf(taskTables(work), event.task.id);
    deliveries += await queueDeliveries(work, { ...event, labels, recipients });
  }
  return { userIds, hasJobs: deliveries > 0 };
}

/** The ids of the events, by task. */
async function insertEvents(
  work: UnitOfWork,
  { type, tasks, changes, actorId }: SharedChange,
): Promise<(taskId: number) => number> {
  const told = { type, actor_id: actorId, changes: JSON.stringify(changes), at_ms: work.nowMs };
  const values = tasks.map(({ id, version }) => ({ ...told, task_id: id, version }));
  const rows =
    values.length === 0
      ? []
      : await taskTables(work).insertInto("task_event").values(values).returning(["id", "task_id"]).execute();
  const ids = new Map(rows.map(({ id, task_id }) => [task_id, id]));
  return (taskId) => ids.get(taskId)!;
}

function recipientsOf({ task, changes }: Announcement): number[] {
  const people = [task.user_id, task.assignee_id, changes.assignee_id?.[0]];
  return [...new Set(people.filter((id) => typeof id === "number"))].sort((a, b) => a - b);
}

/** The last of the next `count` numbers in the feed of a user. */
async function raiseHead(work: UnitOfWork, userId: number, count = 1): Promise<number> {
  const { rev } = await taskTables(work)
    .insertInto("task_head")
    .values({ user_id: userId, rev: count, item_count: 0 })
    .onConflict((conflict) =>
      conflict.column("user_id").doUpdateSet((eb) => ({ rev: eb("task_head.rev", "+", count) })),
    )
    .returning("rev")
    .executeTakeFirstOrThrow();
  return rev;
}
