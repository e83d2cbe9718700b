// What a command has to say, on standard output.

import { writeSync } from "node:fs";
import { EXIT, ExitError } from "../shared/errors.ts";

const STDOUT = 1;

/**
 * Waits for a slow reader. The stream of the runtime would report a failure after the command has ended, as a crash.
 * @throws ExitError (1) the reader has left, or the volume is full
 */
export function writeOut(text: string): void {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(STDOUT, bytes, written);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EAGAIN") throw new ExitError(EXIT.failed, `cannot write to standard output: ${reasonOf(code)}.`);
      Bun.sleepSync(1);
    }
  }
}

function reasonOf(code: string | undefined): string {
  if (code === "ENOSPC") return "there is no space left on its volume (ENOSPC)";
  if (code === "EPIPE") return "whoever read it has left (EPIPE)";
  return `${code}`;
}
