// The names of everything in the data directory, in one place.

import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
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

/** A time for file names, sortable, without characters that shells or Windows shares dislike: `20260102T030405678Z`. */
export function utcStamp(nowMs: number): string {
  return new Date(nowMs).toISOString().replace(/[-:.]/g, "");
}

/** @throws ExitError (1) */
export function refuseFile(directory: string): void {
  if (!existsSync(directory) || !statSync(directory).isFile()) return;
  throw new ExitError(EXIT.failed, `${directory} is a file. Set DB_PATH to the directory that holds the store.`);
}

/** @throws ExitError (1) */
export function prepareDirectory(directory: string): void {
  refuseFile(directory);
  try {
    makeDirectory(directory);
  } catch (error) {
    throw new ExitError(
      EXIT.failed,
      `The data directory ${directory} cannot be made: ${messageOf(error)}. Set DB_PATH to a directory you may write.`,
    );
  }
}
