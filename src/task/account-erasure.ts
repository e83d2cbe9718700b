// Removes what a large account has left behind, slice after slice, with the writes of others between: by the request
// that deletes it, and where that or the server was cut short, by the next start and by a job.

import { jobTables } from "../jobs/job-base-units.ts";
import type { JobHandler } from "../jobs/job-kinds.ts";
import { AppError, messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { TaskUnits } from "./task-units.ts";
import type { TaskWriter } from "./task-writer.ts";
import { ERASED_WITHIN_MS } from "./user-deletion-units.ts";

interface Tools {
  readonly writer: TaskWriter;
  readonly log: Log;
}

/** The account is deleted already, and a job does what is not done here. Never throws. */
export async function eraseRest({ writer, log }: Tools, userId: number): Promise<void> {
  try {
    await eraseItems(writer, userId, AbortSignal.timeout(ERASED_WITHIN_MS));
  } catch (error) {
    log.warn("tasks of a deleted account are left, a job will remove them", { sub: userId, cause: messageOf(error) });
  }
}

/** What the process before this one did not come to, whether jobs are run or not. To be called once; never throws. */
export async function resumeErasures({
  store,
  writer,
  log,
}: Tools & { readonly store: TableStore<TaskUnits> }): Promise<void> {
  try {
    const { kind, queue } = TASK_JOBS.erase;
    const jobs = jobTables(store).selectFrom("job").select("payload").where("queue", "=", queue);
    const left = await jobs.where("kind", "=", kind).where("state", "!=", "done").execute();
    for (const { payload } of left) await eraseRest({ writer, log }, userOf(JSON.parse(payload)));
  } catch (error) {
    log.warn("tasks of deleted accounts were not looked for", { cause: messageOf(error) });
  }
}

export function createErasure({ writer }: { readonly writer: TaskWriter }): JobHandler {
  return ({ payload, signal }) => eraseItems(writer, userOf(payload), signal);
}

async function eraseItems(writer: TaskWriter, userId: number, signal: AbortSignal): Promise<void> {
  while (!(await eraseSlice(writer, userId))) signal.throwIfAborted();
}

/** Whether it was the last. A locked store is tried again: each try waits for the lock as long as a write does. */
async function eraseSlice(writer: TaskWriter, userId: number): Promise<boolean> {
  try {
    return await writer.run("task.eraseItems", { userId }, "all");
  } catch (error) {
    if (error instanceof AppError && error.code === "busy") return false;
    throw error;
  }
}

function userOf(payload: unknown): number {
  return (payload as { readonly userId: number }).userId;
}
