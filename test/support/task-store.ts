// A real store for tests of what the task service keeps in it, with its own storage thread.

import type { Selectable } from "kysely";
import type { JobTables } from "../../src/jobs/job-tables.ts";
import type { TableStore } from "../../src/storage/unit-of-work.ts";
import type { ItemFields } from "../../src/task/item-rules.ts";
import type { TaskTables } from "../../src/task/task-tables.ts";
import type { TaskUnits } from "../../src/task/task-units.ts";
import { alterStore } from "./alter-store.ts";
import { openOwnStore } from "./own-store.ts";

type Tables = TaskTables & JobTables;

export interface TaskStore extends AsyncDisposable {
  readonly store: TableStore<TaskUnits>;
  readonly dbPath: string;
  /** Rows of a table, all of them. */
  rows<Name extends keyof Tables>(table: Name): Promise<Selectable<Tables[Name]>[]>;
  /** Users by these names, with the ids from 1 on. */
  addUsers(...names: readonly string[]): Promise<void>;
}

export async function openTaskStore(): Promise<TaskStore> {
  const own = await openOwnStore();
  const store = own.sqlite;
  const db = store.tables.withTables<Tables>();
  return {
    store,
    dbPath: own.dbPath,
    rows: async (table) =>
      (await db
        .selectFrom(table as "task_item")
        .selectAll()
        .execute()) as never,
    async addUsers(...names) {
      const values = names.map((name) => `('${name}', '${name}@x', '${name}', '${name}@x', '', 0, 0, 0)`);
      await alterStore(
        own.dbPath,
        `INSERT INTO task_user (username, email, username_key, email_key, password_hash, token_version, created_at_ms,
         updated_at_ms) VALUES ${values.join(", ")}`,
      );
    },
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

export const ITEM_FIELDS: ItemFields = {
  title: "A task",
  description: "",
  status: "pending",
  priority: "medium",
  dueAtMs: null,
  remindAtMs: null,
  assigneeId: null,
  labels: [],
};
