// Bytes that come in pieces and are kept until the last one is there: what they take in memory is what came, however
// small the pieces are.

import { SMALL_STEP_BYTES } from "../shared/bounds.ts";

export class GatheredBytes {
  /** Full blocks, and pieces that were large enough to stay as they are. */
  #parts: Uint8Array[] = [];
  /** Small pieces are copied together: an array has a head of a hundred bytes and more, whatever it holds. */
  #block: Uint8Array | null = null;
  #blockBytes = 0;
  #length = 0;

  /** `announcedBytes` are got at once, so that they need not be joined; 0 = nobody knows how many will come. */
  constructor(announcedBytes = 0) {
    if (announcedBytes > 0) this.#block = new Uint8Array(announcedBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** `piece` is not to be changed afterwards. */
  add(piece: Uint8Array): void {
    this.#length += piece.length;
    let rest = piece;
    while (rest.length > 0) {
      if (this.#block === null && rest.length >= SMALL_STEP_BYTES) {
        this.#parts.push(rest);
        return;
      }
      this.#block ??= new Uint8Array(SMALL_STEP_BYTES);
      const fitting = rest.subarray(0, this.#block.length - this.#blockBytes);
      this.#block.set(fitting, this.#blockBytes);
      this.#blockBytes += fitting.length;
      rest = rest.subarray(fitting.length);
      if (this.#blockBytes === this.#block.length) this.#endBlock();
    }
  }

  /** All of them in one array of their own. */
  joined(): Uint8Array<ArrayBuffer> {
    const [first] = this.#parts;
    if (first?.length === this.#length && isWhole(first)) return first;
    const bytes = new Uint8Array(this.#length);
    let offset = 0;
    for (const part of this.#parts) {
      bytes.set(part, offset);
      offset += part.length;
    }
    if (this.#block !== null) bytes.set(this.#block.subarray(0, this.#blockBytes), offset);
    return bytes;
  }

  clear(): void {
    this.#parts = [];
    this.#block = null;
    this.#blockBytes = 0;
    this.#length = 0;
  }

  #endBlock(): void {
    this.#parts.push(this.#block!);
    this.#block = null;
    this.#blockBytes = 0;
  }
}

/** Shares its buffer with nothing else. */
function isWhole(bytes: Uint8Array): bytes is Uint8Array<ArrayBuffer> {
  return bytes.length === bytes.buffer.byteLength && bytes.buffer instanceof ArrayBuffer;
}
