// The usage log as its operator reads it, on the reader thread: pages of rows, sums over a time. Long reads come in
// slices, between which other statements get their turn.

import type { Kysely } from "kysely";
import { requireSomebodyWaits } from "../shared/errors.ts";
import { SCANS_OF, type TableStore } from "../storage/unit-of-work.ts";
import { relayTables } from "./relay-base-units.ts";
import type { LogRow, RelayTables } from "./relay-tables.ts";
import type { RelayUnits } from "./relay-units.ts";

/** Rows that one statement looks at: some milliseconds. */
const SLICE_ROWS = 2000;

/** Null filters nothing. Times in ms since 1970: from `fromMs` on, before `toMs`. */
export interface LogFilter {
  readonly tokenId: number | null;
  readonly channelId: number | null;
  readonly model: string | null;
  readonly status: number | null;
  readonly requestId: string | null;
  readonly fromMs: number | null;
  readonly toMs: number | null;
}

/** The place of a row in the order of the log. */
export interface LogPlace {
  readonly ts: number;
  readonly id: number;
}

export type StatGroup = "token" | "channel" | "model" | "day";

export interface LogStat {
  /** An id, a name, or a day (UTC) as YYYY-MM-DD; null for requests that reached no channel. */
  readonly key: number | string | null;
  readonly requests: number;
  readonly errors: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly quota: number;
  readonly durationMsAvg: number;
  /** Of the rows that have one. */
  readonly ttftMsAvg: number | null;
}

interface StatSlice extends Omit<LogStat, "durationMsAvg" | "ttftMsAvg"> {
  readonly durationMs: number;
  readonly ttftMs: number | null;
  readonly ttftCount: number;
}

type Db = Kysely<RelayTables>;
type Scanned = Pick<TableStore<RelayUnits>, "scansFor">;

const DAY_MS = 86_400_000;
const ERROR_STATUS_MIN = 400;
const GROUP_COLUMNS = { token: "token_id", channel: "channel_id", model: "model" } as const;

export class UsageLogStore {
  readonly #store: Scanned;

  constructor(store: Scanned) {
    this.#store = store;
  }

  /**
   * Up to `limit` rows, newest first, from behind `before` on; `next` is where to go on, null at the end.
   * @throws AppError unavailable when `signal` is aborted
   */
  async list(
    filter: LogFilter,
    { limit, before }: { limit: number; before: LogPlace | null },
    signal: AbortSignal,
  ): Promise<{ rows: LogRow[]; next: LogPlace | null }> {
    const db = this.#scansFor(signal);
    const rows: LogRow[] = [];
    for (let place = before; ; ) {
      requireSomebodyWaits(signal);
      // Where an index tells all, the page ends where it is full.
      const last = isSifted(filter) ? await lastOfSlice(db, filter, place) : null;
      rows.push(...(await rowsBetween(db, filter, place, last, limit + 1 - rows.length)));
      if (rows.length > limit) {
        rows.length = limit;
        return { rows, next: placeOf(rows.at(-1)!) };
      }
      if (last === null) return { rows, next: null };
      place = last;
    }
  }

  /**
   * Sums from `fromMs` on, before `toMs`, in the order of their keys.
   * @throws AppError unavailable when `signal` is aborted
   */
  async stat(group: StatGroup, fromMs: number, toMs: number, signal: AbortSignal): Promise<LogStat[]> {
    const filter: LogFilter = {
      tokenId: null,
      channelId: null,
      model: null,
      status: null,
      requestId: null,
      fromMs,
      toMs,
    };
    const db = this.#scansFor(signal);
    const sums = new Map<number | string | null, StatSlice>();
    let place: LogPlace | null = null;
    do {
      requireSomebodyWaits(signal);
      const last: LogPlace | null = await lastOfSlice(db, filter, place);
      for (const row of await sumBetween(db, group, filter, place, last)) {
        sums.set(row.key, add(sums.get(row.key), row));
      }
      place = last;
    } while (place !== null);
    return [...sums.values()].map((sum) => statOf(group, sum)).sort(byKey);
  }

  #scansFor(signal: AbortSignal): Db {
    return relayTables({ tables: this.#store.scansFor(SCANS_OF.operators, signal) });
  }
}

/** The last of the rows that are looked at together, from an index alone; null when they are the last ones. */
async function lastOfSlice(db: Db, filter: LogFilter, after: LogPlace | null): Promise<LogPlace | null> {
  const place = await within(db, filter, after, null)
    .select(["ts", "id"])
    .orderBy("ts", "desc")
    .orderBy("id", "desc")
    .offset(SLICE_ROWS - 1)
    .limit(1)
    .executeTakeFirst();
  return place ?? null;
}

function rowsBetween(
  db: Db,
  filter: LogFilter,
  after: LogPlace | null,
  last: LogPlace | null,
  limit: number,
): Promise<LogRow[]> {
  let query = within(db, filter, after, last);
  const { channelId } = filter;
  if (filter.tokenId !== null && channelId !== null) {
    // Of the token's index: along that of the channel the bounds of the slice would mean nothing.
    query = query.where(({ eb, fn }) => eb(fn.coalesce("channel_id", "channel_id"), "=", channelId));
  }
  if (filter.model !== null) query = query.where("model", "=", filter.model);
  if (filter.status !== null) query = query.where("status", "=", filter.status);
  return query.selectAll().orderBy("ts", "desc").orderBy("id", "desc").limit(limit).execute();
}

function sumBetween(
  db: Db,
  group: StatGroup,
  filter: LogFilter,
  after: LogPlace | null,
  last: LogPlace | null,
): Promise<StatSlice[]> {
  return within(db, filter, after, last)
    .select((build) => {
      const { fn } = build;
      // A stream that broke has the status that was sent before it did.
      const isError = build.or([build("status", ">=", ERROR_STATUS_MIN), build("error_code", "is not", null)]);
      const failed = build.case().when(isError).then(1).else(0).end();
      const dayStart = build("ts", "-", build("ts", "%", DAY_MS));
      return [
        (group === "day" ? dayStart : build.ref(GROUP_COLUMNS[group])).as("key"),
        fn.countAll<number>().as("requests"),
        fn.sum<number>(failed).as("errors"),
        fn.sum<number>("prompt_tokens").as("promptTokens"),
        fn.sum<number>("completion_tokens").as("completionTokens"),
        fn.sum<number>("quota").as("quota"),
        fn.sum<number>("duration_ms").as("durationMs"),
        fn.sum<number | null>("ttft_ms").as("ttftMs"),
        fn.count<number>("ttft_ms").as("ttftCount"),
      ];
    })
    .groupBy("key")
    .execute() as Promise<StatSlice[]>;
}

/**
 * From behind `after` to `last`, newest first, as far as one index tells; null = from the newest, to the oldest. On
 * each side the time has one bound, the tightest: see ARCHITECTURE.md on slices.
 */
function within(
  db: Db,
  { tokenId, channelId, requestId, fromMs, toMs }: LogFilter,
  after: LogPlace | null,
  last: LogPlace | null,
) {
  let query = db.selectFrom("relay_log");
  if (requestId !== null) query = query.where("request_id", "=", requestId);
  if (tokenId !== null) query = query.where("token_id", "=", tokenId);
  else if (channelId !== null) query = query.where("channel_id", "=", channelId);
  if (after !== null && (toMs === null || after.ts < toMs)) {
    query = query.where(({ eb, refTuple, tuple }) => eb(refTuple("ts", "id"), "<", tuple(after.ts, after.id)));
  } else if (toMs !== null) {
    query = query.where("ts", "<", toMs);
  }
  // It was found within the span.
  if (last !== null) {
    query = query.where(({ eb, refTuple, tuple }) => eb(refTuple("ts", "id"), ">=", tuple(last.ts, last.id)));
  } else if (fromMs !== null) {
    query = query.where("ts", ">=", fromMs);
  }
  return query;
}

/** What no index tells has to be looked at row by row; of token and channel one index tells one. */
function isSifted({ tokenId, channelId, model, status }: LogFilter): boolean {
  return model !== null || status !== null || (tokenId !== null && channelId !== null);
}

function placeOf({ ts, id }: LogPlace): LogPlace {
  return { ts, id };
}

function add(sum: StatSlice | undefined, slice: StatSlice): StatSlice {
  if (sum === undefined) return slice;
  return {
    key: slice.key,
    requests: sum.requests + slice.requests,
    errors: sum.errors + slice.errors,
    promptTokens: sum.promptTokens + slice.promptTokens,
    completionTokens: sum.completionTokens + slice.completionTokens,
    quota: sum.quota + slice.quota,
    durationMs: sum.durationMs + slice.durationMs,
    ttftMs: (sum.ttftMs ?? 0) + (slice.ttftMs ?? 0),
    ttftCount: sum.ttftCount + slice.ttftCount,
  };
}

function statOf(group: StatGroup, { durationMs, ttftMs, ttftCount, ...sum }: StatSlice): LogStat {
  return {
    ...sum,
    key: group === "day" ? new Date(Number(sum.key)).toISOString().slice(0, 10) : sum.key,
    durationMsAvg: durationMs / sum.requests,
    ttftMsAvg: ttftCount === 0 ? null : (ttftMs ?? 0) / ttftCount,
  };
}

/** Numbers by size, names by their characters, nothing first. */
function byKey({ key: left }: LogStat, { key: right }: LogStat): number {
  if (left === right) return 0;
  if (left === null || right === null) return left === null ? -1 : 1;
  return left < right ? -1 : 1;
}
