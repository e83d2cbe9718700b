// A database file that a command is given: read together with its log, and never changed.

import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  realpathSync,
  type Stats,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { proveCopy } from "./backup-store.ts";
import { requireOurs, scanLog } from "./inspect-store.ts";
import { partialOf, removePartial } from "./partial-files.ts";
import { openAsItLies } from "./sqlite-connection.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { storeFiles } from "./store-files.ts";
import { StoreLock } from "./store-lock.ts";
import { type Verification, verifyStore } from "./verify-store.ts";

/** What SQLite would take into the database when it opens it. */
const LOGS = ["-wal", "-journal"] as const;

/** @throws ExitError (1) there is no such file */
export function requireFile(file: string): void {
  let stats: Stats | undefined;
  try {
    stats = statSync(file, { throwIfNoEntry: false });
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${file} cannot be read: ${codeOf(cause)}.`, { cause });
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
 * The verification of a file that no server has open.
 * @throws ExitError (1) it cannot be read, or is changed meanwhile, (4) it is not ours, or not sound
 */
export function verifyGiven(file: string): Verification {
  inspectGiven(file);
  if (LOGS.some((suffix) => sizeOf(`${file}${suffix}`) > 0)) return verifyCopy(file);
  const before = fingerprint(file);
  const verification = namingFile(file, () => {
    const database = openAsItLies(file);
    try {
      const found = verifyStore(database);
      if (found.problems.length === 0) return found;
      throw new ExitError(EXIT.storeDamaged, `${file} is damaged: ${found.problems.join("; ")}.`);
    } finally {
      database.close(true);
    }
  });
  requireUnchanged(file, before);
  return verification;
}

/** Only a connection that may write takes a log in, and that would change the file: hence a copy. */
function verifyCopy(file: string): Verification {
  const copy = partialOf(isWritable(dirname(file)) ? file : join(tmpdir(), basename(file)));
  try {
    return copyGiven(file, copy);
  } finally {
    removePartial(copy);
  }
}

/**
 * Copies `file`, which no server has open, with its log into the one file `copy`, and proves what came out.
 * @throws ExitError (1) it cannot be read or copied, or is changed meanwhile, (4) it is not ours, or not sound
 */
export function copyGiven(file: string, copy: string): Verification {
  requireFile(file);
  const before = fingerprint(file);
  inspectGiven(file);
  try {
    for (const suffix of ["", ...LOGS]) {
      const path = `${file}${suffix}`;
      if (suffix !== "" && sizeOf(path) === 0) continue;
      copyFileSync(path, `${copy}${suffix}`, constants.COPYFILE_EXCL);
      // With the content comes the mode, which may be that of a file for everybody, or for nobody to write.
      chmodSync(`${copy}${suffix}`, 0o600);
    }
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${file} cannot be copied to ${copy}: ${codeOf(cause)}.`, { cause });
  }
  requireUnchanged(file, before);
  return namingFile(file, () => proveCopy(copy, file));
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
  const wal = `${file}-wal`;
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
    const stats = statSync(`${file}${suffix}`, { bigint: true, throwIfNoEntry: false });
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

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? messageOf(error);
}
