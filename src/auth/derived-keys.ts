// Keys for one purpose each, derived from the secrets of the settings: one that leaks opens nothing else.

import { hkdfSync } from "node:crypto";

const KEY_BYTES = 32;

/** HKDF-SHA-256 (RFC 5869) without salt, a key for each secret in their order; `info` names the purpose. */
export function deriveKeys(secrets: readonly Uint8Array[], info: string): readonly Uint8Array<ArrayBuffer>[] {
  return secrets.map((secret) => new Uint8Array(hkdfSync("sha256", secret, new Uint8Array(0), info, KEY_BYTES)));
}
