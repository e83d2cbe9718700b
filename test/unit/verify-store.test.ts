// What a check of a store reports when there is much to report.

import type { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { monotonicMs } from "../../src/shared/clock.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { verifyStore } from "../../src/storage/verify-store.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { testWriter } from "../support/test-guard.ts";

/** A store with one value in each of so many buckets, b0 and on. */
async function storeOf(dir: TempDir, buckets: number): Promise<Database> {
  const path = dir.file("gokv.db");
  const database = await openStore({ path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false });
  const writer = testWriter(database);
  const rest = { contentType: null, metadata: null, ttlMs: null, creatorIp: null, condition: null };
  const names = Array.from({ length: buckets }, (_, n) => `b${n}`);
  writer.apply(
    names.map((bucket) => ({ kind: "put", bucket, key: "k", value: new Uint8Array(1), ...rest }) as const),
    monotonicMs(),
  );
  expect(verifyStore(database).problems).toEqual([]);
  return database;
}

test("no more than twenty problems are told, of values and counters together", async () => {
  using dir = tempDir();
  const database = await storeOf(dir, 30);
  database.run("UPDATE kv SET checksum = checksum + 1 WHERE id <= 5");
  database.run("UPDATE kv_bucket SET entries = entries + 1");
  const { problems } = verifyStore(database);
  expect(problems).toHaveLength(20);
  expect(problems.filter((text) => text.startsWith("damaged value"))).toHaveLength(5);
  database.close(true);
});

test("a value whose revision was not given out yet is told, and so is a bucket that has no counters", async () => {
  using dir = tempDir();
  const database = await storeOf(dir, 3);
  database.run("UPDATE store SET value = 2 WHERE name = 'last_revision'");
  expect(verifyStore(database).problems).toEqual(['revision 3 from the future: "b2" "k"']);
  database.run("UPDATE store SET value = 3 WHERE name = 'last_revision'");
  database.run("DELETE FROM kv_bucket WHERE name = 'b1'");
  expect(verifyStore(database).problems).toEqual(['no counters of bucket "b1"']);
  database.close(true);
});
