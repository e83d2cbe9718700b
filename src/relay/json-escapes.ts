// Text without the escapes of JSON, however deep it was quoted: what looks for a key there finds it in any writing.

export interface Unescaped {
  readonly text: string;
  /** Where each character of it ends in the text that it came from; it begins where the one before ends. */
  readonly ends: Int32Array;
}

/**
 * Backslashes, each of which may be written by its number, and the visible character whose number follows them. No
 * group is repeated: on a long text the engine would give up and find nothing.
 */
const ESCAPE = /(?:\\+|(?<=u005c))(?:u00([2-7][\da-f]))?/gi;
const BACKSLASH = "\\";

/** All backslashes are gone: which of them belong to the text itself depends on how often it was quoted. */
export function unescaped(source: string): Unescaped {
  const ends = new Int32Array(source.length);
  const pieces: string[] = [];
  let count = 0;
  let from = 0;
  const takeTo = (to: number) => {
    pieces.push(source.slice(from, to));
    while (from < to) ends[count++] = ++from;
  };
  for (const { 0: written, 1: hex, index } of source.matchAll(ESCAPE)) {
    takeTo(index);
    from += written.length;
    const character = hex === undefined ? BACKSLASH : String.fromCharCode(Number.parseInt(hex, 16));
    if (character === BACKSLASH) continue;
    pieces.push(character);
    ends[count++] = from;
  }
  takeTo(source.length);
  return { text: pieces.join(""), ends: ends.subarray(0, count) };
}
