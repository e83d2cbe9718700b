// A database file that a command is given: read together with its log, and never changed.

import {
  accessSync,
  type BigIntStats,
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  realpathSync,
  type Stats,
  statSync,
} from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { makeOneFile, proveCopy } from "./backup-store.ts";
import { requireOurs, scanLog } from "./inspect-store.ts";
import { partialOf } from "./partial-files.ts";
import { openAsItLies } from "./sqlite-connection.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { storeFiles } from "./store-files.ts";
import { StoreLock } from "./store-lock.ts";
import { openAndUnlink } from "./store-snapshot.ts";
import { type Verification, verifyStore } from "./verify-store.ts";

/** What SQLite would take into the database when it opens it. */
const LOGS = ["-wal", "-journal"] as const;

/** @throws ExitError (1) there is no such file */
export function requireFile(file: string): void {
  let stats: Stats | undefined;
  try {
    stats = statSync(file, { throwIfNoEntry: false });
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${file} cannot be read: ${fileReason(cause)}.`, { cause });
  }
  if (stats === undefined) throw new ExitError(EXIT.failed, `${file} does not exist.`);
  if (stats.isDirectory()) {
    throw new ExitError(EXIT.failed, `${file} is a directory. Name a file in it, for instance gokv.db.`);
  }
  if (!stats.isFile()) throw new ExitError(EXIT.failed, `${file} is no regular file.`);
}

/**
 * The directory of the store that `file` is the database of, by whatever path. Null when it stands alone, or where
 * nobody can write, and so no server runs: a copy of a directory that was mounted.
 */
export function storeAround(file: string): string | null {
  const path = realpathSync(file);
  const files = storeFiles(dirname(path));
  return basename(path) === basename(files.database) && existsSync(files.lock) && isWritable(files.directory)
    ? files.directory
    : null;
}

/**
 * The verification of a file that no server has open and that has no log.
 * @throws ExitError (1) it cannot be read, or is changed meanwhile, (4) it is not ours, or no database
 */
export function verifyGiven(file: string): Verification {
  inspectGiven(file);
  const before = fingerprint(file);
  const verification = namingFile(file, () => {
    const database = openAsItLies(file);
    try {
      return verifyStore(database);
    } finally {
      database.close(true);
    }
  });
  requireUnchanged(file, before);
  return verification;
}

/**
 * Whether `file` can only be verified as a copy: taking a log in needs a connection that may write, which would change
 * the file.
 */
export function hasLog(file: string): boolean {
  return LOGS.some((suffix) => logBytesOf(besideFile(file, suffix)) > 0);
}

/** Where such a copy may be made. */
export function copyOf(file: string): string {
  return partialOf(isWritable(dirname(file)) ? file : join(tmpdir(), basename(file)));
}

/** The verification of `copy`, which copyGiven has made of `file`. It is removed before it is read. */
export function verifyCopy(file: string, copy: string): Verification {
  return namingFile(file, () => {
    makeOneFile(copy);
    const database = openAndUnlink(copy);
    try {
      return verifyStore(database);
    } finally {
      database.close(true);
    }
  });
}

/** Takes the log of a copy in, and proves it. @throws ExitError (4) it is not sound */
export function proveGiven(file: string, copy: string): Verification {
  return namingFile(file, () => proveCopy(copy, file));
}

/**
 * Copies `file`, which no server has open, and its log.
 * @throws ExitError (1) it cannot be read or copied, or is changed meanwhile, (4) it is not ours, or its log is damaged
 */
export async function copyGiven(file: string, copy: string): Promise<void> {
  requireFile(file);
  const before = fingerprint(file);
  inspectGiven(file);
  try {
    for (const suffix of ["", ...LOGS]) {
      const path = besideFile(file, suffix);
      if (suffix !== "" && logBytesOf(path) === 0) continue;
      await copyFile(path, `${copy}${suffix}`, constants.COPYFILE_EXCL);
      // With the content comes the mode, which may be that of a file for everybody, or for nobody to write.
      chmodSync(`${copy}${suffix}`, 0o600);
    }
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${file} cannot be copied to ${copy}: ${fileReason(cause)}.`, { cause });
  }
  requireUnchanged(file, before);
}

/**
 * Holds the lock of the store that `file` is the database of, so that nobody writes to it; null when it stands alone.
 * @throws ExitError (3) a server has it open
 */
export function lockGiven(file: string): StoreLock | null {
  const directory = storeAround(file);
  if (directory === null) return null;
  const lock = StoreLock.tryAcquire(storeFiles(directory).lock);
  if (lock !== null) return lock;
  throw new ExitError(
    EXIT.storeInUse,
    `${file} is the store of a gokv that runs. Copy it with gokv backup (DB_PATH=${directory}), and take the copy.`,
  );
}

function inspectGiven(file: string): void {
  requireFile(file);
  requireOurs(file);
  const wal = besideFile(file, "-wal");
  const { lostCommits } = scanLog(wal) ?? { lostCommits: 0 };
  if (lostCommits === 0) return;
  throw new ExitError(
    EXIT.storeDamaged,
    `The write-ahead log ${wal} is damaged: ${lostCommits} acknowledged transactions would be lost. Nothing was ` +
      "changed. Take another backup; or, to go on without them, move both files into a directory of their own as " +
      "gokv.db and gokv.db-wal, and start there once with WAL_DAMAGE=accept.",
  );
}

/** Whatever SQLite finds wrong with a file that was given is told as its damage. */
function namingFile<T>(file: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof ExitError) throw error;
    if (classifySqliteError(error) === "full") {
      throw new ExitError(EXIT.failed, `There is no space left to read ${file}: a copy of it is needed.`);
    }
    throw new ExitError(EXIT.storeDamaged, `${file} is damaged: ${messageOf(error)}.`, { cause: error });
  }
}

/** Tells whether the database or its log was written to in the meantime. */
function fingerprint(file: string): string {
  const parts = ["", ...LOGS].map((suffix) => {
    const stats = statsOf(besideFile(file, suffix));
    return stats === undefined ? "" : `${stats.ino} ${stats.size} ${stats.mtimeNs}`;
  });
  return parts.join();
}

function requireUnchanged(file: string, before: string): void {
  if (fingerprint(file) === before) return;
  throw new ExitError(
    EXIT.failed,
    `${file} was changed while it was read: a program has it open. Copy a store that is in use with gokv backup.`,
  );
}

/** Of a link SQLite keeps the log where that leads. */
function besideFile(file: string, suffix: string): string {
  const path = lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() ? realpathSync(file) : file;
  return `${path}${suffix}`;
}

function logBytesOf(path: string): number {
  return Number(statsOf(path)?.size ?? 0);
}

/** @throws ExitError (1) a link in a circle, or a directory, is in the place of the file */
function statsOf(path: string): BigIntStats | undefined {
  let stats: BigIntStats | undefined;
  try {
    stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${path} cannot be read: ${fileReason(cause)}.`, { cause });
  }
  if (!stats?.isDirectory()) return stats;
  throw new ExitError(EXIT.failed, `${path} is a directory, where the log of a database would be. Move it away.`);
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
