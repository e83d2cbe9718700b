// Where a page ended, as a text that only continues the very list it came from.

import { AppError } from "../shared/errors.ts";

/** The place of a task in an order: its key, then its id. */
export interface Place {
  readonly key: number;
  readonly id: number;
}

const NUMBER_BYTES = 8;
const DIGEST_BYTES = 14;
/** A multiple of three: each character of the text counts. */
const CURSOR_BYTES = 2 * NUMBER_BYTES + DIGEST_BYTES;
const CURSOR = new RegExp(`^[A-Za-z0-9_-]{${(CURSOR_BYTES / 3) * 4}}$`);

/** `list` tells lists apart: the user, the filter and the order. */
export function formatCursor({ key, id }: Place, list: string): string {
  const bytes = Buffer.alloc(CURSOR_BYTES);
  bytes.writeDoubleBE(key, 0);
  bytes.writeDoubleBE(id, NUMBER_BYTES);
  digestOf(bytes, list).copy(bytes, 2 * NUMBER_BYTES, 0, DIGEST_BYTES);
  return bytes.toString("base64url");
}

/**
 * The digest keeps cursors from being mixed up, not from being forged: whoever asks sees only what is visible anyway.
 * @throws AppError invalid_cursor
 */
export function parseCursor(text: string, list: string): Place {
  const bytes = Buffer.from(CURSOR.test(text) ? text : "", "base64url");
  if (bytes.length === CURSOR_BYTES) {
    const digest = digestOf(bytes, list).subarray(0, DIGEST_BYTES);
    if (digest.equals(bytes.subarray(2 * NUMBER_BYTES))) {
      return { key: bytes.readDoubleBE(0), id: bytes.readDoubleBE(NUMBER_BYTES) };
    }
  }
  throw new AppError("invalid_cursor", "The cursor does not belong to this list.");
}

function digestOf(bytes: Buffer, list: string): Buffer {
  const place = bytes.subarray(0, 2 * NUMBER_BYTES);
  return new Bun.CryptoHasher("sha256").update(place).update(list).digest() as Buffer;
}
