// The embedded driver: point reads and pages on this thread, what writes or takes long on threads of its own.

import type { Database } from "bun:sqlite";
import { existsSync, statSync } from "node:fs";
import type { Kysely } from "kysely";
import { KiB, LOCK_WAIT_MS, MiB } from "../shared/bounds.ts";
import { monotonicMs, systemClock } from "../shared/clock.ts";
import { AppError, ExitError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import { freeBytesAt } from "./free-space.ts";
import type { FullCause } from "./full-cause.ts";
import { inspectStore, type StoreInspection } from "./inspect-store.ts";
import { removeReady } from "./kept-store.ts";
import type {
  BucketPageQuery,
  KeyPageQuery,
  KeyRange,
  KvEngine,
  KvEntry,
  KvFound,
  KvOutcome,
  KvWrite,
  NamePage,
  OffsetPage,
  OffsetPageQuery,
  PageTurn,
} from "./kv-engine.ts";
import { KvReader } from "./kv-reader.ts";
import { readWipes } from "./kv-rows.ts";
import type { ReadRows } from "./kysely-reader.ts";
import { removeAbandoned, removePartial, removePutAside } from "./partial-files.ts";
import { ReaderClient } from "./reader-client.ts";
import { ensureReserve, giveUpReserve, reserveBytesOf } from "./space-reserve.ts";
import { openForReading, requireSafeSqlite, schemaVersion } from "./sqlite-connection.ts";
import { classifySqliteError, readFailure } from "./sqlite-errors.ts";
import type { StartThread } from "./start-thread.ts";
import { StorageClient } from "./storage-client.ts";
import { prepareDirectory, type StoreFiles, sizeOf, storeFiles } from "./store-files.ts";
import { StoreLock } from "./store-lock.ts";
import { StoreWatch } from "./store-watch.ts";
import type { StorageState } from "./thread-messages.ts";
import { toOutcome, WriteQueue } from "./write-queue.ts";

/** Above this a quick_check would hold up the start for too long. */
const CHECK_BYTES_MAX = 64 * MiB;
const CHECK_ALWAYS_BYTES_MAX = 16 * MiB;
const RESERVE_INTERVAL_MS = 5000;
/** A store is opened in less: the index of its log takes 32 KiB, the rest is for the first deletes. */
const OPENING_BYTES = 128 * KiB;
/** Counting or skipping more rows than this would be felt by the other requests. */
const LONG_ROWS_MIN = 100_000;

interface StoreEvents {
  /** The store must not be used any more; the process has to end with exit code 5. Called at most once. */
  onFailed(reason: string): void;
  onCommit(items: number, commitMs: number): void;
  /** Of a store of an earlier version; what it throws ends the start, and the store stays as it is. */
  beforeUpgrade?(schema: number): void | Promise<void>;
}

/** For the metrics. Bytes as they are now. */
export interface StoreFigures {
  readonly queueLength: number;
  readonly walBytes: number;
  readonly databaseBytes: number;
  readonly sweptTotal: number;
  readonly isFull: boolean;
}

export class SqliteStore implements KvEngine {
  readonly files: StoreFiles;
  // The lock lives as long as this field: see StoreLock.
  readonly #lock: StoreLock;
  readonly #storage: StorageClient;
  readonly #events: StoreEvents;
  readonly #queue: WriteQueue;
  readonly #readerThread: ReaderClient;
  #database: Database | null = null;
  #reader: KvReader | null = null;
  #watch: StoreWatch | null = null;
  #reserveTimer: Timer | null = null;
  #tables: Kysely<unknown> | null = null;
  #overReader: ((rows: ReadRows) => Kysely<unknown>) | null = null;
  readonly #wipeListeners: ((bucket: string) => void)[] = [];
  /** Buckets whose purge may be under way: no message says when it is over. See #isPurging. */
  readonly #purging = new Set<string>();
  #state: StorageState = { walBytes: 0, fullCause: null, refusedBytes: null, sweptTotal: 0 };
  #hasFailed = false;

  /**
   * Opens the store in `settings.dbPath`, creating it when there is none. One process at a time.
   * @throws ExitError (1) not writable, (3) in use, (4) damaged, foreign or newer
   */
  static async open(settings: Settings, log: Log, startThread: StartThread, events: StoreEvents): Promise<SqliteStore> {
    const storage = new StorageClient(startThread);
    let lock: StoreLock | null = null;
    try {
      const files = storeFiles(settings.dbPath);
      prepareDirectory(files);
      warnOfOpenDirectory(files.directory, log);
      const acquired = acquireLock(files);
      lock = acquired.lock;
      requireSafeSqlite();
      const tellOfNew = noticeNewStore(files, log);
      const inspection = inspectStore(files, settings.walDamage);
      // What a restore, an import and commands beside the server before have left when they were killed.
      removePartial(files.restoring);
      removeReady(files);
      removePutAside(files.directory);
      removeAbandoned(files.directory, systemClock());
      const readerThread = new ReaderClient(files.database, startThread);
      const store = new SqliteStore(files, lock, storage, readerThread, settings, events);
      const givenUpBytes = acquired.givenUpBytes || makeRoomToOpen(files);
      await store.#open(settings, inspection, givenUpBytes, log);
      tellOfNew();
      return store;
    } catch (error) {
      await storage.abandon();
      lock?.[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(
    files: StoreFiles,
    lock: StoreLock,
    storage: StorageClient,
    readerThread: ReaderClient,
    settings: Settings,
    events: StoreEvents,
  ) {
    this.files = files;
    this.#lock = lock;
    this.#storage = storage;
    this.#events = events;
    this.#readerThread = readerThread;
    this.#queue = new WriteQueue({
      queueMax: settings.writeQueueMax,
      timeoutMs: settings.writeTimeoutMs,
      send: (batch, oldestQueuedMs) => storage.send(batch, oldestQueuedMs + LOCK_WAIT_MS),
    });
  }

  async #open(settings: Settings, inspection: StoreInspection, givenUpBytes: number, log: Log): Promise<void> {
    const { files } = this;
    // KV alone has no rows that are built this way. Otherwise it is loaded while the storage thread opens the store.
    const hasRows = [...settings.services].some((service) => service !== "kv");
    const rows = hasRows ? Promise.all([import("./kysely-sqlite.ts"), import("./kysely-reader.ts")]) : null;
    const isChecked = isCheckWanted(settings, inspection);
    if (!isChecked && settings.startupCheck === "auto" && inspection.databaseBytes > CHECK_BYTES_MAX) {
      log.warn("the store is too large to be checked at every start; run gokv check now and then", {
        bytes: inspection.databaseBytes,
      });
    }
    const upgradedFrom = await this.#storage.open(
      {
        path: files.database,
        reservePath: files.reserve,
        reserveBytes: reserveBytesOf(files.directory, settings.reserveBytes),
        givenUpBytes,
        walLimitBytes: settings.walLimitBytes,
        databaseBytesMax: settings.dbMaxBytes,
        sweepIntervalMs: settings.sweepIntervalMs,
        isChecked,
      },
      {
        onOutcomes: (outcomes, commitMs) => {
          this.#queue.settle(outcomes);
          this.#events.onCommit(outcomes.length, commitMs);
        },
        onState: (state) => {
          tellOfSpace(this.#state, state, settings, log);
          this.#state = state;
        },
        onWiped: (bucket) => {
          this.#purging.add(bucket);
          for (const listener of this.#wipeListeners) listener(bucket);
        },
        onFailed: (reason) => this.#fail(reason),
      },
      (schema) => this.#events.beforeUpgrade?.(schema),
    );
    this.#database = openForReading(files.database);
    this.#reader = new KvReader(this.#database);
    if (upgradedFrom !== null) {
      const to = schemaVersion(this.#database);
      log.info("upgraded the store; earlier versions of gokv cannot open it any more", { from: upgradedFrom, to });
    }
    for (const bucket of readWipes(this.#database).keys()) this.#purging.add(bucket);
    if (rows !== null) {
      const [{ kyselyOver }, { kyselyOverReader }] = await rows;
      this.#tables = kyselyOver(this.#database, (call) => this.#read(call));
      this.#overReader = kyselyOverReader;
    }
    this.#watch = new StoreWatch([files.database, files.wal, files.lock], (path) =>
      this.#fail(`${path} was deleted or replaced while the store was open`),
    );
    let isWritingReserve = false;
    const keepReserve = async () => {
      // On a slow volume one may take longer than the time between two. Where the limit of the operator is reached, it
      // would be given up again at once.
      if (isWritingReserve || this.#state.fullCause === "DB_MAX_BYTES") return;
      isWritingReserve = true;
      // A folder that cannot be looked at is for others to notice.
      await ensureReserve(files.reserve, files.directory, settings.reserveBytes).catch(() => undefined);
      isWritingReserve = false;
    };
    this.#reserveTimer = setInterval(keepReserve, RESERVE_INTERVAL_MS);
    keepReserve();
  }

  get figures(): StoreFigures {
    const databaseBytes = sizeOf(this.files.database);
    const { walBytes, sweptTotal, fullCause, refusedBytes } = this.#state;
    const isFull = fullCause !== null || refusedBytes !== null;
    return { walBytes, sweptTotal, isFull, queueLength: this.#queue.length, databaseBytes };
  }

  find(bucket: string, key: string): KvFound | null {
    return this.#read((reader) => reader.find(bucket, key, systemClock()));
  }

  describe(bucket: string, key: string): KvEntry | null {
    return this.#read((reader) => reader.describe(bucket, key, systemClock()));
  }

  load(bucket: string, key: string, revision: number): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#readerThread.load(bucket, key, revision);
  }

  listKeys(query: KeyPageQuery, signal: AbortSignal | null): Eventually<NamePage> {
    if (this.#isPurging(query.range.bucket)) return this.#readerThread.keys(query, signal);
    return this.#read((reader) => reader.listKeys(query, systemClock()));
  }

  listBuckets(query: BucketPageQuery, signal: AbortSignal | null): Eventually<NamePage> {
    // Each bucket may have to be proven not empty, and that walks the rows that a wipe has left.
    if ([...this.#purging].some((bucket) => this.#isPurging(bucket))) return this.#readerThread.buckets(query, signal);
    return this.#read((reader) => reader.listBuckets(query, systemClock()));
  }

  count(range: KeyRange, signal: AbortSignal): Promise<number> {
    return this.#readerThread.count(range, signal);
  }

  pageByOffset(query: OffsetPageQuery, turn: PageTurn | null): Eventually<OffsetPage> {
    if (this.#isLong(query)) return this.#readerThread.page(query, turn);
    return this.#read((reader) => reader.pageByOffset(query, systemClock()));
  }

  write(write: KvWrite): Promise<KvOutcome> {
    return this.#queue.write(write);
  }

  async writeTogether(writes: readonly KvWrite[]): Promise<KvOutcome[]> {
    const outcomes = await this.#storage.writeTogether(writes, lockDeadline());
    return outcomes.map((item) => {
      const outcome = toOutcome(item);
      if (outcome instanceof AppError) throw outcome;
      return outcome;
    });
  }

  async wipe(bucket: string, installationId?: string): Promise<void> {
    const outcome = toOutcome(await this.#storage.wipe(bucket, lockDeadline(), installationId));
    if (outcome instanceof AppError) throw outcome;
  }

  onWipe(listener: (bucket: string) => void): void {
    this.#wipeListeners.push(listener);
  }

  /** Rows of services on this thread's read-only connection. Only when there is a service besides KV. */
  get tables(): Kysely<unknown> {
    return this.#tables!;
  }

  /** The same rows on the reader thread: for what would hold up this one. See TableStore. */
  scansFor(caller: string, signal: AbortSignal | null): Kysely<unknown> {
    return this.#overReader!((sql, parameters) => this.#readerThread.rows(sql, parameters, caller, signal));
  }

  /** See UnitRunner; the composition root gives it the type of all units. */
  run(name: string, args: unknown): Promise<never> {
    return this.#storage.runUnit(name, args, lockDeadline()) as Promise<never>;
  }

  /** Commits what is queued, copies the log into the database file, closes everything, frees the lock. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch?.[Symbol.dispose]();
    if (this.#reserveTimer !== null) clearInterval(this.#reserveTimer);
    this.#storage.refuse(new AppError("draining", "The server is shutting down."), false);
    await this.#queue.close();
    await this.#readerThread[Symbol.asyncDispose]();
    this.#database?.close(true);
    await this.#storage.close();
    this.#lock[Symbol.dispose]();
  }

  /** What would hold up the event loop goes to the reader thread. */
  #isLong({ bucket, ranges, sortBy, skip, jsonBytesMax }: OffsetPageQuery): boolean {
    if (sortBy !== "key" || skip > LONG_ROWS_MIN || jsonBytesMax !== null || this.#isPurging(bucket)) return true;
    const isWhole = ranges.length === 1 && ranges[0]!.lower === "" && ranges[0]!.upper === null;
    return !isWhole && this.#read((reader) => reader.bucketEntries(bucket)) > LONG_ROWS_MIN;
  }

  /** Lists and counts of such a bucket walk the rows that its wipe has left, which are in no counter. */
  #isPurging(bucket: string): boolean {
    if (!this.#purging.has(bucket)) return false;
    if (this.#read((reader) => reader.isWiping(bucket))) return true;
    this.#purging.delete(bucket);
    return false;
  }

  #read<T>(read: (reader: KvReader) => T): T {
    if (this.#hasFailed) throw new AppError("unavailable", "The store has failed.");
    try {
      return read(this.#reader!);
    } catch (error) {
      throw readFailure(error);
    }
  }

  #fail(reason: string): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const error = new AppError("storage_failed", "The store has failed; whether this write was applied is unknown.");
    this.#queue.fail(error);
    this.#storage.refuse(error, true);
    // While the write connection is still open: the last connection to close would write a checkpoint.
    this.#database?.close(true);
    this.#events.onFailed(reason);
  }
}

function lockDeadline(): number {
  return monotonicMs() + LOCK_WAIT_MS;
}

/**
 * A volume may have become full while no server ran: then the reserve is given up for the lock, or else for the store.
 * Returns what it held.
 * @throws ExitError (1) the directory cannot be written, (3) another process holds the lock
 */
function acquireLock(files: StoreFiles): { lock: StoreLock; givenUpBytes: number } {
  try {
    return { lock: StoreLock.acquire(files), givenUpBytes: 0 };
  } catch (error) {
    const isFull = error instanceof ExitError && classifySqliteError(error.cause) === "full";
    const givenUpBytes = isFull ? giveUpReserve(files.reserve) : 0;
    if (givenUpBytes === 0) throw error;
    return { lock: StoreLock.acquire(files), givenUpBytes };
  }
}

/** To be called by the holder of the lock: the reserve is nobody else's then. */
function makeRoomToOpen({ directory, reserve }: StoreFiles): number {
  return freeBytesAt(directory) < OPENING_BYTES ? giveUpReserve(reserve) : 0;
}

function warnOfOpenDirectory(directory: string, log: Log): void {
  const mode = statSync(directory).mode & 0o777;
  if ((mode & 0o077) === 0) return;
  log.warn("other users of this machine may enter the data directory; chmod 700 closes it", {
    directory,
    mode: mode.toString(8),
  });
}

/**
 * To be called before the store is opened; what it returns, after. A path with a mistake in it, or a volume that is not
 * mounted, would show as nothing but missing keys.
 */
function noticeNewStore({ database, reserve }: StoreFiles, log: Log): () => void {
  const sizeBytes = statSync(database, { throwIfNoEntry: false })?.size ?? null;
  if (sizeBytes !== null && sizeBytes > 0) return () => undefined;
  const lost = "if there was one, stop and restore a backup: gokv restore FILE";
  if (sizeBytes === 0) log.warn(`the database file was empty; ${lost}`, { database });
  else if (existsSync(reserve)) log.warn(`the database file of a store was missing; ${lost}`, { database });
  return () => log.info("made a new store", { database });
}

/** The state comes once a second, so a store on the edge between both is no flood of lines. */
function tellOfSpace(before: StorageState, now: StorageState, settings: Settings, log: Log): void {
  const { dbPath } = settings;
  if (before.refusedBytes === null && now.refusedBytes !== null) {
    const { refusedBytes: bytes } = now;
    log.warn("the volume has no room for large values: those of so many bytes are refused", { bytes, dbPath });
  } else if (before.refusedBytes !== null && now.refusedBytes === null) {
    log.info("the store takes large values again");
  }
  if (now.fullCause !== before.fullCause) tellOfFull(now.fullCause, settings, log);
}

function tellOfFull(now: FullCause | null, settings: Settings, log: Log): void {
  if (now === null) {
    log.info("the store takes writes again");
    return;
  }
  log.warn("the store is full: until there is room it takes deletes and revocations only", {
    cause: now === "volume" ? "the volume has no space left" : `DB_MAX_BYTES is ${settings.dbMaxBytes}`,
    dbPath: settings.dbPath,
  });
}

function isCheckWanted({ startupCheck }: Settings, { walFrames, databaseBytes }: StoreInspection): boolean {
  if (startupCheck !== "auto") return startupCheck === "always";
  return databaseBytes <= CHECK_BYTES_MAX && (walFrames > 0 || databaseBytes <= CHECK_ALWAYS_BYTES_MAX);
}
