// Copies that are being made: what they are called until they are finished, and how they are removed.

import { rmSync } from "node:fs";

/** What SQLite may leave beside a database. */
const SUFFIXES = ["", "-journal", "-wal", "-shm"] as const;

/** A name beside `target` that nobody else uses; it tells which process is at work. */
export function partialOf(target: string): string {
  return `${target}.partial-${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
}

/** The database `path` and whatever lies beside it. */
export function removePartial(path: string): void {
  for (const suffix of SUFFIXES) rmSync(`${path}${suffix}`, { force: true });
}
