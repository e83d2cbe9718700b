// A store to be read at leisure by a command: the store itself when nobody has it open, else a private copy of it.

import type { Database } from "bun:sqlite";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { EXIT, ExitError } from "../shared/errors.ts";
import { namingAccess } from "./access-failure.ts";
import { backupStore } from "./backup-store.ts";
import { inspectStore } from "./inspect-store.ts";
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
      return new StoreSnapshot(
        namingAccess(copy, () => openForReading(copy)),
        null,
        copy,
      );
    }
    try {
      inspectStore(files, "refuse");
      const database = namingAccess(files.database, () => openForReading(files.database));
      return new StoreSnapshot(database, lock, null);
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

/** @throws ExitError (1) */
export function requireStore(directory: string): StoreFiles {
  const files = storeFiles(directory);
  if (existsSync(files.database)) return files;
  refuseFile(directory);
  throw new ExitError(EXIT.failed, `There is no store in ${directory}. Set DB_PATH to the data directory of one.`);
}
