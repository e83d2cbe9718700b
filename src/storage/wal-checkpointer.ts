// Keeps the write-ahead log small: when to checkpoint it, which copies its pages, and when to cut it back.

import type { Database, Statement } from "bun:sqlite";
import { dirname } from "node:path";
import { MiB } from "../shared/bounds.ts";
import { monotonicMs } from "../shared/clock.ts";
import { freeBytesAt } from "./free-space.ts";
import { PAGE_BYTES } from "./sqlite-connection.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import { isReserveOfUse, LITTLE_ROOM_BYTES, roomBytes, uncopiedBytesMax } from "./volume-room.ts";

/** A frame of the log: a page behind a 24-byte header. */
const FRAME_BYTES = PAGE_BYTES + 24;
/** Of the log where there is little room and no reserve: what it holds is missing for the file. */
const LITTLE_LOG_FRAMES = Math.floor(MiB / FRAME_BYTES);
const TRUNCATE_AFTER_IDLE_MS = 30_000;
const TRUNCATE_RETRY_MS = 1000;

type Mode = "NOOP" | "PASSIVE" | "TRUNCATE";
interface WalState {
  /** 1 when readers or a foreign checkpoint stood in the way. */
  readonly busy: number;
  /** Frames in the log since it was last reset; the file itself does not shrink and says nothing. */
  readonly log: number;
  readonly checkpointed: number;
}

interface WalCheckpointerOptions {
  readonly limitBytes: number;
  /** What is kept free for a full volume; 0 = nothing. */
  readonly reserveBytes: number;
  /** Called when the pages of the log find no room in the database file. */
  readonly onFull: () => void;
}

export class WalCheckpointer {
  readonly #database: Database;
  readonly #statements: Readonly<Record<Mode, Statement<WalState, []>>>;
  readonly #limitFrames: number;
  readonly #copyAfterFrames: number;
  readonly #hasReserve: boolean;
  readonly #onFull: () => void;
  #lastWriteMs = monotonicMs();
  #nextTruncateMs = 0;
  #frames = 0;

  constructor(database: Database, { limitBytes, reserveBytes, onFull }: WalCheckpointerOptions) {
    this.#database = database;
    const prepare = (mode: Mode) => database.prepare<WalState, []>(`PRAGMA wal_checkpoint(${mode})`);
    this.#statements = { NOOP: prepare("NOOP"), PASSIVE: prepare("PASSIVE"), TRUNCATE: prepare("TRUNCATE") };
    this.#limitFrames = Math.floor(limitBytes / FRAME_BYTES);
    this.#copyAfterFrames = Math.ceil(uncopiedBytesMax(reserveBytes) / FRAME_BYTES);
    this.#hasReserve = isReserveOfUse(reserveBytes);
    this.#onFull = onFull;
  }

  /** Bytes of the log that are in use. */
  get usedBytes(): number {
    return this.#frames * FRAME_BYTES;
  }

  /** To be called between transactions. Returns whether little room is left, and no reserve stands behind the log. */
  afterWrite(): boolean {
    this.#lastWriteMs = monotonicMs();
    let state = this.#run("NOOP");
    const isShort = this.#isShort(state);
    if (state.log - state.checkpointed >= (isShort ? 1 : this.#copyAfterFrames)) state = this.#run("PASSIVE");
    if (state.log > (isShort ? Math.min(LITTLE_LOG_FRAMES, this.#limitFrames) : this.#limitFrames)) this.#truncate();
    return isShort;
  }

  /** Each frame that waits is taken for one that makes the file larger: to know better takes longer. */
  #isShort({ log, checkpointed }: WalState): boolean {
    if (this.#hasReserve) return false;
    return freeBytesAt(dirname(this.#database.filename)) - (log - checkpointed) * PAGE_BYTES < LITTLE_ROOM_BYTES;
  }

  /** To be called about once a second. */
  whenIdle(): void {
    if (this.#frames > 0 && monotonicMs() - this.#lastWriteMs >= TRUNCATE_AFTER_IDLE_MS) this.#truncate();
  }

  /** While the volume is full, every frame that is copied makes room for a delete. */
  makeRoom(): void {
    this.#run("PASSIVE");
  }

  /** No frame is left unless a reader is in the way. The last act before a clean close, too. */
  empty(): void {
    this.#run("TRUNCATE");
  }

  /** Waits for no reader; one that is in the way only puts it off. */
  #truncate(): void {
    const nowMs = monotonicMs();
    if (nowMs < this.#nextTruncateMs) return;
    this.#nextTruncateMs = this.#run("TRUNCATE").busy === 0 ? 0 : nowMs + TRUNCATE_RETRY_MS;
  }

  #run(mode: Mode): WalState {
    const postponed = { busy: 1, log: this.#frames, checkpointed: this.#frames };
    try {
      // Half a copy would take the room that deletes need, and free none: the log is used again only when all of it was
      // copied.
      if (mode !== "NOOP" && roomBytes(this.#database) < 0) {
        this.#onFull();
        return postponed;
      }
      const state = this.#statements[mode].get()!;
      this.#frames = state.log;
      return state;
    } catch (error) {
      const failure = classifySqliteError(error);
      if (failure === "full") this.#onFull();
      // The frames stay where they are and the next call tries again; nothing acknowledged is in danger.
      if (failure === "busy" || failure === "full") return postponed;
      throw error;
    }
  }
}
