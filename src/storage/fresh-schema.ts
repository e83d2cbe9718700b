// The schema as all migrations leave it, for stores that are created: found out when the program is built.

import { Database } from "bun:sqlite";
import { kyselyOver } from "./kysely-sqlite.ts";
import { MIGRATIONS } from "./migrations.ts";

/**
 * A macro: its call is replaced by the text it resolves to. To build some sixty statements at each first start would
 * take a third of it. Migrations change no rows but of stores that were there before.
 */
export async function freshSchema(): Promise<string> {
  const database = new Database(":memory:");
  const tables = kyselyOver<unknown>(database);
  for (const { up } of MIGRATIONS) await up(tables);
  // What SQLite makes for itself has a reserved name, or no text at all.
  const made = database.query<{ sql: string }, []>(
    "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid",
  );
  return made
    .all()
    .map(({ sql }) => `${sql};\n`)
    .join("");
}
