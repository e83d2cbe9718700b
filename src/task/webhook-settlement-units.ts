// What the end of an attempt changes: its delivery, and how its hook fares; and what is taken back of that when the job
// is to run again.

import { JOB_PRIORITY, jobTables } from "../jobs/job-base-units.ts";
import type { JobOutcome, Requeued, Settlement } from "../jobs/job-kinds.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import { type Effects, NO_EFFECTS } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import {
  countPending,
  type DeliveryPayload,
  disableWebhook,
  findDelivery,
  PENDING_MAX,
  rankHook,
  updateDelivery,
} from "./webhook-delivery-units.ts";

/** Deliveries in a row that were given up. */
const FAILURES_MAX = 50;
const GONE = 410;
/** A receiver that takes longer holds its slot for so long that it comes behind the quick ones. */
const SLOW_MS = 1_000;

/** How an attempt went; see WebhookSender. */
export interface AttemptReport {
  /** Null when no answer came. */
  readonly status: number | null;
  readonly ms: number;
  readonly excerpt: string | null;
  /** Nothing was sent: the hook is not in use. That says nothing of its receiver. */
  readonly isSkipped: boolean;
}

export const WEBHOOK_SETTLEMENTS = { [TASK_JOBS.deliver.kind]: settleDelivery } as const;

export const WEBHOOK_REQUEUES = {
  [TASK_JOBS.deliver.kind]: {
    async require(work: UnitOfWork, job: Requeued): Promise<void> {
      await requireReopenable(work, job);
    },

    /** It waits again, behind as many others as its hook deserves by now. */
    async settle(work: UnitOfWork, job: Requeued): Promise<void> {
      const { row, hook } = await requireReopenable(work, job);
      const rank = { priority: hook.job_priority };
      await jobTables(work).updateTable("job").set(rank).where("id", "=", job.jobId).execute();
      // Where the end of its job could not be settled it has never ceased to wait.
      if (row.state === "pending") return;
      await updateDelivery(taskTables(work), row.id, { state: "pending", finished_at_ms: null });
      await countPending(work, hook);
    },
  },
} as const;

/** A delivery that is still this job's, and its hook, which is in use. @throws AppError state_conflict */
async function requireReopenable(work: UnitOfWork, { jobId, payload }: Requeued) {
  const db = taskTables(work);
  const row = await findDelivery(db, (payload as DeliveryPayload).deliveryId);
  if (row === null) throw new AppError("state_conflict", "the delivery is no longer in the log");
  if (row.job_id !== jobId) throw new AppError("state_conflict", "the delivery belongs to a later job");
  const hook = await db
    .selectFrom("task_webhook")
    .select(["id", "active", "pending", "job_priority"])
    .where("id", "=", row.webhook_id)
    .executeTakeFirst();
  if (hook === undefined) throw new AppError("state_conflict", "the webhook was deleted");
  if (hook.active === 0) throw new AppError("state_conflict", "the webhook is not active");
  // One more would disable the hook, and give up all that waits for it.
  if (row.state !== "pending" && hook.pending + 1 >= PENDING_MAX) {
    throw new AppError("state_conflict", "too many deliveries of the webhook are waiting");
  }
  return { row, hook };
}

/**
 * Its hook may be gone, and it may have been given up with it: then there is nothing to note. Nor is there when it was
 * queued again meanwhile: it belongs to another job now, which will tell how it ended.
 */
async function settleDelivery(work: UnitOfWork, settlement: Settlement): Promise<Effects> {
  const { deliveryId } = settlement.payload as DeliveryPayload;
  const report = settlement.report as AttemptReport | null;
  const { outcome, error } = settlement;
  const db = taskTables(work);
  const row = await findDelivery(db, deliveryId);
  if (row === null || row.job_id !== settlement.jobId) return NO_EFFECTS;
  if (outcome === "done" && report === null) return NO_EFFECTS;
  const isPending = row.state === "pending";
  if (outcome === "cancelled" && !isPending) return NO_EFFECTS;
  const state = outcome === "done" ? "done" : outcome === "retry" ? row.state : "dead";
  const wasTried = outcome !== "cancelled" && report?.isSkipped !== true;
  await updateDelivery(db, deliveryId, {
    state,
    attempts: row.attempts + (wasTried ? 1 : 0),
    last_error: outcome === "done" ? null : (error ?? "the job was cancelled"),
    ...(wasTried ? { last_status: report?.status ?? null, last_ms: report?.ms ?? null } : {}),
    ...(wasTried ? { response_excerpt: report?.excerpt ?? null } : {}),
    ...(outcome === "retry" ? {} : { finished_at_ms: work.nowMs }),
  });
  await settleHook(work, row.webhook_id, { outcome, report, isEnded: isPending && state !== "pending" });
  return NO_EFFECTS;
}

async function settleHook(
  work: UnitOfWork,
  id: string,
  run: { outcome: JobOutcome; report: AttemptReport | null; isEnded: boolean },
): Promise<void> {
  const db = taskTables(work);
  const hook = await db
    .selectFrom("task_webhook")
    .select(["id", "active", "failures", "pending", "job_priority"])
    .where("id", "=", id)
    .executeTakeFirst();
  if (hook === undefined) return;
  const isDead = run.outcome === "dead" && run.report?.isSkipped !== true;
  const failures = run.outcome === "done" ? 0 : hook.failures + (isDead ? 1 : 0);
  const pending = Math.max(0, hook.pending - (run.isEnded ? 1 : 0));
  await db.updateTable("task_webhook").set({ failures, pending }).where("id", "=", id).execute();
  // A receiver that is silent holds a slot until the time is out: it has to leave some to those that answer. A run
  // without a report, as one whose node has died, says nothing of it.
  if (run.report !== null && !run.report.isSkipped && run.outcome !== "cancelled") {
    await rankHook(work, hook, rankAfter(run.outcome, run.report));
  }
  if (hook.active === 0) return;
  if (run.report?.status === GONE) await disableWebhook(work, id, "the receiver answered 410 Gone");
  else if (failures >= FAILURES_MAX) await disableWebhook(work, id, `${FAILURES_MAX} deliveries in a row failed`);
}

function rankAfter(outcome: JobOutcome, { ms }: AttemptReport): number {
  if (outcome !== "done") return JOB_PRIORITY.last;
  return ms > SLOW_MS ? JOB_PRIORITY.later : JOB_PRIORITY.usual;
}
