// App tokens: which text may be one, and how one is made.

import { createOpaque, hashOpaque } from "../auth/opaque-token.ts";

/** The form of anything that may be looked up as a token. */
const TOKEN = /^[A-Za-z0-9._~+/=-]{16,512}$/;
const PREFIX = "kvt_";
const HINT_LENGTH = 4;

interface NewToken {
  /** `kvt_` and 43 base64url characters. */
  readonly token: string;
  readonly tokenHash: Uint8Array<ArrayBuffer>;
  readonly tokenHint: string;
}

export function createToken(): NewToken {
  const token = createOpaque(PREFIX);
  return { token, tokenHash: hashOpaque(token), tokenHint: token.slice(-HINT_LENGTH) };
}

export function isToken(text: string): boolean {
  return TOKEN.test(text);
}
