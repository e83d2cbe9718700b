// The write units of webhooks: what their owners change in them, and which of them hear of an event.

import { kidOf } from "../auth/secret-seal.ts";
import { JOB_PRIORITY } from "../jobs/job-base-units.ts";
import { given } from "../shared/given.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { requireActive } from "./item-base-units.ts";
import { taskTables } from "./task-base-units.ts";
import { type Changed, changed } from "./task-effects.ts";
import type { EventType } from "./task-tables.ts";
import {
  endPending,
  queueDelivery,
  rankHook,
  type StoredMessage,
  storeMessage,
  WEBHOOK_DELIVERY_UNITS,
} from "./webhook-delivery-units.ts";
import { type Announced, messagesOf, type WebhookMessage } from "./webhook-messages.ts";
import { formerColumns, formerSecrets } from "./webhook-secrets-units.ts";
import { requireRoom, requireWebhook, type WebhookRow } from "./webhook-store.ts";

interface Named {
  readonly id: string;
  readonly userId: number;
}

export const WEBHOOK_UNITS = {
  ...WEBHOOK_DELIVERY_UNITS,

  /** `secret` is sealed for `id`. @throws AppError quota_exceeded */
  async "task.createWebhook"(
    work: UnitOfWork,
    args: Named & { url: string; events: readonly EventType[]; secret: string },
  ): Promise<Changed<WebhookRow>> {
    const db = taskTables(work);
    // The look-up of its name took a while.
    await requireActive(db, args.userId);
    await requireRoom(db, args.userId);
    const row: WebhookRow = {
      id: args.id,
      user_id: args.userId,
      url: args.url,
      events: JSON.stringify(args.events),
      secret: args.secret,
      previous_secret: null,
      previous_until_ms: null,
      active: 1,
      disabled_reason: null,
      failures: 0,
      pending: 0,
      created_at_ms: work.nowMs,
      updated_at_ms: work.nowMs,
      job_priority: JOB_PRIORITY.later,
    };
    await db.insertInto("task_webhook").values(row).execute();
    return changed(row);
  },

  /**
   * What is left out stays. Active again, it begins without failures; no longer active, it gives up what waits.
   * @throws AppError not_found
   */
  async "task.changeWebhook"(
    work: UnitOfWork,
    args: Named & { url?: string; events?: readonly EventType[]; isActive?: boolean },
  ): Promise<Changed<WebhookRow>> {
    const db = taskTables(work);
    const row = await requireWebhook(db, args);
    const { url, events, isActive } = args;
    if (isActive === false) await endPending(work, row.id, "the webhook was switched off");
    // What answers there has not shown it yet.
    if (url !== undefined && url !== row.url) await rankHook(work, row, JOB_PRIORITY.later);
    const set = {
      ...given({ url, events: events && JSON.stringify(events) }),
      ...(isActive === undefined ? {} : { active: isActive ? 1 : 0, disabled_reason: null }),
      ...(isActive === true && row.active === 0 ? { failures: 0 } : {}),
      updated_at_ms: work.nowMs,
    };
    await db.updateTable("task_webhook").set(set).where("id", "=", row.id).execute();
    return changed(await requireWebhook(db, args));
  },

  /** What waits is given up; what was sent is no longer listed. @throws AppError not_found */
  async "task.deleteWebhook"(work: UnitOfWork, args: Named): Promise<Changed<null>> {
    const db = taskTables(work);
    const { id } = await requireWebhook(db, args);
    await endPending(work, id, "the webhook was deleted");
    await db.deleteFrom("task_webhook").where("id", "=", id).execute();
    return changed(null);
  },

  /**
   * A new `secret`, sealed for the hook. The one before also signs until `previousUntilMs`, and those before it to the
   * ends that they have; null = none of them does. What none of the keys `kids` has sealed signs nothing, and would be
   * in the way of a change of keys: it is forgotten.
   * @throws AppError not_found
   */
  async "task.rotateWebhookSecret"(
    work: UnitOfWork,
    args: Named & { secret: string; previousUntilMs: number | null; kids: readonly string[] },
  ): Promise<Changed<WebhookRow>> {
    const db = taskTables(work);
    const row = await requireWebhook(db, args);
    const { secret, previousUntilMs } = args;
    const older = formerSecrets(row, work.nowMs).filter(({ sealed }) => args.kids.includes(`${kidOf(sealed)}`));
    const former = previousUntilMs === null ? [] : [{ sealed: row.secret, untilMs: previousUntilMs }, ...older];
    const set = { secret, ...formerColumns(former), updated_at_ms: work.nowMs };
    await db.updateTable("task_webhook").set(set).where("id", "=", row.id).execute();
    return changed(await requireWebhook(db, args));
  },
} as const;

/** With the account of their owner; what waits is given up. In the transaction of the caller. */
export async function deleteWebhooksOf(work: UnitOfWork, userId: number): Promise<void> {
  const db = taskTables(work);
  const hooks = await db.selectFrom("task_webhook").select("id").where("user_id", "=", userId).execute();
  for (const { id } of hooks) await endPending(work, id, "the account was deleted");
  await db.deleteFrom("task_webhook").where("user_id", "=", userId).execute();
}

/**
 * A delivery with its job for every active hook of a recipient that wants the event; in the transaction of the change.
 * Returns how many. Users who are disabled are told nothing.
 */
export async function queueDeliveries(work: UnitOfWork, event: Announced): Promise<number> {
  const hooks = await taskTables(work)
    .selectFrom("task_webhook")
    .innerJoin("task_user", "task_user.id", "task_webhook.user_id")
    .select(["task_webhook.id", "task_webhook.user_id", "task_webhook.events", "task_webhook.pending"])
    .select("task_webhook.job_priority")
    .where("task_webhook.user_id", "in", [...event.recipients])
    .where("task_webhook.active", "=", 1)
    .where("task_user.disabled_at_ms", "is", null)
    .orderBy("task_webhook.id")
    .execute();
  if (hooks.length === 0) return 0;
  const messageFor = messagesOf(event, work.nowMs);
  const stored = new Map<WebhookMessage, Promise<StoredMessage>>();
  let queued = 0;
  for (const hook of hooks) {
    const message = messageFor(hook.user_id);
    if (!(JSON.parse(hook.events) as string[]).includes(message.type)) continue;
    const known = stored.get(message) ?? storeMessage(work, message);
    stored.set(message, known);
    await queueDelivery(work, hook, await known, event.requestId);
    queued++;
  }
  return queued;
}

/** How many active hooks each of the users has; those without one are left out. */
export async function countWebhooks(
  work: UnitOfWork,
  userIds: readonly number[],
): Promise<ReadonlyMap<number, number>> {
  if (userIds.length === 0) return new Map();
  const rows = await taskTables(work)
    .selectFrom("task_webhook")
    .select((build) => ["user_id", build.fn.countAll<number>().as("hooks")])
    .where("user_id", "in", [...userIds])
    .where("active", "=", 1)
    .groupBy("user_id")
    .execute();
  return new Map(rows.map(({ user_id, hooks }) => [user_id, hooks]));
}
