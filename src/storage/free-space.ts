// How much of a volume is free, for this user.

import { statfsSync } from "node:fs";

/** A file system that does not tell its size does not tell what is free either: it has room until it says otherwise. */
export function freeBytesAt(path: string): number {
  const { bavail, bsize, blocks } = statfsSync(path);
  return blocks === 0 ? Number.POSITIVE_INFINITY : bavail * bsize;
}
