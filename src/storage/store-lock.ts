// One process per store: an exclusive SQLite lock on a file of its own, which the kernel frees when the holder dies.

import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { giveToOwnerOfDirectory } from "./file-owner.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import type { StoreFiles } from "./store-files.ts";

function adviceOn(error: unknown): string {
  return classifySqliteError(error) === "full"
    ? "There is no space left: free some and try again."
    : "Check owner and rights of the data directory (DB_PATH).";
}

function foreignLock(path: string, cause: unknown): ExitError {
  return new ExitError(
    EXIT.failed,
    `${path} is not the lock of a store: it holds something else (${messageOf(cause)}). While no gokv has the ` +
      "directory open, delete it: a lock holds nothing, and the next start makes a new one.",
    { cause },
  );
}

/**
 * Held until disposed. Keep the object in a field of whatever owns the store: an unreferenced Database is
 * garbage-collected, and its lock vanishes without an error.
 */
export class StoreLock implements Disposable {
  readonly #database: Database;

  private constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Null when another process holds the lock.
   * @throws ExitError (1) when the directory cannot be written
   */
  static tryAcquire(path: string): StoreLock | null {
    let database: Database | undefined;
    try {
      const isNew = !existsSync(path);
      database = new Database(path, { create: true, readwrite: true });
      database.run("PRAGMA busy_timeout = 0");
      database.run("BEGIN EXCLUSIVE");
      if (isNew) giveToOwnerOfDirectory(path);
      return new StoreLock(database);
    } catch (error) {
      database?.close();
      if (classifySqliteError(error) === "busy") return null;
      if (classifySqliteError(error) === "damaged") throw foreignLock(path, error);
      throw new ExitError(EXIT.failed, `${path} cannot be written (${messageOf(error)}). ${adviceOn(error)}`, {
        cause: error,
      });
    }
  }

  /** @throws ExitError (1) the directory cannot be written, (3) another process holds the lock */
  static acquire(files: StoreFiles): StoreLock {
    const lock = StoreLock.tryAcquire(files.lock);
    if (lock !== null) return lock;
    throw new ExitError(
      EXIT.storeInUse,
      `Another gokv has ${files.directory} open. Stop it, or set DB_PATH to another data directory.`,
    );
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
