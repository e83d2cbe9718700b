// Removes what was left behind, or says in words why that cannot be done.

import { lstatSync, unlinkSync } from "node:fs";
import { EXIT, ExitError } from "../shared/errors.ts";
import { fileReason } from "../shared/system-reasons.ts";

/**
 * Does nothing where there is no such file: a volume that cannot be written refuses even that.
 * @throws ExitError (1)
 */
export function removeFile(path: string): void {
  try {
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) unlinkSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // Another process was quicker.
    if (code === "ENOENT") return;
    const advice = code === "EROFS" ? "Make the volume writable, or set DB_PATH to another directory" : "Move it away";
    throw new ExitError(EXIT.failed, `${path} cannot be removed: ${fileReason(cause)}. ${advice}.`, { cause });
  }
}
