// Transactions of the one write connection: how they begin under a foreign lock, and how they end.

import type { Database, Statement } from "bun:sqlite";
import { monotonicMs } from "../shared/clock.ts";
import { classifySqliteError } from "./sqlite-errors.ts";

/** A reader that repairs the wal-index header holds the lock for microseconds only. */
const IMMEDIATE_TRIES = 5;
const LOCK_POLL_MS = 10;

/** Runs on the storage thread, where waiting blocks nobody but the writes behind. */
export class WriteTransaction {
  readonly #database: Database;
  readonly #begin: Statement;
  readonly #commit: Statement;
  readonly #rollback: Statement;
  readonly #savepoint: Statement;
  readonly #release: Statement;
  readonly #rollbackTo: Statement;

  constructor(database: Database) {
    this.#database = database;
    this.#begin = database.prepare("BEGIN IMMEDIATE");
    this.#commit = database.prepare("COMMIT");
    this.#rollback = database.prepare("ROLLBACK");
    this.#savepoint = database.prepare("SAVEPOINT item");
    this.#release = database.prepare("RELEASE item");
    this.#rollbackTo = database.prepare("ROLLBACK TO item");
  }

  /** Waits for a lock that another process holds until `deadlineMs` (monotonic). False = still locked. */
  begin(deadlineMs: number): boolean {
    for (let tries = 1; ; tries++) {
      try {
        this.#begin.run();
        return true;
      } catch (error) {
        if (classifySqliteError(error) !== "busy") throw error;
      }
      if (tries < IMMEDIATE_TRIES) continue;
      if (monotonicMs() >= deadlineMs) return false;
      Bun.sleepSync(LOCK_POLL_MS);
    }
  }

  /** Returns when the commit was synced (WAL with synchronous = FULL). */
  commit(): void {
    this.#commit.run();
  }

  /** SQLite itself has rolled back after some errors. */
  rollback(): void {
    if (this.#database.inTransaction) this.#rollback.run();
  }

  savepoint(): void {
    this.#savepoint.run();
  }

  release(): void {
    this.#release.run();
  }

  rollbackToSavepoint(): void {
    this.#rollbackTo.run();
    this.#release.run();
  }
}
