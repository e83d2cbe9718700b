// Batch import: which members of the body are stored, which are refused and why.

import { AppError } from "../shared/errors.ts";
import { topLevelMembers } from "../shared/json-text.ts";
import type { KvPut } from "../storage/kv-engine.ts";
import { canWrite, type Permissions } from "./permissions.ts";
import { requireWritableKey } from "./token-keys.ts";

const JSON_TYPE = "application/json";

interface RefusedMember {
  /** Cut to KEY_SHOWN_MAX characters; half a one is shown as U+FFFD. */
  readonly key: string;
  readonly error: string;
  readonly code: string;
}

interface Batch {
  readonly total: number;
  readonly puts: readonly KvPut[];
  readonly errors: readonly RefusedMember[];
}

/** Who writes, and where. */
export interface Author {
  readonly bucket: string;
  readonly installationId: string;
  readonly creatorIp: string | null;
}

export interface BatchRules extends Author {
  readonly permissions: Permissions;
  readonly keysMax: number;
  readonly valueBytesMax: number;
}

const KEY_SHOWN_MAX = 256;

/**
 * The members of `text`, a valid JSON text, in their order.
 * @throws AppError invalid_json (no object), empty_batch, too_many_keys, duplicate_key
 */
export function planBatch(text: string, rules: BatchRules): Batch {
  const members = topLevelMembers(text);
  if (members === null) throw new AppError("invalid_json", "A batch is one JSON object of keys and values.");
  if (members.length === 0) throw new AppError("empty_batch", "The batch holds no keys.");
  if (members.length > rules.keysMax) throw tooManyKeys(rules.keysMax);
  if (new Set(members.map((member) => member.name)).size < members.length) {
    throw new AppError("duplicate_key", "The batch names one key twice.");
  }
  const puts: KvPut[] = [];
  const errors: RefusedMember[] = [];
  for (const { name: key, valueStart, end } of members) {
    const value = new TextEncoder().encode(text.slice(valueStart, end));
    const problem = problemOf(key, value, rules);
    if (problem === null) puts.push(jsonPut(rules, key, value));
    else errors.push({ key: shownKey(key), error: problem.message, code: problem.code });
  }
  return { total: members.length, puts, errors };
}

/** Whole characters, so that any parser can read them; none has more than two units. */
function shownKey(key: string): string {
  return [...key.slice(0, 2 * KEY_SHOWN_MAX)].slice(0, KEY_SHOWN_MAX).join("").toWellFormed();
}

/** A write of the token API replaces the whole entry: no metadata, no expiry. */
export function jsonPut(
  { bucket, installationId, creatorIp }: Author,
  key: string,
  value: Uint8Array<ArrayBuffer>,
): KvPut {
  const kept = { contentType: JSON_TYPE, metadata: null, ttlMs: null, condition: null };
  return { kind: "put", bucket, key, value, installationId, creatorIp, ...kept };
}

function problemOf(key: string, value: Uint8Array, { permissions, valueBytesMax }: BatchRules): AppError | null {
  if (!canWrite(permissions, key)) return new AppError("write_denied", "this token may not write this key");
  try {
    requireWritableKey(key);
  } catch (error) {
    return error as AppError;
  }
  return value.length > valueBytesMax ? tooLarge("value", valueBytesMax) : null;
}

export function tooManyKeys(keysMax: number): AppError {
  return new AppError("too_many_keys", `A batch holds at most ${keysMax} keys.`);
}

export function tooLarge(what: "value" | "batch", bytesMax: number): AppError {
  return new AppError("body_too_large", `A ${what} has at most ${bytesMax} bytes.`);
}
