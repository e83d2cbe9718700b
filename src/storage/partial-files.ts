// Copies that are being made: what they are called until they are finished, and how they are removed.

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { namingAccess } from "./access-failure.ts";
import { requireOurs } from "./inspect-store.ts";
import { removeFile } from "./remove-file.ts";

/** What SQLite may leave beside a database. */
const SUFFIXES = ["", "-journal", "-wal", "-shm"] as const;
const PUT_ASIDE = /^import-[0-9a-f-]{36}\.ndjson$/;
const PARTIAL = /\.partial-(\d+)-[0-9a-f]{8}$/;
/**
 * The number of a process says nothing of one in another container; that nobody writes to the file any more does. A
 * copy is written all the time until it is proven, which takes minutes where the store is very large.
 */
const ABANDONED_AFTER_MS = 60 * 60 * 1000;

/** A name beside `target` that nobody else uses; it tells which process is at work. */
export function partialOf(target: string): string {
  return `${target}.partial-${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
}

/** The database `path` and whatever lies beside it. */
export function removePartial(path: string): void {
  for (const suffix of SUFFIXES) removeFile(`${path}${suffix}`);
}

/** What an import that came through a pipe is called while it is read. */
export function putAsideIn(directory: string): string {
  return join(directory, `import-${crypto.randomUUID()}.ndjson`);
}

/** Only the holder of the lock puts anything aside: what lies there now was left by one that was killed. */
export function removePutAside(directory: string): void {
  const names = namingAccess(directory, () => readdirSync(directory)).filter((name) => PUT_ASIDE.test(name));
  for (const name of names) removeFile(join(directory, name));
}

/** Copies of stores in `directory` that were left by processes which were killed. What cannot be removed stays. */
export function removeAbandoned(directory: string, nowMs: number): void {
  try {
    for (const name of readdirSync(directory)) {
      const pid = PARTIAL.exec(name)?.[1];
      if (pid !== undefined) removeIfAbandoned(join(directory, name), Number(pid), nowMs);
    }
  } catch {
    // It is not there, or not for us to read: then we have left nothing in it.
  }
}

function removeIfAbandoned(path: string, pid: number, nowMs: number): void {
  try {
    // In a container every server has the same number: one of our own may be of the one before.
    if ((pid !== process.pid && isAlive(pid)) || nowMs - statSync(path).mtimeMs < ABANDONED_AFTER_MS) return;
    // Whatever it is called, only a copy of a store is ours to remove.
    requireOurs(path);
    removePartial(path);
  } catch {
    // Another command was quicker, or it belongs to somebody else.
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
