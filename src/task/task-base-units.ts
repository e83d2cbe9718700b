// What the write units of the task service share: its tables.

import type { Kysely } from "kysely";
import { tablesOf, type UnitOfWork } from "../storage/unit-of-work.ts";
import type { TaskTables } from "./task-tables.ts";

export function taskTables({ tables }: Pick<UnitOfWork, "tables">): Kysely<TaskTables> {
  return tablesOf<TaskTables>(tables);
}
