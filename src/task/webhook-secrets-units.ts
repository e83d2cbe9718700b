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

/** A secret that was replaced, and until when it signs as well. */
interface FormerSecret {
  readonly sealed: string;
  readonly untilMs: number;
}

interface FormerColumns {
  readonly previous_secret: string | null;
  readonly previous_until_ms: number | null;
}

interface SealedRow extends FormerColumns {
  readonly id: string;
  readonly secret: string;
}

/** Each signs to its end, however soon the next rotation comes: so many, as each makes a delivery longer. */
const FORMER_MAX = 5;

/** Those that sign at `nowMs`, newest first. */
export function formerSecrets({ previous_secret, previous_until_ms }: FormerColumns, nowMs: number): FormerSecret[] {
  const written = previous_secret === null ? [] : previous_secret.split(" ");
  const all = written.map((text) => {
    const at = text.indexOf("@");
    return at < 0
      ? { sealed: text, untilMs: previous_until_ms ?? 0 }
      : { sealed: text.slice(at + 1), untilMs: Number(text.slice(0, at)) };
  });
  return all.filter(({ untilMs }) => untilMs > nowMs);
}

/** The newest, whose end has a column of its own; behind it older ones, each after its end and an at sign. */
export function formerColumns(secrets: readonly FormerSecret[]): FormerColumns {
  const [newest, ...older] = secrets.slice(0, FORMER_MAX);
  if (newest === undefined) return { previous_secret: null, previous_until_ms: null };
  const texts = [newest.sealed, ...older.map(({ sealed, untilMs }) => `${untilMs}@${sealed}`)];
  return { previous_secret: texts.join(" "), previous_until_ms: newest.untilMs };
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

/** What has to be written; null when no key opens what is needed. */
function resealedColumns(row: SealedRow, seal: SecretSeal, nowMs: number) {
  const context = webhookContext(row.id);
  const sealAnew = (sealed: string): string | undefined | null => {
    if (!seal.needsReseal(sealed)) return seal.open(sealed, context) === null ? null : undefined;
    const plain = seal.open(sealed, context);
    return plain === null ? null : seal.seal(plain, context);
  };
  const secret = sealAnew(row.secret);
  const former: FormerSecret[] = [];
  for (const { sealed, untilMs } of formerSecrets(row, nowMs)) {
    const anew = sealAnew(sealed);
    if (anew === null) return null;
    former.push({ sealed: anew ?? sealed, untilMs });
  }
  if (secret === null) return null;
  const columns = formerColumns(former);
  return given({ secret, ...(columns.previous_secret === row.previous_secret ? {} : columns) });
}
