// Gathers write units on the main thread: whatever comes while a commit is under way shares the next one.

export interface QueuedUnit {
  readonly id: number;
  readonly name: string;
  readonly args: unknown;
}

interface Waiting extends QueuedUnit {
  readonly lockDeadlineMs: number;
}

/** They run one behind the other before any of them is answered, so there must not be too many. */
const BATCH_UNITS_MAX = 64;

/** One batch is in flight at a time; see WriteQueue for why a second one would not help. */
export class UnitQueue {
  readonly #send: (units: readonly QueuedUnit[], lockDeadlineMs: number) => void;
  readonly #waiting: Waiting[] = [];
  #isInFlight = false;
  #flush: NodeJS.Immediate | null = null;
  #onIdle: (() => void) | null = null;

  /** `send` hands a batch over; `ended` has to be called when it was answered. */
  constructor(send: (units: readonly QueuedUnit[], lockDeadlineMs: number) => void) {
    this.#send = send;
  }

  /** Those of one turn of the event loop travel together. */
  add(unit: Waiting): void {
    this.#waiting.push(unit);
    if (!this.#isInFlight) this.#flush ??= setImmediate(() => this.#sendNext());
  }

  ended(): void {
    this.#isInFlight = false;
    this.#sendNext();
  }

  /** Resolves when everything that was added has ended. */
  async close(): Promise<void> {
    if (!this.#isInFlight && this.#waiting.length === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #sendNext(): void {
    this.#flush = null;
    if (this.#isInFlight) return;
    const batch = this.#waiting.splice(0, BATCH_UNITS_MAX);
    if (batch.length === 0) {
      this.#onIdle?.();
      return;
    }
    this.#isInFlight = true;
    // The oldest has waited longest for the lock, if it is a lock that holds them up.
    const units = batch.map(({ id, name, args }) => ({ id, name, args }));
    this.#send(units, batch[0]!.lockDeadlineMs);
  }
}
