// A store that is created and one that was brought up to date, version by version, have the same tables.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { kyselyOver } from "../../src/storage/kysely-sqlite.ts";
import { MIGRATIONS } from "../../src/storage/migrations.ts";
import { openStore, schemaVersion } from "../../src/storage/open-store.ts";
import { tempDir } from "../support/temp-dir.ts";

const SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";

async function created(): Promise<Database> {
  const path = tempDir().file("gokv.db");
  return openStore({ path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false });
}

test("a new store has the tables, indexes and version that the migrations lead to", async () => {
  const migrated = new Database(":memory:");
  const tables = kyselyOver<unknown>(migrated);
  for (const { up } of MIGRATIONS) await up(tables);
  const store = await created();
  expect(store.query(SCHEMA).all()).toEqual(migrated.query(SCHEMA).all());
  expect(schemaVersion(store)).toBe(MIGRATIONS.length);
  store.close();
});

test("migrations leave no rows in a store that was empty, so that the schema is all there is to make", async () => {
  const migrated = new Database(":memory:");
  const tables = kyselyOver<unknown>(migrated);
  for (const { up } of MIGRATIONS) await up(tables);
  const names = migrated.query<{ name: string }, []>("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
  const filled = names.filter(({ name }) => migrated.query(`SELECT 1 FROM "${name}" LIMIT 1`).get() !== null);
  expect(filled).toEqual([]);
});
