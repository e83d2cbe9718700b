// The reserve file: space that is given up when the volume is full, and taken again when there is plenty.

import { rmSync, statfsSync, statSync } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { freeBytesAt } from "./free-space.ts";

const PIECE_BYTES = 1024 * 1024;
const VOLUME_SHARE = 16;

/** `wantedBytes`, cut to 1/16 of the volume. */
export function reserveBytesOf(directory: string, wantedBytes: number): number {
  const { blocks, bsize } = statfsSync(directory);
  return Math.min(wantedBytes, Math.floor((blocks * bsize) / VOLUME_SHARE));
}

/** Returns how many bytes it held; 0 = there was none. */
export function giveUpReserve(path: string): number {
  const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  rmSync(path, { force: true });
  return bytes;
}

/**
 * Writes the reserve anew when it is missing and twice its size is free. `wantedBytes` is cut to a share of the volume.
 * Real bytes, in small steps: a sparse file would reserve nothing, one large write would hold up the others.
 */
export async function ensureReserve(path: string, directory: string, wantedBytes: number): Promise<void> {
  const bytes = reserveBytesOf(directory, wantedBytes);
  if (bytes === 0) return rm(path, { force: true });
  const existing = await stat(path).catch(() => null);
  if (existing !== null) return;
  if (freeBytesAt(directory) < 2 * bytes) return;
  const draft = `${path}.new`;
  try {
    await using file = await open(draft, "w", 0o600);
    const piece = crypto.getRandomValues(new Uint8Array(65_536));
    for (let written = 0; written < bytes; ) {
      const step = Math.min(PIECE_BYTES, bytes - written);
      for (let at = 0; at < step; at += piece.length) {
        await file.write(piece, 0, Math.min(piece.length, step - at));
      }
      written += step;
    }
    await rename(draft, path);
  } catch {
    // No room after all: the store works without a reserve until the next try.
    await rm(draft, { force: true });
  }
}
