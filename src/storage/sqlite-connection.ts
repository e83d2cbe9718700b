// How every SQLite connection of the program is opened: which pragmas, for whom.

import { constants, Database } from "bun:sqlite";
import { pathToFileURL } from "node:url";
import { EXIT, ExitError } from "../shared/errors.ts";

/** First release without the WAL-reset bug, by which a checkpoint could lose commits (https://sqlite.org/wal.html). */
const SQLITE_VERSION_MIN = [3, 51, 3] as const;

export const PAGE_BYTES = 4096;

/** The one connection that writes. Checkpoints and lock waits are decided by the storage thread, not by SQLite. */
export function openForWriting(path: string, walLimitBytes: number): Database {
  const database = new Database(path, { create: true, readwrite: true, strict: true });
  for (const pragma of [
    `page_size = ${PAGE_BYTES}`,
    "busy_timeout = 0",
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 0",
    `journal_size_limit = ${walLimitBytes}`,
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "mmap_size = 0",
    "cache_size = -16384",
  ]) {
    database.run(`PRAGMA ${pragma}`);
  }
  return database;
}

/** A connection that can only read. Each statement sees one snapshot; none may stay open across an await. */
export function openForReading(path: string): Database {
  const database = new Database(path, { readonly: true, strict: true });
  for (const pragma of ["busy_timeout = 0", "trusted_schema = OFF", "mmap_size = 0", "cache_size = -8192"]) {
    database.run(`PRAGMA ${pragma}`);
  }
  return database;
}

/**
 * A database that nobody else has open, without its log: nothing is locked and nothing is made beside it, so that it
 * may lie where nobody can write.
 */
export function openAsItLies(path: string): Database {
  const flags = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;
  const database = new Database(`${pathToFileURL(path).href}?immutable=1`, flags);
  for (const pragma of ["trusted_schema = OFF", "mmap_size = 0", "cache_size = -8192"]) {
    database.run(`PRAGMA ${pragma}`);
  }
  return database;
}

export function schemaVersion(database: Database): number {
  return database.query<{ user_version: number }, []>("PRAGMA user_version").get()!.user_version;
}

/** @throws ExitError (1) on a SQLite that is known to lose commits */
export function requireSafeSqlite(): string {
  const database = new Database(":memory:");
  const { version } = database.query<{ version: string }, []>("SELECT sqlite_version() AS version").get()!;
  database.close();
  const parts = version.split(".").map(Number);
  for (const [index, minimum] of SQLITE_VERSION_MIN.entries()) {
    const part = parts[index] ?? 0;
    if (part > minimum) break;
    if (part < minimum) {
      throw new ExitError(
        EXIT.failed,
        `SQLite ${version} can lose commits; ${SQLITE_VERSION_MIN.join(".")} is needed.`,
      );
    }
  }
  return version;
}
