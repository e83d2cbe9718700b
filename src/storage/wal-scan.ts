// Finds damage in acknowledged transactions of a write-ahead log, which SQLite alone would silently drop.

import { PAGE_BYTES } from "./sqlite-connection.ts";

/** Positional read of a file: exactly `length` bytes from `offset`. */
export type ReadAt = (offset: number, length: number) => Uint8Array;

export interface WalScan {
  /** Frames that SQLite will recover. More than zero after a stop that was not clean. */
  readonly validFrames: number;
  /** Commits that are there but would be lost, because a frame before them is damaged. 0 = no damage. */
  readonly lostCommits: number;
}

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC_LITTLE_ENDIAN = 0x377f0682;
const FORMAT_VERSION = 3007000;
/** A torn tail leaves at most one commit frame behind a bad frame: each commit is synced before the next is written. */
const LOST_COMMITS_MIN = 2;

/**
 * Walks the frames by the checksums of the file format (https://sqlite.org/fileformat2.html, section 4). A bad frame
 * with two or more commit frames of the current salts at or after it is damage; so is a bad header before two commit
 * frames of equal salts.
 */
export function scanWal(readAt: ReadAt, sizeBytes: number): WalScan {
  if (sizeBytes < HEADER_BYTES + FRAME_HEADER_BYTES) return { validFrames: 0, lostCommits: 0 };
  const header = readHeader(readAt);
  const frames = new FrameReader(readAt, sizeBytes, header?.pageBytes ?? PAGE_BYTES);
  if (header === null) return { validFrames: 0, lostCommits: atLeastTwo(commitsOfOneGeneration(frames)) };

  let { checksum } = header;
  let index = 0;
  for (; index < frames.count; index++) {
    const frame = frames.at(index);
    if (frame.salts !== header.salts || frame.pageNumber === 0) break;
    const expected = frame.checksumAfter(checksum, header.isLittleEndian);
    if (!sameChecksum(expected, frame.checksum)) break;
    checksum = expected;
  }
  return { validFrames: index, lostCommits: atLeastTwo(commitsFrom(frames, index, header, checksum)) };
}

function atLeastTwo(commits: number): number {
  return commits >= LOST_COMMITS_MIN ? commits : 0;
}

type Checksum = readonly [number, number];

function sameChecksum(a: Checksum, b: Checksum): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

interface WalHeader {
  readonly isLittleEndian: boolean;
  readonly pageBytes: number;
  readonly salts: bigint;
  readonly checksum: Checksum;
}

function readHeader(readAt: ReadAt): WalHeader | null {
  const bytes = readAt(0, HEADER_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const magic = view.getUint32(0);
  const pageBytes = view.getUint32(8);
  const isPageSize = pageBytes >= 512 && pageBytes <= 65_536 && (pageBytes & (pageBytes - 1)) === 0;
  if ((magic & 0xfffffffe) >>> 0 !== MAGIC_LITTLE_ENDIAN || view.getUint32(4) !== FORMAT_VERSION || !isPageSize) {
    return null;
  }
  const isLittleEndian = (magic & 1) === 0;
  const checksum = addToChecksum([0, 0], view, 0, 24, isLittleEndian);
  if (!sameChecksum(checksum, [view.getUint32(24), view.getUint32(28)])) return null;
  return { isLittleEndian, pageBytes, salts: view.getBigUint64(16), checksum };
}

/** Commit frames at or after the first bad one; `checksum` is that of the last good one. */
function commitsFrom(frames: FrameReader, firstBad: number, header: WalHeader, checksum: Checksum): number {
  let commits = 0;
  for (let index = firstBad; index < frames.count; index++) {
    const frame = frames.header(index);
    if (frame.isCommit && frame.salts === header.salts) commits++;
  }
  // The damaged bit may sit in the salts of the commit frame itself: the next frame still chains to its checksum.
  if (firstBad + 1 < frames.count) {
    const bad = frames.header(firstBad);
    const next = frames.at(firstBad + 1);
    const isPredecessor = sameChecksum(next.checksumAfter(bad.checksum, header.isLittleEndian), next.checksum);
    if (bad.isCommit && bad.salts !== header.salts && next.salts === header.salts && isPredecessor) commits++;
  }
  // Or it may be the one bit that made it a commit frame.
  if (firstBad < frames.count && frames.at(firstBad).isCommitButForOneBit(checksum, header)) commits++;
  return commits;
}

function commitsOfOneGeneration(frames: FrameReader): number {
  const bySalts = new Map<bigint, number>();
  for (let index = 0; index < frames.count; index++) {
    const { isCommit, salts } = frames.header(index);
    if (isCommit && salts !== 0n) bySalts.set(salts, (bySalts.get(salts) ?? 0) + 1);
  }
  return Math.max(0, ...bySalts.values());
}

/** Views of the frames; each lives until the next one is read. */
class FrameReader {
  readonly count: number;
  readonly #readAt: ReadAt;
  readonly #frameBytes: number;

  constructor(readAt: ReadAt, sizeBytes: number, pageBytes: number) {
    this.#readAt = readAt;
    this.#frameBytes = FRAME_HEADER_BYTES + pageBytes;
    this.count = Math.floor((sizeBytes - HEADER_BYTES) / this.#frameBytes);
  }

  header(index: number): Frame {
    return new Frame(this.#readAt(HEADER_BYTES + index * this.#frameBytes, FRAME_HEADER_BYTES));
  }

  at(index: number): Frame {
    return new Frame(this.#readAt(HEADER_BYTES + index * this.#frameBytes, this.#frameBytes));
  }
}

class Frame {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get pageNumber(): number {
    return this.#view.getUint32(0);
  }

  /** The size of the database after the commit stands in its last frame; zero in all others. */
  get isCommit(): boolean {
    return this.#view.getUint32(4) !== 0;
  }

  get salts(): bigint {
    return this.#view.getBigUint64(8);
  }

  get checksum(): Checksum {
    return [this.#view.getUint32(16), this.#view.getUint32(20)];
  }

  /** The size of the database reads zero, and with one of its bits set the frame would be a sound commit frame. */
  isCommitButForOneBit(previous: Checksum, { salts, isLittleEndian }: WalHeader): boolean {
    if (this.isCommit || this.salts !== salts) return false;
    for (let bit = 0; bit < 32; bit++) {
      this.#view.setUint32(4, (1 << bit) >>> 0);
      const isSound = sameChecksum(this.checksumAfter(previous, isLittleEndian), this.checksum);
      this.#view.setUint32(4, 0);
      if (isSound) return true;
    }
    return false;
  }

  checksumAfter(previous: Checksum, isLittleEndian: boolean): Checksum {
    const overHeader = addToChecksum(previous, this.#view, 0, 8, isLittleEndian);
    return addToChecksum(overHeader, this.#view, FRAME_HEADER_BYTES, this.#view.byteLength, isLittleEndian);
  }
}

/** File format 4.2: two running sums over pairs of 32-bit words, modulo 2^32. */
function addToChecksum(
  [first, second]: Checksum,
  view: DataView,
  start: number,
  end: number,
  isLittleEndian: boolean,
): Checksum {
  let s0 = first;
  let s1 = second;
  for (let at = start; at < end; at += 8) {
    s0 = (s0 + view.getUint32(at, isLittleEndian) + s1) >>> 0;
    s1 = (s1 + view.getUint32(at + 4, isLittleEndian) + s0) >>> 0;
  }
  return [s0, s1];
}
