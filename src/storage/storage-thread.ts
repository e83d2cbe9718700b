// The storage thread: the only write connection, one queue, answers only after the commit was synced.

import type { Database } from "bun:sqlite";
import type { MessagePort } from "node:worker_threads";
import type { Kysely } from "kysely";
import { SWEEP_SLICE_ROWS } from "../shared/bounds.ts";
import { monotonicMs } from "../shared/clock.ts";
import { AppError, internalError, messageOf } from "../shared/errors.ts";
import { readWipes } from "./kv-rows.ts";
import { KvWriter } from "./kv-writer.ts";
import { OutdatedStore, openStore, startFailure } from "./open-store.ts";
import { SpaceGuard } from "./space-guard.ts";
import type { StorageReply, StorageRequest, StorageState, StoreOptions, UnitOutcome } from "./thread-messages.ts";
import type { UnitOfWork, WriteUnits } from "./unit-of-work.ts";
import { WalCheckpointer } from "./wal-checkpointer.ts";
import { packOutcomes, unpackBatch } from "./write-batch.ts";
import { WriteTransaction } from "./write-transaction.ts";

const HOUSEKEEPING_MS = 1000;
/** Fewer than a sweep takes: rows side by side in the order of their keys lie anywhere in the file, each in a page. */
const PURGE_SLICE_ROWS = 100;
/** Long enough for a waiting batch to go first. */
const BETWEEN_SLICES_MS = 1;

type Reply = (message: StorageReply) => void;

/** The write units of all services, by name, and which of them only add to the store. */
export interface KnownUnits {
  readonly units: WriteUnits;
  readonly growing: ReadonlySet<string>;
}

/** All that units need. */
type Rows = KnownUnits & { readonly tables: Kysely<unknown> };
type LoadUnits = () => Promise<KnownUnits>;

/** `loadUnits` is called with the first of them: the KV service alone has none, and starts without their weight. */
export function runStorageThread(port: MessagePort, loadUnits: LoadUnits): void {
  const reply: Reply = (message) => port.postMessage(message);
  let store: OpenedStore | null = null;
  port.on("message", async (request: StorageRequest) => {
    if (request.type !== "open") return store!.handle(request);
    try {
      store = new OpenedStore(await openStore(request.options), request.options, loadUnits, reply);
    } catch (error) {
      if (error instanceof OutdatedStore) return reply({ type: "outdated", schema: error.schema });
      const { exitCode, message } = startFailure(request.options.path, error);
      reply({ type: "refused", exitCode, message });
    }
  });
}

class OpenedStore {
  // Held for life: a Database that nothing refers to is collected and closed, and closing writes a checkpoint.
  readonly #database: Database;
  readonly #options: StoreOptions;
  readonly #loadUnits: LoadUnits;
  readonly #reply: Reply;
  readonly #space: SpaceGuard;
  readonly #wal: WalCheckpointer;
  readonly #writer: KvWriter;
  readonly #timers: Timer[];
  /** Buckets whose rows are still to be removed after a wipe, with the revision of the wipe. */
  readonly #wipes: Map<string, number>;
  #rows: Promise<Rows> | null = null;
  #sweptTotal = 0;
  #isSweeping = false;
  #isPurging = false;
  #hasFailed = false;

  constructor(database: Database, options: StoreOptions, loadUnits: LoadUnits, reply: Reply) {
    this.#database = database;
    this.#options = options;
    this.#loadUnits = loadUnits;
    this.#reply = reply;
    const isLimited = options.databaseBytesMax > 0;
    const { reservePath, reserveBytes } = options;
    this.#space = new SpaceGuard(reservePath, {
      database,
      isLimited,
      reserveBytes,
      makeRoom: () => this.#wal.makeRoom(),
      emptyLog: () => this.#wal.empty(),
    });
    this.#wal = new WalCheckpointer(database, {
      limitBytes: options.walLimitBytes,
      reserveBytes,
      onFull: () => this.#space.noteFull(),
    });
    this.#space.noteOpened(options.givenUpBytes);
    this.#wipes = readWipes(database);
    this.#writer = new KvWriter(database, new WriteTransaction(database), this.#space, this.#wipes);
    this.#timers = [
      setInterval(() => this.#guarded(() => this.#keepHouse()), HOUSEKEEPING_MS),
      setInterval(() => this.#isSweeping || this.#guarded(() => this.#sweepSlice()), options.sweepIntervalMs),
    ];
    reply({ type: "opened" });
    this.#startPurge();
  }

  handle(request: Exclude<StorageRequest, { type: "open" }>): void | Promise<void> {
    if (request.type === "units") return this.#runUnits(request);
    this.#guarded(() => {
      if (request.type === "close") return this.#close();
      const startMs = monotonicMs();
      const { lockDeadlineMs } = request;
      if (request.type === "batch") {
        const outcomes = packOutcomes(this.#writer.apply(unpackBatch(request), lockDeadlineMs));
        this.#reply({ type: "outcomes", outcomes, commitMs: monotonicMs() - startMs });
      } else {
        const result =
          request.type === "wipe"
            ? [this.#writer.wipe(request.bucket, lockDeadlineMs, request.installationId)]
            : this.#writer.applyAllOrNone(unpackBatch(request), lockDeadlineMs);
        this.#tellWipes();
        this.#reply({ type: "done", id: request.id, result: packOutcomes(result) });
      }
      this.#afterWrite();
    });
  }

  async #runUnits(request: StorageRequest & { type: "units" }): Promise<void> {
    this.#rows ??= this.#loadRows();
    let rows: Rows;
    try {
      rows = await this.#rows;
    } catch (error) {
      // Of that the store knows nothing: it is as it was.
      this.#rows = null;
      this.#reply({ type: "units", outcomes: request.units.map(({ id }) => outcomeOf(id, internalError(error))) });
      return;
    }
    await this.#runLoaded(rows, request);
  }

  /** Its awaits are microtasks, since the driver is synchronous: no other message gets between. */
  async #runLoaded({ units: known, growing, tables }: Rows, request: StorageRequest & { type: "units" }) {
    if (this.#hasFailed) return;
    const { units, lockDeadlineMs } = request;
    try {
      const acts = units.map(({ name, args }) => ({
        run: (work: UnitOfWork) => known[name]!(work, args as never),
        grows: growing.has(name),
      }));
      const results = await this.#writer.runAll(tables, acts, lockDeadlineMs);
      this.#tellWipes();
      this.#reply({ type: "units", outcomes: results.map((result, index) => outcomeOf(units[index]!.id, result)) });
      this.#afterWrite();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #loadRows(): Promise<Rows> {
    const [known, { kyselyOver }] = await Promise.all([this.#loadUnits(), import("./kysely-sqlite.ts")]);
    return { ...known, tables: kyselyOver<unknown>(this.#database) };
  }

  /** To be called between transactions. */
  #afterWrite(): void {
    const isRoomLittle = this.#wal.afterWrite();
    this.#space.noteWritten(isRoomLittle);
  }

  #close(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#wal.empty();
    this.#database.close(true);
    this.#reply({ type: "closed" });
  }

  #keepHouse(): void {
    if (this.#space.isFull) this.#wal.makeRoom();
    this.#space.keepHouse();
    this.#wal.whenIdle();
    const state: StorageState = {
      walBytes: this.#wal.usedBytes,
      fullCause: this.#space.fullCause,
      refusedBytes: this.#space.refusedBytes,
      sweptTotal: this.#sweptTotal,
    };
    this.#reply({ type: "state", state });
    this.#startPurge();
  }

  /** One slice, then a pause in which waiting batches run, then the next until nothing has expired. */
  #sweepSlice(): void {
    const swept = this.#writer.sweep(SWEEP_SLICE_ROWS, monotonicMs());
    if (swept > 0) this.#afterWrite();
    this.#sweptTotal += swept;
    this.#isSweeping = swept === SWEEP_SLICE_ROWS;
    if (this.#isSweeping) setTimeout(() => this.#guarded(() => this.#sweepSlice()), BETWEEN_SLICES_MS);
  }

  #tellWipes(): void {
    for (const bucket of this.#writer.takeWipes()) this.#reply({ type: "wiped", bucket });
    this.#startPurge();
  }

  #startPurge(): void {
    const [next] = this.#wipes;
    if (this.#isPurging || next === undefined) return;
    this.#isPurging = true;
    this.#schedulePurge(next[0], next[1], "", BETWEEN_SLICES_MS);
  }

  #schedulePurge(bucket: string, revision: number, afterKey: string, pauseMs: number): void {
    setTimeout(() => this.#guarded(() => this.#purgeSlice(bucket, revision, afterKey)), pauseMs);
  }

  /**
   * One slice, then a pause of the same length: however slow the volume is, half of its time is for those who write. A
   * newer wipe of the bucket starts its purge over.
   */
  #purgeSlice(bucket: string, revision: number, afterKey: string): void {
    const isCurrent = this.#wipes.get(bucket) === revision;
    const startMs = monotonicMs();
    const next = isCurrent ? this.#writer.purge(bucket, afterKey, PURGE_SLICE_ROWS, startMs) : null;
    this.#afterWrite();
    if (next !== null) {
      // Without progress there is a foreign lock or no space: it is no use to try again at once.
      const pauseMs = Math.max(BETWEEN_SLICES_MS, monotonicMs() - startMs);
      this.#schedulePurge(bucket, revision, next, next === afterKey ? HOUSEKEEPING_MS : pauseMs);
      return;
    }
    if (isCurrent) this.#wipes.delete(bucket);
    this.#isPurging = false;
    this.#startPurge();
  }

  /**
   * SQLite goes on acknowledging after a failed fsync, although the kernel may have dropped the pages. So after the
   * first failure this thread never touches the database again, and neither throws nor exits, because a dying thread
   * closes its connection and so writes a checkpoint. The main thread ends the process.
   */
  #guarded(act: () => void): void {
    if (this.#hasFailed) return;
    try {
      act();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#hasFailed = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#reply({ type: "failed", reason: `${messageOf(error)} (${this.#options.path})` });
  }
}

function outcomeOf(id: number, result: unknown): UnitOutcome {
  if (!(result instanceof AppError)) return { id, result };
  const { code, message, details, cause } = result;
  return { id, code, message, details, cause: cause === undefined ? null : messageOf(cause) };
}
