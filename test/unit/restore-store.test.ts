// What a restore makes of files that others have left, or are changing.

import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { EXIT } from "../../src/shared/errors.ts";
import { copyGiven } from "../../src/storage/given-file.ts";
import { openStore } from "../../src/storage/open-store.ts";
import { restoreStore } from "../../src/storage/restore-store.ts";
import { storeFiles } from "../../src/storage/store-files.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

async function makeBackup(dir: TempDir): Promise<string> {
  const path = dir.file("backup.db");
  const options = { path, walLimitBytes: 1_000_000, databaseBytesMax: 0, isChecked: false };
  (await openStore(options)).close(true);
  return path;
}

test("what a restore that was killed has left is no part of the next one", async () => {
  using dir = tempDir();
  const files = storeFiles(dir.file("data"));
  mkdirSync(files.directory);
  for (const suffix of ["", "-wal"]) writeFileSync(`${files.restoring}${suffix}`, "junk".repeat(10_000));
  const report = await restoreStore(await makeBackup(dir), files, Date.now());
  expect(report).toMatchObject({ entries: 0, before: null });
  expect(readdirSync(files.directory)).toEqual(["gokv.db"]);
});

test("a file that is changed while it is copied is refused", async () => {
  using dir = tempDir();
  const backup = await makeBackup(dir);
  const copying = copyGiven(backup, dir.file("copy.db"));
  utimesSync(backup, 1, 1);
  await expect(copying).rejects.toMatchObject({ exitCode: EXIT.failed });
  await expect(copying).rejects.toThrow("was changed while it was read");
});
