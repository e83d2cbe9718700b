// The queue of what was used: rows of unlimited tokens in batches, those of finite ones with the next commit.

import { AppError, messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import { LedgerQueue } from "./ledger-queue.ts";
import type { Settlement, TokenTouch } from "./ledger-units.ts";
import type { NewLogRow, Reservation } from "./relay-tables.ts";
import type { RelayUnits } from "./relay-units.ts";

const FLUSH_MS = 100;
const BATCH_ROWS_MAX = 500;
/** Rows that wait while the store takes none; beyond, new ones are dropped and counted. */
const WAITING_ROWS_MAX = 10_000;
const RETRY_MS = 1_000;
/** Refusals of a store that may take the same later: it is busy, or full. */
const MAY_PASS: ReadonlySet<number> = new Set([503, 507]);

export class UsageLog implements AsyncDisposable {
  readonly #units: UnitRunner<RelayUnits>;
  readonly #log: Log;
  readonly #takeTouched: () => readonly TokenTouch[];
  readonly #ledger: LedgerQueue;
  #rows: NewLogRow[] = [];
  readonly #settlements = new Set<Promise<void>>();
  readonly #node = crypto.randomUUID();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #flushing: Promise<void> | null = null;
  #isClosing = false;
  /** Rows that found the queue full, or that the store cannot take. */
  dropped = 0;

  /** `takeTouched`: the tokens that were used since it was last called. */
  constructor(units: UnitRunner<RelayUnits>, takeTouched: () => readonly TokenTouch[], log: Log) {
    this.#units = units;
    this.#takeTouched = takeTouched;
    this.#ledger = new LedgerQueue(units, takeTouched);
    this.#log = log;
  }

  get waiting(): number {
    return this.#rows.length;
  }

  /** False = the quota of the token does not cover it. @throws AppError when the store takes nothing */
  reserve(reservation: Omit<Reservation, "node">): Promise<boolean> {
    return this.#ledger.add({ ...reservation, node: this.#node });
  }

  /** Gives back what was not used of what was set aside, and logs, in one commit. */
  settle(row: NewLogRow, reserved: number): void {
    const done = this.#settle({ row, reserved }).finally(() => this.#settlements.delete(done));
    this.#settlements.add(done);
  }

  /** Logs, soon. */
  record(row: NewLogRow): void {
    if (this.#rows.length >= WAITING_ROWS_MAX) {
      this.dropped++;
      return;
    }
    this.#rows.push(row);
    if (this.#rows.length >= BATCH_ROWS_MAX) this.#flushSoon(0);
    else this.#flushSoon(FLUSH_MS);
  }

  /** Stores which tokens were used, if no row has done so. To be called now and then. */
  async writeTouches(): Promise<void> {
    const touched = this.#takeTouched();
    if (touched.length === 0) return;
    try {
      await this.#units.run("relay.logBatch", { rows: "[]", touched });
    } catch (error) {
      // They say when a token was used, not how much: the next use says it again.
      if (!(error instanceof AppError && MAY_PASS.has(error.status))) throw error;
    }
  }

  /** Everything that was recorded is stored, or cannot be. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    // It would write the same rows beside the flush below, and take others that came meanwhile for written.
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#flushing;
    await Promise.all(this.#settlements);
    await this.#flush();
    await this.writeTouches().catch((error: unknown) => {
      this.#log.warn("the last uses of tokens were not stored", { cause: messageOf(error) });
    });
  }

  #flushSoon(delayMs: number): void {
    if (this.#flushing !== null || this.#isClosing) return;
    if (this.#timer !== null) {
      if (delayMs > 0) return;
      clearTimeout(this.#timer);
    }
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#flushing = this.#flush().finally(() => {
        this.#flushing = null;
        if (this.#rows.length > 0 && !this.#isClosing) this.#flushSoon(FLUSH_MS);
      });
    }, delayMs);
  }

  async #flush(): Promise<void> {
    let touched = this.#takeTouched();
    let rowsMax = BATCH_ROWS_MAX;
    while (this.#rows.length > 0) {
      const batch = this.#rows.slice(0, rowsMax);
      try {
        await this.#units.run("relay.logBatch", { rows: JSON.stringify(batch), touched });
        touched = [];
        this.#rows.splice(0, batch.length);
      } catch (error) {
        if (error instanceof AppError && error.code === "internal_error") {
          // Asked again it would say the same, and one that it cannot take must not keep the others from it.
          rowsMax = batch.length > 1 ? Math.ceil(batch.length / 2) : BATCH_ROWS_MAX;
          touched = [];
          if (batch.length === 1) this.#dropFirst(error);
          continue;
        }
        this.#log.warn("usage rows wait: the store takes none", { rows: this.#rows.length, cause: messageOf(error) });
        if (this.#isClosing) return;
        await Bun.sleep(RETRY_MS);
      }
    }
  }

  #dropFirst(error: AppError): void {
    const { request_id, token_id, quota } = this.#rows.shift()!;
    this.dropped++;
    const cause = messageOf(error.cause ?? error);
    this.#log.error("a usage row is lost: the store cannot take it", {
      request: request_id,
      token: token_id,
      quota,
      cause,
    });
  }

  async #settle(settlement: Settlement): Promise<void> {
    for (;;) {
      try {
        await this.#ledger.add(settlement);
        return;
      } catch (error) {
        const mayPass = error instanceof AppError && MAY_PASS.has(error.status) && !this.#isClosing;
        this.#log.warn("a settlement waits: the store does not take it", { cause: messageOf(error) });
        // What is left open comes back as a whole with the next start.
        if (!mayPass) return;
        await Bun.sleep(RETRY_MS);
      }
    }
  }
}
