// Full mode: what still works when the volume or the quota is full, and when a put is worth a try again.

import type { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { monotonicMs } from "../shared/clock.ts";
import { freeBytesAt } from "./free-space.ts";
import type { FullCause } from "./full-cause.ts";
import { giveUpReserve, isReserveHeld, keptReserveBytes } from "./space-reserve.ts";
import { PAGE_BYTES } from "./sqlite-connection.ts";
import { sizeOf } from "./store-files.ts";
import {
  isReserveOfUse,
  KEPT_BYTES_MIN,
  LITTLE_ROOM_BYTES,
  pagesOf,
  roomBytes,
  uncopiedBytesMax,
  VOLUME_REST_BYTES_MAX,
} from "./volume-room.ts";

const RETRY_MS = 1000;
/** Even where a limit of the operator's is reached: else nothing could be deleted that leaves a trace. */
const FREEING_PAGES_MIN = 64;
/** A value lies in pages and frames, each with a header. */
const STORED_PER_VALUE_BYTE = 1.02;

/** What the guard works on besides the reserve. */
export interface GuardedStore {
  readonly database: Database;
  /** DB_MAX_BYTES is set. */
  readonly isLimited: boolean;
  /** What the reserve holds when there is room for it; 0 = there is none. */
  readonly reserveBytes: number;
  /** Copies the log into the database file, as far as there is room for it. */
  makeRoom(): void;
  /** The same, and cuts the log back to nothing, unless a reader is in the way. */
  emptyLog(): void;
}

/** While the file must not grow further: why, the pages allowed before, and now to puts and to what frees. */
interface Cap {
  readonly cause: FullCause;
  readonly pagesMax: number;
  readonly growingPagesMax: number;
  readonly freeingPagesMax: number;
}

/** Lives on the storage thread. While full, deletes, the sweep and reads go on; puts are refused but for probes. */
export class SpaceGuard {
  readonly #reservePath: string;
  readonly #store: GuardedStore;
  /** There is to be one: it may be missing now. */
  readonly #hasReserve: boolean;
  #fullCause: FullCause | null = null;
  #nextPutMs = 0;
  #cap: Cap | null = null;
  /** Of the smallest value that was refused for its size alone, until one like it finds room. */
  #refusedBytes: number | null = null;

  constructor(reservePath: string, store: GuardedStore) {
    this.#reservePath = reservePath;
    this.#store = store;
    this.#hasReserve = isReserveOfUse(store.reserveBytes);
  }

  get isFull(): boolean {
    return this.#fullCause !== null;
  }

  /** Null while puts are taken. */
  get fullCause(): FullCause | null {
    return this.#fullCause;
  }

  /** Values from so many bytes on find no room, though smaller ones may; null = none was refused for that. */
  get refusedBytes(): number | null {
    return this.#refusedBytes;
  }

  /**
   * To be called once, before the first write: of the process before only what is on the volume is left.
   * `givenUpBytes`: of a reserve that had to go for the store to be opened.
   */
  noteOpened(givenUpBytes: number): void {
    if (givenUpBytes > 0) this.#fullCause = "volume";
    this.#keepRoom();
  }

  /** To be called after each write, between transactions. `isRoomLittle`: as the checkpointer has found. */
  noteWritten(isRoomLittle: boolean): void {
    if (!this.#hasReserve && (isRoomLittle || this.#cap !== null)) this.#keepRoom();
  }

  #keepRoom(): void {
    if (!this.#hasReserve) this.#keepRoomForLog();
    else if (this.#cap === null) this.#keepRoomForReserve();
  }

  /** Where there is no reserve, or too small a one, and no room for it, as much as is missing is kept from the file. */
  #keepRoomForReserve(): void {
    const { database, reserveBytes } = this.#store;
    if (isReserveHeld(this.#reservePath, reserveBytes)) return;
    const room = roomBytes(database) + keptReserveBytes(this.#reservePath);
    if (room < 2 * reserveBytes) this.#limitFile("volume", Math.min(room, reserveBytes), room - reserveBytes);
  }

  /**
   * Where there is to be no reserve, and little room, each commit may take half of what is left: every page goes into
   * the log first, and a log that finds no room in the file could never be used again, not even for deletes.
   */
  #keepRoomForLog(): void {
    const { database } = this.#store;
    if (this.#cap !== null) this.#limitPages(this.#cap.pagesMax);
    this.#cap = null;
    const room = roomBytes(database);
    if (room >= LITTLE_ROOM_BYTES) return;
    this.#limitFile("volume", Math.min(room, KEPT_BYTES_MIN), (room - KEPT_BYTES_MIN) / 2);
  }

  /**
   * Whether values of so many bytes find room twice: in the log, and in the file when that is copied into it. A commit
   * whose log cannot be copied would be the last one. What may wait in the log anyway is covered by the reserve, so a
   * usual write asks the volume nothing where there is one, or much room. To be called between transactions.
   */
  hasRoomFor(valueBytes: number): boolean {
    if (this.#hasRoomNow(valueBytes)) return true;
    this.#store.emptyLog();
    return this.#fits(valueBytes);
  }

  /** `hasRoomFor` said no, and so was the client told. */
  noteRefused(valueBytes: number): void {
    this.#refusedBytes = Math.min(valueBytes, this.#refusedBytes ?? valueBytes);
  }

  /** To be called between transactions. */
  copyLog(): void {
    this.#store.makeRoom();
  }

  /** As the log is now. */
  #hasRoomNow(valueBytes: number): boolean {
    if (valueBytes === 0) return true;
    const isCovered = this.#hasReserve || this.#cap === null;
    return (isCovered && valueBytes <= uncopiedBytesMax(this.#store.reserveBytes)) || this.#fits(valueBytes);
  }

  /** What `hasRoomFor` would say, but the log is not emptied for that: only a write is worth it. */
  #hasRoomEmptied(valueBytes: number): boolean {
    const { filename } = this.#store.database;
    return this.#hasRoomNow(valueBytes) || this.#fits(valueBytes, sizeOf(`${filename}-wal`));
  }

  /** `emptiedBytes`: of the log, which would be free besides. */
  #fits(valueBytes: number, emptiedBytes = 0): boolean {
    const { database } = this.#store;
    const bytes = STORED_PER_VALUE_BYTE * valueBytes;
    const growthBytes = Math.max(0, bytes - pagesOf(database, "freelist_count") * PAGE_BYTES);
    return roomBytes(database) + emptiedBytes >= bytes + growthBytes;
  }

  /** Whether `noteFull` will find something to give up, so that a delete which met "no space" is worth another try. */
  get canMakeRoom(): boolean {
    return this.#fullCause === null || existsSync(this.#reservePath);
  }

  /**
   * A write met "no space". Gives up the reserve, so that deletes and the checkpoint have room to work in. To be called
   * between transactions.
   */
  noteFull(): void {
    this.#nextPutMs = monotonicMs() + RETRY_MS;
    if (!this.canMakeRoom) return;
    // It was not the volume but a cap that is no longer needed.
    if (this.#liftCap()) return;
    const cause = this.#findCause();
    this.#fullCause = cause;
    this.#giveUpReserve(cause);
    this.#store.makeRoom();
  }

  /**
   * Runs what makes room, or ends what must not go on: it, too, leaves traces, for which half of the reserve that was
   * given up is kept.
   */
  async withRoomToFree<T>(act: () => Promise<T>): Promise<T> {
    if (this.#cap === null) return act();
    this.#limitPages(this.#cap.freeingPagesMax);
    try {
      return await act();
    } finally {
      if (this.#cap !== null) this.#limitPages(this.#cap.growingPagesMax);
    }
  }

  /** To be called about once a second: lets the file grow again when that may be, and large values into it. */
  keepHouse(): void {
    if (!this.#liftCap()) this.#keepRoom();
    if (this.#refusedBytes !== null && this.#hasRoomEmptied(this.#refusedBytes)) this.#refusedBytes = null;
  }

  /** Space was freed: the next put is tried at once. */
  noteFreed(): void {
    this.#nextPutMs = 0;
  }

  notePutStored(): void {
    this.#fullCause = null;
  }

  /** True for one put per second, and for the first one after space was freed. */
  takePutTurn(): boolean {
    const nowMs = monotonicMs();
    if (nowMs < this.#nextPutMs) return false;
    this.#nextPutMs = nowMs + RETRY_MS;
    return true;
  }

  /** To be asked before the reserve is given up. */
  #findCause(): FullCause {
    if (this.#cap !== null && this.#cap.growingPagesMax < this.#cap.pagesMax) return this.#cap.cause;
    if (!this.#store.isLimited) return "volume";
    return freeBytesAt(dirname(this.#reservePath)) > VOLUME_REST_BYTES_MAX ? "DB_MAX_BYTES" : "volume";
  }

  /**
   * There is one reserve only, and until the next is written the database file stays as large as it is: puts use the
   * pages that deletes have freed. If it grew into the last free block, the log could never be copied into it, and then
   * not even a delete would find room.
   */
  #giveUpReserve(cause: FullCause): void {
    const givenUpBytes = giveUpReserve(this.#reservePath);
    if (this.#cap !== null || !this.#hasReserve) return;
    const { database, reserveBytes } = this.#store;
    // A volume that fills up before the first reserve is written, or a larger one, has to do with what is left.
    const leftBytes = Math.max(givenUpBytes, Math.min(roomBytes(database), reserveBytes));
    this.#limitFile(cause, leftBytes, 0);
  }

  /** What frees may take half of the bytes that are kept, puts none of them. */
  #limitFile(cause: FullCause, keptBytes: number, growingBytes: number): void {
    const pages = pagesOf(this.#store.database, "page_count");
    const pagesMax = this.#limitPages(0);
    const pagesWith = (bytes: number) => Math.min(pagesMax, pages + Math.max(0, Math.floor(bytes / PAGE_BYTES)));
    const growingPagesMax = pagesWith(growingBytes);
    const freeingPagesMax = Math.max(pages + FREEING_PAGES_MIN, pagesWith(Math.max(0, growingBytes) + keptBytes / 2));
    this.#cap = { cause, pagesMax, growingPagesMax, freeingPagesMax };
    this.#limitPages(growingPagesMax);
  }

  /** Free space alone is not enough: puts would take it before it is a reserve. True when there was a cap until now. */
  #liftCap(): boolean {
    if (this.#cap === null || !this.#isCapNeedless(this.#cap.cause)) return false;
    this.#limitPages(this.#cap.pagesMax);
    this.#cap = null;
    this.noteFreed();
    return true;
  }

  #isCapNeedless(cause: FullCause): boolean {
    const { database, reserveBytes } = this.#store;
    if (!this.#hasReserve) return roomBytes(database) >= LITTLE_ROOM_BYTES;
    if (cause === "volume") return isReserveHeld(this.#reservePath, reserveBytes);
    return freeBytesAt(dirname(this.#reservePath)) >= 2 * reserveBytes;
  }

  /** Returns the limit that holds now; 0 changes nothing. */
  #limitPages(pages: number): number {
    const sql = `PRAGMA max_page_count = ${pages}`;
    return this.#store.database.query<{ max_page_count: number }, []>(sql).get()!.max_page_count;
  }
}
