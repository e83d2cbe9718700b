// Everything that reads KV rows from SQLite: one instance per connection, its statements prepared once and kept.

import type { Database, Statement } from "bun:sqlite";
import { INLINE_VALUE_BYTES_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { isJson } from "../shared/json-text.ts";
import { ABOVE_ALL_KEYS, ENTRY_COLUMNS, forEachOrder, IS_LIVE, KeyListing, orderKey, pageOf } from "./key-listing.ts";
import type {
  BucketPageQuery,
  KeyPageQuery,
  KeyRange,
  KvEntry,
  KvFound,
  NamePage,
  OffsetEntry,
  OffsetPage,
  OffsetPageQuery,
} from "./kv-engine.ts";
import { type ChecksummedRow, checksumRow } from "./row-checksum.ts";

type BucketParameters = { lower: string; upper: string | Uint8Array; nowMs: number; limit: number };
type ValueRow = KvEntry & { checksum: number; value: Uint8Array<ArrayBuffer> | null };

/**
 * Rows that a wipe has left are missing from its very commit on, for each reader in its own snapshot. Without a wipe
 * none is: a revision that is damaged, and below zero, is for the checksum to tell.
 */
const IS_KEPT =
  "revision > coalesce((SELECT nullif(wiped_revision, 0) FROM kv_bucket WHERE name = kv.bucket), revision - 1)";

/** Throws SQLite's own errors; the callers translate them at the port. */
export class KvReader {
  readonly #database: Database;
  readonly #begin: Statement;
  readonly #commit: Statement;
  readonly #find: Statement<ValueRow, [string, string]>;
  readonly #describe: Statement<KvEntry, [string, string]>;
  readonly #load: Statement<ValueRow, [string, string, number]>;
  readonly #bucketPages: ReadonlyMap<string, Statement<{ name: string }, [BucketParameters]>>;
  readonly #hasExpired: Statement<{ found: number }, [number]>;
  readonly #wiped: Statement<{ revision: number }, [string]>;
  readonly #plainListing: KeyListing;
  #wipingListing: KeyListing | null = null;

  constructor(database: Database) {
    this.#database = database;
    this.#begin = database.prepare("BEGIN");
    this.#commit = database.prepare("COMMIT");
    this.#find = database.prepare(
      `SELECT ${ENTRY_COLUMNS}, checksum, CASE WHEN length(value) <= ${INLINE_VALUE_BYTES_MAX} THEN value END AS value
       FROM kv WHERE bucket = ? AND key = ? AND ${IS_KEPT}`,
    );
    this.#describe = database.prepare(`SELECT ${ENTRY_COLUMNS} FROM kv WHERE bucket = ? AND key = ? AND ${IS_KEPT}`);
    this.#load = database.prepare(
      `SELECT ${ENTRY_COLUMNS}, checksum, value FROM kv WHERE bucket = ? AND key = ? AND revision = ?`,
    );
    this.#bucketPages = forEachOrder((isReverse, isConfirmed) =>
      database.prepare(
        `SELECT name FROM kv_bucket WHERE entries > 0 AND name >= :lower AND name < :upper AND ${
          isConfirmed
            ? `EXISTS (SELECT 1 FROM kv WHERE kv.bucket = name AND kv.revision > wiped_revision AND ${IS_LIVE})`
            : ":nowMs IS NOT NULL"
        } ORDER BY name ${isReverse ? "DESC" : "ASC"} LIMIT :limit`,
      ),
    );
    this.#hasExpired = database.prepare(
      "SELECT EXISTS (SELECT 1 FROM kv INDEXED BY kv_expiry WHERE expires_at <= ?) AS found",
    );
    this.#wiped = database.prepare("SELECT wiped_revision AS revision FROM kv_bucket WHERE name = ?");
    this.#plainListing = new KeyListing(database, false);
  }

  /** @throws AppError value_damaged */
  find(bucket: string, key: string, nowMs: number): KvFound | null {
    const row = this.#find.get(bucket, key);
    if (row === null || isExpired(row, nowMs)) return null;
    if (row.value !== null) requireIntact(bucket, key, row, row.checksum, row.value);
    return row;
  }

  describe(bucket: string, key: string, nowMs: number): KvEntry | null {
    const row = this.#describe.get(bucket, key);
    return row === null || isExpired(row, nowMs) ? null : row;
  }

  /** @throws AppError value_damaged */
  load(bucket: string, key: string, revision: number): Uint8Array<ArrayBuffer> | null {
    const row = this.#load.get(bucket, key, revision);
    if (row === null) return null;
    requireIntact(bucket, key, row, row.checksum, row.value!);
    return row.value;
  }

  listKeys(query: KeyPageQuery, nowMs: number): NamePage {
    const { bucket } = query.range;
    return this.#inListing(bucket, (listing, wiped) => listing.list(query, nowMs, wiped));
  }

  listBuckets(query: BucketPageQuery, nowMs: number): NamePage {
    return this.#inSnapshot(() => {
      // Rare and short-lived: rows that have expired and were not yet swept. Only then does each bucket need proof.
      const isConfirmed = this.#hasExpired.get(nowMs)!.found === 1;
      const rows = this.#bucketPages.get(orderKey(query.isReverse, isConfirmed))!.all({
        lower: query.lower,
        upper: query.upper ?? ABOVE_ALL_KEYS,
        nowMs,
        limit: query.limit + 1,
      });
      return pageOf(rows, query.limit, query.isReverse);
    });
  }

  /** Live keys of a bounded number of rows; `next` is where the following slice starts, null at the end. */
  countSlice(range: KeyRange, nowMs: number): { total: number; next: string | null } {
    const { bucket } = range;
    return this.#inListing(bucket, (listing, wiped) => listing.countSlice(range, nowMs, wiped));
  }

  /** Rows of the bucket: how long a count or a sort could take. */
  bucketEntries(bucket: string): number {
    return this.#plainListing.bucketEntries(bucket);
  }

  /** Whether a wipe of the bucket has left rows that are not removed yet. */
  isWiping(bucket: string): boolean {
    return this.#wipedRevision(bucket) > 0;
  }

  /** @throws AppError value_damaged */
  pageByOffset(query: OffsetPageQuery, nowMs: number): OffsetPage {
    const { bucket, ranges, sortBy, limit, skip, sortRowsMax, jsonBytesMax } = query;
    return this.#inListing(bucket, (listing, wiped) => {
      const counts = ranges.map((range) => listing.countRange(query, range, nowMs, wiped));
      const total = counts.reduce((sum, { live }) => sum + live, 0);
      if (sortBy !== "key" && total > sortRowsMax) return { total, entries: null };
      if (limit === 0 || skip >= total) return { total, entries: [] };
      const rows =
        sortBy === "key" ? listing.pageByKey(query, counts, nowMs, wiped) : listing.pageSorted(query, nowMs, wiped);
      const sized = rows.map((row) => ({ ...row, jsonBytes: isJsonType(row.contentType) ? row.sizeBytes : 0 }));
      const bytes = sized.reduce((sum, { jsonBytes }) => sum + jsonBytes, 0);
      const isFitting = jsonBytesMax !== null && bytes <= jsonBytesMax;
      const entries: OffsetEntry[] = sized.map((row) => ({
        ...row,
        json: isFitting && row.jsonBytes > 0 ? this.#loadJson(bucket, row.key, row.revision) : null,
      }));
      return { total, entries };
    });
  }

  #loadJson(bucket: string, key: string, revision: number): Uint8Array<ArrayBuffer> | null {
    const value = this.load(bucket, key, revision);
    return value !== null && isJson(value) ? value : null;
  }

  /** In one snapshot, which also tells whether the bucket is being emptied and up to which revision. */
  #inListing<T>(bucket: string, read: (listing: KeyListing, wiped: number) => T): T {
    return this.#inSnapshot(() => {
      const wiped = this.#wipedRevision(bucket);
      if (wiped === 0) return read(this.#plainListing, wiped);
      this.#wipingListing ??= new KeyListing(this.#database, true);
      return read(this.#wipingListing, wiped);
    });
  }

  #wipedRevision(bucket: string): number {
    return this.#wiped.get(bucket)?.revision ?? 0;
  }

  /** One snapshot for several statements, and one pair of lock calls instead of one per statement. */
  #inSnapshot<T>(read: () => T): T {
    this.#begin.run();
    try {
      return read();
    } finally {
      this.#commit.run();
    }
  }
}

function isExpired(entry: KvEntry, nowMs: number): boolean {
  return entry.expiresAtMs !== null && entry.expiresAtMs <= nowMs;
}

function isJsonType(contentType: string | null): boolean {
  return contentType !== null && /^(?:application\/json|[\w.+-]+\/[\w.+-]+\+json)[ \t]*(?:$|;)/i.test(contentType);
}

function requireIntact(bucket: string, key: string, row: ChecksummedRow, checksum: number, value: Uint8Array): void {
  if (checksumRow(bucket, key, row, value) === checksum) return;
  const cause = new Error(`the checksum of ${JSON.stringify(bucket)} ${JSON.stringify(key)} does not fit its value`);
  throw new AppError("value_damaged", "The stored value is damaged; it is not served.", { cause });
}
