// The secrets of webhooks as they are kept: sealed, each for its own hook.

import type { Resealed } from "../auth/seal-units.ts";
import { type SealingKey, SecretSeal } from "../auth/secret-seal.ts";
import { given } from "../shared/given.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";

/** What the sealing keys of webhooks are derived for. */
export const WEBHOOK_KEY_INFO = "gokv task webhook secret v1";
const PAGE_ROWS = 1000;

/** What a sealed secret is bound to: it opens for no other hook. */
export function webhookContext(id: string): string {
  return `webhook ${id}`;
}

interface SealedRow {
  readonly id: string;
  readonly secret: string;
  readonly previous_secret: string | null;
  readonly previous_until_ms: number | null;
}

/**
 * Every secret that another key has sealed, sealed with the first of `ring`; inside the transaction of the caller.
 * Former secrets that sign no more are forgotten instead.
 */
export async function resealWebhooks(work: UnitOfWork, ring: readonly SealingKey[]): Promise<Resealed<string>> {
  const db = taskTables(work);
  const seal = new SecretSeal(ring);
  const unreadable: string[] = [];
  let resealed = 0;
  for (let after = ""; ; ) {
    const rows = await db
      .selectFrom("task_webhook")
      .select(["id", "secret", "previous_secret", "previous_until_ms"])
      .where("id", ">", after)
      .orderBy("id")
      .limit(PAGE_ROWS)
      .execute();
    for (const row of rows) {
      const set = resealedColumns(row, seal, work.nowMs);
      if (set === null) unreadable.push(row.id);
      else if (Object.keys(set).length > 0) {
        await db.updateTable("task_webhook").set(set).where("id", "=", row.id).execute();
        resealed++;
      }
    }
    if (rows.length < PAGE_ROWS) return { resealed, kid: seal.kid, unreadable };
    after = rows.at(-1)!.id;
  }
}

/** Null when no key opens what is needed. */
function resealedColumns(row: SealedRow, seal: SecretSeal, nowMs: number) {
  const context = webhookContext(row.id);
  const sealAnew = (sealed: string): string | undefined | null => {
    if (!seal.needsReseal(sealed)) return seal.open(sealed, context) === null ? null : undefined;
    const plain = seal.open(sealed, context);
    return plain === null ? null : seal.seal(plain, context);
  };
  const isOver = row.previous_secret !== null && (row.previous_until_ms ?? 0) <= nowMs;
  const secret = sealAnew(row.secret);
  const previous = row.previous_secret === null || isOver ? undefined : sealAnew(row.previous_secret);
  if (secret === null || previous === null) return null;
  const former = isOver ? { previous_secret: null, previous_until_ms: null } : { previous_secret: previous };
  return given({ secret, ...former });
}
