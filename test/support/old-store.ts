// Turns a store that nobody has open into one as the first version left it: with the KV tables alone.

import { Database } from "bun:sqlite";

const FIRST_VERSION = 1;
const FIRST_TABLES: readonly string[] = ["kv", "kv_bucket", "store"];

export function makeOld(databasePath: string): void {
  using database = new Database(databasePath);
  database.run("PRAGMA foreign_keys = OFF");
  const tables = database
    .query<{ name: string }, []>(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'",
    )
    .all();
  for (const { name } of tables) if (!FIRST_TABLES.includes(name)) database.run(`DROP TABLE "${name}"`);
  database.run(`PRAGMA user_version = ${FIRST_VERSION}`);
}
