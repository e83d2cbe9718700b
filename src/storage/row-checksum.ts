// The checksum that every row carries, so that a flipped bit becomes an error and never a wrong answer.

/** The columns that are covered besides the value. */
export interface ChecksummedRow {
  readonly revision: number;
  readonly updatedAtMs: number;
  readonly expiresAtMs: number | null;
  readonly contentType: string | null;
  readonly metadata: string | null;
}

/**
 * xxHash32 of the value, seeded with xxHash32 of the length-prefixed other fields, so that the value is not copied.
 * An unsigned 32-bit number.
 */
export function checksumRow(bucket: string, key: string, row: ChecksummedRow, value: Uint8Array): number {
  const { revision, updatedAtMs, expiresAtMs, contentType, metadata } = row;
  const fields = `${lengthPrefixed(bucket)}${lengthPrefixed(key)}${revision},${updatedAtMs},${expiresAtMs ?? "-"},${
    contentType === null ? "-" : lengthPrefixed(contentType)
  }${metadata === null ? "-" : lengthPrefixed(metadata)}`;
  return Bun.hash.xxHash32(value, Bun.hash.xxHash32(fields, 0));
}

function lengthPrefixed(text: string): string {
  return `${text.length}:${text}`;
}
