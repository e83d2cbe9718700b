// What the write units of the relay share: its tables, and the version that tells other nodes of a change.

import type { Kysely } from "kysely";
import { tablesOf, type UnitOfWork } from "../storage/unit-of-work.ts";
import type { RelayTables } from "./relay-tables.ts";

/** Counts the changes of channels and tokens; their usage is none. For nodes that share a store: one alone knows. */
const VERSION_NAME = "version";

export function relayTables({ tables }: Pick<UnitOfWork, "tables">): Kysely<RelayTables> {
  return tablesOf<RelayTables>(tables);
}

/** To be called by every unit that changes a channel or a token. */
export async function bumpVersion(db: Kysely<RelayTables>): Promise<void> {
  const { numUpdatedRows } = await db
    .updateTable("relay_meta")
    .set((build) => ({ value: build("value", "+", 1) }))
    .where("name", "=", VERSION_NAME)
    .executeTakeFirst();
  if (numUpdatedRows === 0n) await db.insertInto("relay_meta").values({ name: VERSION_NAME, value: 1 }).execute();
}
