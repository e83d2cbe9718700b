// The write units of all services, for the storage thread.

import { byKind } from "../jobs/job-kinds.ts";
import { createJobUnits } from "../jobs/job-units.ts";
import { RELAY_UNITS } from "../relay/relay-units.ts";
import type { WriteUnits } from "../storage/unit-of-work.ts";
import { TASK_JOBS } from "../task/task-jobs.ts";
import { TASK_REQUEUES, TASK_SETTLEMENTS, TASK_UNITS } from "../task/task-units.ts";
import { TOKEN_UNITS } from "../token/token-units.ts";
import { REKEY_UNITS } from "./rekey-units.ts";

export const WRITE_UNITS = {
  ...TOKEN_UNITS,
  ...RELAY_UNITS,
  ...TASK_UNITS,
  ...createJobUnits({
    kinds: byKind(Object.values(TASK_JOBS)),
    settlements: TASK_SETTLEMENTS,
    requeues: TASK_REQUEUES,
  }),
  ...REKEY_UNITS,
} satisfies WriteUnits;

/**
 * Units that only add to the store: while it is full they are refused, so that those which delete, revoke, settle and
 * end find the room that was kept back.
 */
export const GROWING_UNITS: ReadonlySet<string> = new Set<keyof typeof WRITE_UNITS>([
  ...(["token.createDevice", "token.createApp", "token.createInstallation"] as const),
  ...(["relay.createChannel", "relay.createToken", "relay.bindResponse"] as const),
  ...(["task.createUser", "task.openSession", "task.refreshSession", "task.updateUser"] as const),
  ...(["task.createItem", "task.patchItem", "task.restoreItem", "task.createComment"] as const),
  ...(["task.createWebhook", "task.pingWebhook", "task.redeliver"] as const),
  ...(["task.createExport", "task.beginExport", "task.writeExportPart", "task.requestWarming"] as const),
]);
