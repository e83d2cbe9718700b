// A folder of its own for a test, gone when the test is over.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TempDir extends Disposable {
  readonly path: string;
  file(...parts: string[]): string;
}

export function tempDir(parent = tmpdir()): TempDir {
  const path = mkdtempSync(join(parent, "gokv-test-"));
  return {
    path,
    file: (...parts) => join(path, ...parts),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}
