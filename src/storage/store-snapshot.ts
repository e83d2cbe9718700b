// A store to be read at leisure by a command: the store itself when nobody has it open, else a private copy of it.

import type { Database } from "bun:sqlite";
import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { EXIT, ExitError } from "../shared/errors.ts";
import { backupStore } from "./backup-store.ts";
import { inspectStore, requireOurs } from "./inspect-store.ts";
import { openForReading } from "./sqlite-connection.ts";
import { refuseFile, type StoreFiles, storeFiles } from "./store-files.ts";
import { StoreLock } from "./store-lock.ts";

export class StoreSnapshot implements Disposable {
  /** In a read transaction: everything it shows belongs to one revision. */
  readonly database: Database;
  readonly #lock: StoreLock | null;
  readonly #copy: string | null;

  private constructor(database: Database, lock: StoreLock | null, copy: string | null) {
    this.database = database;
    this.#lock = lock;
    this.#copy = copy;
    database.run("BEGIN");
  }

  /**
   * Beside a running server a long snapshot would let its log grow without bound: hence the copy.
   * @throws ExitError (1) there is no store, (4) it is damaged or not ours
   */
  static async open(directory: string): Promise<StoreSnapshot> {
    const files = requireStore(directory);
    const lock = StoreLock.tryAcquire(files.lock);
    if (lock === null) {
      const copy = join(directory, `snapshot-${crypto.randomUUID()}.db`);
      await backupStore({ source: files.database, target: copy });
      return new StoreSnapshot(openForReading(copy), null, copy);
    }
    try {
      inspectStore(files, "refuse");
      return new StoreSnapshot(openForReading(files.database), lock, null);
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.database.close();
    if (this.#copy !== null) rmSync(this.#copy, { force: true });
    this.#lock?.[Symbol.dispose]();
  }
}

/**
 * What a copy made of the store could not show afterwards: that it is not ours, or that its log, which no server has
 * open, was damaged and the copy lacks what lies behind. The log of a running server was looked at when that began.
 * @throws ExitError (1) the directory cannot be written, (4) damage, or not ours
 */
export function inspectBeforeCopy(files: StoreFiles): void {
  requireOurs(files.database);
  if ((statSync(files.wal, { throwIfNoEntry: false })?.size ?? 0) === 0) return;
  using lock = StoreLock.tryAcquire(files.lock);
  if (lock !== null) inspectStore(files, "refuse");
}

/** @throws ExitError (1) */
export function requireStore(directory: string): StoreFiles {
  const files = storeFiles(directory);
  if (existsSync(files.database)) return files;
  refuseFile(directory);
  throw new ExitError(EXIT.failed, `There is no store in ${directory}. Set DB_PATH to the data directory of one.`);
}
