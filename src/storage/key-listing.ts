// Lists and counts of the keys of one bucket: by range, by group, by position.

import type { Database, Statement } from "bun:sqlite";
import { COUNT_SLICE_ROWS, KEY_BYTES_MAX } from "../shared/bounds.ts";
import { boundAfterKey, boundAfterPrefix, compareByteOrder } from "./key-bounds.ts";
import type {
  KeyPageQuery,
  KeyRange,
  KvEntry,
  NamePage,
  NameRange,
  OffsetEntry,
  OffsetPageQuery,
} from "./kv-engine.ts";

export const ENTRY_COLUMNS = `revision, created_at AS createdAtMs, updated_at AS updatedAtMs, expires_at AS expiresAtMs,
  content_type AS contentType, metadata, creator_ip AS creatorIp, length(value) AS sizeBytes`;

/**
 * True for rows that have not expired, told from the partial index alone, so that lists never touch the rows. NOT IN
 * over the same index takes thirty times as long with 100 000 expired rows.
 */
export const IS_LIVE = `NOT EXISTS (SELECT 1 FROM kv AS gone INDEXED BY kv_expiring
  WHERE gone.bucket = kv.bucket AND gone.key = kv.key AND gone.expires_at <= :nowMs)`;

const IN_RANGE = "bucket = :bucket AND key >= :lower AND key < :upper";
const NOT_EXCLUDED = "key NOT IN (SELECT value FROM json_each(:excluded))";

/** In SQLite every BLOB sorts after every TEXT: an upper bound above all keys. */
export const ABOVE_ALL_KEYS = new Uint8Array(0);

const SORT_COLUMNS = {
  key: "key",
  createdAt: "created_at",
  updatedAt: "updated_at",
  creatorIp: "coalesce(creator_ip, '')",
} as const;

type Bound = string | Uint8Array;
type Bindings = Record<string, string | number | Uint8Array>;
type RangeParameters = { bucket: string; lower: string; upper: Bound; wiped: number };
type GroupedParameters = RangeParameters & {
  nowMs: number;
  limit: number;
  skip: number;
  delimiter: string;
  afterDelimiter: string;
};
type KeyRow = { name: string } & Partial<KvEntry>;
type Total = { total: number };

/** Of one range of keys. */
interface RangeCount {
  readonly live: number;
  /** No row of the range has expired or is excluded. */
  readonly isPlain: boolean;
}

type OffsetRow = Omit<OffsetEntry, "json" | "jsonBytes">;

/** No key that begins with some text is above that text with this behind it. */
const LONGEST_KEY_OF_ALL = "\u{10FFFF}".repeat(Math.ceil(KEY_BYTES_MAX / 4) + 1);

/**
 * A page that jumps past each group with one index seek, all inside SQLite: a statement for each group costs eight
 * times as much. `:skip` is the position behind the prefix in characters, from 1; `:afterDelimiter`, put behind what
 * stands before the delimiter, is above the whole group.
 */
function groupedPageSql(isReverse: boolean, hasDetails: boolean, isVisible: string): string {
  const order = isReverse ? "DESC" : "ASC";
  const seek = (bound: string) => `(SELECT kv.key FROM kv WHERE kv.bucket = :bucket
    AND kv.key >= ${isReverse ? ":lower" : bound} AND kv.key < ${isReverse ? bound : ":upper"}
    AND ${isVisible} AND ${IS_LIVE} ORDER BY kv.key ${order} LIMIT 1)`;
  const at = "instr(substr(name, :skip), :delimiter)";
  // A plain key is followed by what is above it; U+0000 is in no key, so U+0001 is the least that can stand behind.
  const beyond = `CASE ${at} WHEN 0 THEN name ${isReverse ? "" : "|| char(1)"}
    ELSE substr(name, 1, :skip + ${at} - 2) || ${isReverse ? ":delimiter" : ":afterDelimiter"} END`;
  const jumps = `WITH RECURSIVE jump (name) AS (SELECT ${seek(isReverse ? ":upper" : ":lower")}
    UNION ALL SELECT ${seek(beyond)} FROM jump WHERE name IS NOT NULL LIMIT :limit)`;
  // The row of a group's first key is of no use; only those of plain keys are looked at.
  const details = hasDetails ? `LEFT JOIN kv ON ${at} = 0 AND bucket = :bucket AND key = name` : "";
  return `${jumps} SELECT name ${hasDetails ? `, ${ENTRY_COLUMNS}` : ""} FROM jump ${details}
    WHERE name IS NOT NULL ORDER BY name ${order}`;
}

/**
 * One instance per connection and visibility. With `isWiping` rows up to a revision are left out, which needs a look at
 * each row; the plain instance answers from indexes alone. Callers hold a read transaction.
 */
export class KeyListing {
  readonly #database: Database;
  readonly #isVisible: string;
  readonly #pages: ReadonlyMap<string, Statement<KeyRow, [RangeParameters & { nowMs: number; limit: number }]>>;
  readonly #groupedPages: ReadonlyMap<string, Statement<KeyRow, [GroupedParameters]>>;
  readonly #sliceEnd: Statement<{ key: string }, [RangeParameters & { offset: number }]>;
  readonly #countRows: Statement<Total, [RangeParameters]>;
  readonly #countExpired: Statement<Total, [RangeParameters & { nowMs: number }]>;
  readonly #bucketEntries: Statement<{ entries: number }, [string]>;
  readonly #isThere: Statement<{ found: number }, [{ bucket: string; key: string; nowMs: number; wiped: number }]>;

  constructor(database: Database, isWiping: boolean) {
    this.#database = database;
    // The parameter is bound either way; comparing it with itself costs nothing.
    this.#isVisible = isWiping ? "revision > :wiped" : ":wiped IS NOT NULL";
    this.#pages = forEachOrder((isReverse, hasDetails) =>
      database.prepare(
        `SELECT key AS name ${hasDetails ? `, ${ENTRY_COLUMNS}` : ""} FROM kv
         WHERE ${IN_RANGE} AND ${this.#isVisible} AND ${IS_LIVE}
         ORDER BY key ${isReverse ? "DESC" : "ASC"} LIMIT :limit`,
      ),
    );
    this.#groupedPages = forEachOrder((isReverse, hasDetails) =>
      database.prepare(groupedPageSql(isReverse, hasDetails, this.#isVisible)),
    );
    this.#sliceEnd = database.prepare(
      `SELECT key FROM kv WHERE ${IN_RANGE} AND ${this.#isVisible} ORDER BY key LIMIT 1 OFFSET :offset`,
    );
    this.#countRows = database.prepare(`SELECT count(*) AS total FROM kv WHERE ${IN_RANGE} AND ${this.#isVisible}`);
    this.#countExpired = database.prepare(
      `SELECT count(*) AS total FROM kv INDEXED BY kv_expiring
       WHERE ${IN_RANGE} AND expires_at <= :nowMs AND ${this.#isVisible}`,
    );
    this.#bucketEntries = database.prepare("SELECT entries FROM kv_bucket WHERE name = ?");
    this.#isThere = database.prepare(
      `SELECT count(*) AS found FROM kv WHERE bucket = :bucket AND key = :key AND ${this.#isVisible}
       AND (expires_at IS NULL OR expires_at > :nowMs)`,
    );
  }

  list(query: KeyPageQuery, nowMs: number, wiped: number): NamePage {
    if (query.grouping !== null) return this.#groupedPage(query, query.grouping, nowMs, wiped);
    const { range, isReverse, limit, hasDetails } = query;
    return pageOf(this.#rows(range, isReverse, hasDetails, limit + 1, nowMs, wiped), limit, isReverse);
  }

  /** Live keys of up to COUNT_SLICE_ROWS rows; `next` is where the following slice starts, null at the end. */
  countSlice(range: KeyRange, nowMs: number, wiped: number): { total: number; next: string | null } {
    if (isWhole(range)) return { total: this.#countWhole(range.bucket, nowMs, wiped), next: null };
    const parameters = rangeParameters(range, wiped);
    const next = this.#sliceEnd.get({ ...parameters, offset: COUNT_SLICE_ROWS })?.key ?? null;
    const slice = { ...parameters, upper: next ?? parameters.upper };
    const rows = next === null ? this.#countRows.get(slice)!.total : COUNT_SLICE_ROWS;
    return { total: rows - this.#countExpired.get({ ...slice, nowMs })!.total, next };
  }

  /** Rows of the bucket as the counter has them, expired ones included: how long a count could take. */
  bucketEntries(bucket: string): number {
    return this.#bucketEntries.get(bucket)?.entries ?? 0;
  }

  /** Live keys of one range without the excluded ones. Never visits rows. */
  countRange(query: OffsetPageQuery, range: NameRange, nowMs: number, wiped: number): RangeCount {
    const { bucket, excluded } = query;
    const parameters = rangeParameters({ ...range, bucket }, wiped);
    const rows = isWhole(range) ? this.bucketEntries(bucket) : this.#countRows.get(parameters)!.total;
    const expired = this.#countExpired.get({ ...parameters, nowMs })!.total;
    const hidden = excluded.filter(
      (key) => isWithin(key, range) && this.#isThere.get({ bucket, key, nowMs, wiped })!.found === 1,
    );
    return { live: rows - expired - hidden.length, isPlain: expired + hidden.length === 0 };
  }

  /** Entries from `skip` on in key order, over all ranges; `counts` are theirs, of the same snapshot. */
  pageByKey(query: OffsetPageQuery, counts: readonly RangeCount[], nowMs: number, wiped: number): OffsetRow[] {
    const { bucket, isReverse, limit } = query;
    const excluded = JSON.stringify(query.excluded);
    const rows: OffsetRow[] = [];
    let skip = query.skip;
    const indexes = query.ranges.map((_, index) => index);
    for (const index of isReverse ? indexes.reverse() : indexes) {
      const { live, isPlain } = counts[index]!;
      if (skip >= live) skip -= live;
      else if (rows.length < limit) {
        const parameters = rangeParameters({ ...query.ranges[index]!, bucket }, wiped);
        const select = this.#prepareOffsetPage(isReverse, isPlain);
        rows.push(...select.all({ ...parameters, nowMs, excluded, limit: limit - rows.length, skip }));
        select.finalize();
        skip = 0;
      }
    }
    return rows;
  }

  /** A look at what hides a row costs more than the row itself: where nothing does, none is taken. */
  #prepareOffsetPage(isReverse: boolean, isPlain: boolean): Statement<OffsetRow, [Bindings]> {
    // The parameters are bound either way.
    const isShown = isPlain ? ":nowMs IS NOT NULL AND :excluded IS NOT NULL" : `${IS_LIVE} AND ${NOT_EXCLUDED}`;
    const order = `ORDER BY key ${isReverse ? "DESC" : "ASC"}`;
    return this.#database.prepare(
      `SELECT key, ${ENTRY_COLUMNS} FROM kv WHERE id IN (
         SELECT id FROM kv WHERE ${IN_RANGE} AND ${this.#isVisible} AND ${isShown} ${order} LIMIT :limit OFFSET :skip)
       ${order}`,
    );
  }

  /** Entries from `skip` on, sorted by something else than the key: visits every row of the ranges. */
  pageSorted(query: OffsetPageQuery, nowMs: number, wiped: number): OffsetRow[] {
    const { bucket, ranges, isReverse, limit, skip, sortBy } = query;
    const direction = isReverse ? "DESC" : "ASC";
    const anyRange = ranges.map((_, index) => `(key >= :lower${index} AND key < :upper${index})`).join(" OR ");
    const select = this.#database.prepare<OffsetRow, [Bindings]>(
      `SELECT key, ${ENTRY_COLUMNS} FROM kv
       WHERE bucket = :bucket AND (${anyRange}) AND ${this.#isVisible} AND ${NOT_EXCLUDED}
       AND (expires_at IS NULL OR expires_at > :nowMs)
       ORDER BY ${SORT_COLUMNS[sortBy]} ${direction}, key ${direction} LIMIT :limit OFFSET :skip`,
    );
    const bounds: Bindings = {};
    for (const [index, { lower, upper }] of ranges.entries()) {
      bounds[`lower${index}`] = lower;
      bounds[`upper${index}`] = upper ?? ABOVE_ALL_KEYS;
    }
    const rows = select.all({ ...bounds, bucket, nowMs, wiped, limit, skip, excluded: JSON.stringify(query.excluded) });
    select.finalize();
    return rows;
  }

  #countWhole(bucket: string, nowMs: number, wiped: number): number {
    const parameters = rangeParameters({ bucket, lower: "", upper: null }, wiped);
    return this.bucketEntries(bucket) - this.#countExpired.get({ ...parameters, nowMs })!.total;
  }

  /** The keys of `rows` are the first of their group each, or plain ones. */
  #groupedPage(
    { range, isReverse, limit, hasDetails }: KeyPageQuery,
    { prefix, delimiter }: { prefix: string; delimiter: string },
    nowMs: number,
    wiped: number,
  ): NamePage {
    const rows = this.#groupedPages.get(orderKey(isReverse, hasDetails))!.all({
      ...rangeParameters(range, wiped),
      nowMs,
      limit: limit + 1,
      skip: [...prefix].length + 1,
      delimiter,
      afterDelimiter: boundAfterPrefix(delimiter) ?? delimiter + LONGEST_KEY_OF_ALL,
    });
    const groups = rows.slice(0, limit).map((row) => groupOf(row.name, prefix, delimiter));
    const names = groups.map((group, index) => group ?? rows[index]!.name);
    const entries = groups.map((group, index) => (group === null && hasDetails ? (rows[index] as KvEntry) : null));
    if (rows.length <= limit) return { names, entries, resumeAt: null };
    const group = groups.at(-1)!;
    const rest = group === null ? afterKey(range, names.at(-1)!, isReverse) : afterGroup(range, group, isReverse);
    return { names, entries, resumeAt: rest === null ? null : isReverse ? rest.upper : rest.lower };
  }

  #rows(
    range: KeyRange,
    isReverse: boolean,
    hasDetails: boolean,
    limit: number,
    nowMs: number,
    wiped: number,
  ): KeyRow[] {
    const statement = this.#pages.get(orderKey(isReverse, hasDetails))!;
    return statement.all({ ...rangeParameters(range, wiped), nowMs, limit });
  }
}

function rangeParameters({ bucket, lower, upper }: KeyRange, wiped: number): RangeParameters {
  return { bucket, lower, upper: upper ?? ABOVE_ALL_KEYS, wiped };
}

function isWhole({ lower, upper }: NameRange): boolean {
  return lower === "" && upper === null;
}

function isWithin(key: string, { lower, upper }: NameRange): boolean {
  return compareByteOrder(key, lower) >= 0 && (upper === null || compareByteOrder(key, upper) < 0);
}

export function pageOf(rows: KeyRow[], limit: number, isReverse: boolean): NamePage {
  const shown = rows.length > limit ? rows.slice(0, limit) : rows;
  const last = shown.at(-1);
  return {
    names: shown.map((row) => row.name),
    entries: shown as unknown as KvEntry[],
    resumeAt: rows.length <= limit || last === undefined ? null : isReverse ? last.name : boundAfterKey(last.name),
  };
}

/** The common prefix that `key` collapses into, ending in the delimiter, or null. */
function groupOf(key: string, prefix: string, delimiter: string): string | null {
  const at = key.indexOf(delimiter, prefix.length);
  return at < 0 ? null : key.slice(0, at + delimiter.length);
}

function afterKey(range: KeyRange, key: string, isReverse: boolean): KeyRange {
  return isReverse ? { ...range, upper: key } : { ...range, lower: boundAfterKey(key) };
}

function afterGroup(range: KeyRange, group: string, isReverse: boolean): KeyRange | null {
  if (isReverse) return { ...range, upper: group };
  const lower = boundAfterPrefix(group);
  return lower === null ? null : { ...range, lower };
}

export function orderKey(first: boolean, second: boolean): string {
  return `${first} ${second}`;
}

/** One prepared statement for each pair of switches. */
export function forEachOrder<T>(make: (first: boolean, second: boolean) => T): Map<string, T> {
  const statements = new Map<string, T>();
  for (const first of [false, true]) {
    for (const second of [false, true]) statements.set(orderKey(first, second), make(first, second));
  }
  return statements;
}
