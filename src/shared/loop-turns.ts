// Work that takes milliseconds each, spread over the turns of the event loop.

export class LoopTurns {
  #last = Promise.resolve();

  /** Resolves in a turn of its own, behind those that were asked for before: what else there is to do comes between. */
  next(): Promise<void> {
    this.#last = this.#last.then(() => new Promise((resolve) => setImmediate(resolve)));
    return this.#last;
  }
}
