// Who does which job of the task service, and when those come that nobody asks for.

import type { JobHandler } from "../jobs/job-kinds.ts";
import type { Schedule } from "../jobs/job-schedules.ts";
import { createErasure } from "./account-erasure.ts";
import { createCacheWarming } from "./cache-warming.ts";
import { createCleanup, createTaskPurge } from "./cleanup.ts";
import { createExportBuild } from "./export-build.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { TaskServices } from "./task-services.ts";
import { WebhookSender } from "./webhook-sender.ts";

/** What handlers work with. */
export type HandlerTools = Omit<TaskServices, "jobs">;

/** By kind of job. What a job changes in the store is its settlement's: see TASK_SETTLEMENTS. */
export function createTaskHandlers(tools: HandlerTools): Readonly<Record<string, JobHandler>> {
  const { webhooks, outbound, settings, clock } = tools;
  const sender = new WebhookSender({ webhooks, outbound, timeoutMs: settings.webhookTimeoutMs, clock });
  return {
    [TASK_JOBS.reminder.kind]: onlySettled,
    [TASK_JOBS.overdue.kind]: onlySettled,
    [TASK_JOBS.deliver.kind]: (job) => sender.send(job),
    [TASK_JOBS.export.kind]: createExportBuild(tools),
    [TASK_JOBS.purge.kind]: createTaskPurge(tools),
    [TASK_JOBS.cleanup.kind]: createCleanup(tools),
    [TASK_JOBS.warm.kind]: createCacheWarming(tools),
    [TASK_JOBS.erase.kind]: createErasure(tools),
  };
}

export const TASK_SCHEDULES: readonly Schedule[] = [
  { name: TASK_JOBS.purge.kind, expression: "17 3 * * *", kind: TASK_JOBS.purge },
  { name: TASK_JOBS.cleanup.kind, expression: "7 * * * *", kind: TASK_JOBS.cleanup },
];

/** Nothing is to be done outside the store. */
async function onlySettled(): Promise<null> {
  return null;
}
