// Backups of the running store, one at a time, each on a thread of its own.

import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { AppError, messageOf } from "../shared/errors.ts";
import type { BackupReport } from "./backup-store.ts";
import type { StartThread } from "./start-thread.ts";
import { utcStamp } from "./store-files.ts";
import { makeDirectory } from "./sync-path.ts";
import type { BackupJob, BackupReply } from "./thread-messages.ts";

export interface BackupClientOptions {
  /** The database file of the store. */
  readonly source: string;
  readonly directory: string;
  readonly walLimitBytes: number;
  readonly startThread: StartThread;
}

export class BackupClient implements AsyncDisposable {
  readonly #options: BackupClientOptions;
  readonly #cancelled = new Int32Array(new SharedArrayBuffer(4));
  #running: Promise<BackupReport> | null = null;

  constructor(options: BackupClientOptions) {
    this.#options = options;
  }

  /**
   * Writes `gokv-<utc>.db` into the backup directory. Everything acknowledged before the call is in it.
   * @throws AppError backup_running, storage_full, internal_error
   */
  async run(nowMs: number): Promise<BackupReport> {
    if (this.#running !== null) throw new AppError("backup_running", "A backup is running already.");
    this.#running = this.#start(nowMs);
    try {
      return await this.#running;
    } finally {
      this.#running = null;
    }
  }

  /** Gives a running backup up; it leaves no file behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    Atomics.store(this.#cancelled, 0, 1);
    await this.#running?.catch(() => undefined);
  }

  async #start(nowMs: number): Promise<BackupReport> {
    const { source, directory, walLimitBytes, startThread } = this.#options;
    try {
      makeDirectory(directory);
    } catch (cause) {
      throw new AppError("internal_error", "The backup directory cannot be made.", { cause });
    }
    const target = join(directory, `gokv-${utcStamp(nowMs)}.db`);
    const cancelled = this.#cancelled.buffer as SharedArrayBuffer;
    const job: BackupJob = { source, target, walLimitBytes, cancelled };
    const reply = await firstMessage(startThread("backup", { ...job }));
    if ("report" in reply) return reply.report;
    const cause = new Error(reply.failure);
    throw reply.isFull
      ? new AppError("storage_full", "There is no space left for the backup.", { cause })
      : new AppError("internal_error", "The backup failed; the log says why.", { cause });
  }
}

function firstMessage(thread: Worker): Promise<BackupReply> {
  return new Promise((resolve) => {
    thread.on("message", resolve);
    thread.on("error", (error) => resolve({ failure: messageOf(error), isFull: false }));
    thread.on("exit", () => resolve({ failure: "the backup thread ended", isFull: false }));
  });
}
