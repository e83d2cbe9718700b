// Keys of relay tokens: shown once, stored as a hash.

const PREFIX = "sk-nexus-";
const RANDOM_BYTES = 32;

/** A key that is shorter can be guessed. */
export const STRONG_KEY_MIN = 32;

/** What may be looked up, and given as a key: 8 to 256 visible ASCII characters. */
export const RELAY_KEY = /^[\x21-\x7e]{8,256}$/;

/** `sk-nexus-` and 43 base64url characters: 256 random bits. */
export function createRelayKey(): string {
  return PREFIX + Buffer.from(crypto.getRandomValues(new Uint8Array(RANDOM_BYTES))).toString("base64url");
}

/** SHA-256: most keys have 256 random bits, so a slow hash would add nothing. */
export function hashRelayKey(key: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Bun.CryptoHasher("sha256").update(key).digest());
}
