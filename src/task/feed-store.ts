// The feeds of users, and how far each has come: read here, written by announce() in feed-units.ts.

import { type Kysely, sql } from "kysely";
import type { TableStore } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import type { TaskTables } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";

/** How long a feed goes back, ms. */
export const FEED_KEPT_MS = 7 * 86_400_000;

/** One place in the feed of a user. */
export interface FeedEntry {
  /** Of the user: each is one above the last. */
  readonly rev: number;
  readonly atMs: number;
  /** Null when its task has been purged. */
  readonly event: FeedEvent | null;
}

interface FeedEvent {
  readonly id: number;
  readonly taskId: number;
  readonly type: string;
  readonly actorId: number | null;
  readonly version: number;
  /** JSON text. */
  readonly changes: string;
  /** The user does not see the task any more, or stopped to see it by this very event. */
  readonly isLost: boolean;
}

export class FeedStore {
  readonly #db: Kysely<TaskTables>;

  constructor(store: Pick<TableStore<TaskUnits>, "tables">) {
    this.#db = taskTables(store);
  }

  /** The revs that users have come to. Who never had anything to be told is missing. */
  async heads(userIds: readonly number[]): Promise<Map<number, number>> {
    if (userIds.length === 0) return new Map();
    const rows = await this.#db
      .selectFrom("task_head")
      .select(["user_id", "rev"])
      .where("user_id", "in", valuesOf(userIds))
      .execute();
    return new Map(rows.map(({ user_id, rev }) => [user_id, rev]));
  }

  /**
   * How many of the first `limit` entries after `rev` have texts of at most `bytesMax` together, and how long they are:
   * one at least, if there is any. The texts themselves are not read.
   */
  async ahead(userId: number, rev: number, limit: number, bytesMax: number): Promise<{ rows: number; bytes: number }> {
    const found = await this.#db
      .selectFrom("task_feed as feed")
      .leftJoin("task_event as event", "event.id", "feed.event_id")
      .select(sql<number | null>`octet_length(event.changes)`.as("bytes"))
      .where("feed.user_id", "=", userId)
      .where("feed.rev", ">", rev)
      .orderBy("feed.rev")
      .limit(limit)
      .execute();
    let [rows, bytes] = [0, 0];
    for (const entry of found) {
      const size = entry.bytes ?? 0;
      if (rows > 0 && bytes + size > bytesMax) break;
      rows++;
      bytes += size;
    }
    return { rows, bytes };
  }

  /** What comes after `rev`, oldest first. */
  async after(userId: number, rev: number, limit: number): Promise<FeedEntry[]> {
    const rows = await this.#db
      .selectFrom("task_feed as feed")
      .leftJoin("task_event as event", "event.id", "feed.event_id")
      .leftJoin("task_item as item", "item.id", "event.task_id")
      .select(["feed.rev", "feed.at_ms", "event.id", "event.task_id", "event.type", "event.actor_id"])
      .select(["event.version", "event.changes", "item.user_id", "item.assignee_id", "item.deleted_at_ms"])
      .where("feed.user_id", "=", userId)
      .where("feed.rev", ">", rev)
      .orderBy("feed.rev")
      .limit(limit)
      .execute();
    return rows.map((row) => ({ rev: row.rev, atMs: row.at_ms, event: eventOf(row, userId) }));
  }

  /**
   * Those of the sessions that have not been ended, and whose users may still come in, each with the version that its
   * access tokens must have.
   */
  async liveSessions(sessionIds: readonly string[]): Promise<Map<string, number>> {
    const rows = await this.#db
      .selectFrom("task_session as session")
      .innerJoin("task_user as user", "user.id", "session.user_id")
      .select(["session.id", "user.token_version"])
      .where("session.id", "in", valuesOf(sessionIds))
      .where("session.revoked_at_ms", "is", null)
      .where("user.disabled_at_ms", "is", null)
      .where("user.deleted_at_ms", "is", null)
      .execute();
    return new Map(rows.map((row) => [row.id, row.token_version]));
  }
}

/**
 * As one parameter, so that there is one statement: asked for as many as listen, each second would prepare another, and
 * push the others out of those that are kept.
 */
function valuesOf<Value extends number | string>(values: readonly Value[]) {
  return sql<Value>`(SELECT value FROM json_each(${JSON.stringify(values)}))`;
}

interface FeedRow {
  readonly id: number | null;
  readonly task_id: number | null;
  readonly type: string | null;
  readonly actor_id: number | null;
  readonly version: number | null;
  readonly changes: string | null;
  readonly user_id: number | null;
  readonly assignee_id: number | null;
  readonly deleted_at_ms: number | null;
}

function eventOf(row: FeedRow, userId: number): FeedEvent | null {
  const { id, task_id: taskId, type, actor_id: actorId, version, changes } = row;
  if (id === null || taskId === null || type === null || version === null || changes === null) return null;
  return { id, taskId, type, actorId, version, changes, isLost: isLost(row, type, changes, userId) };
}

/**
 * Somebody who is not the owner sees a task while it is assigned to them. What they are told of one that they do not
 * see now says no more than that it is gone, also when it happened while they saw it.
 */
function isLost({ user_id, assignee_id, deleted_at_ms }: FeedRow, type: string, changes: string, userId: number) {
  if (user_id === userId) return false;
  if (user_id === null || assignee_id !== userId || deleted_at_ms !== 0 || type === "task.deleted") return true;
  const { assignee_id: change } = JSON.parse(changes) as { assignee_id?: readonly [number | null, number | null] };
  return change !== undefined && change[0] === userId && change[1] !== userId;
}
