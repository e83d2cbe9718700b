// What may be shown of a key: enough to tell two of an operator's own apart, too little to use or to guess it.

const LONG_KEY_MIN = 20;
const SHORT_KEY_MIN = 12;

/** The mask of a key of visible ASCII. Two keys may have the same one. */
export function maskKey(key: string): string {
  if (key.length >= LONG_KEY_MIN) return `${key.slice(0, 7)}...${key.slice(-4)}`;
  if (key.length >= SHORT_KEY_MIN) return `${key.slice(0, 3)}...${key.slice(-2)}`;
  return key.startsWith("sk-") ? "sk-..." : "...";
}
