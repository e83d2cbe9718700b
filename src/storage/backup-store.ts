// A consistent copy of a store that may be in use: copied page by page, proven, and only then given its name.

import { Database } from "bun:sqlite";
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { accessFailure, namingAccess } from "./access-failure.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { sync } from "./sync-path.ts";
import { type Verification, verifyStore } from "./verify-store.ts";

/** Pages per step; between two steps writes and reads go on. */
const STEP_PAGES = 1000;

export interface BackupReport {
  readonly file: string;
  readonly bytes: number;
  readonly revision: number;
  readonly entries: number;
  readonly serviceRows: number;
  readonly ms: number;
}

export interface BackupOptions {
  /** The database file of the store. */
  readonly source: string;
  /** Must not exist. */
  readonly target: string;
  /** Called after every step; what it throws gives the backup up. */
  readonly onStep?: (copiedPages: number, totalPages: number) => void;
}

/**
 * Everything committed before the call is in the copy. Given up or failed, it leaves no file behind.
 * @throws ExitError (1) the target exists or cannot be written, (4) the copy is not sound; whatever `onStep` throws
 */
export async function backupStore({ source, target, onStep }: BackupOptions): Promise<BackupReport> {
  const startMs = performance.now();
  if (existsSync(target)) throw new ExitError(EXIT.failed, `${target} exists already; a backup never overwrites.`);
  const draft = `${target}.partial-${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
  createDraft(draft, target);
  try {
    using pages = openPages(source);
    await copyPages(pages.database, draft, onStep);
    const { entries, serviceRows, revision } = proveCopy(draft);
    sync(draft);
    renameSync(draft, target);
    sync(dirname(target));
    return {
      file: target,
      bytes: statSync(target).size,
      revision,
      entries,
      serviceRows,
      ms: Math.round(performance.now() - startMs),
    };
  } catch (error) {
    throw accessFailure(target, error) ?? error;
  } finally {
    for (const suffix of ["", "-journal", "-wal", "-shm"]) rmSync(`${draft}${suffix}`, { force: true });
  }
}

/** Before SQLite is asked, which would only say that it cannot open the file, not why. */
function createDraft(draft: string, target: string): void {
  try {
    closeSync(openSync(draft, "wx", 0o600));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new ExitError(EXIT.failed, `${target} cannot be written: ${code}.`, { cause });
  }
}

/** @throws ExitError (1) this user may not read it */
function openPages(source: string): { readonly database: DatabaseSync } & Disposable {
  return namingAccess(source, () => {
    const database = new DatabaseSync(source, { readOnly: true });
    try {
      // An open read transaction pins the snapshot: otherwise each commit would start the copy over.
      database.exec("BEGIN");
      database.prepare("SELECT value FROM store WHERE name = 'last_revision'").get();
      return { database, [Symbol.dispose]: () => database.close() };
    } catch (error) {
      database.close();
      throw error;
    }
  });
}

/**
 * bun:sqlite has no backup API; node:sqlite is the same library in the same process, so it shares SQLite's locks. Each
 * step reaches the disk before the next: all at once in the end, 400 MB hold up every commit behind them for 100 ms.
 */
async function copyPages(database: DatabaseSync, draft: string, onStep: BackupOptions["onStep"]): Promise<void> {
  const descriptor = openSync(draft, "r");
  try {
    await backup(database, draft, {
      rate: STEP_PAGES,
      progress({ totalPages, remainingPages }) {
        fsyncSync(descriptor);
        onStep?.(totalPages - remainingPages, totalPages);
      },
    });
  } finally {
    closeSync(descriptor);
  }
}

function proveCopy(draft: string): Verification {
  const copy = new Database(draft, { readwrite: true });
  try {
    // The copy is one file: without this it would carry the mode of the source and need a log beside it.
    copy.run("PRAGMA journal_mode = DELETE");
    const verification = verifyStore(copy);
    if (verification.problems.length === 0) return verification;
    throw new ExitError(EXIT.storeDamaged, `The store is damaged: ${verification.problems.join("; ")}.`);
  } catch (error) {
    if (classifySqliteError(error) !== "damaged") throw error;
    throw new ExitError(EXIT.storeDamaged, `The store is damaged: ${messageOf(error)}.`);
  } finally {
    copy.close();
  }
}
