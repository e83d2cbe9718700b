// What /_list must answer, worked out in the plainest way: filter all keys, sort them, collapse them.

export interface ListParameters {
  readonly prefix?: string;
  /** Inclusive. */
  readonly start?: string;
  /** Exclusive; empty = none. */
  readonly end?: string;
  readonly reverse?: 1;
  readonly delimiter?: string;
}

/** Order of the UTF-8 bytes. */
export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** The UTF-8 form with one character per byte, which JavaScript compares as bytes; quicker than comparing buffers. */
function bytesOf(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** The names in order; `keys` in any order. */
export function expectedNames(keys: Iterable<string>, parameters: ListParameters): string[] {
  const { prefix = "", start = "", end = "", reverse, delimiter } = parameters;
  const [first, limit] = [bytesOf(start), bytesOf(end)];
  const inRange: [bytes: string, key: string][] = [];
  for (const key of keys) {
    const bytes = bytesOf(key);
    if (key.startsWith(prefix) && bytes >= first && (end === "" || bytes < limit)) inRange.push([bytes, key]);
  }
  inRange.sort(([a], [b]) => (a < b ? -1 : 1));
  const names = new Set(inRange.map(([, key]) => collapse(key, prefix, delimiter)));
  return reverse === undefined ? [...names] : [...names].reverse();
}

function collapse(key: string, prefix: string, delimiter: string | undefined): string {
  const at = delimiter === undefined ? -1 : key.indexOf(delimiter, prefix.length);
  return at < 0 ? key : key.slice(0, at + delimiter!.length);
}
