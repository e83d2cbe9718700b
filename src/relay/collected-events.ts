// The events of a stream on their way into the answer cache: under a bound, and under the byte budget.

import { BudgetShare, type ByteBudget } from "../http/byte-budget.ts";
import { SMALL_STEP_BYTES } from "../shared/bounds.ts";

/** An answer need not be kept: bodies and answers, which must be held, have the rest of the budget for themselves. */
const BUDGET_SHARE_MAX = 0.5;

export class CollectedEvents {
  readonly #budget: ByteBudget;
  readonly #bytesMax: number;
  readonly #share: BudgetShare;
  #bytes = 0;
  #events: Uint8Array[] | null = [];

  constructor(budget: ByteBudget, bytesMax: number) {
    this.#budget = budget;
    this.#bytesMax = bytesMax;
    this.#share = new BudgetShare(budget);
  }

  /** In their order; null when they are too many, or when there was no room for them. */
  get events(): readonly Uint8Array[] | null {
    return this.#events;
  }

  add(event: Uint8Array): void {
    if (this.#events === null) return;
    this.#bytes += event.length;
    if (this.#bytes > this.#bytesMax || !this.#hasRoom()) this.release();
    else this.#events.push(event);
  }

  /** To be called when the stream has ended, however; nothing is collected any more. */
  release(): void {
    this.#events = null;
    this.#share.release();
  }

  #hasRoom(): boolean {
    const stepsBytes = Math.ceil(this.#bytes / SMALL_STEP_BYTES) * SMALL_STEP_BYTES;
    const missing = stepsBytes - this.#share.bytes;
    if (missing <= 0) return true;
    const { usedBytes, limitBytes } = this.#budget;
    return usedBytes + missing <= limitBytes * BUDGET_SHARE_MAX && this.#share.tryGrowTo(stepsBytes);
  }
}
