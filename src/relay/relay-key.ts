// Keys of relay tokens: which text may be one, and how one is made.

import { createOpaque } from "../auth/opaque-token.ts";

const PREFIX = "sk-nexus-";

/** A key that is shorter can be guessed. */
export const STRONG_KEY_MIN = 32;

/** What may be looked up, and given as a key: 8 to 256 visible ASCII characters. */
export const RELAY_KEY = /^[\x21-\x7e]{8,256}$/;

/** `sk-nexus-` and 43 base64url characters. */
export function createRelayKey(): string {
  return createOpaque(PREFIX);
}
