// Webhooks and their deliveries as they are read, and their secrets, which are opened here for whoever signs.

import type { Kysely } from "kysely";
import { openRing, type SEAL_UNITS } from "../auth/seal-units.ts";
import { SecretSeal } from "../auth/secret-seal.ts";
import { AppError } from "../shared/errors.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import type { TaskTables } from "./task-tables.ts";
import { formerSecrets, WEBHOOK_KEY_INFO, webhookContext } from "./webhook-secrets-units.ts";

export type WebhookRow = TaskTables["task_webhook"];
export type DeliveryRow = TaskTables["task_delivery"];

const PER_USER_MAX = 10;

type ListedDelivery = Omit<DeliveryRow, "body" | "message_id">;

export class WebhookStore {
  readonly #db: Kysely<TaskTables>;
  readonly #seal: SecretSeal;

  private constructor(store: TableStore<typeof SEAL_UNITS>, seal: SecretSeal) {
    this.#db = taskTables(store);
    this.#seal = seal;
  }

  /** `secrets` open what is sealed, the first one seals. Throws what the store throws. */
  static async open(store: TableStore<typeof SEAL_UNITS>, secrets: readonly Uint8Array[]): Promise<WebhookStore> {
    return new WebhookStore(store, new SecretSeal(await openRing(store, secrets, WEBHOOK_KEY_INFO)));
  }

  /** For the hook `id` alone. */
  sealSecret(secret: string, id: string): string {
    return this.#seal.seal(secret, webhookContext(id));
  }

  /** Null = no secret of this server opens it. */
  secretOf({ id, secret }: WebhookRow): string | null {
    return this.#seal.open(secret, webhookContext(id));
  }

  /** Of the keys that open secrets. */
  get kids(): readonly string[] {
    return this.#seal.ring.map(({ kid }) => kid);
  }

  /** What signs at this time: the secret, and those before for as long as they also do. Empty = none opens. */
  signingSecrets(row: WebhookRow, nowMs: number): string[] {
    const sealed = [row.secret, ...formerSecrets(row, nowMs).map((former) => former.sealed)];
    return sealed.map((text) => this.#seal.open(text, webhookContext(row.id))).filter((secret) => secret !== null);
  }

  /** Oldest first; there are few. */
  list(userId: number): Promise<WebhookRow[]> {
    return this.#db.selectFrom("task_webhook").selectAll().where("user_id", "=", userId).orderBy("id").execute();
  }

  /** @throws AppError not_found */
  require(id: string, userId: number): Promise<WebhookRow> {
    return requireWebhook(this.#db, { id, userId });
  }

  /** As the unit that stores a hook does it once more. @throws AppError quota_exceeded */
  requireRoom(userId: number): Promise<void> {
    return requireRoom(this.#db, userId);
  }

  /** Newest first; `before` is the id of the last one that was shown. */
  deliveries(webhookId: string, limit: number, before: string | null): Promise<ListedDelivery[]> {
    return this.#db
      .selectFrom("task_delivery")
      .select(["id", "webhook_id", "job_id", "event_type", "state", "attempts", "last_status", "last_ms", "last_error"])
      .select(["response_excerpt", "created_at_ms", "finished_at_ms"])
      .where("webhook_id", "=", webhookId)
      .$if(before !== null, (query) => query.where("id", "<", before!))
      .orderBy("id", "desc")
      .limit(limit)
      .execute();
  }

  /** With its body and its hook, and whether the user of that may be told of tasks; null when one of them is gone. */
  async delivery(id: string): Promise<{ delivery: DeliveryRow; webhook: WebhookRow; isUserActive: boolean } | null> {
    const row = await this.#db
      .selectFrom("task_delivery")
      .leftJoin("task_message", "task_message.id", "task_delivery.message_id")
      .selectAll("task_delivery")
      .select("task_message.body as message_body")
      .where("task_delivery.id", "=", id)
      .executeTakeFirst();
    if (row === undefined) return null;
    const { message_body, ...delivery } = row;
    const found = await this.#db
      .selectFrom("task_webhook as hook")
      .leftJoin("task_user as user", (join) =>
        join
          .onRef("user.id", "=", "hook.user_id")
          .on("user.disabled_at_ms", "is", null)
          .on("user.deleted_at_ms", "is", null),
      )
      .selectAll("hook")
      .select("user.id as active_user_id")
      .where("hook.id", "=", delivery.webhook_id)
      .executeTakeFirst();
    if (found === undefined) return null;
    const { active_user_id, ...webhook } = found;
    return {
      delivery: { ...delivery, body: message_body ?? delivery.body },
      webhook,
      isUserActive: active_user_id !== null,
    };
  }
}

/** @throws AppError quota_exceeded when the user has as many hooks as may be */
export async function requireRoom(db: Kysely<TaskTables>, userId: number): Promise<void> {
  const { hooks } = await db
    .selectFrom("task_webhook")
    .select((build) => build.fn.countAll<number>().as("hooks"))
    .where("user_id", "=", userId)
    .executeTakeFirstOrThrow();
  if (hooks >= PER_USER_MAX) throw new AppError("quota_exceeded", `at most ${PER_USER_MAX} webhooks per user`);
}

/** @throws AppError not_found */
export async function requireWebhook(
  db: Kysely<TaskTables>,
  { id, userId }: { id: string; userId: number },
): Promise<WebhookRow> {
  const row = await db
    .selectFrom("task_webhook")
    .selectAll()
    .where("id", "=", id)
    .where("user_id", "=", userId)
    .executeTakeFirst();
  if (row === undefined) throw new AppError("not_found", "webhook not found");
  return row;
}
