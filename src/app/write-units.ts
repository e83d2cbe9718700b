// The write units of all services, for the storage thread.

import { byKind } from "../jobs/job-kinds.ts";
import { createJobUnits } from "../jobs/job-units.ts";
import { RELAY_GROWING, RELAY_UNITS } from "../relay/relay-units.ts";
import type { WriteUnits } from "../storage/unit-of-work.ts";
import { TASK_JOBS } from "../task/task-jobs.ts";
import { TASK_GROWING, TASK_REQUEUES, TASK_SETTLEMENTS, TASK_UNITS } from "../task/task-units.ts";
import { TOKEN_GROWING, TOKEN_UNITS } from "../token/token-units.ts";
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

/** While the store is full these are refused, so that those which delete, revoke, settle and end find the room kept. */
export const GROWING_UNITS: ReadonlySet<string> = new Set([...TOKEN_GROWING, ...RELAY_GROWING, ...TASK_GROWING]);
