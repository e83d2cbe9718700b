// Bounds of key ranges in UTF-8 byte order, which is the order of code points.

const CODE_POINT_MAX = 0x10ffff;
const SURROGATES_START = 0xd800;
const SURROGATES_END = 0xdfff;

/**
 * The smallest text above everything that starts with `prefix`: its last code point raised by one (past the
 * surrogates), after dropping every U+10FFFF at its end. Null when nothing lies above: it is empty or only that.
 */
export function boundAfterPrefix(prefix: string): string | null {
  const points = Array.from(prefix, (character) => character.codePointAt(0)!);
  while (points.at(-1) === CODE_POINT_MAX) points.pop();
  const last = points.pop();
  if (last === undefined) return null;
  const raised = last + 1 >= SURROGATES_START && last + 1 <= SURROGATES_END ? SURROGATES_END + 1 : last + 1;
  return String.fromCodePoint(...points, raised);
}

/** The smallest text above `key`: no key holds U+0000, so nothing lies between. */
export function boundAfterKey(key: string): string {
  return `${key}\0`;
}

/** Byte order of the UTF-8 forms. JavaScript's `<` compares UTF-16 units, which puts emoji before U+E000. */
export function compareByteOrder(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

export function laterBound(a: string, b: string): string {
  return compareByteOrder(a, b) >= 0 ? a : b;
}

/** Null stands for "no upper bound". */
export function earlierBound(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b;
  return compareByteOrder(a, b) <= 0 ? a : b;
}
