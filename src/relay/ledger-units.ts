// The write units of usage: quota is set aside before a request and settled after it, once, with its log row.

import type { CompiledQuery, Kysely } from "kysely";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { LedgerBatch, type StoredLedger } from "./ledger-batch.ts";
import { relayTables } from "./relay-base-units.ts";
import type { LogRow, NewLogRow, RelayTables, Reservation } from "./relay-tables.ts";

/** The row of a request that is over; `reserved` is what was set aside for it, of which less may be left to return. */
export interface Settlement {
  readonly row: NewLogRow;
  readonly reserved?: number;
}

/** A reservation, or what settles one. */
export type LedgerEntry = Reservation | Settlement;

/** When a token was last used, in ms since 1970. */
export interface TokenTouch {
  readonly id: number;
  readonly atMs: number;
}

/** Rows of one statement: longer ones take longer to compile than they save. */
const INSERT_ROWS = 20;

export const LEDGER_UNITS = {
  /**
   * What requests of tokens with a quota set aside, and what they settle, in the order given. Returns for each entry
   * whether it was taken: false = the token has less than the reservation takes, or is gone.
   */
  async "relay.account"(
    work: UnitOfWork,
    { entries, touched = [] }: { entries: readonly LedgerEntry[]; touched?: readonly TokenTouch[] },
  ): Promise<boolean[]> {
    const db = relayTables(work);
    const batch = new LedgerBatch(await storedLedger(db, entries));
    const taken = entries.map((entry) => {
      if (!("row" in entry)) return batch.reserve(entry);
      batch.settle(entry.row, entry.reserved);
      return true;
    });
    await writeBatch(db, batch);
    await touch(db, touched);
    return taken;
  },

  /**
   * Rows of requests that set nothing aside, and what they used, in one transaction; rows that are there already are
   * left out. Should a token have become a finite one in the meantime, it pays at most what it has left.
   * @param args.rows an array of NewLogRow as JSON: text crosses the border to the storage thread several times faster
   */
  async "relay.logBatch"(
    work: UnitOfWork,
    { rows, touched = [] }: { rows: string; touched?: readonly TokenTouch[] },
  ): Promise<null> {
    const db = relayTables(work);
    const entries = (JSON.parse(rows) as NewLogRow[]).map((row) => ({ row }));
    if (entries.length > 0) {
      const batch = new LedgerBatch(await storedLedger(db, entries));
      for (const { row } of entries) batch.settle(row);
      await writeBatch(db, batch);
    }
    await touch(db, touched);
    return null;
  },

  /** All quota that was set aside and never settled goes back. Returns how many reservations there were. */
  async "relay.returnReservations"(work: UnitOfWork, _: null): Promise<number> {
    const db = relayTables(work);
    const open = await db.selectFrom("relay_reservation").selectAll().execute();
    for (const { request_id, token_id, amount } of open) {
      await addQuota(db, token_id, amount, 0);
      await db.deleteFrom("relay_reservation").where("request_id", "=", request_id).execute();
    }
    return open.length;
  },

  /** `GET` and `DELETE` of a response, and its continuation, go to the channel that made it. */
  async "relay.bindResponse"(
    work: UnitOfWork,
    args: { responseId: string; tokenId: number; channelId: number; expiresAtMs: number },
  ): Promise<null> {
    const db = relayTables(work);
    const { responseId: response_id, tokenId, channelId, expiresAtMs } = args;
    // Upstreams choose these ids: one that is bound already keeps its owner.
    const known = await db
      .selectFrom("relay_response")
      .select("response_id")
      .where("response_id", "=", response_id)
      .executeTakeFirst();
    if (known !== undefined) return null;
    const row = { response_id, token_id: tokenId, channel_id: channelId, expires_at: expiresAtMs };
    await db.insertInto("relay_response").values(row).execute();
    return null;
  },

  async "relay.unbindResponse"(
    work: UnitOfWork,
    { responseId, tokenId }: { responseId: string; tokenId: number },
  ): Promise<null> {
    await relayTables(work)
      .deleteFrom("relay_response")
      .where("response_id", "=", responseId)
      .where("token_id", "=", tokenId)
      .execute();
    return null;
  },

  /**
   * Removes up to `limit` of the oldest log rows from before `logsBeforeMs`, and up to `limit` bindings that are over.
   * Returns how many rows went: fewer than `limit` of each when nothing is left to do.
   */
  async "relay.purge"(
    work: UnitOfWork,
    { logsBeforeMs, limit }: { logsBeforeMs: number; limit: number },
  ): Promise<{ logs: number; responses: number }> {
    const db = relayTables(work);
    const logs = await db
      .selectFrom("relay_log")
      .select("id")
      .where("ts", "<", logsBeforeMs)
      .orderBy("ts")
      .limit(limit)
      .execute();
    const logIds = logs.map(({ id }) => id);
    if (logIds.length > 0) await db.deleteFrom("relay_log").where("id", "in", logIds).execute();
    const responses = await db
      .selectFrom("relay_response")
      .select("response_id")
      .where("expires_at", "<", work.nowMs)
      .orderBy("expires_at")
      .limit(limit)
      .execute();
    const responseIds = responses.map(({ response_id }) => response_id);
    if (responseIds.length > 0) {
      await db.deleteFrom("relay_response").where("response_id", "in", responseIds).execute();
    }
    return { logs: logIds.length, responses: responseIds.length };
  },
} as const;

type Db = Kysely<RelayTables>;

/** All that `entries` are judged by. */
async function storedLedger(db: Db, entries: readonly LedgerEntry[]): Promise<StoredLedger> {
  const tokenIds = new Set(entries.map((entry) => ("row" in entry ? entry.row.token_id : entry.tokenId)));
  const tokens = await db
    .selectFrom("relay_token")
    .select(["id", "unlimited_quota", "remain_quota"])
    .where("id", "in", [...tokenIds])
    .execute();
  const settled = entries.flatMap((entry) => ("row" in entry ? [entry.row.request_id] : []));
  const open = await inRequests(settled, (ids) =>
    db.selectFrom("relay_reservation").select(["request_id", "amount"]).where("request_id", "in", ids).execute(),
  );
  const logged = await inRequests(settled, (ids) =>
    db.selectFrom("relay_log").select("request_id").where("request_id", "in", ids).execute(),
  );
  return {
    tokens: new Map(
      tokens.map((row) => [row.id, { isUnlimited: row.unlimited_quota === 1, remain: row.remain_quota }]),
    ),
    open: new Map(open.map(({ request_id, amount }) => [request_id, amount])),
    logged: new Set(logged.map(({ request_id }) => request_id)),
  };
}

async function inRequests<T>(ids: readonly string[], find: (ids: readonly string[]) => Promise<T[]>): Promise<T[]> {
  return ids.length === 0 ? [] : find(ids);
}

async function writeBatch(db: Db, { quotas, reservations, settled, rows, channels }: LedgerBatch): Promise<void> {
  for (const [tokenId, { remain, used }] of quotas) await addQuota(db, tokenId, remain, used);
  const opened = [...reservations.values()].map(({ requestId: request_id, tokenId, amount, node, expiresAtMs }) => {
    return { request_id, token_id: tokenId, amount, node, expires_at: expiresAtMs };
  });
  for (let at = 0; at < opened.length; at += INSERT_ROWS) {
    await db
      .insertInto("relay_reservation")
      .values(opened.slice(at, at + INSERT_ROWS))
      .execute();
  }
  if (settled.length > 0) await db.deleteFrom("relay_reservation").where("request_id", "in", settled).execute();
  await insertRows(db, rows);
  for (const [channelId, used] of channels) if (used > 0) await addChannelUsage(db, channelId, used);
}

async function addQuota(db: Db, tokenId: number, remain: number, used: number): Promise<void> {
  if (remain === 0 && used === 0) return;
  await db
    .updateTable("relay_token")
    .set((build) => ({
      remain_quota: build("remain_quota", "+", remain),
      used_quota: build("used_quota", "+", used),
    }))
    .where("id", "=", tokenId)
    .execute();
}

async function addChannelUsage(db: Db, channelId: number, used: number): Promise<void> {
  await db
    .updateTable("relay_channel")
    .set((build) => ({ used_quota: build("used_quota", "+", used) }))
    .where("id", "=", channelId)
    .execute();
}

async function touch(db: Db, touched: readonly TokenTouch[]): Promise<void> {
  for (const { id, atMs } of touched) {
    await db
      .updateTable("relay_token")
      .set({ accessed_time: atMs })
      .where("id", "=", id)
      .where("accessed_time", "<", atMs)
      .execute();
  }
}

async function insertRows(db: Db, rows: readonly NewLogRow[]): Promise<void> {
  let insert: CompiledQuery | null = null;
  for (let at = 0; at < rows.length; at += INSERT_ROWS) {
    const part = rows.slice(at, at + INSERT_ROWS).map(storedRow);
    const parameters = part.flatMap((row) => Object.values(row));
    // To compile a statement takes as long as to run it, and all but the last part have the same one.
    if (insert?.parameters.length !== parameters.length) {
      // The id is the engine's to give, which its type cannot say.
      insert = db
        .insertInto("relay_log")
        .values(part as unknown as LogRow[])
        .compile();
    }
    await db.executeQuery({ ...insert, parameters });
  }
}

/** Every column but the id, in one order whoever made the row. */
function storedRow(row: NewLogRow): NewLogRow {
  return {
    request_id: row.request_id,
    ts: row.ts,
    token_id: row.token_id,
    token_name: row.token_name,
    channel_id: row.channel_id,
    route: row.route,
    model: row.model,
    upstream_model: row.upstream_model,
    status: row.status,
    stream: row.stream,
    error_code: row.error_code,
    client_ip: row.client_ip,
    duration_ms: Math.round(row.duration_ms),
    ttft_ms: row.ttft_ms === null ? null : Math.round(row.ttft_ms),
    overhead_ms: row.overhead_ms,
    prompt_tokens: row.prompt_tokens,
    completion_tokens: row.completion_tokens,
    cached_tokens: row.cached_tokens,
    estimated: row.estimated,
    quota: row.quota,
    attempts: row.attempts,
  };
}
