// Makes files and names survive a power cut.

import { closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { giveToOwnerOfDirectory } from "./file-owner.ts";

/** Syncs a file, or the names in a directory. */
export function sync(path: string): void {
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Makes a directory and those above it that are missing, for one user alone. A new directory lasts only once the one
 * that holds its name was synced: otherwise a power cut could take it away with everything that was synced inside.
 */
export function makeDirectory(path: string): void {
  const topmost = mkdirSync(path, { recursive: true, mode: 0o700 });
  if (topmost === undefined) return;
  const made: string[] = [];
  for (let each = resolve(path); each.length >= resolve(topmost).length; each = dirname(each)) made.unshift(each);
  for (const each of made) {
    giveToOwnerOfDirectory(each);
    sync(dirname(each));
  }
}
