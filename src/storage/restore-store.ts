// Puts a backup in the place of a store, and keeps the old one.

import { Database } from "bun:sqlite";
import { copyFileSync, existsSync, linkSync, renameSync, rmSync } from "node:fs";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { accessFailure, namingAccess } from "./access-failure.ts";
import { requireOurs } from "./inspect-store.ts";
import { readLastRevision } from "./kv-rows.ts";
import { openForReading, openForWriting } from "./sqlite-connection.ts";
import { type StoreFiles, utcStamp } from "./store-files.ts";
import { sync } from "./sync-path.ts";
import { type Verification, verifyStore } from "./verify-store.ts";

/** No ETag of the old store, not even one given out after the backup, may ever come back. */
const REVISION_LEAP = 1_000_000_000;

export interface RestoreReport {
  readonly entries: number;
  readonly serviceRows: number;
  readonly revision: number;
  /** Where the old store is now; null when there was none. */
  readonly before: string | null;
}

/**
 * To be called by the holder of the store lock. The old store stays in place until the new one is complete and synced.
 * @throws ExitError (1) `file` cannot be read, (4) it is no sound store
 */
export function restoreStore(file: string, files: StoreFiles, nowMs: number): RestoreReport {
  const verification = verifyFile(file);
  const draft = `${files.database}.restoring`;
  try {
    namingAccess(files.database, () => copyFileSync(file, draft));
    const old = existsSync(files.database) ? settleOldStore(files) : null;
    const revision = Math.max(verification.revision, old?.revision ?? 0) + REVISION_LEAP;
    writeRevision(draft, revision);
    sync(draft);
    const before = old === null ? null : `${files.database}.before-${utcStamp(nowMs)}`;
    if (before !== null) keepOldStore(files, before);
    renameSync(draft, files.database);
    sync(files.directory);
    return { entries: verification.entries, serviceRows: verification.serviceRows, revision, before };
  } finally {
    for (const suffix of ["", "-journal", "-wal", "-shm"]) rmSync(`${draft}${suffix}`, { force: true });
  }
}

/** @throws ExitError (1) cannot be read, (4) not ours or not sound */
export function verifyFile(file: string): Verification {
  if (!existsSync(file)) throw new ExitError(EXIT.failed, `${file} does not exist.`);
  requireOurs(file);
  try {
    const database = openForReading(file);
    try {
      const verification = verifyStore(database);
      if (verification.problems.length === 0) return verification;
      throw new ExitError(EXIT.storeDamaged, `${file} is damaged: ${verification.problems.join("; ")}.`);
    } finally {
      database.close(true);
    }
  } catch (error) {
    if (error instanceof ExitError) throw error;
    const refusal = accessFailure(file, error);
    if (refusal !== null) throw refusal;
    throw new ExitError(EXIT.storeDamaged, `${file} is damaged: ${messageOf(error)}.`);
  }
}

/** Empties the log of the old store, so that one file holds it all, if SQLite can still read it. */
function settleOldStore(files: StoreFiles): { revision: number } {
  try {
    const database = openForWriting(files.database, 0);
    try {
      const revision = readLastRevision(database);
      database.run("PRAGMA wal_checkpoint(TRUNCATE)");
      return { revision };
    } finally {
      database.close(true);
    }
  } catch {
    // Damaged: that is what one restores for. Its files are kept as they are.
    return { revision: 0 };
  }
}

/** The name of the database file points to the old store or to the new one at every instant. */
function keepOldStore(files: StoreFiles, before: string): void {
  linkSync(files.database, before);
  for (const suffix of ["-wal", "-shm"]) {
    if (existsSync(`${files.database}${suffix}`)) renameSync(`${files.database}${suffix}`, `${before}${suffix}`);
  }
  sync(files.directory);
}

function writeRevision(path: string, revision: number): void {
  const database = new Database(path, { readwrite: true });
  try {
    database.run("PRAGMA journal_mode = DELETE");
    database.run("UPDATE store SET value = ? WHERE name = 'last_revision'", [revision]);
  } finally {
    database.close(true);
  }
}
