// Whose the files of a store are, where root works on the store of another user.

import { lchownSync, lstatSync, statSync } from "node:fs";
import { dirname } from "node:path";

/**
 * A store that root has made in the directory of a service must be one that the service can open. What SQLite makes
 * beside a database gets the owner of that by itself. Whoever else is not root owns what he makes.
 */
export function giveToOwnerOfDirectory(path: string): void {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = statSync(dirname(path));
  if (uid === lstatSync(path).uid) return;
  try {
    // Never through a link that the other user has put there.
    lchownSync(path, uid, gid);
  } catch {
    // A file system without owners, or root without that right: it stays as it is.
  }
}

/** Of a copy of `store`: only who owns that already may come to own what is in it. */
export function giveToOwnerOfStore(path: string, store: string): void {
  if (statSync(store).uid === statSync(dirname(path)).uid) giveToOwnerOfDirectory(path);
}
