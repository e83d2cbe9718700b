// All write units of the task service, by name, and what its jobs settle when they end or are to run again.

import { SEAL_UNITS } from "../auth/seal-units.ts";
import type { Settlement } from "../jobs/job-kinds.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { ACCOUNT_UNITS } from "./account-units.ts";
import { CLEANUP_UNITS } from "./cleanup-units.ts";
import { COMMENT_UNITS } from "./comment-units.ts";
import { EXPORT_REQUEUES, EXPORT_SETTLEMENTS, EXPORT_UNITS } from "./export-units.ts";
import { ITEM_UNITS } from "./item-units.ts";
import { REFRESH_UNITS } from "./refresh-units.ts";
import { REMINDER_SETTLEMENTS } from "./reminder-units.ts";
import { SESSION_UNITS } from "./session-units.ts";
import type { Effects } from "./task-effects.ts";
import { USER_DELETION_UNITS } from "./user-deletion-units.ts";
import { WARMING_UNITS } from "./warming-units.ts";
import { WEBHOOK_REQUEUES, WEBHOOK_SETTLEMENTS } from "./webhook-settlement-units.ts";
import { WEBHOOK_UNITS } from "./webhook-units.ts";

export const TASK_UNITS = {
  ...SEAL_UNITS,
  ...ACCOUNT_UNITS,
  ...SESSION_UNITS,
  ...REFRESH_UNITS,
  ...USER_DELETION_UNITS,
  ...ITEM_UNITS,
  ...COMMENT_UNITS,
  ...WEBHOOK_UNITS,
  ...EXPORT_UNITS,
  ...CLEANUP_UNITS,
  ...WARMING_UNITS,
} as const;

/** Those that only add to the store: refused while it is full. */
export const TASK_GROWING: readonly (keyof typeof TASK_UNITS)[] = [
  "task.createUser",
  "task.openSession",
  "task.refreshSession",
  "task.updateUser",
  "task.createItem",
  "task.patchItem",
  "task.restoreItem",
  "task.createComment",
  "task.createWebhook",
  "task.pingWebhook",
  "task.redeliver",
  "task.createExport",
  "task.beginExport",
  "task.writeExportPart",
  "task.requestWarming",
];

export type TaskUnits = typeof TASK_UNITS;

/** By kind of job. */
export const TASK_SETTLEMENTS: Readonly<
  Record<string, (work: UnitOfWork, settlement: Settlement) => Promise<Effects>>
> = { ...REMINDER_SETTLEMENTS, ...WEBHOOK_SETTLEMENTS, ...EXPORT_SETTLEMENTS };

/** By kind of job: what is taken back when one that has ended is to run again. */
export const TASK_REQUEUES = { ...WEBHOOK_REQUEUES, ...EXPORT_REQUEUES } as const;
