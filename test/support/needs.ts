// What a test needs from the machine: present, or named as missing. In a full run missing is a failure.

import { expect, test } from "bun:test";

/**
 * True when `isMet`. Otherwise one line on stderr says what was not run and why; with GOKV_REQUIRE_ALL=1, as a full run
 * sets it, a failing test says so instead.
 */
export function has(requirement: string, isMet: boolean): boolean {
  if (isMet) return true;
  if (process.env.GOKV_REQUIRE_ALL === "1") {
    test(`the machine has ${requirement}`, () => expect.unreachable(`this needs ${requirement}`));
  } else {
    process.stderr.write(`not run: this needs ${requirement}\n`);
  }
  return false;
}

/** Whether a program of this name is on the PATH. */
export function hasProgram(name: string): boolean {
  return Bun.which(name) !== null;
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}
