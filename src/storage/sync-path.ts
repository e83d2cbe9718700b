// Makes files and names survive a power cut.

import { closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import { dirname, resolve } from "node:path";

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
 * Makes a directory and those above it that are missing, for this user alone. A new directory lasts only once the one
 * that holds its name was synced: otherwise a power cut could take it away with everything that was synced inside.
 */
export function makeDirectory(path: string): void {
  const topmost = mkdirSync(path, { recursive: true, mode: 0o700 });
  if (topmost === undefined) return;
  for (let made = resolve(path); made.length >= resolve(topmost).length; made = dirname(made)) sync(dirname(made));
}
