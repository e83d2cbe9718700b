// Deliveries of webhooks: queued beside the change they tell of, given up with their hook, sent again on request.

import type { Kysely } from "kysely";
import { enqueueJob, jobTables } from "../jobs/job-base-units.ts";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed, type Effects } from "./task-effects.ts";
import { TASK_JOBS } from "./task-jobs.ts";
import type { TaskTables } from "./task-tables.ts";
import { pingMessage, type WebhookMessage } from "./webhook-messages.ts";
import { requireWebhook } from "./webhook-store.ts";

/** A hook that so many deliveries wait for is too slow, or away. */
export const PENDING_MAX = 1000;
const JOB_ADDED: Effects = { userIds: [], hasJobs: true };

/** Of a job that delivers. */
export interface DeliveryPayload {
  readonly deliveryId: string;
}

/** Whose body stands in the store. */
export interface StoredMessage {
  readonly id: string;
  readonly type: WebhookMessage["type"];
}

type Database = Kysely<TaskTables>;
type DeliveryRow = TaskTables["task_delivery"];
type Hook = Pick<TaskTables["task_webhook"], "id" | "user_id" | "pending" | "job_priority">;

export const WEBHOOK_DELIVERY_UNITS = {
  /** The id of the delivery. @throws AppError not_found; state_conflict when the hook is not active */
  async "task.pingWebhook"(work: UnitOfWork, args: { id: string; userId: number }): Promise<Changed<string>> {
    const hook = await requireActiveWebhook(taskTables(work), args);
    const message = await storeMessage(work, pingMessage(work.nowMs));
    return changed(await queueDelivery(work, hook, message, null), JOB_ADDED);
  },

  /**
   * The same id and body once more. One that still waits for its next try is tried at once.
   * @throws AppError not_found; state_conflict when the hook is not active
   */
  async "task.redeliver"(
    work: UnitOfWork,
    { id, deliveryId, userId }: { id: string; deliveryId: string; userId: number },
  ): Promise<Changed<null>> {
    const db = taskTables(work);
    const hook = await requireActiveWebhook(db, { id, userId });
    const row = await findDelivery(db, deliveryId);
    if (row === null || row.webhook_id !== id) throw new AppError("not_found", "delivery not found");
    if (row.state === "pending") {
      const soon = { run_at_ms: work.nowMs };
      await jobTables(work)
        .updateTable("job")
        .set(soon)
        .where("id", "=", row.job_id)
        .where("state", "=", "ready")
        .execute();
      return changed(null, JOB_ADDED);
    }
    const job_id = await enqueueDelivery(work, hook, deliveryId, null);
    await updateDelivery(db, deliveryId, { state: "pending", finished_at_ms: null, job_id });
    await countPending(work, hook);
    return changed(null, JOB_ADDED);
  },

  /** Deliveries that ended before these times, at most `limit` of each kind. Returns how many. */
  async "task.purgeDeliveries"(
    work: UnitOfWork,
    { doneBeforeMs, deadBeforeMs, limit }: { doneBeforeMs: number; deadBeforeMs: number; limit: number },
  ): Promise<Changed<number>> {
    const db = taskTables(work);
    const endedBefore = (state: "done" | "dead", beforeMs: number) =>
      db
        .selectFrom("task_delivery")
        .select(["id", "message_id"])
        .where("state", "=", state)
        .where("finished_at_ms", "<", beforeMs)
        .orderBy("finished_at_ms")
        .limit(limit)
        .execute();
    const rows = [...(await endedBefore("done", doneBeforeMs)), ...(await endedBefore("dead", deadBeforeMs))];
    const ids = rows.map(({ id }) => id);
    if (ids.length > 0) await db.deleteFrom("task_delivery").where("id", "in", ids).execute();
    const messageIds = new Set(rows.flatMap(({ message_id }) => message_id ?? []));
    if (messageIds.size > 0) await deleteUnused(db, [...messageIds]);
    return changed(ids.length);
  },
} as const;

/** For any number of deliveries, in the transaction of the caller. */
export async function storeMessage(work: UnitOfWork, { type, body }: WebhookMessage): Promise<StoredMessage> {
  const id = Bun.randomUUIDv7();
  await taskTables(work).insertInto("task_message").values({ id, body }).execute();
  return { id, type };
}

async function deleteUnused(db: Database, messageIds: readonly string[]): Promise<void> {
  await db
    .deleteFrom("task_message")
    .where("id", "in", [...messageIds])
    .where(({ not, exists, selectFrom }) =>
      not(exists(selectFrom("task_delivery").select("id").whereRef("message_id", "=", "task_message.id"))),
    )
    .execute();
}

/**
 * A delivery with its job, in the transaction of the caller; its id. The one that fills the queue of its hook disables
 * it.
 */
export async function queueDelivery(
  work: UnitOfWork,
  hook: Hook,
  message: StoredMessage,
  requestId: string | null,
): Promise<string> {
  const id = Bun.randomUUIDv7();
  const job_id = await enqueueDelivery(work, hook, id, requestId);
  await taskTables(work)
    .insertInto("task_delivery")
    .values({
      id,
      webhook_id: hook.id,
      job_id,
      event_type: message.type,
      body: "",
      state: "pending",
      attempts: 0,
      last_status: null,
      last_ms: null,
      last_error: null,
      response_excerpt: null,
      created_at_ms: work.nowMs,
      finished_at_ms: null,
      message_id: message.id,
    })
    .execute();
  await countPending(work, hook);
  return id;
}

/** What still waits is given up, with `reason` as its error; runs under way are asked to end. */
export async function endPending(work: UnitOfWork, webhookId: string, reason: string): Promise<void> {
  const db = taskTables(work);
  const waiting = db
    .selectFrom("task_delivery")
    .select("job_id")
    .where("webhook_id", "=", webhookId)
    .where("state", "=", "pending");
  const ids = (await waiting.execute()).map(({ job_id }) => job_id);
  if (ids.length === 0) return;
  const jobs = jobTables(work);
  const ended = { state: "cancelled" as const, finished_at_ms: work.nowMs, last_error: reason };
  await jobs.updateTable("job").set(ended).where("id", "in", ids).where("state", "=", "ready").execute();
  await jobs
    .updateTable("job")
    .set({ cancel_requested: 1 })
    .where("id", "in", ids)
    .where("state", "=", "running")
    .execute();
  await db
    .updateTable("task_delivery")
    .set({ state: "dead", last_error: reason, finished_at_ms: work.nowMs })
    .where("webhook_id", "=", webhookId)
    .where("state", "=", "pending")
    .execute();
  await db.updateTable("task_webhook").set({ pending: 0 }).where("id", "=", webhookId).execute();
}

async function requireActiveWebhook(db: Database, wanted: { id: string; userId: number }): Promise<Hook> {
  const row = await requireWebhook(db, wanted);
  if (row.active === 0) throw new AppError("state_conflict", "the webhook is not active");
  return row;
}

async function enqueueDelivery(
  work: UnitOfWork,
  hook: Hook,
  deliveryId: string,
  requestId: string | null,
): Promise<string> {
  const payload: DeliveryPayload = { deliveryId };
  const id = await enqueueJob(work, {
    kind: TASK_JOBS.deliver,
    payload,
    ownerId: hook.user_id,
    runAtMs: work.nowMs,
    groupKey: hook.id,
    priority: hook.job_priority,
    ...(requestId === null ? {} : { requestId }),
  });
  return id!;
}

/**
 * From now on its deliveries have this priority; those that wait are only ever put back, so that a receiver that keeps
 * changing its mind moves each row twice at most.
 */
export async function rankHook(
  work: UnitOfWork,
  { id, job_priority }: Pick<Hook, "id" | "job_priority">,
  priority: number,
): Promise<void> {
  if (job_priority === priority) return;
  const db = taskTables(work);
  await db.updateTable("task_webhook").set({ job_priority: priority }).where("id", "=", id).execute();
  if (priority < job_priority) return;
  const pending = await db
    .selectFrom("task_delivery")
    .select("job_id")
    .where("webhook_id", "=", id)
    .where("state", "=", "pending")
    .execute();
  const ids = pending.map(({ job_id }) => job_id);
  if (ids.length === 0) return;
  await jobTables(work)
    .updateTable("job")
    .set({ priority })
    .where("id", "in", ids)
    .where("state", "=", "ready")
    .where("priority", "<", priority)
    .execute();
}

/** The one that fills the queue of its hook disables it. */
export async function countPending(work: UnitOfWork, { id, pending }: Pick<Hook, "id" | "pending">): Promise<void> {
  await taskTables(work)
    .updateTable("task_webhook")
    .set({ pending: pending + 1 })
    .where("id", "=", id)
    .execute();
  if (pending + 1 >= PENDING_MAX) await disableWebhook(work, id, `${PENDING_MAX} deliveries were waiting`);
}

/** What waits is given up. */
export async function disableWebhook(work: UnitOfWork, id: string, reason: string): Promise<void> {
  const set = { active: 0, disabled_reason: reason, updated_at_ms: work.nowMs };
  await taskTables(work).updateTable("task_webhook").set(set).where("id", "=", id).execute();
  await endPending(work, id, `the webhook was disabled: ${reason}`);
}

export async function findDelivery(db: Database, id: string): Promise<DeliveryRow | null> {
  return (await db.selectFrom("task_delivery").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

export async function updateDelivery(db: Database, id: string, set: Partial<DeliveryRow>): Promise<void> {
  await db.updateTable("task_delivery").set(set).where("id", "=", id).execute();
}
