// What an operator can do about files that this user may not use, or that find no room.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { KiB } from "../shared/bounds.ts";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { freeBytesAt } from "./free-space.ts";
import { classifySqliteError, isInputOutputError, isRefusedBySystem } from "./sqlite-errors.ts";

const REFUSED: ReadonlySet<unknown> = new Set(["EACCES", "EPERM", "EROFS"]);

/** With less than this the index of a log, of 32 KiB, may find no room, of which SQLite says nothing. */
const NEARLY_FULL_BYTES = 64 * KiB;

/** Whether there was no room, also when that was put into words since. */
export function isOutOfSpace(error: unknown): boolean {
  return saysFull(error) || (error instanceof ExitError && saysFull(error.cause));
}

function saysFull(error: unknown): boolean {
  return classifySqliteError(error) === "full" || (error as { code?: unknown } | null)?.code === "ENOSPC";
}

/** Null for what has neither to do with rights nor with room. `path` is the file that was worked on. */
export function accessFailure(path: string, error: unknown): ExitError | null {
  const code = (error as { code?: unknown } | null)?.code;
  if (saysFull(error)) {
    return new ExitError(EXIT.failed, `There is no space left to write ${path}. Free some and try again.`, {
      cause: error,
    });
  }
  if (isInputOutputError(error)) {
    const freeBytes = freeBytesAt(existsSync(path) ? path : dirname(path));
    if (freeBytes >= NEARLY_FULL_BYTES) return null;
    return new ExitError(
      EXIT.failed,
      `${path} cannot be opened (${messageOf(error)}): its volume has ${Math.floor(freeBytes / KiB)} KiB left. ` +
        "Free some and try again.",
      { cause: error },
    );
  }
  if (!REFUSED.has(code) && !isRefusedBySystem(error)) return null;
  return new ExitError(
    EXIT.failed,
    `${path} cannot be opened (${messageOf(error)}). Check owner and rights of it and of its directory: to be read, ` +
      "too, a store must be writable, since its log is kept beside it.",
    { cause: error },
  );
}

/** Runs what works on `path`. @throws ExitError (1) when this user may not, or there is no room; what `act` throws */
export function namingAccess<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw accessFailure(path, error) ?? error;
  }
}
