// Write-ahead logs made byte by byte after https://sqlite.org/fileformat2.html section 4, independent of SQLite.

export const WAL_HEADER_BYTES = 32;
export const WAL_FRAME_HEADER_BYTES = 24;

export interface WalOptions {
  /** Frames of each transaction, in order. */
  readonly transactions: readonly number[];
  readonly pageBytes?: number;
  /** The words of the checksums; both exist in the wild. */
  readonly isBigEndian?: boolean;
  readonly salts?: bigint;
  /** Pages of the database after each commit. */
  readonly databasePages?: number;
}

/** A log as SQLite would have left it after a crash. */
export function buildWal(options: WalOptions): Uint8Array<ArrayBuffer> {
  const {
    transactions,
    pageBytes = 1024,
    isBigEndian = false,
    salts = 0x1122334455667788n,
    databasePages = 7,
  } = options;
  const frameBytes = WAL_FRAME_HEADER_BYTES + pageBytes;
  const frames = transactions.reduce((sum, count) => sum + count, 0);
  const bytes = new Uint8Array(WAL_HEADER_BYTES + frames * frameBytes);
  const view = new DataView(bytes.buffer);
  const checksum: [number, number] = [0, 0];
  const add = (start: number, end: number) => {
    for (let at = start; at < end; at += 8) {
      checksum[0] = (checksum[0] + view.getUint32(at, !isBigEndian) + checksum[1]) >>> 0;
      checksum[1] = (checksum[1] + view.getUint32(at + 4, !isBigEndian) + checksum[0]) >>> 0;
    }
  };
  const store = (at: number) => {
    view.setUint32(at, checksum[0]);
    view.setUint32(at + 4, checksum[1]);
  };
  view.setUint32(0, isBigEndian ? 0x377f0683 : 0x377f0682);
  view.setUint32(4, 3007000);
  view.setUint32(8, pageBytes);
  view.setBigUint64(16, salts);
  add(0, 24);
  store(24);
  let at = WAL_HEADER_BYTES;
  for (const count of transactions) {
    for (let index = 0; index < count; index++, at += frameBytes) {
      view.setUint32(at, index + 1);
      view.setUint32(at + 4, index === count - 1 ? databasePages : 0);
      view.setBigUint64(at + 8, salts);
      bytes.fill(at % 251, at + WAL_FRAME_HEADER_BYTES, at + frameBytes);
      add(at, at + 8);
      add(at + WAL_FRAME_HEADER_BYTES, at + frameBytes);
      store(at + 16);
    }
  }
  return bytes;
}

/** A copy with one bit flipped. */
export function flipBit(bytes: Uint8Array, bit: number): Uint8Array<ArrayBuffer> {
  const flipped = new Uint8Array(bytes);
  flipped[bit >> 3]! ^= 1 << (bit & 7);
  return flipped;
}
