// What the write units of the task service share: its tables.

import type { Kysely } from "kysely";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import type { TaskTables } from "./task-tables.ts";

export function taskTables({ tables }: Pick<UnitOfWork, "tables">): Kysely<TaskTables> {
  return tables.withTables<TaskTables>() as unknown as Kysely<TaskTables>;
}
