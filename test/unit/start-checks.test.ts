// What a start looks for before it takes a store over: in what the log holds too, and in a store that was killed.

import type { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { MiB } from "../../src/shared/bounds.ts";
import { EXIT } from "../../src/shared/errors.ts";
import type { Log } from "../../src/shared/log.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import type { Environment } from "../support/executable.ts";
import { QUIET } from "../support/job-rig.ts";
import { openStoreAt, THREAD_ENTRY } from "../support/own-store.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const PAGE_BYTES = 4096;

/** The files of a store that was killed when its log held what `act` did, and nothing else. */
async function killedAfter(dir: TempDir, bytes: number, act: (database: Database) => void): Promise<string> {
  const path = dir.file("gokv.db");
  const database = await openStore({ path, walLimitBytes: 64 * MiB, databaseBytesMax: 0, isChecked: false });
  if (bytes > 0) {
    database.run("CREATE TABLE filler (value)");
    database.run("INSERT INTO filler VALUES (zeroblob(?))", [bytes]);
  }
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  act(database);
  const data = dir.file("data");
  mkdirSync(data, { mode: 0o700 });
  for (const suffix of ["", "-wal"]) cpSync(`${path}${suffix}`, `${storeFiles(data).database}${suffix}`);
  database.close(true);
  return data;
}

test("a newer schema that only the log tells of is refused, and its number stays", async () => {
  using dir = tempDir();
  const data = await killedAfter(dir, 0, (database) => database.run("PRAGMA user_version = 99"));
  const opening = openStoreAt(data);
  await expect(opening).rejects.toMatchObject({ exitCode: EXIT.storeDamaged });
  await expect(opening).rejects.toThrow("has schema 99, written by a newer gokv");
  await expect(openStoreAt(data)).rejects.toThrow("has schema 99, written by a newer gokv");
});

/** The same of a store with `bytes` more in it, and its database file with a mistake that only a check finds. */
async function damagedAndKilled(dir: TempDir, bytes: number) {
  let rootPage = 0;
  const data = await killedAfter(dir, bytes, (database) => {
    const root = "SELECT rootpage FROM sqlite_schema WHERE name = 'kv'";
    rootPage = database.query<{ rootpage: number }, []>(root).get()!.rootpage;
    database.run("UPDATE store SET value = value + 1 WHERE name = 'last_revision'");
  });
  const { database, wal } = storeFiles(data);
  const damaged = readFileSync(database);
  damaged[(rootPage - 1) * PAGE_BYTES]! ^= 0xff;
  writeFileSync(database, damaged);
  return { data, database, wal, bytes: damaged };
}

test("a store of medium size is checked when it was killed, and not when it was closed", async () => {
  using dir = tempDir();
  const { data, database, wal, bytes } = await damagedAndKilled(dir, 20 * MiB);
  await expect(openStoreAt(data)).rejects.toMatchObject({ exitCode: EXIT.storeDamaged });
  writeFileSync(database, bytes);
  writeFileSync(wal, "");
  await using store = await openStoreAt(data);
  expect(store.figures.databaseBytes).toBe(bytes.length);
});

test("a larger store is checked when each start is to check, and else named as one that was not", async () => {
  using dir = tempDir();
  const { data, database, wal, bytes } = await damagedAndKilled(dir, 0);
  const log = readFileSync(wal);
  /** What it warns of, or how the start ends. */
  const start = async (sizeBytes: number, env: Environment) => {
    writeFileSync(database, bytes);
    writeFileSync(wal, log);
    // The rest is a hole, which SQLite does not look at.
    truncateSync(database, sizeBytes);
    const warnings: unknown[] = [];
    const warn: Log["warn"] = (message, properties) => void warnings.push([message, properties]);
    try {
      await using _ = await openStoreAt(data, { SERVICES: "kv", RESERVE_BYTES: "0", ...env }, THREAD_ENTRY, {
        ...QUIET,
        warn,
      });
      return warnings;
    } catch (error) {
      return (error as { exitCode: number }).exitCode;
    }
  };
  const largest = 64 * MiB;
  const larger = largest + PAGE_BYTES;
  const skipped = [expect.stringContaining("gokv check"), { bytes: larger }];
  expect(await start(larger, {})).toEqual([skipped]);
  expect(await start(larger, { STARTUP_CHECK: "never" })).toEqual([]);
  expect(await start(larger, { STARTUP_CHECK: "always" })).toBe(EXIT.storeDamaged);
  expect(await start(largest, {})).toBe(EXIT.storeDamaged);
});
