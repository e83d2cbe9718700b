// Opaque tokens of apps and of clients of the relay: random, shown once, stored as a hash.

const RANDOM_BYTES = 32;

/** The prefix and 43 base64url characters: 256 random bits. */
export function createOpaque(prefix: string): string {
  return prefix + Buffer.from(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES))).toString("base64url");
}

/** SHA-256: all but the few that operators choose themselves have 256 random bits, so a slow hash would add nothing. */
export function hashOpaque(token: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Bun.CryptoHasher("sha256").update(token).digest());
}
