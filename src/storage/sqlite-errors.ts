// What SQLite's result codes mean for the store: retry, refuse one item, run full, or stop.

import { SQLiteError } from "bun:sqlite";
import { AppError } from "../shared/errors.ts";

/** Primary result codes, https://sqlite.org/rescode.html. The low byte of an extended code is its primary one. */
const PRIMARY = {
  permission: 3,
  busy: 5,
  locked: 6,
  readOnly: 8,
  inputOutput: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  tooBig: 18,
  constraint: 19,
  notADatabase: 26,
} as const;

/** The result code of a statement that does not fit the schema. */
const STATEMENT_UNFIT = 1;

type SqliteFailure = "busy" | "full" | "item" | "damaged" | "fatal";

/**
 * `busy`: another connection holds the lock. `full`: no space. `item`: this statement alone is at fault.
 * `damaged`: the file does not hold what it should. `fatal`: an I/O error or anything unknown.
 */
export function classifySqliteError(error: unknown): SqliteFailure {
  switch (primaryCode(error)) {
    case PRIMARY.busy:
    case PRIMARY.locked:
      return "busy";
    case PRIMARY.full:
      return "full";
    case PRIMARY.constraint:
    case PRIMARY.tooBig:
      return "item";
    case PRIMARY.corrupt:
    case PRIMARY.notADatabase:
      return "damaged";
    default:
      return "fatal";
  }
}

/** Whether the system did not let SQLite open a file, or write to it. */
export function isRefusedBySystem(error: unknown): boolean {
  const code = primaryCode(error);
  return code === PRIMARY.permission || code === PRIMARY.readOnly || code === PRIMARY.cannotOpen;
}

/** Whether the system could not do what SQLite asked of it; where a volume is nearly full it says no more than that. */
export function isInputOutputError(error: unknown): boolean {
  return primaryCode(error) === PRIMARY.inputOutput;
}

/** Whether the tables are not what a statement takes them for. */
export function isUnfitForTables(error: unknown): boolean {
  return primaryCode(error) === STATEMENT_UNFIT;
}

/** Null when SQLite did not throw it. */
function primaryCode(error: unknown): number | null {
  // bun:sqlite and node:sqlite, which only the backup uses, have a name of their own for it.
  const code = error instanceof SQLiteError ? error.errno : (error as { errcode?: unknown } | null)?.errcode;
  return typeof code === "number" ? code & 0xff : null;
}

/** Whether SQLite threw it, and not the program around it. */
export function isFromSqlite(error: unknown): boolean {
  return error instanceof SQLiteError;
}

/** For a client that may try again: nothing was changed. */
export function storeLocked(cause?: unknown): AppError {
  return new AppError("busy", "The store is locked by another process. Try again.", { cause });
}

/** The error for a client whose read met `error`. Reads change nothing, so none of these leaves an outcome open. */
export function readFailure(error: unknown): AppError {
  if (error instanceof AppError) return error;
  switch (classifySqliteError(error)) {
    case "busy":
      return storeLocked(error);
    case "damaged":
      return new AppError("value_damaged", "The stored data is damaged.", { cause: error });
    default:
      return new AppError("internal_error", "The store could not be read.", { cause: error });
  }
}
