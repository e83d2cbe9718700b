// The write units of relay tokens: columns change by name, so that no change brings spent quota back.

import type { Kysely } from "kysely";
import { AppError } from "../shared/errors.ts";
import { given } from "../shared/given.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { bumpVersion, relayTables } from "./relay-base-units.ts";
import { type RelayTables, type RelayToken, type RelayTokenFields, toRelayToken } from "./relay-tables.ts";

/** More would not be counted exactly over the years. */
export const QUOTA_MAX = 1e15;

export type RelayTokenChanges = { readonly [Name in keyof RelayTokenFields]?: RelayTokenFields[Name] | undefined };

interface NewRelayToken {
  readonly keyHash: Uint8Array;
  readonly keyMask: string;
  readonly fields: RelayTokenFields;
  /** Make it only when there is no token at all. */
  readonly isFirst: boolean;
}

interface RelayTokenUpdate {
  readonly id: number;
  readonly changes: RelayTokenChanges;
  /** Signed; what is left does not go below 0. */
  readonly addQuota: number;
  /** What had been used when the caller read the token, if it says so: its `remainQuota` is of that moment, too. */
  readonly usedQuotaRead: number | null;
}

type TokenRow = RelayTables["relay_token"];

export const RELAY_TOKEN_UNITS = {
  /** Null when `isFirst` and there is one. @throws AppError token_exists */
  async "relay.createToken"(
    work: UnitOfWork,
    { keyHash, keyMask, fields, isFirst }: NewRelayToken,
  ): Promise<RelayToken | null> {
    const db = relayTables(work);
    if (isFirst && (await db.selectFrom("relay_token").select("id").executeTakeFirst()) !== undefined) return null;
    const known = await db.selectFrom("relay_token").select("id").where("key_hash", "=", keyHash).executeTakeFirst();
    if (known !== undefined) throw new AppError("token_exists", "There is a token with this key already.");
    const { id } = await db
      .insertInto("relay_token")
      .values({
        ...columnsOf(fields),
        key_hash: keyHash,
        key_mask: keyMask,
        created_time: work.nowMs,
        accessed_time: 0,
        used_quota: 0,
        // All columns but the id, which is the engine's to give; the type of the table cannot say so.
      } as TokenRow)
      .returning("id")
      .executeTakeFirstOrThrow();
    await bumpVersion(db);
    return toRelayToken(await requireToken(db, id));
  },

  /** @throws AppError token_not_found */
  async "relay.updateToken"(
    work: UnitOfWork,
    { id, changes, addQuota, usedQuotaRead }: RelayTokenUpdate,
  ): Promise<RelayToken> {
    const db = relayTables(work);
    const row = await requireToken(db, id);
    const { remainQuota } = changes;
    let remain = remainQuota;
    if (remainQuota !== undefined) {
      const open = await reservationsOf(db, id);
      remain =
        usedQuotaRead === null
          ? await leaveInAll(db, open, remainQuota)
          : grantedSince(row, sumOf(open), remainQuota, usedQuotaRead);
    }
    const columns = given(columnsOf({ ...changes, remainQuota: remain }));
    if (Object.keys(columns).length > 0)
      await db.updateTable("relay_token").set(columns).where("id", "=", id).execute();
    if (addQuota !== 0) {
      const { remain_quota } = await requireToken(db, id);
      const set = { remain_quota: Math.min(Math.max(0, remain_quota + addQuota), QUOTA_MAX) };
      await db.updateTable("relay_token").set(set).where("id", "=", id).execute();
    }
    await bumpVersion(db);
    return toRelayToken(await requireToken(db, id));
  },

  /** Its usage stays in the log. @throws AppError token_not_found */
  async "relay.deleteToken"(work: UnitOfWork, { id }: { id: number }): Promise<null> {
    const db = relayTables(work);
    await requireToken(db, id);
    await db.deleteFrom("relay_token").where("id", "=", id).execute();
    await bumpVersion(db);
    return null;
  },
} as const;

async function requireToken(db: Kysely<RelayTables>, id: number): Promise<TokenRow> {
  const row = await db.selectFrom("relay_token").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined) throw new AppError("token_not_found", "There is no such token.");
  return row;
}

type Open = Pick<RelayTables["relay_reservation"], "request_id" | "amount">;

/** What requests under way have set aside of this token's quota. */
function reservationsOf(db: Kysely<RelayTables>, id: number): Promise<Open[]> {
  return db.selectFrom("relay_reservation").select(["request_id", "amount"]).where("token_id", "=", id).execute();
}

function sumOf(open: readonly Open[]): number {
  return open.reduce((sum, { amount }) => sum + amount, 0);
}

/**
 * What a token has left at once when it is to have `asked` in all: less what is set aside. Of more than `asked` that is
 * set aside, each request keeps its part; the rest does not come back, whether it ends well, or the server without it.
 */
async function leaveInAll(db: Kysely<RelayTables>, open: readonly Open[], asked: number): Promise<number> {
  const sum = sumOf(open);
  if (sum <= asked) return asked - sum;
  let left = asked;
  for (const { request_id, amount } of open) {
    const kept = Math.min(left, Math.floor(amount * (asked / sum)));
    await db.updateTable("relay_reservation").set({ amount: kept }).where("request_id", "=", request_id).execute();
    left -= kept;
  }
  return left;
}

/**
 * What a token has left when it is given `asked` by somebody who read it when `usedQuotaRead` was used: less what was
 * used since, and what is set aside now. Quota that was set aside at the reading makes that too little, by an amount
 * that nobody knows any more, so a body that changes nothing would take quota away. One that leaves less than there
 * is therefore changes nothing: to take quota away in the middle of traffic there is `add_quota`.
 */
function grantedSince(row: TokenRow, open: number, asked: number, usedQuotaRead: number): number {
  const used = Math.max(0, row.used_quota - usedQuotaRead);
  if (used === 0 && open === 0) return asked;
  return Math.max(row.remain_quota, asked - used - open);
}

function columnsOf(fields: RelayTokenChanges) {
  const { userId, status, name, expiresAtMs, isUnlimited, remainQuota, models, allowIps, groups } = fields;
  return {
    user_id: userId,
    status,
    name,
    expired_time: expiresAtMs,
    remain_quota: remainQuota,
    unlimited_quota: isUnlimited === undefined ? undefined : isUnlimited ? 1 : 0,
    models: models && JSON.stringify(models),
    allow_ips: allowIps && JSON.stringify(allowIps),
    group_names: groups && JSON.stringify(groups),
    rpm: fields.rpm,
    tpm: fields.tpm,
    max_parallel: fields.maxParallel,
    cache_ttl: fields.cacheTtlSeconds,
  };
}
