// The jobs that keep the store from growing for ever: slice after slice, with pauses in which others write.

import type { JobHandler } from "../jobs/job-kinds.ts";
import { endedSessions } from "./cleanup-store.ts";
import { FEED_KEPT_MS } from "./feed-store.ts";
import { IDEMPOTENCY_MS } from "./idempotency-units.ts";
import { goneUntilMs } from "./item-rules.ts";
import type { TaskServices } from "./task-services.ts";

const PAUSE_MS = 5;
const DAY_MS = 86_400_000;
/** Ended sessions are listed this long. */
const SESSION_KEPT_MS = 30 * DAY_MS;
/** It can be said of an export that it has expired, and not only that there is none. */
const EXPIRED_EXPORT_KEPT_MS = 7 * DAY_MS;
const DELIVERIES_AT_ONCE = 250;

type Parts = Pick<TaskServices, "writer" | "store" | "settings" | "clock">;

/** Tasks that were deleted long enough ago, with everything that hangs on them. */
export function createTaskPurge({ writer, ...parts }: Parts): JobHandler {
  return async function purgeTasks({ signal }) {
    const untilMs = goneUntilMs(parts);
    await untilNone(signal, () => writer.run("task.purgeItems", { untilMs }));
    await untilNone(signal, () => writer.run("task.purgeRemains", null));
  };
}

/** Sessions, refresh tokens, kept answers, feeds, expired exports, and the log of deliveries. */
export function createCleanup({ writer, store, settings, clock }: Parts): JobHandler {
  return async function cleanUp({ signal }) {
    const nowMs = clock();
    const sessions = { nowMs, beforeMs: nowMs - SESSION_KEPT_MS };
    for await (const ids of endedSessions(store, sessions)) {
      await untilNone(signal, () => writer.run("task.removeSessions", { ids, ...sessions }));
    }
    await untilNone(signal, () => writer.run("task.removeAnswers", { beforeMs: nowMs - IDEMPOTENCY_MS }));
    await untilNone(signal, () => writer.run("task.removeFeed", { beforeMs: nowMs - FEED_KEPT_MS }));
    const exports = { nowMs, beforeMs: nowMs - EXPIRED_EXPORT_KEPT_MS };
    await untilNone(signal, () => writer.run("task.removeExports", exports));
    const deliveries = {
      doneBeforeMs: nowMs - settings.jobsKeepDoneMs,
      deadBeforeMs: nowMs - settings.jobsKeepDeadMs,
      limit: DELIVERIES_AT_ONCE,
    };
    await untilNone(signal, () => writer.run("task.purgeDeliveries", deliveries));
  };
}

/** @throws what `signal` was aborted with; what was removed until then stays removed */
async function untilNone(signal: AbortSignal, remove: () => Promise<number>): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    if ((await remove()) === 0) return;
    await Bun.sleep(PAUSE_MS);
  }
}
