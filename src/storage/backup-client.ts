// Backups of the running store, one at a time, each on a thread of its own.

import { join } from "node:path";
import { AppError, EXIT, ExitError, messageOf } from "../shared/errors.ts";
import type { BackupReport } from "./backup-store.ts";
import { removeAbandoned } from "./partial-files.ts";
import type { StartThread } from "./start-thread.ts";
import { utcStamp } from "./store-files.ts";
import { makeDirectory } from "./sync-path.ts";
import type { BackupJob, BackupReply } from "./thread-messages.ts";

interface BackupClientOptions {
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
    removeAbandoned(directory, nowMs);
    const target = join(directory, `gokv-${utcStamp(nowMs)}.db`);
    const cancelled = this.#cancelled.buffer as SharedArrayBuffer;
    const job: BackupJob = { source, target, walLimitBytes, cancelled };
    const reply = await runBackup(startThread, job);
    if ("report" in reply) return reply.report;
    const cause = new Error(reply.failure);
    throw reply.isFull
      ? new AppError("storage_full", "There is no space left for the backup.", { cause })
      : new AppError("internal_error", "The backup failed; the log says why.", { cause });
  }
}

/**
 * A backup for a command, which has to hear signals while it is copied and proven: both hold up the thread they are on.
 * @throws ExitError (1) the target exists or cannot be written, or too much is written meanwhile, (4) it is damaged
 */
export async function backUpInThread(startThread: StartThread, job: BackupJob): Promise<BackupReport> {
  const reply = await runBackup(startThread, job);
  if ("report" in reply) return reply.report;
  const { failure, isFull, exitCode } = reply;
  if (exitCode !== null) throw new ExitError(exitCode, failure);
  if (isFull) {
    throw new ExitError(EXIT.failed, `There is no space left to write ${job.target}. Free some and try again.`);
  }
  throw new ExitError(EXIT.failed, `${job.target} was not written: ${failure}.`);
}

function runBackup(startThread: StartThread, job: BackupJob): Promise<BackupReply> {
  const thread = startThread("backup", { ...job });
  const failed = (failure: string): BackupReply => ({ failure, isFull: false, exitCode: null });
  return new Promise((resolve) => {
    thread.on("message", resolve);
    thread.on("error", (error) => resolve(failed(messageOf(error))));
    thread.on("exit", () => resolve(failed("the backup thread ended")));
  });
}
