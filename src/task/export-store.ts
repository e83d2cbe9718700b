// Exports and their parts, as they are read.

import type { Kysely } from "kysely";
import type { TableStore } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import type { TaskTables } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";

export type ExportRow = TaskTables["task_export"];

/** A row of every store, of whatever service; see open-store.ts. */
interface StoreTables {
  readonly store: { readonly name: string; readonly value: unknown };
}

/** A user can have three at once; expired ones are kept for a week. */
const LISTED_MAX = 100;

export class ExportStore {
  readonly #db: Kysely<TaskTables>;
  readonly #facts: Kysely<StoreTables>;

  constructor(store: Pick<TableStore<TaskUnits>, "tables">) {
    this.#db = taskTables(store);
    this.#facts = store.tables as Kysely<StoreTables>;
  }

  /** Made with the store, kept by backups: whatever name a server is reached by, it is the same. */
  async storeId(): Promise<string> {
    const query = this.#facts.selectFrom("store").select("value").where("name", "=", "store_id");
    return `${(await query.executeTakeFirstOrThrow()).value}`;
  }

  async find(id: string): Promise<ExportRow | null> {
    return (await this.#db.selectFrom("task_export").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
  }

  /** Newest first. */
  list(userId: number): Promise<ExportRow[]> {
    const query = this.#db.selectFrom("task_export").selectAll().where("user_id", "=", userId);
    return query.orderBy("id", "desc").limit(LISTED_MAX).execute();
  }

  /** Null behind the last one, and when it has been removed meanwhile. */
  async part(exportId: string, seq: number): Promise<Uint8Array<ArrayBuffer> | null> {
    const row = await this.#db
      .selectFrom("task_export_part")
      .select("data")
      .where("export_id", "=", exportId)
      .where("seq", "=", seq)
      .executeTakeFirst();
    return (row?.data as Uint8Array<ArrayBuffer> | undefined) ?? null;
  }
}
