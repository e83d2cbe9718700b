// The names of everything in the data directory, in one place.

import { existsSync, lstatSync, realpathSync, type Stats, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { makeDirectory } from "./sync-path.ts";

/**
 * `database`, `wal`, `shm` and `lock` must never be opened through a file API by a process that has
 * opened them through SQLite: closing any descriptor drops the process's POSIX locks, another process may then delete
 * the write-ahead log, and acknowledged writes are gone (https://sqlite.org/howtocorrupt.html, section 2.2).
 */
export interface StoreFiles {
  readonly directory: string;
  readonly database: string;
  readonly wal: string;
  readonly shm: string;
  readonly lock: string;
  /** Real bytes, given up when the volume is full so that deletes and the checkpoint have room. */
  readonly reserve: string;
  /** What a restore makes before it takes the place of `database`. */
  readonly restoring: string;
  readonly devSecret: string;
}

export function storeFiles(directory: string): StoreFiles {
  const database = join(directory, "gokv.db");
  return {
    directory,
    database,
    wal: `${database}-wal`,
    shm: `${database}-shm`,
    lock: join(directory, "lock.db"),
    reserve: join(directory, "reserve"),
    restoring: `${database}.restoring`,
    devSecret: join(directory, "dev-secret"),
  };
}

const WORKED_WITH =
  /^(gokv\.db(\.restoring)?(-wal|-shm|-journal)?|gokv\.db\.restored-.+|lock\.db(-journal)?|reserve(\.new)?)$/;

/** Whether `path` has the name of a file which whoever opens the store may change or remove. */
export function isWorkedWith({ directory }: StoreFiles, path: string): boolean {
  if (!WORKED_WITH.test(basename(path))) return false;
  try {
    return realpathSync(dirname(path)) === realpathSync(directory);
  } catch {
    // One of them is not there: what comes next says so.
    return false;
  }
}

/** A time for file names, sortable, without characters that shells or Windows shares dislike: `20260102T030405678Z`. */
export function utcStamp(nowMs: number): string {
  return new Date(nowMs).toISOString().replace(/[-:.]/g, "");
}

/** @throws ExitError (1) */
export function refuseFile(directory: string): void {
  if (!existsSync(directory) || !statSync(directory).isFile()) return;
  throw new ExitError(EXIT.failed, `${directory} is a file. Set DB_PATH to the directory that holds the store.`);
}

/** @throws ExitError (1) it cannot be made, or holds something that only has the name of a file of a store */
export function prepareDirectory(files: StoreFiles): void {
  const { directory } = files;
  refuseFile(directory);
  try {
    makeDirectory(directory);
  } catch (error) {
    throw new ExitError(
      EXIT.failed,
      `The data directory ${directory} cannot be made: ${messageOf(error)}. Set DB_PATH to a directory you may write.`,
    );
  }
  requirePlainFiles(files);
}

/**
 * SQLite follows a link to the database and keeps its log where that leads, out of sight of all that looks for it here;
 * and from the other end of it another server could open the same store under a lock of its own.
 * @throws ExitError (1)
 */
export function requirePlainFiles(files: StoreFiles): void {
  const { database, wal, shm, restoring, lock } = files;
  for (const path of [database, wal, shm, `${database}-journal`, restoring, lock]) {
    const stats = entryAt(path);
    if (stats === undefined || stats.isFile()) continue;
    if (stats.isSymbolicLink()) {
      throw new ExitError(
        EXIT.failed,
        `${path} is a link, but a store is more than one file. Link its directory instead, or set DB_PATH to the ` +
          "directory that holds the file itself.",
      );
    }
    const what = stats.isDirectory() ? "a directory" : "no regular file";
    throw new ExitError(
      EXIT.failed,
      `${path} is ${what}, where a store has a file. Move it away, or set DB_PATH to another directory.`,
    );
  }
}

/** Undefined as well in a directory that this user may not enter, of which others tell. */
function entryAt(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Null when there is no such file. */
export function inodeOf(path: string): bigint | null {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? null;
}

/** In bytes; 0 when there is no such file, or something else in its place: none of ours is a link. */
export function sizeOf(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats?.isFile() ? stats.size : 0;
}
