// How a new store takes the place of the old one, which is kept, and how a restore that was killed on the way is told.

import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { EXIT, ExitError } from "../shared/errors.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { removeFile } from "./remove-file.ts";
import { inodeOf, type StoreFiles, sizeOf, utcStamp } from "./store-files.ts";
import { sync } from "./sync-path.ts";
import { tryLink } from "./try-link.ts";

/** What belongs to a database file; SQLite would take a log that lies there for that of the file that was restored. */
const BESIDE = ["-wal", "-shm", "-journal"] as const;
const SUFFIXES = ["", ...BESIDE] as const;
const STAMP = /^\d{8}T\d{9}Z$/;

export interface KeptStore {
  /** Its database file, or what was left of it. */
  readonly path: string;
  /** That it is the database file, and not only a log. */
  readonly isWhole: boolean;
}

/**
 * Gives the draft of a restore the name of the store, and moves what is left of the old one away, be it only a log.
 * Meanwhile the draft is called after the place where the old store is kept: that is the mark of a restore that was
 * killed, and goes with the rename that ends it. Null when there was no old store.
 * @throws ExitError (1) the system refuses to move a file
 */
export function replaceStore(files: StoreFiles, nowMs: number): KeptStore | null {
  const { database, directory, restoring } = files;
  removeReady(files);
  const begun = interruptedRestore(files);
  if (begun === null && SUFFIXES.every((suffix) => !existsSync(`${database}${suffix}`))) {
    renameSync(restoring, database);
    sync(directory);
    return null;
  }
  // Both halves of what one that was killed has torn apart stay together.
  const before = begun !== null && canTakeMore(begun, database) ? begun : newKeptName(database, nowMs);
  const ready = readyOf(files, before);
  try {
    renameSync(restoring, ready);
    sync(directory);
    moveAway(files, before);
    for (const other of keptNames(files)) if (other !== before) rmSync(readyOf(files, other));
    renameSync(ready, database);
  } catch (cause) {
    const problem = `The old store cannot be kept as ${before}: ${fileReason(cause)}. `;
    const advice = isTorn(database, before) ? adviceOn(database, before) : "It was not changed.";
    throw new ExitError(EXIT.failed, `${problem}${advice}`, { cause });
  }
  sync(directory);
  const path = SUFFIXES.map((suffix) => `${before}${suffix}`).find((name) => existsSync(name)) ?? before;
  return { path, isWhole: path === before };
}

/** Where files can have two names, the database file has its own at every instant. */
function moveAway({ database, directory }: StoreFiles, before: string): void {
  const stays = !existsSync(database) || existsSync(before) || tryLink(database, before);
  // A power cut may take the new name of a log back, and leave that of the new database.
  sync(directory);
  for (const suffix of BESIDE) {
    if (existsSync(`${database}${suffix}`)) renameSync(`${database}${suffix}`, `${before}${suffix}`);
  }
  if (!stays) renameSync(database, before);
  sync(directory);
}

/**
 * Without its log the old store lacks what was acknowledged last, and without its file all of it.
 * @throws ExitError (4)
 */
export function refuseInterruptedRestore(files: StoreFiles): void {
  const before = interruptedRestore(files);
  if (before === null) return;
  throw new ExitError(
    EXIT.storeDamaged,
    "A restore was interrupted: it had moved files of the old store away, without which that is not complete. " +
      `Nothing was changed. ${adviceOn(files.database, before)}`,
  );
}

/** The name under which a restore that was killed was keeping the old store. Null when it had moved nothing. */
export function interruptedRestore(files: StoreFiles): string | null {
  return keptNames(files).find((before) => isTorn(files.database, before)) ?? null;
}

/** What restores that had moved nothing yet have left. */
export function removeReady(files: StoreFiles): void {
  for (const before of keptNames(files)) {
    if (isTorn(files.database, before)) continue;
    if (existsSync(before) && inodeOf(before) === inodeOf(files.database)) removeFile(before);
    for (const path of [`${before}-shm`, readyOf(files, before)]) removeFile(path);
  }
}

/** Room for the next draft: of those before it, which it replaces, only the names still count. */
export function emptyReady(files: StoreFiles): void {
  for (const before of keptNames(files)) {
    // Not by opening it: root never follows a link that another user has put there.
    writeFileSync(files.restoring, "", { flag: "wx", mode: 0o600 });
    renameSync(files.restoring, readyOf(files, before));
  }
}

/** What has to come back to its place for the store to be what it was. */
function movedSuffixes(database: string, before: string): string[] {
  const isFileMoved = existsSync(before) && !existsSync(database);
  return [...(isFileMoved ? [""] : []), ...["-wal", "-journal"].filter((suffix) => sizeOf(`${before}${suffix}`) > 0)];
}

function isTorn(database: string, before: string): boolean {
  return movedSuffixes(database, before).length > 0;
}

function adviceOn(database: string, before: string): string {
  const moves = movedSuffixes(database, before).map((suffix) => `${before}${suffix} to ${database}${suffix}`);
  return `Run gokv restore FILE again; or, to go back to the old store, rename ${moves.join(" and ")}.`;
}

/** Of restores that did not come to their end. */
function keptNames({ directory, database }: StoreFiles): string[] {
  const prefix = basename(readyPrefix(database));
  return namesIn(directory)
    .filter((name) => name.startsWith(prefix) && STAMP.test(name.slice(prefix.length)))
    .map((name) => `${database}.before-${name.slice(prefix.length)}`);
}

function readyOf({ database }: StoreFiles, before: string): string {
  return `${readyPrefix(database)}${before.slice(`${database}.before-`.length)}`;
}

function readyPrefix(database: string): string {
  return `${database}.restored-`;
}

/** Whether what still lies in its place can be moved to where the rest is, and overwrites nothing there. */
function canTakeMore(before: string, database: string): boolean {
  if (existsSync(before) && existsSync(database) && inodeOf(before) !== inodeOf(database)) return false;
  return ["-wal", "-journal"].every(
    (suffix) => sizeOf(`${before}${suffix}`) === 0 || !existsSync(`${database}${suffix}`),
  );
}

/** Two restores of the same instant, by a clock that was set back, keep a store each. */
function newKeptName(database: string, nowMs: number): string {
  const before = `${database}.before-${utcStamp(nowMs)}`;
  return SUFFIXES.some((suffix) => existsSync(`${before}${suffix}`)) ? newKeptName(database, nowMs + 1) : before;
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    // It is not there, or not for us to read: what comes next says so.
    return [];
  }
}
