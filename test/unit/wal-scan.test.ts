// The scan of a write-ahead log: acknowledged transactions that would be dropped are damage, a torn tail is not.

import { constants, Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { scanWal, type WalScan } from "../../src/storage/wal-scan.ts";
import { tempDir } from "../support/temp-dir.ts";
import { buildWal, flipBit, WAL_FRAME_HEADER_BYTES, WAL_HEADER_BYTES, type WalOptions } from "../support/wal-file.ts";

const PAGE_BYTES = 1024;
const FRAME_BYTES = WAL_FRAME_HEADER_BYTES + PAGE_BYTES;
const SOUND = { lostCommits: 0 };

function scan(bytes: Uint8Array): WalScan {
  return scanWal((offset, length) => bytes.subarray(offset, offset + length), bytes.length);
}

function build(options: Partial<WalOptions> = {}): Uint8Array<ArrayBuffer> {
  return buildWal({ transactions: [3, 1, 2, 4], pageBytes: PAGE_BYTES, ...options });
}

describe("a sound log", () => {
  test("that SQLite itself has written is recognised, frame by frame", () => {
    using dir = tempDir();
    const path = dir.file("real.db");
    const database = new Database(path);
    database.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 1);
    for (const pragma of ["journal_mode = WAL", "wal_autocheckpoint = 0"]) database.run(`PRAGMA ${pragma}`);
    database.run("CREATE TABLE t (value BLOB)");
    for (let row = 0; row < 20; row++) database.run("INSERT INTO t VALUES (zeroblob(3000))");
    const frames = database.query<{ log: number }, []>("PRAGMA wal_checkpoint(NOOP)").get()!.log;
    database.close();
    const bytes = readFileSync(`${path}-wal`);
    expect(scan(bytes)).toEqual({ validFrames: frames, lostCommits: 0 });
    const middle = 8 * (WAL_HEADER_BYTES + Math.floor(frames / 2) * (WAL_FRAME_HEADER_BYTES + 4096) + 100);
    expect(scan(flipBit(bytes, middle)).lostCommits).toBeGreaterThanOrEqual(2);
  });

  test("has all its frames, with checksums of either byte order", () => {
    expect(scan(build())).toEqual({ validFrames: 10, ...SOUND });
    expect(scan(build({ isBigEndian: true }))).toEqual({ validFrames: 10, ...SOUND });
  });

  test("may be empty, shorter than a frame, or all zeros", () => {
    for (const length of [0, 1, WAL_HEADER_BYTES, WAL_HEADER_BYTES + 10]) {
      expect(scan(build().subarray(0, length))).toEqual({ validFrames: 0, ...SOUND });
    }
    expect(scan(new Uint8Array(WAL_HEADER_BYTES + 5 * FRAME_BYTES))).toEqual({ validFrames: 0, ...SOUND });
  });

  test("that was started over holds old frames behind the new ones", () => {
    const old = build({ transactions: [2, 2, 2, 2, 2, 2] });
    const young = build({ transactions: [1, 2], salts: 0x99n });
    old.set(young);
    expect(scan(old)).toEqual({ validFrames: 3, ...SOUND });
    // Only its new header has reached the disk yet.
    const started = build({ transactions: [2, 2, 2, 2] });
    started.set(young.subarray(0, WAL_HEADER_BYTES));
    expect(scan(started)).toEqual({ validFrames: 0, ...SOUND });
  });
});

describe("a torn tail", () => {
  test("cut anywhere is not damage: the transactions before it are counted", () => {
    const bytes = build();
    for (let length = WAL_HEADER_BYTES + 6 * FRAME_BYTES; length < bytes.length; length += 97) {
      const { validFrames, lostCommits } = scan(bytes.subarray(0, length));
      expect(validFrames).toBeGreaterThanOrEqual(6);
      expect(lostCommits).toBe(0);
    }
  });

  test("of which only some sectors have arrived is not damage", () => {
    const bytes = build();
    for (let sector = WAL_HEADER_BYTES + 6 * FRAME_BYTES; sector < bytes.length; sector += 512) {
      const torn = bytes.slice().fill(0, sector, sector + 512);
      expect(scan(torn)).toMatchObject(SOUND);
    }
  });
});

describe("a single flipped bit", () => {
  test("in the header, before two commits, is damage", () => {
    const bytes = build({ pageBytes: 4096 });
    for (let bit = 0; bit < 8 * WAL_HEADER_BYTES; bit++) {
      expect([bit, scan(flipBit(bytes, bit)).lostCommits]).toEqual([bit, 4]);
    }
  });

  for (const databasePages of [7, 8, 16, 65_536]) {
    test(`in any transaction but the last is damage, in a database of ${databasePages} pages`, () => {
      const bytes = build({ databasePages });
      const missed: number[] = [];
      const lastTransaction = WAL_HEADER_BYTES + 6 * FRAME_BYTES;
      for (let frame = WAL_HEADER_BYTES; frame < lastTransaction; frame += FRAME_BYTES) {
        // Every bit of the frame header, and one of each sector of the page.
        for (let bit = 8 * frame; bit < 8 * (frame + WAL_FRAME_HEADER_BYTES); bit++) {
          if (scan(flipBit(bytes, bit)).lostCommits === 0) missed.push(bit - 8 * frame);
        }
        for (let at = frame + WAL_FRAME_HEADER_BYTES; at < frame + FRAME_BYTES; at += 512) {
          if (scan(flipBit(bytes, 8 * at + 3)).lostCommits === 0) missed.push(8 * (at - frame) + 3);
        }
      }
      expect(missed).toEqual([]);
    });
  }

  test("in the last transaction looks like a torn tail: the others are kept", () => {
    const bytes = build();
    for (let bit = 8 * (WAL_HEADER_BYTES + 6 * FRAME_BYTES); bit < 8 * bytes.length; bit += 1009) {
      const { validFrames, lostCommits } = scan(flipBit(bytes, bit));
      expect(validFrames).toBeGreaterThanOrEqual(6);
      expect(lostCommits).toBe(0);
    }
  });
});
