// The backup thread: copies and proves a backup off the main thread, lives for one backup.

import type { MessagePort } from "node:worker_threads";
import { EXIT, type ExitCode, ExitError, messageOf } from "../shared/errors.ts";
import { isOutOfSpace } from "./access-failure.ts";
import { backupStore, logGuard } from "./backup-store.ts";
import { tellStarted } from "./spare-descriptors.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import type { BackupJob, BackupReply } from "./thread-messages.ts";

export async function runBackupThread(port: MessagePort, job: BackupJob): Promise<void> {
  const { source, target, draft, walLimitBytes, started } = job;
  if (started !== undefined) tellStarted(started);
  const isCancelled = new Int32Array(job.cancelled);
  const pages = job.pages === undefined ? null : new Int32Array(job.pages);
  const requireBoundedLog = logGuard(source, walLimitBytes);
  const onStep = (copied: number, total: number) => {
    if (Atomics.load(isCancelled, 0) === 1) throw new ExitError(EXIT.failed, "The server is shutting down.");
    requireBoundedLog();
    pages?.set([copied, total]);
  };
  let reply: BackupReply;
  try {
    reply = { report: await backupStore({ source, target, draft, onStep }) };
  } catch (error) {
    reply = { failure: messageOf(error), isFull: isOutOfSpace(error), exitCode: exitCodeOf(error) };
  }
  port.postMessage(reply);
  port.close();
}

function exitCodeOf(error: unknown): ExitCode | null {
  if (error instanceof ExitError) return error.exitCode;
  return classifySqliteError(error) === "damaged" ? EXIT.storeDamaged : null;
}
