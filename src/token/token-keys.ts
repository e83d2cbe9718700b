// Which keys the token API stores: the KV rule, no control characters, no names of its own routes.

import { requireKey } from "../kv/kv-path.ts";
import { AppError } from "../shared/errors.ts";

/** Whole keys that stand for routes, here or in other servers of this API. */
export const RESERVED_KEYS: readonly string[] = ["_keys", "_batchimport", "_info", "_token", "_check", "_hint"];

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL_CHARACTERS = /[\0-\x1f\x7f]/;

export function isReservedKey(key: string): boolean {
  return RESERVED_KEYS.includes(key);
}

/** @throws AppError key_empty, key_invalid */
export function requireReadableKey(key: string): void {
  requireKey(key);
  if (CONTROL_CHARACTERS.test(key)) throw new AppError("key_invalid", "A key holds no control characters.");
}

/** @throws AppError key_empty, key_invalid, key_reserved */
export function requireWritableKey(key: string): void {
  requireReadableKey(key);
  if (isReservedKey(key)) throw new AppError("key_reserved", "this key name is reserved");
}
