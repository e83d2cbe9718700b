// Carries a restored store beyond every number that the lost one can have given out after its backup was made.

import type { Database } from "bun:sqlite";

/** Of the revision, and of whatever entity tags, events and live streams are numbered by. */
export const REVISION_LEAP = 1_000_000_000;
/** Of ids that people read and type. */
const ID_LEAP = 1_000_000;

interface Counter {
  readonly table: string;
  /** One parameter: how far to leap. */
  readonly sql: string;
}

/**
 * What services count besides ids; a new counter that clients hold on to belongs here. Not here: what is random, what
 * is counted in memory, and what only tells processes that have the store open of a change (`relay_meta`, `job.fence`).
 */
const COUNTERS: readonly Counter[] = [
  // The entity tag of a task. Its history keeps the versions it had.
  { table: "task_item", sql: "UPDATE task_item SET version = version + ?" },
  // Entity tags of lists and sums, and ids of live streams. Feeds stay behind, further than a stream goes back: whoever
  // comes with an id of the lost store is told to read everything anew.
  { table: "task_head", sql: "UPDATE task_head SET rev = rev + ?" },
  // Who had none at the backup may have been given one by the lost store, from 1 on.
  {
    table: "task_head",
    sql: `INSERT INTO task_head (user_id, rev, item_count) SELECT id, ?, 0 FROM task_user
      WHERE deleted_at_ms IS NULL AND id NOT IN (SELECT user_id FROM task_head)`,
  },
];

/** Nobody types them, and a busy store makes a million of them in a day. */
const EVENT_TABLE = "task_event";

/** `leaps`: of the revision, counted from the backup. To be called in a transaction. */
export function leapCounters(database: Database, leaps: number): void {
  for (const { table, sql } of COUNTERS) {
    if (hasTable(database, table)) database.run(sql, [leaps * REVISION_LEAP]);
  }
  // SQLite makes it with the first table whose ids are never used again.
  if (!hasTable(database, "sqlite_sequence")) return;
  // A table that was empty at the backup, and ever before, has no row yet.
  database.run(`INSERT INTO sqlite_sequence (name, seq) SELECT name, 0 FROM sqlite_schema
    WHERE type = 'table' AND sql LIKE '%autoincrement%' AND name NOT IN (SELECT name FROM sqlite_sequence)`);
  database.run("UPDATE sqlite_sequence SET seq = seq + iif(name = ?, ?, ?)", [
    EVENT_TABLE,
    leaps * REVISION_LEAP,
    leaps * ID_LEAP,
  ]);
}

function hasTable(database: Database, name: string): boolean {
  // SQLite's own tables stand in it too.
  return database.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?").get(name) !== null;
}
