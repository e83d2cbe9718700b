// The reserve file: when it is written anew, and what a process that was killed has left of it.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { freeBytesAt } from "../../src/storage/free-space.ts";
import { ensureReserve } from "../../src/storage/space-reserve.ts";
import { has, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
/** Neither a whole number of pieces nor of steps. */
const WANTED_BYTES = 2 * MiB + 70_001;

let dir: TempDir;
let reserve: string;
beforeEach(() => {
  dir = tempDir();
  reserve = dir.file("reserve");
});
afterEach(() => dir[Symbol.dispose]());

test("a reserve holds as many bytes as are wanted, and none that a file system could save", async () => {
  await ensureReserve(reserve, dir.path, WANTED_BYTES);
  const bytes = readFileSync(reserve);
  expect([bytes.length, readdirSync(dir.path)]).toEqual([WANTED_BYTES, ["reserve"]]);
  expect(gzipSync(bytes.subarray(0, 65_536)).length).toBeGreaterThan(65_000);
});

test.each([0, 4096, MiB])("a reserve of %d bytes is brought up to the size that is wanted", async (bytes) => {
  writeFileSync(reserve, new Uint8Array(bytes));
  await ensureReserve(reserve, dir.path, WANTED_BYTES);
  expect(statSync(reserve).size).toBe(WANTED_BYTES);
});

test.each([
  ["as large as wanted", WANTED_BYTES],
  ["larger", 2 * WANTED_BYTES],
  ["little smaller, as where the size of the volume wavers,", WANTED_BYTES - 4096],
])("a reserve that is %s is not written again", async (_, bytes) => {
  writeFileSync(reserve, new Uint8Array(bytes));
  const { ino, size } = statSync(reserve);
  await ensureReserve(reserve, dir.path, WANTED_BYTES);
  expect([statSync(reserve).ino, statSync(reserve).size]).toEqual([ino, size]);
});

test("a reserve that is not wanted any more is removed", async () => {
  writeFileSync(reserve, new Uint8Array(4096));
  await ensureReserve(reserve, dir.path, 0);
  expect(readdirSync(dir.path)).toEqual([]);
});

if (has("root, to mount a small volume", isRoot())) {
  /** Takes all but `leftBytes` of the volume. */
  const takeRoom = (path: string, leftBytes: number) =>
    writeFileSync(join(path, "other"), new Uint8Array(freeBytesAt(path) - leftBytes));

  test("what a killed process has written of a reserve is removed where there is no room for one, too", async () => {
    using volume = mountSmallVolume(16 * MiB);
    const path = join(volume.path, "reserve");
    writeFileSync(`${path}.new`, new Uint8Array(MiB / 2));
    takeRoom(volume.path, MiB / 4);
    await ensureReserve(path, volume.path, MiB);
    expect([existsSync(path), existsSync(`${path}.new`), freeBytesAt(volume.path)]).toEqual([
      false,
      false,
      (3 * MiB) / 4,
    ]);
  });

  test("a reserve that is too small stays where there is no room for a larger one", async () => {
    using volume = mountSmallVolume(16 * MiB);
    const path = join(volume.path, "reserve");
    writeFileSync(path, new Uint8Array(4096));
    takeRoom(volume.path, MiB + MiB / 2);
    await ensureReserve(path, volume.path, MiB);
    expect(readdirSync(volume.path).sort()).toEqual(["other", "reserve"]);
    expect(statSync(path).size).toBe(4096);
  });

  test("a reserve grows with its volume", async () => {
    using volume = mountSmallVolume(16 * MiB);
    const path = join(volume.path, "reserve");
    const sizes: number[] = [];
    for (const volumeMiB of [16, 64]) {
      volume.resize(volumeMiB * MiB);
      await ensureReserve(path, volume.path, 16 * MiB);
      sizes.push(statSync(path).size / MiB);
    }
    expect(sizes).toEqual([1, 4]);
  });
}
