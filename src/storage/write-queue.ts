// Gathers writes into batches on the main thread: whatever arrived in one turn of the event loop travels together.

import { BATCH_BYTES_MAX, BATCH_ITEMS_MAX } from "../shared/bounds.ts";
import { monotonicMs } from "../shared/clock.ts";
import { AppError } from "../shared/errors.ts";
import { fullMessage } from "./full-cause.ts";
import type { KvOutcome, KvWrite } from "./kv-engine.ts";
import { storeLocked } from "./sqlite-errors.ts";
import type { ItemOutcome } from "./write-batch.ts";

interface Waiting {
  readonly write: KvWrite;
  readonly queuedMs: number;
  readonly resolve: (outcome: KvOutcome) => void;
  readonly reject: (error: AppError) => void;
}

interface WriteQueueOptions {
  readonly queueMax: number;
  readonly timeoutMs: number;
  /** Hands a batch over; its outcomes come back through `settle` before the next one is sent. */
  send(batch: readonly KvWrite[], oldestQueuedMs: number): void;
}

/**
 * One batch is in flight at a time. A second one would wait behind it with fewer items than it could hold: with 32
 * writers two in flight halve the batch and cost a fifth of the writes.
 */
export class WriteQueue {
  readonly #options: WriteQueueOptions;
  #waiting: Waiting[] = [];
  #inFlight: readonly Waiting[] | null = null;
  #flush: Timer | NodeJS.Immediate | null = null;
  #expiry: Timer | null = null;
  #failure: AppError | null = null;
  #onIdle: (() => void) | null = null;

  constructor(options: WriteQueueOptions) {
    this.#options = options;
  }

  get length(): number {
    return this.#waiting.length;
  }

  /** @throws AppError overloaded, busy, draining, storage_failed, storage_full, internal_error */
  write(write: KvWrite): Promise<KvOutcome> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#waiting.length >= this.#options.queueMax) {
      return Promise.reject(new AppError("overloaded", "Too many writes are waiting. Try again."));
    }
    const { promise, resolve, reject } = Promise.withResolvers<KvOutcome>();
    this.#waiting.push({ write, queuedMs: monotonicMs(), resolve, reject });
    this.#flush ??= setImmediate(() => this.#sendNext());
    return promise;
  }

  /** The outcomes of the batch in flight; of one that was given up by `fail` they come too late. */
  settle(outcomes: readonly ItemOutcome[]): void {
    const batch = this.#inFlight;
    if (batch === null) return;
    this.#inFlight = null;
    for (const [index, { resolve, reject }] of batch.entries()) {
      const outcome = toOutcome(outcomes[index]!);
      if (outcome instanceof AppError) reject(outcome);
      else resolve(outcome);
    }
    this.#sendNext();
  }

  /** From now on every write gets `error`: those in flight, those waiting, those to come. */
  fail(error: AppError): void {
    this.#failure = error;
    for (const { reject } of [...(this.#inFlight ?? []), ...this.#waiting]) reject(error);
    this.#inFlight = null;
    this.#waiting = [];
    this.#armExpiry();
    this.#onIdle?.();
  }

  /** Refuses new writes; resolves when all that were accepted are answered. */
  async close(): Promise<void> {
    this.#failure ??= new AppError("draining", "The server is shutting down.");
    if (this.#waiting.length === 0 && this.#inFlight === null) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #sendNext(): void {
    this.#flush = null;
    if (this.#waiting.length > 0 && this.#inFlight === null) {
      const batch = this.#waiting.splice(0, batchLength(this.#waiting));
      this.#inFlight = batch;
      this.#options.send(
        batch.map((item) => item.write),
        batch[0]!.queuedMs,
      );
    }
    if (this.#waiting.length === 0 && this.#inFlight === null) this.#onIdle?.();
    this.#armExpiry();
  }

  /** One timer, for the oldest write that waits. */
  #armExpiry(): void {
    const oldest = this.#waiting[0];
    if (oldest === undefined) {
      if (this.#expiry !== null) clearTimeout(this.#expiry);
      this.#expiry = null;
    } else if (this.#expiry === null) {
      const restMs = oldest.queuedMs + this.#options.timeoutMs - monotonicMs();
      this.#expiry = setTimeout(() => this.#dropExpired(), Math.max(1, Math.ceil(restMs)));
    }
  }

  #dropExpired(): void {
    this.#expiry = null;
    const limitMs = monotonicMs() - this.#options.timeoutMs;
    while (this.#waiting[0] !== undefined && this.#waiting[0].queuedMs <= limitMs) {
      this.#waiting.shift()!.reject(new AppError("busy", "The write waited too long and was dropped. Try again."));
    }
    this.#armExpiry();
  }
}

/** The oldest items up to both bounds; one that is larger than the byte bound goes alone. */
function batchLength(waiting: readonly Waiting[]): number {
  let bytes = 0;
  let length = 0;
  for (const { write } of waiting) {
    bytes += write.kind === "put" ? write.value.length : 0;
    if (length === BATCH_ITEMS_MAX || (length > 0 && bytes > BATCH_BYTES_MAX)) break;
    length++;
  }
  return length;
}

/** The outcome for the caller, or the error that it stands for. */
export function toOutcome(outcome: ItemOutcome): KvOutcome | AppError {
  switch (outcome.kind) {
    case "busy":
      return storeLocked();
    case "full":
      return new AppError("storage_full", fullMessage("volume"));
    case "limited":
      return new AppError("storage_full", fullMessage("DB_MAX_BYTES"));
    case "revoked":
      return new AppError("token_invalid", "missing or invalid token");
    case "failed":
      return new AppError("internal_error", "The store refused this entry.");
    default:
      return outcome;
  }
}
