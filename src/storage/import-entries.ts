// Reads an export into a store: first all of it is checked, only then is the first entry stored.

import type { Database } from "bun:sqlite";
import { createReadStream, existsSync } from "node:fs";
import { EXIT, ExitError } from "../shared/errors.ts";
import { formatTime } from "../shared/iso-time.ts";
import { parseJson } from "../shared/json-text.ts";
import { fileReason } from "../shared/system-reasons.ts";
import { accessFailure, isOutOfSpace } from "./access-failure.ts";
import { EXPORT_FORMAT, EXPORT_VERSION, type ExportedEntry } from "./export-entries.ts";
import { giveToOwnerOfDirectory } from "./file-owner.ts";
import { inspectStore } from "./inspect-store.ts";
import { isLive, KvRows, type NewEntry, type StoredRow } from "./kv-rows.ts";
import { openStore } from "./open-store.ts";
import { findRepeated, StrictOrder } from "./repeated-keys.ts";
import { isReserveHeld, reserveBytesOf } from "./space-reserve.ts";
import { PAGE_BYTES } from "./sqlite-connection.ts";
import { classifySqliteError } from "./sqlite-errors.ts";
import type { StoreFiles } from "./store-files.ts";
import { pagesOf, roomBytes, uncopiedBytesMax, VOLUME_REST_BYTES_MAX } from "./volume-room.ts";
import { WalCheckpointer } from "./wal-checkpointer.ts";

export type ImportMode = "fail" | "skip" | "overwrite";

interface ImportOptions {
  readonly mode: ImportMode;
  /** Check and count, store nothing. */
  readonly isDryRun: boolean;
  readonly nowMs: number;
  readonly maxValueBytes: number;
  /** What the database file may grow to; 0 = no limit. */
  readonly databaseBytesMax: number;
  readonly walLimitBytes: number;
  /** What a server would keep free for a full volume; cut to a share of the volume. */
  readonly reserveBytes: number;
  /** Throws for an entry that the KV routes would have refused: its name, content type or metadata. */
  requireEntry(entry: NewEntry): void;
  /** A sentence for each line that is refused. */
  onBadLine(lineNumber: number, problem: string): void;
}

export interface ImportReport {
  readonly stored: number;
  /** Keys that were there already, in mode "skip". */
  readonly skipped: number;
  readonly expired: number;
}

/** Pages that a row changes in the log besides those of its value: its own in the table and in each index. */
const PAGES_PER_ROW_BYTES = 8192;
/** Another one may be a misspelt one. */
const MEMBERS: Readonly<Record<keyof ExportedEntry, true>> = {
  bucket: true,
  key: true,
  value: true,
  content_type: true,
  metadata: true,
  created_at: true,
  updated_at: true,
  expires_at: true,
  creator_ip: true,
};
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/**
 * Stores the entries of the export `file` with new revisions, times kept. To be called by the holder of the store lock.
 * @throws ExitError (1) bad lines, a cut or altered export, a key that exists or comes twice in mode "fail", or
 *   values that find no room within the limit: nothing was stored; rows that find none: those before them were; (4) the
 *   store is damaged or not ours
 */
export async function importEntries(files: StoreFiles, file: string, options: ImportOptions): Promise<ImportReport> {
  inspectStore(files, "refuse");
  // What is no export, and a dry run, make no store where there was none.
  const checked = existsSync(files.database) ? null : await checkExport(null, file, options);
  const progress = { committed: 0, count: checked ?? 0 };
  if (checked !== null && options.isDryRun) {
    return requireAll(await storeEntries(null, file, options, progress), checked, file);
  }
  const store = await openToImport(files, options);
  try {
    progress.count = checked ?? (await checkExport(store, file, options));
    if (!options.isDryRun) store.begin();
    const report = await storeEntries(store, file, options, progress);
    if (!options.isDryRun) store.emptyLog();
    return requireAll(report, progress.count, file);
  } catch (error) {
    throw outOfRoom(store, error, options, progress) ?? error;
  } finally {
    if (store.database.inTransaction) store.database.run("ROLLBACK");
    store.database.close(true);
  }
}

interface OpenedStore {
  readonly database: Database;
  readonly rows: KvRows;
  /** Bytes per transaction: large enough to be fast, small enough to keep the write-ahead log short. */
  readonly transactionBytes: number;
  /** To be called before the first entry: until then a store of an earlier version can be left as it was. */
  begin(): void;
  /**
   * The end of a transaction that has logged no more than `bytes`. The log is kept as short as a server would.
   * @throws ExitError (1) when it could not be copied into the file any more, or would leave a server no room
   */
  commit(bytes: number): void;
  /** To be called between transactions, before a value larger than usual ones. @throws ExitError (1) likewise */
  prepareFor(valueBytes: number): void;
  emptyLog(): void;
}

async function openToImport(files: StoreFiles, options: ImportOptions): Promise<OpenedStore> {
  const { walLimitBytes, databaseBytesMax } = options;
  const isNew = !existsSync(files.database);
  const { database: path } = files;
  const database = await openStore({ path, walLimitBytes, databaseBytesMax, isChecked: false, upgrade: "hold" });
  if (isNew) for (const path of [files.database, files.wal, files.shm]) giveToOwnerOfDirectory(path);
  const rows = new KvRows(database);
  const reserveBytes = reserveBytesOf(files.directory, options.reserveBytes);
  const keptBytes = isReserveHeld(files.reserve, options.reserveBytes) ? 0 : reserveBytes;
  const wal = new WalCheckpointer(database, { limitBytes: walLimitBytes, reserveBytes, onFull: () => undefined });
  const requireRoom = (bytes: number) => {
    if (roomBytes(database) < bytes + keptBytes) throw accessFailure(files.directory, { code: "ENOSPC" })!;
  };
  const transactionBytes = uncopiedBytesMax(reserveBytes);
  return {
    database,
    rows,
    transactionBytes,
    begin() {
      if (database.inTransaction) database.run("COMMIT");
    },
    commit(bytes) {
      rows.finish();
      // The file has grown already; for a value that is larger than all this, prepareFor has looked.
      requireRoom(Math.min(bytes, transactionBytes));
      database.run("COMMIT");
      rows.keep();
      wal.afterWrite();
    },
    prepareFor(valueBytes) {
      wal.empty();
      // In the log, and in the file when that is copied into it.
      requireRoom(2 * valueBytes);
    },
    emptyLog: () => wal.empty(),
  };
}

/** Entries of the export. */
interface Progress {
  /** From its beginning on, those that are in the store now, or were to be left out. */
  committed: number;
  count: number;
}

/** Null for what has nothing to do with room. */
function outOfRoom(
  { database }: OpenedStore,
  error: unknown,
  { databaseBytesMax, mode }: ImportOptions,
  { committed, count }: Progress,
): ExitError | null {
  if (!isOutOfSpace(error)) return null;
  const isRefusedPage = classifySqliteError(error) === "full";
  const isLimit = isRefusedPage && databaseBytesMax > 0 && roomBytes(database) > VOLUME_REST_BYTES_MAX;
  const problem = isLimit
    ? `The store has reached DB_MAX_BYTES (${databaseBytesMax})`
    : `There is no space left to write ${database.filename}`;
  const way = isLimit ? "Raise the limit" : "Free some";
  // With "skip" what is still to be overwritten would stay.
  const next = mode === "overwrite" ? "--mode overwrite" : "--mode skip, which leaves those alone that are there";
  const advice =
    committed === 0
      ? `Nothing was imported. ${way} and try again.`
      : `The first ${committed} of ${count} entries were imported. ${way} and go on with ${next}.`;
  return new ExitError(EXIT.failed, `${problem}. ${advice}`, { cause: error });
}

/** Pages of the file that hold nothing count as room. `growthBytes`: of the values alone. @throws ExitError (1) */
function requireWithinLimit(growthBytes: number, store: OpenedStore | null, { databaseBytesMax }: ImportOptions): void {
  if (databaseBytesMax === 0) return;
  const usedPages =
    store === null ? 0 : pagesOf(store.database, "page_count") - pagesOf(store.database, "freelist_count");
  if (growthBytes <= Math.max(0, databaseBytesMax - usedPages * PAGE_BYTES)) return;
  throw new ExitError(
    EXIT.failed,
    `The values would make the store larger than DB_MAX_BYTES (${databaseBytesMax}). Nothing was imported.`,
  );
}

/** By how much the values in the store grow with `entry`, which would take the place of `row`. */
function growthOf({ value, expiresAtMs }: NewEntry, row: StoredRow | null, { mode, nowMs }: ImportOptions): number {
  if (expiresAtMs !== null && expiresAtMs <= nowMs) return 0;
  if (row === null) return value.length;
  return isLive(row, nowMs) && mode === "skip" ? 0 : value.length - row.bytes;
}

function requireAll(report: ImportReport, count: number, file: string): ImportReport {
  if (report.stored + report.skipped + report.expired === count) return report;
  throw new ExitError(EXIT.failed, `${file} was changed while it was read; the import is not complete.`);
}

/** `store` is null when there is none to be looked at, and none to be made. */
async function storeEntries(
  store: OpenedStore | null,
  file: string,
  options: ImportOptions,
  progress: Progress,
): Promise<ImportReport> {
  const counts = { stored: 0, skipped: 0, expired: 0 };
  let openBytes = 0;
  const commit = () => {
    store?.commit(openBytes);
    openBytes = 0;
    progress.committed = counts.stored + counts.skipped + counts.expired;
  };
  for await (const value of entriesOf(file)) {
    const entry = parseEntry(value, options);
    const row = store?.rows.find(entry.bucket, entry.key) ?? null;
    if (entry.expiresAtMs !== null && entry.expiresAtMs <= options.nowMs) counts.expired++;
    else if (row !== null && isLive(row, options.nowMs) && options.mode === "skip") counts.skipped++;
    else {
      if (store === null || options.isDryRun) {
        counts.stored++;
        continue;
      }
      if (entry.value.length > store.transactionBytes) {
        if (openBytes > 0) commit();
        store.prepareFor(entry.value.length);
      }
      if (openBytes === 0) store.database.run("BEGIN IMMEDIATE");
      store.rows.put(entry, row);
      counts.stored++;
      openBytes += entry.value.length + PAGES_PER_ROW_BYTES;
      if (openBytes >= store.transactionBytes) commit();
    }
  }
  if (openBytes > 0) commit();
  return counts;
}

/** Every line, the count and the hash, before anything is stored. Returns the count. */
async function checkExport(store: OpenedStore | null, file: string, options: ImportOptions): Promise<number> {
  const hash = new Bun.CryptoHasher("sha256");
  let lineNumber = 0;
  let count = 0;
  let badLines = 0;
  let growthBytes = 0;
  let end: { count: number; sha256: string } | null = null;
  const order = new StrictOrder();
  const refuse = (problem: string) => {
    badLines++;
    options.onBadLine(lineNumber, problem);
  };
  for await (const text of linesOf(file)) {
    lineNumber++;
    const value = parseJson(text);
    if (end !== null) refuse("there is something behind the end line");
    else if (lineNumber === 1) requireHead(value);
    else if (isEnd(value)) end = value;
    else {
      count++;
      try {
        const entry = parseEntry(value, options);
        const isLookedUp = options.mode === "fail" || options.databaseBytesMax > 0;
        const row = isLookedUp ? (store?.rows.find(entry.bucket, entry.key) ?? null) : null;
        growthBytes += growthOf(entry, row, options);
        order.see(entry);
        if (options.mode === "fail" && row !== null && isLive(row, options.nowMs)) {
          refuse(`${nameOf(entry)} exists already; use --mode skip or --mode overwrite`);
        }
      } catch (error) {
        refuse((error as Error).message);
      }
    }
    if (end === null) hash.update(`${text}\n`);
  }
  if (badLines > 0) throw new ExitError(EXIT.failed, `${badLines} bad lines; nothing was imported.`);
  if (end === null) throw new ExitError(EXIT.failed, "The export has no end line: it was cut. Nothing was imported.");
  if (end.count !== count || end.sha256 !== hash.digest("hex")) {
    throw new ExitError(EXIT.failed, "Count or hash of the export do not match: it was altered. Nothing was imported.");
  }
  if (options.mode === "fail" && !order.isKept) await refuseRepeated(file, count, options);
  requireWithinLimit(growthBytes, store, options);
  return count;
}

/** Of an export whose lines are all good. @throws ExitError (1) */
async function refuseRepeated(file: string, count: number, { onBadLine }: ImportOptions): Promise<void> {
  let badLines = 0;
  const entries = () => entriesOf(file) as AsyncGenerator<ExportedEntry>;
  await findRepeated(entries, count, (index, entry) => {
    badLines++;
    // The first line is the head.
    onBadLine(index + 2, `${nameOf(entry)} stands in the export twice; use --mode skip or --mode overwrite`);
  });
  if (badLines > 0) throw new ExitError(EXIT.failed, `${badLines} bad lines; nothing was imported.`);
}

function nameOf({ bucket, key }: Pick<ExportedEntry, "bucket" | "key">): string {
  return `the key ${JSON.stringify(key)} of bucket ${JSON.stringify(bucket)}`;
}

/**
 * Lines end with a line feed and nothing else: readline would also break them at U+2028 and U+2029, which JSON leaves
 * as they are and keys may hold.
 */
async function* linesOf(file: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let parts: string[] = [];
  try {
    for await (const chunk of createReadStream(file)) {
      const [first = "", ...others] = decoder.decode(chunk, { stream: true }).split("\n");
      parts.push(first);
      for (const other of others) {
        yield parts.join("");
        parts = [other];
      }
    }
  } catch (cause) {
    throw new ExitError(EXIT.failed, `${file} cannot be read: ${fileReason(cause)}.`, { cause });
  }
  const last = parts.join("") + decoder.decode();
  if (last !== "") yield last;
}

/** The entries of an export that was checked: all lines but the first and the last. */
async function* entriesOf(file: string): AsyncGenerator<unknown> {
  let isHead = true;
  for await (const text of linesOf(file)) {
    const value = parseJson(text);
    if (!isHead && !isEnd(value)) yield value;
    isHead = false;
  }
}

function requireHead(value: unknown): void {
  const head = value as { format?: unknown; version?: unknown } | null | undefined;
  if (head?.format !== EXPORT_FORMAT)
    throw new ExitError(EXIT.failed, "This is no gokv export: it lacks the head line.");
  if (head.version !== EXPORT_VERSION) {
    throw new ExitError(EXIT.failed, `This export has version ${head.version}; this gokv reads ${EXPORT_VERSION}.`);
  }
}

function isEnd(value: unknown): value is { count: number; sha256: string } {
  const end = value as { count?: unknown; sha256?: unknown } | null | undefined;
  return typeof end?.count === "number" && typeof end.sha256 === "string";
}

/** @throws Error with the problem as its message */
function parseEntry(value: unknown, options: ImportOptions): NewEntry {
  const entry = value as ExportedEntry | null | undefined;
  if (typeof entry !== "object" || entry === null) throw new Error("not a JSON object");
  const unknown = Object.keys(entry).find((name) => !Object.hasOwn(MEMBERS, name));
  if (unknown !== undefined) throw new Error(`there is no member ${JSON.stringify(unknown.slice(0, 64))}`);
  const { bucket, key, content_type: contentType, metadata, creator_ip: creatorIp } = entry;
  if (typeof bucket !== "string" || typeof key !== "string") throw new Error("bucket and key must be strings");
  if (!isTextOrNull(contentType) || !isTextOrNull(creatorIp))
    throw new Error("content_type or creator_ip is no string");
  const parsed: NewEntry = {
    bucket,
    key,
    contentType,
    creatorIp,
    value: parseValue(entry.value, options.maxValueBytes),
    metadata: parseMetadataObject(metadata),
    createdAtMs: parseTime(entry.created_at),
    updatedAtMs: parseTime(entry.updated_at),
    expiresAtMs: entry.expires_at === null ? null : parseTime(entry.expires_at),
  };
  options.requireEntry(parsed);
  return parsed;
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}

function parseValue(value: unknown, maxBytes: number): Uint8Array {
  if (typeof value !== "string") throw new Error("the value must be base64 text");
  const bytes = Buffer.from(value, "base64");
  if (bytes.toString("base64") !== value) throw new Error("the value is not valid base64");
  if (bytes.length > maxBytes) throw new Error(`the value is larger than MAX_VALUE_BYTES (${maxBytes})`);
  return bytes;
}

function parseMetadataObject(value: unknown): string | null {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error("metadata must be an object");
  if (!Object.values(value).every((text) => typeof text === "string"))
    throw new Error("metadata values must be strings");
  return Object.keys(value).length === 0 ? null : JSON.stringify(value);
}

function parseTime(value: unknown): number {
  const ms = typeof value === "string" && TIME.test(value) ? Date.parse(value) : Number.NaN;
  // Date.parse takes 30 February for 2 March.
  if (Number.isNaN(ms) || formatTime(ms) !== value) {
    throw new Error("a time must be RFC 3339 in UTC with milliseconds");
  }
  return ms;
}
