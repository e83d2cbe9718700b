// Applies batches of KV writes: one transaction per batch, each item judged against the row as it is inside it.

import type { Database } from "bun:sqlite";
import type { Kysely } from "kysely";
import { systemClock } from "../shared/clock.ts";
import { AppError, internalError } from "../shared/errors.ts";
import { fullMessage } from "./full-cause.ts";
import type { KvPut, KvWrite } from "./kv-engine.ts";
import { isLive, KvRows, type StoredRow, type Wipes } from "./kv-rows.ts";
import type { SpaceGuard } from "./space-guard.ts";
import { classifySqliteError, isFromSqlite, storeLocked } from "./sqlite-errors.ts";
import type { UnitOfWork } from "./unit-of-work.ts";
import type { ItemOutcome } from "./write-batch.ts";
import { holds } from "./write-condition.ts";
import type { WriteTransaction } from "./write-transaction.ts";

const BUSY: ItemOutcome = { kind: "busy" };
const FULL: ItemOutcome = { kind: "full" };
const LIMITED: ItemOutcome = { kind: "limited" };
const FAILED: ItemOutcome = { kind: "failed" };
const NO_SPACE = Symbol("no space");
const REVOKED: ItemOutcome = { kind: "revoked" };
const ABSENT: ItemOutcome = { kind: "absent" };

/** A write unit with its arguments. */
interface Act<T> {
  run(work: UnitOfWork): Promise<T>;
  /** While the store is full it is refused, but for one a second; the others may use what was kept back for them. */
  readonly grows: boolean;
}

type ApplyItem = (item: KvWrite, nowMs: number) => ItemOutcome;

export class KvWriter {
  readonly #rows: KvRows;
  readonly #transaction: WriteTransaction;
  readonly #space: SpaceGuard;
  readonly #committedWipes: string[] = [];

  /** `wipes` is shared with whoever purges; see KvRows. */
  constructor(database: Database, transaction: WriteTransaction, space: SpaceGuard, wipes: Wipes) {
    this.#rows = new KvRows(database, wipes);
    this.#transaction = transaction;
    this.#space = space;
  }

  /**
   * Applies all items, or each that can be. Returns only after the commit that holds them was synced; the outcomes
   * "busy", "full", "limited", "failed" and "revoked" mean surely not applied.
   * @throws whatever makes the store unsafe to go on with; nothing may touch it after that
   */
  apply(items: readonly KvWrite[], lockDeadlineMs: number): ItemOutcome[] {
    if (this.#space.isFull) return items.map((item) => this.#applyWhileFull(item, lockDeadlineMs));
    if (!this.#space.hasRoomFor(valueBytesOf(items))) return this.#applyOneByOne(items, lockDeadlineMs);
    return this.#applyTogether(items, lockDeadlineMs, (item, nowMs) => this.#applyItem(item, nowMs));
  }

  /**
   * Applies all items or none. A condition that does not hold, or an installation that is gone, stores nothing and
   * shows as "unmet" or "revoked" in the outcomes, all of which then count for nothing.
   */
  applyAllOrNone(items: readonly KvWrite[], lockDeadlineMs: number): ItemOutcome[] {
    // The room that is left while full is for deletes.
    if (this.#space.isFull && !this.#space.takePutTurn()) return items.map(() => this.#full());
    if (!this.#hasRoomFor(items)) return items.map(() => this.#full());
    const outcomes = this.#transact(lockDeadlineMs, items.length, () => {
      const nowMs = systemClock();
      return items.map((item) => this.#applyItem(item, nowMs));
    });
    if (!outcomes.some(isRefused) && outcomes.some(({ kind }) => kind === "created" || kind === "replaced"))
      this.#space.notePutStored();
    return outcomes;
  }

  /** Every entry of the bucket is missing from the commit on. */
  wipe(bucket: string, lockDeadlineMs: number, installationId?: string): ItemOutcome {
    const { canMakeRoom } = this.#space;
    const [outcome] = this.#transact(lockDeadlineMs, 1, () => {
      return this.#isRevoked(installationId) ? [REVOKED] : [{ kind: "deleted", revision: this.#rows.wipe(bucket) }];
    });
    // The reserve was given up just now.
    return isFull(outcome!) && canMakeRoom ? this.wipe(bucket, lockDeadlineMs, installationId) : outcome!;
  }

  /**
   * Removes up to `limit` rows that a wipe of the bucket has left, behind `afterKey`, in a transaction of its own.
   * Returns where to go on, null when the bucket is clean, `afterKey` when nothing could be done now.
   */
  purge(bucket: string, afterKey: string, limit: number, lockDeadlineMs: number): string | null {
    if (!this.#transaction.begin(lockDeadlineMs)) return afterKey;
    try {
      const next = this.#rows.purge(bucket, afterKey, limit);
      if (next === null) this.#rows.forgetWipe(bucket);
      this.#commit();
      this.#space.noteFreed();
      return next;
    } catch (error) {
      if (this.#rollbackAfter(error) === "full") this.#space.noteFull();
      return afterKey;
    }
  }

  /**
   * Runs write units one behind the other to their ends. Together they take one commit, and yet each is applied or
   * refused by itself: the results, or the AppError of each that was refused, in their order.
   * @throws whatever makes the store unsafe to go on with
   */
  async runAll<T>(tables: Kysely<unknown>, acts: readonly Act<T>[], lockDeadlineMs: number): Promise<(T | AppError)[]> {
    const together = acts.length > 1 ? await this.#runTogether(tables, acts, lockDeadlineMs) : null;
    if (together !== null) return together;
    const results: (T | AppError)[] = [];
    for (const act of acts) results.push(await this.#runOrRefuse(tables, act, lockDeadlineMs));
    return results;
  }

  /** Null when it is not as simple as that: nothing was stored then, and each needs a transaction of its own. */
  async #runTogether<T>(
    tables: Kysely<unknown>,
    acts: readonly Act<T>[],
    lockDeadlineMs: number,
  ): Promise<(T | AppError)[] | null> {
    if (this.#space.isFull || !this.#transaction.begin(lockDeadlineMs)) return null;
    try {
      const work = this.#work(tables);
      const results: (T | AppError)[] = [];
      for (const act of acts) results.push(await this.#runInSavepoint(work, act));
      this.#commit();
      return results;
    } catch (error) {
      if (isFromSqlite(error)) this.#rollbackAfter(error);
      else this.#undo();
      return null;
    }
  }

  async #runInSavepoint<T>(work: UnitOfWork, act: Act<T>): Promise<T | AppError> {
    const { revision } = this.#rows;
    this.#transaction.savepoint();
    try {
      const result = await act.run(work);
      this.#transaction.release();
      return result;
    } catch (error) {
      // What it has done to the entries of buckets is counted in memory as well, where no savepoint reaches.
      if (!(error instanceof AppError) || this.#rows.revision !== revision) throw error;
      this.#transaction.rollbackToSavepoint();
      return error;
    }
  }

  async #runOrRefuse<T>(tables: Kysely<unknown>, act: Act<T>, lockDeadlineMs: number): Promise<T | AppError> {
    try {
      return await this.run(tables, act, lockDeadlineMs);
    } catch (error) {
      if (error instanceof AppError) return error;
      throw error;
    }
  }

  /**
   * Runs a write unit to its end in a transaction of its own.
   * @throws AppError of the unit, busy, storage_full, internal_error: nothing was stored; anything else is fatal
   */
  async run<T>(tables: Kysely<unknown>, act: Act<T>, lockDeadlineMs: number): Promise<T> {
    const wasFull = this.#space.isFull;
    if (wasFull && act.grows && !this.#space.takePutTurn()) throw this.#noSpace();
    const transact = () => this.#transactUnit(tables, act, lockDeadlineMs);
    const result = await (act.grows ? transact() : this.#space.withRoomToFree(transact));
    if (result !== NO_SPACE) {
      if (wasFull) this.#noteRoom(act.grows);
      return result;
    }
    const { canMakeRoom } = this.#space;
    this.#space.noteFull();
    if (!canMakeRoom) throw this.#noSpace();
    // The reserve was given up just now: a revocation must not fail for want of space.
    return this.run(tables, act, lockDeadlineMs);
  }

  #noteRoom(hasGrown: boolean): void {
    if (hasGrown) this.#space.notePutStored();
    else this.#space.noteFreed();
  }

  /** What it throws besides AppError is fatal, and was left as it is. */
  async #transactUnit<T>(tables: Kysely<unknown>, act: Act<T>, lockDeadlineMs: number): Promise<T | typeof NO_SPACE> {
    if (!this.#transaction.begin(lockDeadlineMs)) {
      throw storeLocked();
    }
    try {
      const result = await act.run(this.#work(tables));
      this.#commit();
      return result;
    } catch (error) {
      if (error instanceof AppError || !isFromSqlite(error)) {
        // Of a mistake in the unit SQLite knows nothing: it is as it was.
        this.#undo();
        throw error instanceof AppError ? error : internalError(error);
      }
      if (this.#rollbackAfter(error) === "item") {
        throw new AppError("internal_error", "The store refused this change.", { cause: error });
      }
      return NO_SPACE;
    }
  }

  #work(tables: Kysely<unknown>): UnitOfWork {
    const nowMs = systemClock();
    return {
      tables,
      nowMs,
      wipeBucket: (bucket) => this.#rows.wipe(bucket),
      countEntries: (bucket) => this.#rows.countEntries(bucket, nowMs),
    };
  }

  /** Wipes that were committed since the last call. */
  takeWipes(): string[] {
    return this.#committedWipes.splice(0);
  }

  /** Removes up to `limit` expired rows in a transaction of its own; each takes a revision. Returns how many. */
  sweep(limit: number, lockDeadlineMs: number): number {
    if (!this.#transaction.begin(lockDeadlineMs)) return 0;
    try {
      const removed = this.#rows.removeExpired(systemClock(), limit);
      this.#commit();
      if (removed > 0) this.#space.noteFreed();
      return removed;
    } catch (error) {
      if (this.#rollbackAfter(error) === "full") this.#space.noteFull();
      return 0;
    }
  }

  /** One transaction or nothing: the same refusal for each of `length` items. */
  #transact(lockDeadlineMs: number, length: number, act: () => ItemOutcome[]): ItemOutcome[] {
    const all = (outcome: ItemOutcome) => Array.from({ length }, () => outcome);
    if (!this.#transaction.begin(lockDeadlineMs)) return all(BUSY);
    try {
      const outcomes = act();
      if (outcomes.some(isRefused)) this.#undo();
      else this.#commit();
      return outcomes;
    } catch (error) {
      if (this.#rollbackAfter(error) === "item") return all(FAILED);
      this.#space.noteFull();
      return all(this.#full());
    }
  }

  #applyTogether(items: readonly KvWrite[], lockDeadlineMs: number, applyItem: ApplyItem): ItemOutcome[] {
    if (!this.#transaction.begin(lockDeadlineMs)) return items.map(() => BUSY);
    try {
      const nowMs = systemClock();
      const outcomes = items.map((item) => applyItem(item, nowMs));
      this.#commit();
      return outcomes;
    } catch (error) {
      const failure = this.#rollbackAfter(error);
      return failure === "item"
        ? this.#applyTogether(items, lockDeadlineMs, (item, nowMs) => this.#applyInSavepoint(item, nowMs))
        : this.#applyOneByOne(items, lockDeadlineMs);
    }
  }

  /** One item of the batch breaks a rule of the schema or of SQLite: that one fails, the others are stored. */
  #applyInSavepoint(item: KvWrite, nowMs: number): ItemOutcome {
    const { revision } = this.#rows;
    this.#transaction.savepoint();
    try {
      const outcome = this.#applyItem(item, nowMs);
      this.#transaction.release();
      return outcome;
    } catch (error) {
      if (classifySqliteError(error) !== "item") throw error;
      this.#transaction.rollbackToSavepoint();
      this.#rows.rewindTo(revision);
      return FAILED;
    }
  }

  /** Deletes and, now and then, one put to see whether there is room again. */
  #applyWhileFull(item: KvWrite, lockDeadlineMs: number): ItemOutcome {
    if (item.kind === "put" && !this.#space.takePutTurn()) return this.#full();
    const outcome = this.#applyAlone(item, lockDeadlineMs);
    if (outcome.kind === "deleted") this.#space.noteFreed();
    if (outcome.kind === "created" || outcome.kind === "replaced") this.#space.notePutStored();
    return outcome;
  }

  /** The batch did not fit. The log is copied in between: together they could make it too long for that. */
  #applyOneByOne(items: readonly KvWrite[], lockDeadlineMs: number): ItemOutcome[] {
    return items.map((item) => {
      const outcome = this.#applyAlone(item, lockDeadlineMs);
      this.#space.copyLog();
      return outcome;
    });
  }

  /** What can be stored or deleted alone still is. */
  #applyAlone(item: KvWrite, lockDeadlineMs: number): ItemOutcome {
    if (!this.#hasRoomFor([item])) return this.#full();
    if (!this.#transaction.begin(lockDeadlineMs)) return BUSY;
    try {
      const outcome = this.#applyItem(item, systemClock());
      this.#commit();
      return outcome;
    } catch (error) {
      if (this.#rollbackAfter(error) === "item") return FAILED;
      const { canMakeRoom } = this.#space;
      this.#space.noteFull();
      // The reserve was given up just now, for deletes.
      return item.kind === "delete" && canMakeRoom ? this.#applyAlone(item, lockDeadlineMs) : this.#full();
    }
  }

  #applyItem(item: KvWrite, nowMs: number): ItemOutcome {
    if (this.#isRevoked(item.installationId)) return REVOKED;
    const row = this.#rows.find(item.bucket, item.key);
    const live = row !== null && isLive(row, nowMs) ? row : null;
    if (item.condition !== null && !holds(item.condition, live?.revision ?? null)) {
      return { kind: "unmet", revision: live?.revision ?? null };
    }
    if (item.kind === "put") return this.#put(item, row, live, nowMs);
    // A row that has expired is left to the sweep.
    return live === null ? ABSENT : { kind: "deleted", revision: this.#rows.remove(item.bucket, live) };
  }

  /** Who was let in may have been revoked since, together with the whole namespace. */
  #isRevoked(installationId: string | undefined): boolean {
    return installationId !== undefined && !this.#rows.isInstalled(installationId);
  }

  /** `row` may have expired without having been swept: writing over it is a create. */
  #put(put: KvPut, row: StoredRow | null, live: StoredRow | null, nowMs: number): ItemOutcome {
    const { bucket, key, value, contentType, metadata, ttlMs } = put;
    const createdAtMs = live?.createdAtMs ?? nowMs;
    const creatorIp = live === null ? put.creatorIp : live.creatorIp;
    const expiresAtMs = ttlMs === null ? null : nowMs + ttlMs;
    const revision = this.#rows.put(
      { bucket, key, value, contentType, metadata, createdAtMs, updatedAtMs: nowMs, expiresAtMs, creatorIp },
      row,
    );
    return { kind: live === null ? "created" : "replaced", revision, updatedAtMs: nowMs };
  }

  /** For what cannot be split any more: without room it is refused. */
  #hasRoomFor(items: readonly KvWrite[]): boolean {
    const valueBytes = valueBytesOf(items);
    const hasRoom = this.#space.hasRoomFor(valueBytes);
    if (!hasRoom) this.#space.noteRefused(valueBytes);
    return hasRoom;
  }

  #full(): ItemOutcome {
    return this.#space.fullCause === "DB_MAX_BYTES" ? LIMITED : FULL;
  }

  #noSpace(): AppError {
    return new AppError("storage_full", fullMessage(this.#space.fullCause ?? "volume"));
  }

  #commit(): void {
    this.#rows.finish();
    this.#transaction.commit();
    this.#committedWipes.push(...this.#rows.keep());
  }

  #undo(): void {
    this.#rows.undo();
    this.#transaction.rollback();
  }

  /**
   * Undoes what the transaction did, if `error` leaves the store safe to use; otherwise rethrows it untouched, because
   * after an I/O error not one more byte may be written.
   */
  #rollbackAfter(error: unknown): "item" | "full" {
    const failure = classifySqliteError(error);
    if (failure !== "item" && failure !== "full") throw error;
    this.#undo();
    return failure;
  }
}

function valueBytesOf(items: readonly KvWrite[]): number {
  return items.reduce((bytes, item) => bytes + (item.kind === "put" ? item.value.length : 0), 0);
}

function isRefused({ kind }: ItemOutcome): boolean {
  return kind === "unmet" || kind === "revoked";
}

function isFull({ kind }: ItemOutcome): boolean {
  return kind === "full" || kind === "limited";
}
