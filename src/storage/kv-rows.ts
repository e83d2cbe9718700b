// The rows of the KV tables as a transaction changes them: entries, bucket counters, the revision counter, together.

import type { Database, Statement } from "bun:sqlite";
import type { KvEntry } from "./kv-engine.ts";
import { checksumRow } from "./row-checksum.ts";

/** Buckets that are being emptied, with the last revision that is gone. Empty nearly always. */
export type Wipes = Map<string, number>;

/** An entry to be stored, besides its revision, which is given out here. */
export type NewEntry = Omit<KvEntry, "revision" | "sizeBytes"> & {
  readonly bucket: string;
  readonly key: string;
  readonly value: Uint8Array;
};

/** What a change needs to know of the row that is there, expired or not. */
export interface StoredRow {
  readonly id: number;
  readonly revision: number;
  readonly createdAtMs: number;
  readonly expiresAtMs: number | null;
  readonly creatorIp: string | null;
  readonly bytes: number;
  /** Left over from a wipe of its bucket: missing for everybody, and in no counter. */
  readonly isWiped: boolean;
}

/** Neither expired nor left over from a wipe: what is there for clients. */
export function isLive(row: StoredRow, nowMs: number): boolean {
  return !row.isWiped && (row.expiresAtMs === null || row.expiresAtMs > nowMs);
}

type ExpiredRow = { id: number; bucket: string; revision: number; bytes: number };

/**
 * To be used inside a transaction that the caller begins and ends: `finish` before COMMIT, then `keep` after it, or
 * `undo` after ROLLBACK.
 */
export class KvRows {
  readonly #wipes: Wipes;
  readonly #find: Statement<Omit<StoredRow, "isWiped">, [string, string]>;
  readonly #insert: Statement;
  readonly #update: Statement;
  readonly #delete: Statement;
  readonly #expired: Statement<ExpiredRow, [number, number]>;
  readonly #wipeBucket: Statement;
  readonly #wipedRows: Statement<{ id: number; key: string }, [string, string, number, number]>;
  readonly #forgetWipe: Statement;
  readonly #bucketEntries: Statement<{ entries: number }, [string]>;
  readonly #expiredEntries: Statement<{ entries: number }, [string, number, number]>;
  readonly #advanceBucket: Statement;
  readonly #saveRevision: Statement;
  readonly #database: Database;
  /** The last one that was found in the open transaction: items of a batch have mostly the same. */
  #installationId: string | null = null;
  readonly #changes = new Map<string, { entries: number; bytes: number }>();
  /** The last revision of the last commit. */
  #keptRevision: number;
  /** The last revision given out inside the open transaction. */
  #revision: number;

  /** Wipes of the open transaction, told to `wipes` when it is kept. */
  readonly #newWipes = new Map<string, number>();

  /** `wipes` holds the buckets whose purge is unfinished; it is kept up to date here. */
  constructor(database: Database, wipes: Wipes = readWipes(database)) {
    this.#database = database;
    this.#wipes = wipes;
    this.#find = database.prepare(
      `SELECT id, revision, created_at AS createdAtMs, expires_at AS expiresAtMs, creator_ip AS creatorIp,
       length(value) AS bytes FROM kv WHERE bucket = ? AND key = ?`,
    );
    this.#insert = database.prepare(
      `INSERT INTO kv (bucket, key, revision, created_at, updated_at, expires_at, checksum, content_type, metadata,
       creator_ip, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#update = database.prepare(
      `UPDATE kv SET revision = ?, created_at = ?, updated_at = ?, expires_at = ?, checksum = ?, content_type = ?,
       metadata = ?, creator_ip = ?, value = ? WHERE id = ?`,
    );
    this.#delete = database.prepare("DELETE FROM kv WHERE id = ?");
    this.#expired = database.prepare(
      `SELECT id, bucket, revision, length(value) AS bytes FROM kv INDEXED BY kv_expiry WHERE expires_at <= ?
       ORDER BY expires_at LIMIT ?`,
    );
    this.#wipeBucket = database.prepare(
      "UPDATE kv_bucket SET entries = 0, bytes = 0, wiped_revision = ?2 WHERE name = ?1",
    );
    this.#wipedRows = database.prepare(
      "SELECT id, key FROM kv WHERE bucket = ? AND key > ? AND revision <= ? ORDER BY key LIMIT ?",
    );
    this.#forgetWipe = database.prepare("UPDATE kv_bucket SET wiped_revision = 0 WHERE name = ?");
    this.#bucketEntries = database.prepare("SELECT entries FROM kv_bucket WHERE name = ?");
    this.#expiredEntries = database.prepare(
      `SELECT count(*) AS entries FROM kv INDEXED BY kv_expiring
       WHERE bucket = ? AND expires_at <= ? AND revision > ?`,
    );
    this.#advanceBucket = database.prepare(
      `INSERT INTO kv_bucket (name, entries, bytes) VALUES (?1, ?2, ?3)
       ON CONFLICT (name) DO UPDATE SET entries = entries + ?2, bytes = bytes + ?3`,
    );
    this.#saveRevision = database.prepare("UPDATE store SET value = ? WHERE name = 'last_revision'");
    this.#keptRevision = readLastRevision(database);
    this.#revision = this.#keptRevision;
  }

  /** The last revision given out; handing it back to `rewindTo` undoes what came after, with a savepoint. */
  get revision(): number {
    return this.#revision;
  }

  find(bucket: string, key: string): StoredRow | null {
    const row = this.#find.get(bucket, key);
    return row === null ? null : { ...row, isWiped: row.revision <= this.#wipedRevision(bucket) };
  }

  /** Whether there is such an installation of an app, as the open transaction has it. */
  isInstalled(id: string): boolean {
    if (id !== this.#installationId) {
      // Not before it is needed: a store that an older version made may be without that table when it is only read.
      const find = this.#database.query<{ id: string }, [string]>("SELECT id FROM token_installation WHERE id = ?");
      this.#installationId = find.get(id)?.id ?? null;
    }
    return id === this.#installationId;
  }

  /** Stores `entry` over `row`, or as a new row. Returns its revision. */
  put(entry: NewEntry, row: StoredRow | null): number {
    const { bucket, key, createdAtMs, updatedAtMs, expiresAtMs, contentType, metadata, creatorIp, value } = entry;
    const revision = ++this.#revision;
    const checksum = checksumRow(bucket, key, { ...entry, revision }, value);
    const fields = [revision, createdAtMs, updatedAtMs, expiresAtMs, checksum, contentType, metadata, creatorIp, value];
    if (row === null) this.#insert.run(bucket, key, ...fields);
    else this.#update.run(...fields, row.id);
    const isNew = row === null || row.isWiped;
    this.#count(bucket, isNew ? 1 : 0, value.length - (isNew ? 0 : row.bytes));
    return revision;
  }

  /** Removes a row. The removal takes a revision, which is returned. */
  remove(bucket: string, row: { readonly id: number; readonly bytes: number }): number {
    this.#delete.run(row.id);
    this.#count(bucket, -1, -row.bytes);
    return ++this.#revision;
  }

  /** Removes up to `limit` rows that have expired by `nowMs`, the oldest first. Returns how many. */
  removeExpired(nowMs: number, limit: number): number {
    const rows = this.#expired.all(nowMs, limit);
    for (const row of rows) {
      if (row.revision > this.#wipedRevision(row.bucket)) this.remove(row.bucket, row);
      else this.#delete.run(row.id);
    }
    return rows.length;
  }

  /** Every entry that the bucket holds now is missing from the commit on. Returns the revision of the wipe. */
  wipe(bucket: string): number {
    const revision = ++this.#revision;
    this.#changes.delete(bucket);
    this.#wipeBucket.run(bucket, revision);
    this.#newWipes.set(bucket, revision);
    return revision;
  }

  /**
   * Removes up to `limit` rows behind `afterKey` that a wipe has left. Returns the last key looked at, null when none
   * is left.
   */
  purge(bucket: string, afterKey: string, limit: number): string | null {
    const rows = this.#wipedRows.all(bucket, afterKey, this.#wipedRevision(bucket), limit);
    for (const row of rows) this.#delete.run(row.id);
    return rows.length < limit ? null : rows.at(-1)!.key;
  }

  /** The purge of the bucket is finished. */
  forgetWipe(bucket: string): void {
    this.#forgetWipe.run(bucket);
  }

  /** Live entries of the bucket as the open transaction has them. Visits what has expired and is not swept yet. */
  countEntries(bucket: string, nowMs: number): number {
    const stored = (this.#bucketEntries.get(bucket)?.entries ?? 0) + (this.#changes.get(bucket)?.entries ?? 0);
    return stored - this.#expiredEntries.get(bucket, nowMs, this.#wipedRevision(bucket))!.entries;
  }

  /** Back to `revision` after a rollback to a savepoint; the counters were not touched by a change that failed. */
  rewindTo(revision: number): void {
    this.#revision = revision;
  }

  /** Writes the counters; to be called last before COMMIT. */
  finish(): void {
    for (const [bucket, { entries, bytes }] of this.#changes) {
      if (entries !== 0 || bytes !== 0) this.#advanceBucket.run(bucket, entries, bytes);
    }
    if (this.#revision !== this.#keptRevision) this.#saveRevision.run(this.#revision);
  }

  /** Returns the buckets that the commit has wiped. */
  keep(): string[] {
    const wiped = [...this.#newWipes.keys()];
    for (const [bucket, revision] of this.#newWipes) this.#wipes.set(bucket, revision);
    this.#keptRevision = this.#revision;
    this.#forgetTransaction();
    return wiped;
  }

  undo(): void {
    this.#revision = this.#keptRevision;
    this.#forgetTransaction();
  }

  #forgetTransaction(): void {
    this.#changes.clear();
    this.#newWipes.clear();
    this.#installationId = null;
  }

  #wipedRevision(bucket: string): number {
    return this.#newWipes.get(bucket) ?? this.#wipes.get(bucket) ?? 0;
  }

  #count(bucket: string, entries: number, bytes: number): void {
    const change = this.#changes.get(bucket);
    if (change === undefined) this.#changes.set(bucket, { entries, bytes });
    else {
      change.entries += entries;
      change.bytes += bytes;
    }
  }
}

export function readLastRevision(database: Database): number {
  const row = database.query<{ value: number }, []>("SELECT value FROM store WHERE name = 'last_revision'").get();
  return row!.value;
}

/** Wipes whose purge was not finished when the store was closed. */
export function readWipes(database: Database): Wipes {
  const rows = database
    .query<{ name: string; revision: number }, []>(
      "SELECT name, wiped_revision AS revision FROM kv_bucket WHERE wiped_revision > 0",
    )
    .all();
  return new Map(rows.map(({ name, revision }) => [name, revision]));
}
