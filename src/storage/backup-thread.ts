// The backup thread: copies and proves a backup off the main thread, lives for one backup.

import { statSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";
import { EXIT, ExitError, messageOf } from "../shared/errors.ts";
import { backupStore } from "./backup-store.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import type { BackupJob, BackupReply } from "./thread-messages.ts";

/** While a backup runs the log cannot restart. Past this many times its limit the backup is given up instead. */
const WAL_LIMITS_MAX = 4;

export async function runBackupThread(port: MessagePort, job: BackupJob): Promise<void> {
  const { source, target, walLimitBytes } = job;
  const isCancelled = new Int32Array(job.cancelled);
  const onStep = () => {
    if (Atomics.load(isCancelled, 0) === 1) throw new ExitError(EXIT.failed, "The server is shutting down.");
    const walBytes = statSync(`${source}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    if (walBytes > WAL_LIMITS_MAX * walLimitBytes) {
      throw new ExitError(EXIT.failed, "Too much was written while the backup ran; try again when there is less load.");
    }
  };
  let reply: BackupReply;
  try {
    reply = { report: await backupStore({ source, target, onStep }) };
  } catch (error) {
    const isFull = classifySqliteError(error) === "full" || /no space left/.test(messageOf(error));
    reply = { failure: messageOf(error), isFull };
  }
  port.postMessage(reply);
  port.close();
}
