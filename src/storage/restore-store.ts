// Puts a backup in the place of a store, and keeps the old one.

import { Database } from "bun:sqlite";
import { existsSync, realpathSync } from "node:fs";
import { basename } from "node:path";
import { EXIT, ExitError } from "../shared/errors.ts";
import { giveToOwnerOfDirectory } from "./file-owner.ts";
import { copyGiven, lockGiven, proveGiven, requireFile } from "./given-file.ts";
import { inspectStore } from "./inspect-store.ts";
import { emptyReady, interruptedRestore, type KeptStore, removeReady, replaceStore } from "./kept-store.ts";
import { readLastRevision } from "./kv-rows.ts";
import { leapCounters, REVISION_LEAP } from "./leap-counters.ts";
import { removePartial } from "./partial-files.ts";
import { openAsItLies, openForWriting } from "./sqlite-connection.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { isWorkedWith, type StoreFiles } from "./store-files.ts";
import { sync } from "./sync-path.ts";

/** For those that came while the thread was held up. */
const SIGNALS_HEARD_MS = 5;

interface RestoreReport {
  readonly entries: number;
  readonly serviceRows: number;
  readonly revision: number;
  /** Where the old store is now; null when there was none. */
  readonly before: KeptStore | null;
}

/**
 * To be called by the holder of the store lock. The old store stays in place until the new one is complete, proven and
 * synced.
 * @throws ExitError (1) `file` cannot be read, (3) a server has it open, (4) it is no sound store
 */
export async function restoreStore(file: string, files: StoreFiles, nowMs: number): Promise<RestoreReport> {
  requireOther(file, files);
  using _ = lockGiven(file);
  const draft = files.restoring;
  // Of a restore that was killed: SQLite would take its log for that of the new one.
  removePartial(draft);
  emptyReady(files);
  try {
    await copyGiven(file, draft);
    const { entries, serviceRows, revision: backedUp } = proveGiven(file, draft);
    // A signal that came meanwhile is heard now; from here on nothing gets between.
    await Bun.sleep(SIGNALS_HEARD_MS);
    const revision = Math.max(backedUp, lastRevisionIn(files)) + REVISION_LEAP;
    writeRevision(draft, revision, backedUp);
    giveToOwnerOfDirectory(draft);
    sync(draft);
    return { entries, serviceRows, revision, before: replaceStore(files, nowMs) };
  } finally {
    removePartial(draft);
    removeReady(files);
  }
}

/** It would be lost on the way, and reading the lock through the file API would drop it. */
function requireOther(file: string, files: StoreFiles): void {
  requireFile(file);
  const path = realpathSync(file);
  if (!isWorkedWith(files, path)) return;
  const what = basename(path) === basename(files.database) ? "the store itself" : "a file that the store works with";
  throw new ExitError(EXIT.failed, `${file} is ${what}. Name a backup of it, or set DB_PATH to another store.`);
}

/** Of the old store, wherever it is; 0 where there was none. */
function lastRevisionIn(files: StoreFiles): number {
  if (existsSync(files.database)) return settleOldStore(files);
  const before = interruptedRestore(files);
  return before === null ? 0 : revisionAsItLies(before);
}

/**
 * Empties the log of the old store, so that one file holds it all. One that is damaged or not ours is not touched:
 * SQLite would empty the log of what lies behind the damage too. Returns the last revision.
 */
function settleOldStore(files: StoreFiles): number {
  try {
    inspectStore(files, "refuse");
    const database = openForWriting(files.database, 0);
    try {
      database.run("PRAGMA wal_checkpoint(TRUNCATE)");
      return readLastRevision(database);
    } finally {
      database.close(true);
    }
  } catch {
    return revisionAsItLies(files.database);
  }
}

/** Without the log, but still behind the leap of every restore before this one. */
function revisionAsItLies(path: string): number {
  try {
    const database = openAsItLies(path);
    try {
      const revision = readLastRevision(database);
      return Number.isSafeInteger(revision) ? revision : 0;
    } finally {
      database.close(true);
    }
  } catch {
    return 0;
  }
}

/**
 * No ETag or id of the old store, not even one given out after the backup, may ever come back. Other counters leap as
 * often as the revision does, so that a backup that is restored twice never leads to the same numbers.
 */
function writeRevision(path: string, revision: number, backedUp: number): void {
  const database = new Database(path, { readwrite: true });
  try {
    // A draft that fails is removed: a journal would only need room for every task once more.
    database.run("PRAGMA journal_mode = OFF");
    database.transaction(() => {
      database.run("UPDATE store SET value = ? WHERE name = 'last_revision'", [revision]);
      leapCounters(database, Math.round((revision - backedUp) / REVISION_LEAP));
    })();
  } catch (cause) {
    if (classifySqliteError(cause) !== "full") throw cause;
    throw new ExitError(EXIT.failed, `There is no space left to write ${path}.`, { cause });
  } finally {
    database.close(true);
  }
}
