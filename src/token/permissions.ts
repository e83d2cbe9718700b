// What an installation may touch: pure functions of its permission fields.

import { compareByteOrder } from "../storage/key-bounds.ts";
import type { NameRange } from "../storage/kv-engine.ts";

export interface Permissions {
  /** Keys below it are readable and writable; null or empty = none given. */
  readonly permissionPrefix: string | null;
  /** Grants: `X` read and write, `read:X` read, `write:X` both, each for `X` and what is below it. */
  readonly permissionKey: readonly string[];
  readonly isReadOnly: boolean;
}

const READ_MARK = "read:";
const WRITE_MARK = "write:";

/** A plain token: the whole namespace. */
export function isFull({ permissionPrefix, permissionKey }: Permissions): boolean {
  return !permissionPrefix && permissionKey.length === 0;
}

export function canRead(permissions: Permissions, key: string): boolean {
  if (isFull(permissions) || isInPrefix(permissions, key)) return true;
  return permissions.permissionKey.some((grant) => hits(grantedName(grant), key));
}

export function canWrite(permissions: Permissions, key: string): boolean {
  if (permissions.isReadOnly) return false;
  if (isFull(permissions) || isInPrefix(permissions, key)) return true;
  return permissions.permissionKey.some((grant) => !grant.startsWith(READ_MARK) && hits(grantedName(grant), key));
}

/** The readable keys as sorted, disjoint ranges. */
export function readableRanges(permissions: Permissions): NameRange[] {
  if (isFull(permissions)) return [{ lower: "", upper: null }];
  const { permissionPrefix, permissionKey } = permissions;
  const names = permissionKey.map(grantedName);
  const ranges = [
    ...(permissionPrefix ? [below(permissionPrefix)] : []),
    ...names.map((name) => ({ lower: name, upper: `${name}\0` })),
    ...names.map(below),
  ].sort((a, b) => compareByteOrder(a.lower, b.lower) || compareByteOrder(b.upper, a.upper));
  // They are nested or disjoint, so that nothing counts twice once the nested ones are dropped.
  return ranges.filter(
    (range, index) => !ranges.slice(0, index).some((wider) => compareByteOrder(wider.upper, range.upper) >= 0),
  );
}

function isInPrefix({ permissionPrefix }: Permissions, key: string): boolean {
  return Boolean(permissionPrefix) && key.startsWith(`${permissionPrefix}.`);
}

/** A word before a colon that is one of the two marks is always a mark: `write:read:x` grants the key `read:x`. */
function grantedName(grant: string): string {
  if (grant.startsWith(READ_MARK)) return grant.slice(READ_MARK.length);
  return grant.startsWith(WRITE_MARK) ? grant.slice(WRITE_MARK.length) : grant;
}

function hits(name: string, key: string): boolean {
  return key === name || key.startsWith(`${name}.`);
}

/** All keys that start with the name and a dot; "/" is the byte after ".". */
function below(name: string): { lower: string; upper: string } {
  return { lower: `${name}.`, upper: `${name}/` };
}
