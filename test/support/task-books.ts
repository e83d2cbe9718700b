// What must hold between the rows of tasks after anything that happens: each is what its events say, and everything
// that hangs on an event is there.

import { Database } from "bun:sqlite";
import { storeFiles } from "../../src/storage/store-files.ts";
import type { TaskLoad } from "./task-load.ts";

interface Row {
  readonly id: number;
  readonly user_id: number;
  readonly assignee_id: number | null;
  readonly title: string;
  readonly due_at_ms: number;
  readonly remind_at_ms: number | null;
  readonly deleted_at_ms: number;
  readonly version: number;
}

interface EventRow {
  readonly id: number;
  readonly task_id: number;
  readonly type: string;
  readonly version: number;
  readonly changes: string;
}

type Change = readonly [from: unknown, to: unknown];

/** Of one moment, read beside the server or after it has ended. */
export class TaskBooks {
  readonly #database: Database;
  readonly #items: Map<number, Row>;
  readonly #events: readonly (EventRow & { readonly parsed: Record<string, Change> })[];

  private constructor(database: Database) {
    this.#database = database;
    this.#items = new Map(this.#all<Row>("SELECT * FROM task_item").map((row) => [row.id, row]));
    this.#events = this.#all<EventRow>("SELECT * FROM task_event ORDER BY id").map((row) => ({
      ...row,
      parsed: JSON.parse(row.changes) as Record<string, Change>,
    }));
  }

  /** Returns what is wrong; empty when nothing is. The reminders must not have come due. */
  static mistakes(dbPath: string, load: TaskLoad): string[] {
    using database = new Database(storeFiles(dbPath).database, { readonly: true });
    database.run("PRAGMA busy_timeout = 5000");
    database.run("BEGIN");
    const books = new TaskBooks(database);
    return [
      ...books.#missing(load),
      ...books.#itemMistakes(),
      ...books.#feedMistakes(),
      ...books.#jobMistakes(),
      ...books.#keyMistakes(),
    ];
  }

  /** What was answered and is not there. */
  #missing({ changes, deletedIds, commentIds }: TaskLoad): string[] {
    const titles = new Map(
      this.#events
        .filter(({ parsed }) => parsed.title !== undefined)
        .map(({ task_id, version, parsed }) => [`${task_id} v${version}`, parsed.title![1]]),
    );
    const comments = new Set(this.#all<{ id: number }>("SELECT id FROM task_comment").map(({ id }) => id));
    return [
      ...changes
        .filter(({ taskId, version, title }) => titles.get(`${taskId} v${version}`) !== title)
        .map(({ taskId, version, title }) => `"${title}" is not version ${version} of task ${taskId}`),
      ...deletedIds
        .filter((id) => (this.#items.get(id)?.deleted_at_ms ?? 0) === 0)
        .map((id) => `task ${id} was deleted and is there`),
      ...commentIds.filter((id) => !comments.has(id)).map((id) => `comment ${id} is missing`),
    ];
  }

  /** A task is what its events add up to, and has as many versions. */
  #itemMistakes(): string[] {
    const told = new Map<number, { versions: number[]; state: Record<string, unknown>; comments: unknown[] }>();
    for (const { task_id, type, version, parsed } of this.#events) {
      const task = told.get(task_id) ?? { versions: [], state: {}, comments: [] };
      told.set(task_id, task);
      if (type === "comment.created") task.comments.push(parsed.comment_id![1]);
      else {
        task.versions.push(version);
        for (const [member, [, to]] of Object.entries(parsed)) task.state[member] = to;
      }
    }
    const hanging = (sql: string) =>
      Map.groupBy(this.#all<{ task_id: number; it: unknown }>(sql), (row) => row.task_id);
    const labels = hanging("SELECT task_id, label AS it FROM task_label ORDER BY label_key");
    const comments = hanging("SELECT task_id, id AS it FROM task_comment ORDER BY id");
    const expected = [...told].map(([id, { versions, state, comments: ids }]) => [
      id,
      versions.map((_, index) => index + 1),
      versions.length,
      state.title,
      state.labels ?? [],
      ids,
      state.assignee_id ?? null,
      msOf(state.due_date) ?? 9e15,
      msOf(state.remind_at),
      state.deleted === true,
    ]);
    const found = [...this.#items.values()].map((row) => [
      row.id,
      told.get(row.id)?.versions,
      row.version,
      row.title,
      (labels.get(row.id) ?? []).map(({ it }) => it),
      (comments.get(row.id) ?? []).map(({ it }) => it),
      row.assignee_id,
      row.due_at_ms,
      row.remind_at_ms,
      row.deleted_at_ms !== 0,
    ]);
    return differences("tasks", found, expected);
  }

  /** Each event once in the feed of everybody it is for, without a gap in anybody's numbers; heads count right. */
  #feedMistakes(): string[] {
    const assignees = new Map<number, unknown>();
    const expected = this.#events.flatMap(({ id, task_id, parsed }) => {
      const [from, to] = parsed.assignee_id ?? [assignees.get(task_id), assignees.get(task_id)];
      assignees.set(task_id, to);
      const people = new Set([this.#items.get(task_id)?.user_id, from, to].filter((person) => person != null));
      return [...people].map((person) => [person, id]);
    });
    const feed = this.#all<{ user_id: number; rev: number; event_id: number }>(
      "SELECT user_id, rev, event_id FROM task_feed ORDER BY user_id, rev",
    );
    const heads = this.#all<{ user_id: number; rev: number; item_count: number }>("SELECT * FROM task_head");
    const owned = Map.groupBy(this.#items.values(), ({ user_id }) => user_id);
    const revs = Map.groupBy(feed, ({ user_id }) => user_id);
    return [
      ...differences(
        "feeds",
        feed.map(({ user_id, event_id }) => [user_id, event_id]),
        expected,
      ),
      ...heads
        .filter(({ user_id, rev, item_count }) => {
          const numbers = (revs.get(user_id) ?? []).map((row) => row.rev);
          const isWhole = numbers.length === rev && numbers.every((number, index) => number === index + 1);
          return !isWhole || item_count !== (owned.get(user_id)?.length ?? 0);
        })
        .map(({ user_id }) => `the head of user ${user_id} does not fit feed and tasks`),
    ];
  }

  /** A job for each time that was set, and no other. */
  #jobMistakes(): string[] {
    const expected = this.#events.flatMap(({ task_id, parsed: { remind_at, due_date } }) => [
      ...(remind_at?.[1] == null ? [] : [[`task.reminder:${task_id}:${msOf(remind_at[1])}`]]),
      ...(due_date?.[1] == null ? [] : [[`task.overdue:${task_id}:${msOf(due_date[1])}`]]),
    ]);
    const found = this.#all<{ dedup_key: string }>(
      "SELECT dedup_key FROM job WHERE kind LIKE 'task.%' AND owner_id > 0",
    );
    return differences(
      "jobs",
      found.map(({ dedup_key }) => [dedup_key]),
      expected,
    );
  }

  /** Each task was made by one request with a key, whose answer names it. */
  #keyMistakes(): string[] {
    const answers = this.#all<{ it: number }>("SELECT json_extract(response, '$.id') AS it FROM task_idempotency");
    return differences(
      "answers",
      answers.map(({ it }) => [it]),
      [...this.#items.keys()].map((id) => [id]),
    );
  }

  #all<T>(sql: string): T[] {
    return this.#database.query<T, []>(sql).all();
  }
}

function msOf(time: unknown): number | null {
  return typeof time === "string" ? Date.parse(time) : null;
}

/** Of two lists whose order does not count; one that is there twice must be there twice. */
function differences(what: string, found: readonly unknown[], expected: readonly unknown[]): string[] {
  const counts = new Map<string, number>();
  for (const each of expected) counts.set(JSON.stringify(each), (counts.get(JSON.stringify(each)) ?? 0) + 1);
  for (const each of found) counts.set(JSON.stringify(each), (counts.get(JSON.stringify(each)) ?? 0) - 1);
  return [...counts]
    .filter(([, count]) => count !== 0)
    .map(([text, n]) => `${what}: ${n > 0 ? "no" : "too many"} ${text}`);
}
