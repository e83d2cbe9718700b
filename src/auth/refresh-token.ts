// Refresh tokens (RFC 9700, section 4.14.2): each is used once, and its child follows from it, so that a retried
// request receives the same child although no plaintext is kept.

import { createHash, createHmac, randomBytes } from "node:crypto";
import { deriveKeys } from "./derived-keys.ts";

const KEY_INFO = "gokv/task/refresh/v1";
const TOKEN_BYTES = 32;
const FORM = /^rt_[A-Za-z0-9_-]{43}$/;

export interface RefreshToken {
  /** `rt_` and 32 bytes as base64url. */
  readonly text: string;
  /** What is stored: SHA-256 of the bytes, hexadecimal. */
  readonly hash: string;
}

export class RefreshTokens {
  readonly #keys: readonly Uint8Array[];

  /** The first secret makes children; those of older ones are recognised. */
  constructor(secrets: readonly Uint8Array[]) {
    this.#keys = deriveKeys(secrets, KEY_INFO);
  }

  /** The first token of a session. */
  create(): RefreshToken {
    return toToken(randomBytes(TOKEN_BYTES));
  }

  /** Null for a text that is none: another kind of token, or not in its one canonical form. */
  parse(text: string): RefreshToken | null {
    if (!FORM.test(text)) return null;
    const token = toToken(Buffer.from(text.slice(3), "base64url"));
    return token.text === text ? token : null;
  }

  /** What may follow `parent`: by today's secret first, then by older ones. */
  childrenOf(parent: RefreshToken): readonly RefreshToken[] {
    const bytes = Buffer.from(parent.text.slice(3), "base64url");
    return this.#keys.map((key) => toToken(createHmac("sha256", key).update(bytes).digest()));
  }
}

function toToken(bytes: Buffer): RefreshToken {
  return {
    text: `rt_${bytes.toString("base64url")}`,
    hash: createHash("sha256").update(bytes).digest("hex"),
  };
}
