// The write-ahead log stays within its limit, and is copied only where all of it finds room.

import { Database } from "bun:sqlite";
import { expect, spyOn, test } from "bun:test";
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freeBytesAt } from "../../src/storage/free-space.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { WalCheckpointer } from "../../src/storage/wal-checkpointer.ts";
import { has, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
const LIMIT_BYTES = 1_000_000;

/** A store with a checkpointer of its log; `write` puts that many bytes into it. */
async function storeWithLog(path: string, reserveBytes = 0) {
  const database = await openStore({ path, walLimitBytes: LIMIT_BYTES, databaseBytesMax: 0, isChecked: false });
  database.run("CREATE TABLE filler (value)");
  database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  const told = { full: 0 };
  const onFull = () => {
    told.full++;
  };
  const checkpointer = new WalCheckpointer(database, { limitBytes: LIMIT_BYTES, reserveBytes, onFull });
  return {
    database,
    checkpointer,
    told,
    write: (bytes: number) => database.run("INSERT INTO filler VALUES (zeroblob(?))", [bytes]),
  };
}

test("a log that has grown past its limit is copied and cut back with the next write", async () => {
  using dir = tempDir();
  const { database, checkpointer, write, told } = await storeWithLog(dir.file("gokv.db"));
  write(LIMIT_BYTES / 2);
  checkpointer.afterWrite();
  expect(checkpointer.usedBytes).toBeGreaterThan(LIMIT_BYTES / 2);
  write(LIMIT_BYTES / 2);
  checkpointer.afterWrite();
  expect([checkpointer.usedBytes, statSync(dir.file("gokv.db-wal")).size, told.full]).toEqual([0, 0, 0]);
  database.close(true);
});

test("a log that is idle for 30 s is copied and cut back; while it is read, once a second at most", async () => {
  using dir = tempDir();
  let nowMs = 0;
  const clock = spyOn(performance, "now").mockImplementation(() => nowMs);
  try {
    const { database, checkpointer, write } = await storeWithLog(dir.file("gokv.db"));
    const isCutAt = (ms: number) => {
      nowMs = ms;
      checkpointer.whenIdle();
      return checkpointer.usedBytes === 0 && statSync(dir.file("gokv.db-wal")).size === 0;
    };
    const writeAt = (ms: number) => {
      nowMs = ms;
      write(1000);
      checkpointer.afterWrite();
    };
    writeAt(1000);
    expect(isCutAt(1000)).toBe(false);
    writeAt(20_000);
    expect([isCutAt(31_000), isCutAt(49_999), isCutAt(50_000)]).toEqual([false, false, true]);
    writeAt(60_000);
    using reader = new Database(dir.file("gokv.db"), { readonly: true });
    reader.run("BEGIN");
    reader.query("SELECT * FROM store").all();
    expect(isCutAt(90_000)).toBe(false);
    reader.run("COMMIT");
    expect([isCutAt(90_999), isCutAt(91_000)]).toEqual([false, true]);
    reader.close();
    database.close(true);
  } finally {
    clock.mockRestore();
  }
});

if (has("root, to mount a small volume", isRoot())) {
  test("a log that finds no room is not copied by half", async () => {
    using volume = mountSmallVolume(2 * LIMIT_BYTES);
    const path = join(volume.path, "gokv.db");
    const { database, checkpointer, write, told } = await storeWithLog(path);
    write(LIMIT_BYTES / 2);
    const { size } = statSync(path);
    writeFileSync(join(volume.path, "other"), new Uint8Array(freeBytesAt(volume.path) - LIMIT_BYTES / 4));
    checkpointer.makeRoom();
    expect([statSync(path).size, told.full]).toEqual([size, 1]);
    checkpointer.afterWrite();
    expect([checkpointer.usedBytes > LIMIT_BYTES / 2, statSync(path).size, told.full]).toEqual([true, size, 2]);
    database.close(true);
  });

  test.each([
    ["is copied with each write where little room is left and there is no reserve", 32, 0, true],
    ["waits for more where there is much room", 128, 0, false],
    ["waits for more where there is a reserve", 32, 16 * MiB, false],
  ])("a log %s", async (_, volumeMiB, reserveBytes, isCopied) => {
    using volume = mountSmallVolume(volumeMiB * MiB);
    const path = join(volume.path, "gokv.db");
    const { database, checkpointer, write } = await storeWithLog(path, reserveBytes);
    const { size } = statSync(path);
    write(LIMIT_BYTES / 10);
    checkpointer.afterWrite();
    expect(statSync(path).size > size).toBe(isCopied);
    database.close(true);
  });
}
