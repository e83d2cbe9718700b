// The calls in flight, which may have to be ended from outside, all of them at once.

/**
 * Slots that are used again. A Set that is filled and emptied all the time keeps the collector busy: an entry that was
 * deleted lives on behind an older one until a full collection, with all it refers to.
 */
export class InflightCalls {
  readonly #slots: ((() => void) | null)[] = [];
  readonly #free: number[] = [];

  /** Returns what takes `end` out again; more than once is as good as once. */
  add(end: () => void): () => void {
    const slot = this.#free.pop() ?? this.#slots.length;
    this.#slots[slot] = end;
    let isIn = true;
    return () => {
      if (!isIn) return;
      isIn = false;
      this.#slots[slot] = null;
      this.#free.push(slot);
    };
  }

  endAll(): void {
    for (const end of [...this.#slots]) end?.();
  }
}
