// The port that the services store through: what a KV engine can do, in words that fit every engine.

import type { Eventually } from "../shared/eventual.ts";

/** What is known of an entry besides its bucket, key and value. Times in ms since 1970. */
export interface KvEntry {
  /** Store-wide, grows with each applied change, never reused. */
  readonly revision: number;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  /** The entry is missing from this instant on; null = never. */
  readonly expiresAtMs: number | null;
  readonly contentType: string | null;
  /** JSON object of strings, or null when there is none. */
  readonly metadata: string | null;
  /** Address of the client that created the entry; null = unknown. */
  readonly creatorIp: string | null;
  readonly sizeBytes: number;
}

/** `value` is null when it is larger than INLINE_VALUE_BYTES_MAX: see `KvEngine.load`. */
export interface KvFound extends KvEntry {
  readonly value: Uint8Array<ArrayBuffer> | null;
}

/** Tags of a condition as revisions; a tag that no revision can equal is left out. */
export type RevisionTags = "*" | readonly number[];

/** Judged against the row inside the commit. Null = not asked. Both hold or the write does not happen. */
export interface WriteCondition {
  readonly ifMatch: RevisionTags | null;
  readonly ifNoneMatch: RevisionTags | null;
}

interface WriteOfKey {
  readonly bucket: string;
  readonly key: string;
  readonly condition: WriteCondition | null;
  /**
   * The installation of an app that this is written for; absent for operators. Judged inside the commit: when it is
   * gone by then, nothing is changed, or it would be in the namespace of whoever has that name next.
   */
  readonly installationId?: string | undefined;
}

export interface KvPut extends WriteOfKey {
  readonly kind: "put";
  /** The engine takes the bytes over: the caller must not touch them again. */
  readonly value: Uint8Array<ArrayBuffer>;
  readonly contentType: string | null;
  readonly metadata: string | null;
  /** From the commit on; null = no expiry, a previous one is removed. */
  readonly ttlMs: number | null;
  /** Address of the creating client; kept by later overwrites. */
  readonly creatorIp: string | null;
}

interface KvDelete extends WriteOfKey {
  readonly kind: "delete";
}

export type KvWrite = KvPut | KvDelete;

/** What a write did. It is told only after the commit that judged it was synced. */
export type KvOutcome =
  | { readonly kind: "created" | "replaced"; readonly revision: number; readonly updatedAtMs: number }
  | { readonly kind: "deleted"; readonly revision: number }
  /** DELETE of a missing key. */
  | { readonly kind: "absent" }
  /** The condition does not hold; `revision` of the live entry, null when missing. */
  | { readonly kind: "unmet"; readonly revision: number | null };

/** `lower <= name < upper` in byte order; null = no upper bound. */
export interface NameRange {
  readonly lower: string;
  readonly upper: string | null;
}

/** Keys of one bucket. */
export interface KeyRange extends NameRange {
  readonly bucket: string;
}

export interface KeyPageQuery {
  readonly range: KeyRange;
  readonly isReverse: boolean;
  /** 1..LIST_PAGE_MAX names. */
  readonly limit: number;
  readonly hasDetails: boolean;
  /** Keys that hold `delimiter` after `prefix` collapse into one name that ends in it. */
  readonly grouping: { readonly prefix: string; readonly delimiter: string } | null;
}

/** One page = one snapshot per statement. `entries` runs beside `names`: null for a collapsed group. */
export interface NamePage {
  readonly names: string[];
  readonly entries: (KvEntry | null)[];
  /** New bound of the range for the next page (lower, or upper when reversed); null = nothing remains. */
  readonly resumeAt: string | null;
}

export interface BucketPageQuery extends NameRange {
  readonly isReverse: boolean;
  readonly limit: number;
}

export type SortField = "key" | "createdAt" | "updatedAt" | "creatorIp";

/** What a page that waits for its turn is given with it. */
export interface PageTurn {
  /** Aborted when nobody waits for the page any more. */
  readonly signal: AbortSignal;
  /** Awaited when the turn has come, before the page is read: what it needs is not to be held by those that wait. */
  readonly begin: () => Promise<void>;
}

/** A page by position, with the total: what clients that count and skip need. */
export interface OffsetPageQuery {
  readonly bucket: string;
  /** Sorted and disjoint. */
  readonly ranges: readonly NameRange[];
  /** Keys that are neither listed nor counted. */
  readonly excluded: readonly string[];
  /** Ties by key in the same direction. */
  readonly sortBy: SortField;
  readonly isReverse: boolean;
  /** 0 = only the total. */
  readonly limit: number;
  readonly skip: number;
  /** Above this many entries only `sortBy: "key"` is answered; see `OffsetPage.entries`. */
  readonly sortRowsMax: number;
  /** JSON values are read when all of the page fit into this many bytes together; null = no values. */
  readonly jsonBytesMax: number | null;
}

export interface OffsetEntry extends KvEntry {
  readonly key: string;
  /** What its value takes of `jsonBytesMax`: nothing without a JSON content type. */
  readonly jsonBytes: number;
  /** The value when it is one valid JSON text with a JSON content type, was asked for, and the page fits; else null. */
  readonly json: Uint8Array<ArrayBuffer> | null;
}

/** Entries and total come from one snapshot. `entries` is null when there are too many to be sorted. */
export interface OffsetPage {
  readonly total: number;
  readonly entries: readonly OffsetEntry[] | null;
}

/** Every method throws AppError; engine text never passes this border. */
export interface KvEngine extends AsyncDisposable {
  /** The live entry or null. @throws value_damaged, busy, internal_error */
  find(bucket: string, key: string): Eventually<KvFound | null>;
  /** The live entry without its value, or null. @throws busy, internal_error */
  describe(bucket: string, key: string): Eventually<KvEntry | null>;
  /** The value of exactly this revision, verified; null when it was changed since. @throws value_damaged, busy */
  load(bucket: string, key: string, revision: number): Promise<Uint8Array<ArrayBuffer> | null>;
  /** A page that has to wait is not read when `signal` says that nobody waits any more. @throws unavailable */
  listKeys(query: KeyPageQuery, signal: AbortSignal | null): Eventually<NamePage>;
  /** Buckets that hold a live entry; `signal` as above. */
  listBuckets(query: BucketPageQuery, signal: AbortSignal | null): Eventually<NamePage>;
  /** Live keys in the range. @throws unavailable when `signal` is aborted; busy, internal_error */
  count(range: KeyRange, signal: AbortSignal): Promise<number>;
  /**
   * `turn` is for pages that wait for others, as all with values do; null = somebody waits until the end, and nothing
   * is to be done before.
   * @throws value_damaged, busy, overloaded, unavailable, internal_error; what `turn.begin` throws
   */
  pageByOffset(query: OffsetPageQuery, turn: PageTurn | null): Eventually<OffsetPage>;
  /**
   * Resolves after the commit was synced. Writes of one caller are applied in the order of the calls.
   * @throws busy, overloaded, draining, storage_full, token_invalid: surely not applied; storage_failed: it is unknown
   */
  write(write: KvWrite): Promise<KvOutcome>;
  /** All or none, in one commit; the outcomes in the order of the items. Throws as `write`. */
  writeTogether(writes: readonly KvWrite[]): Promise<KvOutcome[]>;
  /**
   * Every entry of the bucket is missing from the commit on; the rows are removed afterwards. `installationId` as in a
   * write. Throws as `write`.
   */
  wipe(bucket: string, installationId?: string): Promise<void>;
  /** Told of every wipe, before the caller of the wipe is: for caches. */
  onWipe(listener: (bucket: string) => void): void;
}
