// Where a restore keeps the store from before, and how one that was killed on the way is told.

import { existsSync, linkSync, readdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { EXIT, ExitError } from "../shared/errors.ts";
import { inodeOf, type StoreFiles, utcStamp } from "./store-files.ts";
import { sync } from "./sync-path.ts";

/** What belongs to a database file; SQLite would take a log that lies there for that of the file that was restored. */
const BESIDE = ["-wal", "-shm", "-journal"] as const;
const KEPT_LOG = /^(.+\.before-\d{8}T\d{9}Z)-(?:wal|journal)$/;

/**
 * Moves what is left of the old store away, be it only a log. The name of the database file, if there is one, points to
 * the old store or to the new one at every instant. Returns where it is now; null when there was none.
 */
export function keepOldStore(files: StoreFiles, nowMs: number): string | null {
  const { database, directory } = files;
  const beside = BESIDE.filter((suffix) => existsSync(`${database}${suffix}`));
  const hasDatabase = existsSync(database);
  // One that was killed has moved the log already: both stay together.
  const begun = beside.some((suffix) => suffix !== "-shm") ? null : interruptedRestore(files);
  if (!hasDatabase && beside.length === 0 && begun === null) return null;
  const before = begun ?? `${database}.before-${utcStamp(nowMs)}`;
  if (hasDatabase && !existsSync(before)) linkSync(database, before);
  for (const suffix of beside) renameSync(`${database}${suffix}`, `${before}${suffix}`);
  // A power cut may take the new name of a log back, and leave that of the new database.
  sync(directory);
  return ["", ...BESIDE].map((suffix) => `${before}${suffix}`).find((path) => existsSync(path)) ?? null;
}

/**
 * Without its log the old store lacks what was acknowledged last.
 * @throws ExitError (4)
 */
export function refuseInterruptedRestore(files: StoreFiles): void {
  const kept = interruptedRestore(files);
  if (kept === null) return;
  throw new ExitError(
    EXIT.storeDamaged,
    `A restore was interrupted: it had moved the log of the old store to ${kept}-wal, without which that store is ` +
      "not complete. Nothing was changed. Run gokv restore FILE again.",
  );
}

/**
 * The name under which it has kept the log of the store that is still in place, or of one whose file was lost. Null
 * when there was none, or it came to its end.
 */
function interruptedRestore({ directory, database, restoring }: StoreFiles): string | null {
  const inode = inodeOf(database);
  for (const name of namesIn(directory)) {
    const keptName = KEPT_LOG.exec(name)?.[1];
    if (keptName === undefined || statSync(join(directory, name)).size === 0) continue;
    const kept = join(directory, keptName);
    const isSame = inode === inodeOf(kept);
    // Where the file was lost, only the draft tells that its place is still to be taken.
    if (isSame && (inode !== null || existsSync(restoring))) return kept;
  }
  return null;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // It is not there, or not for us to read: what comes next says so.
    return [];
  }
}
