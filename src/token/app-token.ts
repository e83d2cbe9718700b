// App tokens: opaque, random, shown once, stored as a hash.

/** The form of anything that may be looked up as a token. */
const TOKEN = /^[A-Za-z0-9._~+/=-]{16,512}$/;
const PREFIX = "kvt_";
const RANDOM_BYTES = 32;
const HINT_LENGTH = 4;

interface NewToken {
  /** `kvt_` and 43 base64url characters. */
  readonly token: string;
  readonly tokenHash: Uint8Array<ArrayBuffer>;
  readonly tokenHint: string;
}

export function createToken(): NewToken {
  const random = crypto.getRandomValues(new Uint8Array(RANDOM_BYTES));
  const token = PREFIX + Buffer.from(random).toString("base64url");
  return { token, tokenHash: hashToken(token), tokenHint: token.slice(-HINT_LENGTH) };
}

export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/** SHA-256: a token has 256 random bits, so a slow hash would add nothing. */
export function hashToken(token: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Bun.CryptoHasher("sha256").update(token).digest());
}
