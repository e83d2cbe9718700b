// What an installation may touch, once more: the rules as they are written down, on bytes, without the program's code.

export interface PermissionFields {
  readonly permissionPrefix: string | null;
  readonly permissionKey: readonly string[];
  readonly isReadOnly: boolean;
}

type Use = "read" | "write";

/** A token without prefix and grants has the whole namespace. */
export function ruleIsFull({ permissionPrefix, permissionKey }: PermissionFields): boolean {
  return (permissionPrefix === null || permissionPrefix === "") && permissionKey.length === 0;
}

export function ruleMayRead(fields: PermissionFields, key: string): boolean {
  return (
    ruleIsFull(fields) || inPrefix(fields, key) || fields.permissionKey.some((entry) => grants(entry, "read", key))
  );
}

export function ruleMayWrite(fields: PermissionFields, key: string): boolean {
  if (fields.isReadOnly) return false;
  return (
    ruleIsFull(fields) || inPrefix(fields, key) || fields.permissionKey.some((entry) => grants(entry, "write", key))
  );
}

/** "read:X" lets X be read; "write:X" and plain "X" let it be read and written. */
function grants(entry: string, use: Use, key: string): boolean {
  if (entry.slice(0, 5) === "read:") return use === "read" && hit(entry.slice(5), key);
  return hit(entry.slice(0, 6) === "write:" ? entry.slice(6) : entry, key);
}

function hit(name: string, key: string): boolean {
  return Buffer.from(key).equals(Buffer.from(name)) || startsWith(key, `${name}.`);
}

function inPrefix({ permissionPrefix }: PermissionFields, key: string): boolean {
  return permissionPrefix !== null && permissionPrefix !== "" && startsWith(key, `${permissionPrefix}.`);
}

function startsWith(key: string, start: string): boolean {
  const bytes = Buffer.from(start);
  return Buffer.from(key).subarray(0, bytes.length).equals(bytes);
}
