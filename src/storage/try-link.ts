// A second name for a file, where its file system can give it one.

import { linkSync } from "node:fs";

/** Of file systems without links, such as FAT and some that are mounted over a network. */
const LINKS_REFUSED: ReadonlySet<unknown> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EACCES"]);

/** False where there can be none. Throws what else is in the way, be it a file of that name. */
export function tryLink(path: string, secondName: string): boolean {
  try {
    linkSync(path, secondName);
    return true;
  } catch (error) {
    if (LINKS_REFUSED.has((error as NodeJS.ErrnoException).code)) return false;
    throw error;
  }
}
