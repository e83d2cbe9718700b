// Finds the tasks that are likely to be read next: the newest ones of those who were active last.

import { SCANS_OF, type TableStore } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import type { TaskUnits } from "./task-units.ts";
import { type Db, SLICE_ROWS } from "./visible-task-store.ts";

const USERS_MAX = 200;
/** The feed is looked through this far back. */
const SLICES_MAX = 20;

export class WarmingStore {
  readonly #db: Db;
  readonly #scans: Db;

  constructor(store: Pick<TableStore<TaskUnits>, "tables" | "scansFor">) {
    this.#db = taskTables(store);
    this.#scans = taskTables({ tables: store.scansFor(SCANS_OF.server, null) });
  }

  async hasTasks(): Promise<boolean> {
    return (await this.#db.selectFrom("task_head").select("user_id").limit(1).executeTakeFirst()) !== undefined;
  }

  /** Users whose tasks have changed, the most recent first. */
  async activeUsers(signal: AbortSignal): Promise<readonly number[]> {
    const users = new Set<number>();
    let beforeMs = Number.MAX_SAFE_INTEGER;
    for (let slice = 0; slice < SLICES_MAX && users.size < USERS_MAX && !signal.aborted; slice++) {
      const rows = await this.#scans
        .selectFrom("task_feed")
        .select(["user_id", "at_ms"])
        .where("at_ms", "<", beforeMs)
        .orderBy("at_ms", "desc")
        .limit(SLICE_ROWS)
        .execute();
      for (const { user_id } of rows) users.add(user_id);
      if (rows.length < SLICE_ROWS) break;
      beforeMs = rows.at(-1)!.at_ms;
    }
    return [...users].slice(0, USERS_MAX);
  }
}
