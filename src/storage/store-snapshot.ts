// A store to be read at leisure by a command: the store itself when nobody has it open, else a private copy of it.

import type { Database } from "bun:sqlite";
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { EXIT, ExitError } from "../shared/errors.ts";
import { namingAccess } from "./access-failure.ts";
import { backUpInThread } from "./backup-client.ts";
import { inspectStore, requireOurs, requireTables } from "./inspect-store.ts";
import { refuseInterruptedRestore } from "./kept-store.ts";
import { removePartial } from "./partial-files.ts";
import { openAsItLies, openForReading, schemaVersion } from "./sqlite-connection.ts";
import type { StartThread } from "./start-thread.ts";
import { refuseFile, requirePlainFiles, type StoreFiles, sizeOf, storeFiles } from "./store-files.ts";
import { StoreLock } from "./store-lock.ts";

interface SnapshotOptions {
  /** What the copy is called, should one be needed, and until it is proven; for who is interrupted meanwhile. */
  readonly copy: string;
  readonly draft: string;
  readonly walLimitBytes: number;
  readonly startThread: StartThread;
}

export class StoreSnapshot implements Disposable {
  /** In a read transaction: everything it shows belongs to one revision. */
  readonly database: Database;
  readonly #lock: StoreLock | null;

  private constructor(database: Database, lock: StoreLock | null) {
    this.database = database;
    this.#lock = lock;
    database.run("BEGIN");
  }

  /**
   * Beside a running server a long snapshot would let its log grow without bound: hence the copy. Its file has no name
   * any more when this returns, so that nothing is left of it however the process ends.
   * @throws ExitError (1) there is no store, (4) it is damaged or not ours
   */
  static async open(directory: string, options: SnapshotOptions): Promise<StoreSnapshot> {
    const files = requireStore(directory);
    const lock = StoreLock.tryAcquire(files.lock);
    if (lock === null) {
      const { copy, draft, walLimitBytes, startThread } = options;
      const cancelled = new SharedArrayBuffer(4);
      const job = { source: files.database, target: copy, draft, walLimitBytes, cancelled };
      await backUpInThread(startThread, job);
      return new StoreSnapshot(openAndUnlink(copy), null);
    }
    try {
      inspectStore(files, "refuse");
      // Nobody writes while the lock is held. Without a log nothing has to be made beside the database to read it.
      const open = hasLog(files) ? openForReading : openAsItLies;
      const database = namingAccess(files.database, () => open(files.database));
      try {
        requireTables(files.database, schemaVersion(database));
      } catch (error) {
        database.close();
        throw error;
      }
      return new StoreSnapshot(database, lock);
    } catch (error) {
      lock[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.database.close();
    this.#lock?.[Symbol.dispose]();
  }
}

/** A connection to a database of one file that nobody else will ever open. */
export function openAndUnlink(path: string): Database {
  try {
    return namingAccess(path, () => openForReading(path));
  } finally {
    removePartial(path);
  }
}

/**
 * What a copy made of the store could not show afterwards: that it is not ours, or that its log, which no server has
 * open, was damaged and the copy lacks what lies behind. The log of a running server was looked at when that began.
 * @throws ExitError (1) the directory cannot be written, (4) damage, or not ours
 */
export function inspectBeforeCopy(files: StoreFiles): void {
  requireOurs(files.database);
  refuseInterruptedRestore(files);
  if (sizeOf(files.wal) === 0) return;
  using lock = StoreLock.tryAcquire(files.lock);
  if (lock !== null) inspectStore(files, "refuse");
}

/** @throws ExitError (1) there is none, (4) its database file was lost */
export function requireStore(directory: string): StoreFiles {
  const files = storeFiles(directory);
  requirePlainFiles(files);
  if (existsSync(files.database)) return files;
  refuseFile(directory);
  refuseClosed(directory);
  inspectStore(files, "refuse");
  throw new ExitError(EXIT.failed, `There is no store in ${directory}. Set DB_PATH to the data directory of one.`);
}

function hasLog({ database, wal }: StoreFiles): boolean {
  return [wal, `${database}-journal`].some((path) => sizeOf(path) > 0);
}

/** In a directory that this user may not enter there seems to be nothing. */
function refuseClosed(directory: string): void {
  try {
    accessSync(directory, constants.X_OK);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EACCES") return;
    throw new ExitError(EXIT.failed, `${directory} may not be read by this user${ownerOf(directory)}.`, { cause });
  }
}

function ownerOf(directory: string): string {
  try {
    const { uid } = statSync(directory);
    return ` (${process.getuid?.()}): it belongs to user ${uid}. Run the command as that one`;
  } catch {
    // One of those above it is closed, too.
    return "";
  }
}
