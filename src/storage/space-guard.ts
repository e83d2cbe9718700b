// Full mode: what still works when the volume or the quota is full, and when a put is worth a try again.

import type { Database } from "bun:sqlite";
import { dirname } from "node:path";
import { monotonicMs } from "../shared/clock.ts";
import { freeBytesAt } from "./free-space.ts";
import type { FullCause } from "./full-cause.ts";
import { giveUpReserve } from "./space-reserve.ts";

const RETRY_MS = 1000;
/** Even where a limit of the operator's is reached: else nothing could be deleted that leaves a trace. */
const FREEING_PAGES_MIN = 64;
/** With more free than this it was not the volume that refused a page. */
const VOLUME_REST_BYTES_MAX = 65_536;

/** What the guard works on besides the reserve. */
export interface GuardedStore {
  readonly database: Database;
  /** DB_MAX_BYTES is set. */
  readonly isLimited: boolean;
  /** Copies the log into the database file, as far as there is room for it. */
  makeRoom(): void;
}

/** While the file must not grow: why, the size of the reserve that was given up, and the pages allowed before. */
interface Cap {
  readonly cause: FullCause;
  readonly reserveBytes: number;
  readonly pagesMax: number;
  readonly freeingPagesMax: number;
}

/** Lives on the storage thread. While full, deletes, the sweep and reads go on; puts are refused but for probes. */
export class SpaceGuard {
  readonly #reservePath: string;
  readonly #store: GuardedStore | null;
  #fullCause: FullCause | null = null;
  #nextPutMs = 0;
  #cap: Cap | null = null;

  constructor(reservePath: string, store: GuardedStore | null = null) {
    this.#reservePath = reservePath;
    this.#store = store;
  }

  get isFull(): boolean {
    return this.#fullCause !== null;
  }

  /** Null while puts are taken. */
  get fullCause(): FullCause | null {
    return this.#fullCause;
  }

  /**
   * A write met "no space". Gives up the reserve, so that deletes and the checkpoint have room to work in. To be called
   * between transactions.
   */
  noteFull(): void {
    this.#nextPutMs = monotonicMs() + RETRY_MS;
    if (this.#fullCause !== null) return;
    const cause = this.#findCause();
    this.#fullCause = cause;
    this.#keepSize(cause, giveUpReserve(this.#reservePath));
    this.#store?.makeRoom();
  }

  /** The volume had no room to open the store in, and a reserve of so many bytes was given up for that. */
  noteOpenedFull(reserveBytes: number): void {
    this.#fullCause = "volume";
    this.#keepSize("volume", reserveBytes);
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
      if (this.#cap !== null) this.#limitPages(this.#pages("page_count"));
    }
  }

  /** To be called about once a second: lets the file grow again when there is room for that and for a new reserve. */
  keepHouse(): void {
    if (this.#cap === null) return;
    if (freeBytesAt(dirname(this.#reservePath)) < 2 * this.#cap.reserveBytes) return;
    this.#limitPages(this.#cap.pagesMax);
    this.#cap = null;
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
    if (this.#cap !== null) return this.#cap.cause;
    if (this.#store?.isLimited !== true) return "volume";
    return freeBytesAt(dirname(this.#reservePath)) > VOLUME_REST_BYTES_MAX ? "DB_MAX_BYTES" : "volume";
  }

  /**
   * There is one reserve only, and until there is room for the next the database file stays as large as it is: puts use
   * the pages that deletes have freed. If it grew into the last free block, the log could never be copied into it, and
   * then not even a delete would find room.
   */
  #keepSize(cause: FullCause, reserveBytes: number): void {
    if (this.#store === null || this.#cap !== null || reserveBytes === 0) return;
    const pages = this.#pages("page_count");
    const pagesMax = this.#limitPages(0);
    this.#limitPages(pages);
    const keptPages = Math.floor(reserveBytes / 2 / this.#pages("page_size"));
    const freeingPagesMax = Math.max(pages + FREEING_PAGES_MIN, Math.min(pagesMax, pages + keptPages));
    this.#cap = { cause, reserveBytes, pagesMax, freeingPagesMax };
  }

  #pages(name: "page_count" | "page_size"): number {
    return this.#store!.database.query<Record<string, number>, []>(`PRAGMA ${name}`).get()![name]!;
  }

  /** Returns the limit that holds now; 0 changes nothing. */
  #limitPages(pages: number): number {
    const sql = `PRAGMA max_page_count = ${pages}`;
    return this.#store!.database.query<{ max_page_count: number }, []>(sql).get()!.max_page_count;
  }
}
