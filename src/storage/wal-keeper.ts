// Keeps the write-ahead log small: when to copy its pages into the database file, when to cut it back.

import type { Database, Statement } from "bun:sqlite";
import { monotonicMs } from "../shared/clock.ts";
import { classifySqliteError } from "./sqlite-errors.ts";

/** A frame of the log: a 4096-byte page behind a 24-byte header. */
const FRAME_BYTES = 4120;
const COPY_AFTER_FRAMES = Math.ceil((4 * 1024 * 1024) / FRAME_BYTES);
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

export class WalKeeper {
  readonly #statements: Readonly<Record<Mode, Statement<WalState, []>>>;
  readonly #limitFrames: number;
  readonly #onFull: () => void;
  #lastWriteMs = monotonicMs();
  #nextTruncateMs = 0;
  #frames = 0;

  /** `onFull` is called when the pages of the log find no room in the database file. */
  constructor(database: Database, limitBytes: number, onFull: () => void) {
    const prepare = (mode: Mode) => database.prepare<WalState, []>(`PRAGMA wal_checkpoint(${mode})`);
    this.#statements = { NOOP: prepare("NOOP"), PASSIVE: prepare("PASSIVE"), TRUNCATE: prepare("TRUNCATE") };
    this.#limitFrames = Math.floor(limitBytes / FRAME_BYTES);
    this.#onFull = onFull;
  }

  /** Bytes of the log that are in use. */
  get usedBytes(): number {
    return this.#frames * FRAME_BYTES;
  }

  /** To be called between transactions. */
  afterWrite(): void {
    this.#lastWriteMs = monotonicMs();
    let state = this.#run("NOOP");
    if (state.log - state.checkpointed >= COPY_AFTER_FRAMES) state = this.#run("PASSIVE");
    if (state.log > this.#limitFrames) this.#truncate();
  }

  /** To be called about once a second. */
  whenIdle(): void {
    if (this.#frames > 0 && monotonicMs() - this.#lastWriteMs >= TRUNCATE_AFTER_IDLE_MS) this.#truncate();
  }

  /** While the volume is full, every frame that is copied makes room for a delete. */
  makeRoom(): void {
    this.#run("PASSIVE");
  }

  /** The last act before a clean close: no frame is left. */
  finish(): void {
    this.#run("TRUNCATE");
  }

  /** Waits for no reader; one that is in the way only puts it off. */
  #truncate(): void {
    const nowMs = monotonicMs();
    if (nowMs < this.#nextTruncateMs) return;
    this.#nextTruncateMs = this.#run("TRUNCATE").busy === 0 ? 0 : nowMs + TRUNCATE_RETRY_MS;
  }

  #run(mode: Mode): WalState {
    try {
      const state = this.#statements[mode].get()!;
      this.#frames = state.log;
      return state;
    } catch (error) {
      const failure = classifySqliteError(error);
      if (failure === "full") this.#onFull();
      // The frames stay where they are and the next call tries again; nothing acknowledged is in danger.
      if (failure === "busy" || failure === "full") return { busy: 1, log: this.#frames, checkpointed: this.#frames };
      throw error;
    }
  }
}
