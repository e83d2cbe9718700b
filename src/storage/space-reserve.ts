// The reserve file: space that is given up when the volume is full, and taken again when there is plenty.

import { statfsSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { freeBytesAt } from "./free-space.ts";
import { removeFile } from "./remove-file.ts";
import { sizeOf } from "./store-files.ts";

const STEP_BYTES = 1024 * 1024;
const PIECE_BYTES = 65_536;
const VOLUME_SHARE = 16;
/** Of what is wanted. Where the size of a volume wavers, the reserve must not be written again and again. */
const ENOUGH_SHARE = 0.75;

/** `wantedBytes`, cut to 1/16 of the volume. */
export function reserveBytesOf(directory: string, wantedBytes: number): number {
  const { blocks, bsize } = statfsSync(directory);
  return Math.min(wantedBytes, Math.floor((blocks * bsize) / VOLUME_SHARE));
}

/** False as well for one that is too small: of an earlier setting, or of a volume that has been made larger since. */
export function isReserveHeld(path: string, wantedBytes: number): boolean {
  return isEnough(sizeOf(path), reserveBytesOf(dirname(path), wantedBytes));
}

/** What is kept already, be it too little or still being written. */
export function keptReserveBytes(path: string): number {
  // In this order: one that is renamed meanwhile counts twice rather than not at all.
  return sizeOf(draftOf(path)) + sizeOf(path);
}

/** Returns how many bytes it held; 0 = there was none. */
export function giveUpReserve(path: string): number {
  const bytes = sizeOf(path);
  removeFile(path);
  return bytes;
}

/**
 * Writes the reserve anew when it is missing or too small, and twice its size is free. `wantedBytes` is cut to a share
 * of the volume. Never two at once.
 */
export async function ensureReserve(path: string, directory: string, wantedBytes: number): Promise<void> {
  const draft = draftOf(path);
  // Of a process that was killed: it holds space even where there is too little for a reserve.
  await rm(draft, { force: true });
  const bytes = reserveBytesOf(directory, wantedBytes);
  if (bytes === 0) return rm(path, { force: true });
  const heldBytes = sizeOf(path);
  if (isEnough(heldBytes, bytes)) return;
  // One that is too small goes when its successor is there.
  if (freeBytesAt(directory) + heldBytes < 2 * bytes) return;
  try {
    await writeBytes(draft, bytes);
    await rename(draft, path);
  } catch {
    // No room after all: the store works without a reserve until the next try.
    await rm(draft, { force: true });
  }
}

/**
 * Real bytes: a sparse file would reserve nothing. Synced, or a power cut would leave a name without them; in small
 * steps, since a large one would hold up the commits.
 */
async function writeBytes(path: string, bytes: number): Promise<void> {
  await using file = await open(path, "w", 0o600);
  const piece = crypto.getRandomValues(new Uint8Array(PIECE_BYTES));
  let syncedBytes = 0;
  for (let written = 0; written < bytes; ) {
    written += (await file.write(piece, 0, Math.min(PIECE_BYTES, bytes - written))).bytesWritten;
    if (written < bytes && written - syncedBytes < STEP_BYTES) continue;
    await file.datasync();
    syncedBytes = written;
  }
}

function isEnough(heldBytes: number, bytes: number): boolean {
  return heldBytes >= ENOUGH_SHARE * bytes;
}

function draftOf(path: string): string {
  return `${path}.new`;
}
