// A consistent copy of a store that may be in use: copied page by page, proven, and only then given its name.

import { Database } from "bun:sqlite";
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { accessFailure, namingAccess } from "./access-failure.ts";
import { giveToOwnerOfStore } from "./file-owner.ts";
import { requireTables } from "./inspect-store.ts";
import { partialOf, removePartial } from "./partial-files.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { sizeOf } from "./store-files.ts";
import { sync } from "./sync-path.ts";
import { tryLink } from "./try-link.ts";
import { adviceOn, type Verification, verifyStore } from "./verify-store.ts";

/** Pages per step; between two steps writes and reads go on. */
const STEP_PAGES = 1000;
/** While a copy is made the log cannot restart. Past this many times its limit the copy is given up instead. */
const WAL_LIMITS_MAX = 4;

/** Called after every step; what it throws gives the copy up. */
type OnStep = (copiedPages: number, totalPages: number) => void;

export interface BackupReport {
  readonly file: string;
  readonly bytes: number;
  readonly revision: number;
  readonly entries: number;
  readonly serviceRows: number;
  readonly ms: number;
}

interface BackupOptions {
  /** The database file of the store. */
  readonly source: string;
  /** Must not exist. */
  readonly target: string;
  /** Where the copy grows until it is proven, for who wants to remove it himself; see partialOf. */
  readonly draft?: string | undefined;
  readonly onStep?: OnStep;
}

/**
 * Everything committed before the call is in the copy. Given up or failed, it leaves no file behind.
 * @throws ExitError (1) the target exists or cannot be written, (4) the copy is not sound; whatever `onStep` throws
 */
export async function backupStore({
  source,
  target,
  draft = partialOf(target),
  onStep,
}: BackupOptions): Promise<BackupReport> {
  const startMs = performance.now();
  if (existsSync(target)) throw existsAlready(target);
  createDraft(draft, target);
  try {
    giveToOwnerOfStore(draft, source);
    using pages = openPages(source);
    await copyPages(pages.database, draft, onStep);
    const { entries, serviceRows, revision } = proveCopy(draft, "The store", adviceOn);
    sync(draft);
    const { size: bytes } = statSync(draft);
    giveName(draft, target);
    sync(dirname(target));
    return {
      file: target,
      bytes,
      revision,
      entries,
      serviceRows,
      ms: Math.round(performance.now() - startMs),
    };
  } catch (error) {
    throw accessFailure(target, error) ?? error;
  } finally {
    removePartial(draft);
  }
}

/** To be called after every step of a copy of `source`. @throws ExitError (1) when too much is written meanwhile */
export function logGuard(source: string, walLimitBytes: number): () => void {
  const walBytes = () => sizeOf(`${source}-wal`);
  // What lies there already is none of its doing.
  const bytesMax = Math.max(WAL_LIMITS_MAX * walLimitBytes, walBytes());
  return () => {
    if (walBytes() <= bytesMax) return;
    throw new ExitError(
      EXIT.failed,
      "Too much was written while the store was copied; try again when there is less load.",
    );
  };
}

/** A rename would take the place of a file that has appeared meanwhile. @throws ExitError (1) there is one */
function giveName(draft: string, target: string): void {
  try {
    if (tryLink(draft, target)) {
      rmSync(draft);
      return;
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "EEXIST" ? existsAlready(target) : error;
  }
  if (existsSync(target)) throw existsAlready(target);
  renameSync(draft, target);
}

function existsAlready(target: string): ExitError {
  return new ExitError(EXIT.failed, `${target} exists already; a backup never overwrites.`);
}

/** Without this a copy would carry the mode of its source and need a log beside it. */
export function makeOneFile(path: string): void {
  const copy = new Database(path, { readwrite: true });
  try {
    copy.run("PRAGMA journal_mode = DELETE");
  } finally {
    copy.close(true);
  }
}

/** Before SQLite is asked, which would only say that it cannot open the file, not why. */
function createDraft(draft: string, target: string): void {
  try {
    closeSync(openSync(draft, "wx", 0o600));
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${target} cannot be written: ${fileReason(cause)}.`, { cause });
  }
}

/** @throws ExitError (1) this user may not read it */
function openPages(source: string): { readonly database: DatabaseSync } & Disposable {
  return namingAccess(source, () => {
    const database = new DatabaseSync(source, { readOnly: true });
    try {
      const { user_version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
      requireTables(source, user_version);
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
async function copyPages(database: DatabaseSync, draft: string, onStep: OnStep | undefined): Promise<void> {
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

/**
 * Takes the log of a finished copy into its one file, and reads all of it. `subject` is what it is a copy of, `advise`
 * what to do about the problems of that.
 * @throws ExitError (4) it is not sound
 */
export function proveCopy(
  path: string,
  subject: string,
  advise: (problems: readonly string[]) => string = () => "",
): Verification {
  const copy = new Database(path, { readwrite: true });
  try {
    copy.run("PRAGMA journal_mode = DELETE");
    const verification = verifyStore(copy);
    const { problems } = verification;
    if (problems.length === 0) return verification;
    throw new ExitError(EXIT.storeDamaged, `${subject} is damaged: ${problems.join("; ")}.${advise(problems)}`);
  } catch (error) {
    if (classifySqliteError(error) !== "damaged") throw error;
    throw new ExitError(EXIT.storeDamaged, `${subject} is damaged: ${messageOf(error)}.`);
  } finally {
    copy.close();
  }
}
