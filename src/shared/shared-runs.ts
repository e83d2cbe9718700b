// Work whose result serves everybody who asked for it before it began.

/** One run at a time: whoever comes while one is under way shares the next one with all others who do. */
export class SharedRuns<T> {
  readonly #act: () => Promise<T>;
  #last: Promise<unknown> = Promise.resolve();
  #next: Promise<T> | null = null;

  constructor(act: () => Promise<T>) {
    this.#act = act;
  }

  /** What a run that has not begun yet comes to. Throws what it throws. */
  next(): Promise<T> {
    if (this.#next !== null) return this.#next;
    const next = this.#last.then(() => {
      this.#next = null;
      return this.#act();
    });
    this.#next = next;
    this.#last = next.catch(() => undefined);
    return next;
  }
}
