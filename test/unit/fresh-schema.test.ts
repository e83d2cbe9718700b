// A store that is created and one that was brought up to date, version by version, have the same tables.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { kyselyOver } from "../../src/storage/kysely-sqlite.ts";
import { MIGRATIONS } from "../../src/storage/migrations.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { schemaVersion } from "../../src/storage/sqlite-connection.ts";
import { makeOld } from "../support/old-store.ts";
import { tempDir } from "../support/temp-dir.ts";

const SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";

const OPTIONS = { walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false };

/** A store of the first version with one row in it. */
async function oldStore(): Promise<string> {
  const path = tempDir().file("gokv.db");
  const database = await openStore({ path, ...OPTIONS });
  database.run("INSERT INTO kv_bucket (name, entries, bytes) VALUES ('old', 1, 2)");
  database.close(true);
  makeOld(path);
  return path;
}

test("a new store has the tables, indexes and version that the migrations lead to", async () => {
  const migrated = new Database(":memory:");
  const tables = kyselyOver<unknown>(migrated);
  for (const { up } of MIGRATIONS) await up(tables);
  const store = await openStore({ path: tempDir().file("gokv.db"), ...OPTIONS });
  expect(store.query(SCHEMA).all()).toEqual(migrated.query(SCHEMA).all());
  expect(schemaVersion(store)).toBe(MIGRATIONS.length);
  store.close();
});

test("a new store carries the mark of the program, an id of its own, its time, and no revision", async () => {
  const ids = new Set<string>();
  for (const path of [tempDir().file("gokv.db"), tempDir().file("gokv.db")]) {
    const fromMs = Date.now();
    const store = await openStore({ path, ...OPTIONS });
    const toMs = Date.now();
    const rows = store.query<{ name: string; value: unknown }, []>("SELECT name, value FROM store").all();
    store.close(true);
    const { created_at: createdAtMs, ...facts } = Object.fromEntries(rows.map(({ name, value }) => [name, value]));
    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    expect(facts).toEqual({ last_revision: 0, store_id: expect.stringMatching(uuid) });
    expect([(createdAtMs as number) >= fromMs, (createdAtMs as number) <= toMs]).toEqual([true, true]);
    ids.add(facts.store_id as string);
    // Where the header of a SQLite file has the application id: "gokv".
    expect(readFileSync(path).readUInt32BE(68)).toBe(0x676f6b76);
  }
  expect(ids.size).toBe(2);
});

test("migrations leave no rows in a store that was empty, so that the schema is all there is to make", async () => {
  const migrated = new Database(":memory:");
  const tables = kyselyOver<unknown>(migrated);
  for (const { up } of MIGRATIONS) await up(tables);
  const names = migrated.query<{ name: string }, []>("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
  const filled = names.filter(({ name }) => migrated.query(`SELECT 1 FROM "${name}" LIMIT 1`).get() !== null);
  expect(filled).toEqual([]);
});

test("a store of the first version is brought to the schema of a new one, and keeps its rows", async () => {
  const fresh = await openStore({ path: tempDir().file("gokv.db"), ...OPTIONS });
  const store = await openStore({ path: await oldStore(), ...OPTIONS });
  expect(store.query(SCHEMA).all()).toEqual(fresh.query(SCHEMA).all());
  expect(schemaVersion(store)).toBe(MIGRATIONS.length);
  expect(store.query("SELECT * FROM kv_bucket").all()).toEqual([
    { name: "old", entries: 1, bytes: 2, wiped_revision: 0 },
  ]);
  fresh.close();
  store.close();
});

test("a webhook of a store from before it had a rank gets that of a new one", async () => {
  const path = tempDir().file("gokv.db");
  const fresh = await openStore({ path, ...OPTIONS });
  fresh.run(`INSERT INTO task_webhook (id, user_id, url, events, secret, active, failures, pending, created_at_ms,
    updated_at_ms) VALUES ('h', 1, 'https://example.org', '[]', '', 1, 0, 0, 0, 0)`);
  fresh.run("ALTER TABLE task_webhook DROP COLUMN job_priority");
  // Of the migration behind it.
  fresh.run("DROP INDEX task_delivery_by_message; ALTER TABLE task_delivery DROP COLUMN message_id");
  fresh.run("DROP TABLE task_message");
  fresh.run(`PRAGMA user_version = ${MIGRATIONS.findIndex(({ name }) => name === "task-webhook-priority")}`);
  fresh.close(true);
  const store = await openStore({ path, ...OPTIONS });
  expect(store.query("SELECT id, job_priority FROM task_webhook").all()).toEqual([{ id: "h", job_priority: 1 }]);
  store.close();
});

test("when one of several migrations fails, none of them has happened", async () => {
  const path = await oldStore();
  using before = new Database(path);
  // In the way of a later one, behind others that succeed.
  before.run("CREATE TABLE relay_token (x)");
  const schema = before.query(SCHEMA).all();
  before.close();
  await expect(openStore({ path, ...OPTIONS })).rejects.toThrow("relay_token");
  using after = new Database(path);
  expect([after.query(SCHEMA).all(), schemaVersion(after)]).toEqual([schema, 1]);
});
