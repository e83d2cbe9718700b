// What is left on the volume of a store, and how much of it the pages that are still in the log will take.

import type { Database } from "bun:sqlite";
import { dirname } from "node:path";
import { KiB, MiB } from "../shared/bounds.ts";
import { freeBytesAt } from "./free-space.ts";
import { PAGE_BYTES } from "./sqlite-connection.ts";
import { sizeOf } from "./store-files.ts";

const UNCOPIED_BYTES_MAX = 4 * MiB;
/** For the log of what frees: with less than this a reserve is as good as none. */
export const KEPT_BYTES_MIN = 256 * KiB;
/**
 * Where no reserve stands behind the log: with less than this, nothing waits in it. What one commit adds to the log,
 * and then to the file, may take all of it.
 */
export const LITTLE_ROOM_BYTES = 64 * MiB;
/** With more free than this it was not the volume that refused a page. */
export const VOLUME_REST_BYTES_MAX = 64 * KiB;
/** Of the reserve: once the volume is full it has to take what was not copied yet, and then deletes. */
const UNCOPIED_RESERVE_SHARE = 4;

/** What may wait in the log for being copied into the database file. */
export function uncopiedBytesMax(reserveBytes: number): number {
  if (!isReserveOfUse(reserveBytes)) return UNCOPIED_BYTES_MAX;
  return Math.min(UNCOPIED_BYTES_MAX, reserveBytes / UNCOPIED_RESERVE_SHARE);
}

export function isReserveOfUse(reserveBytes: number): boolean {
  return reserveBytes >= KEPT_BYTES_MIN;
}

/**
 * Bytes that are free once all of the log was copied, what an open transaction has added included. Negative when the
 * copy finds no room; infinite where the file system does not tell its size.
 */
export function roomBytes(database: Database): number {
  const { filename } = database;
  const fileBytes = sizeOf(filename);
  const uncopiedBytes = Math.max(0, pagesOf(database, "page_count") * PAGE_BYTES - fileBytes);
  return freeBytesAt(dirname(filename)) - uncopiedBytes;
}

export function pagesOf(database: Database, name: "page_count" | "freelist_count"): number {
  return database.query<Record<string, number>, []>(`PRAGMA ${name}`).get()![name]!;
}
