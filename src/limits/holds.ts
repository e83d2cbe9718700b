// What must not be believed from memory while it is being changed: which things are, and whether any was meanwhile.

export class Holds<Key> {
  /** How many changes are under way, by what they change. */
  readonly #held = new Map<Key, number>();
  #turns = 0;

  /** Counts holds and releases: what began to be read before the last of them is not to be remembered. */
  get turns(): number {
    return this.#turns;
  }

  isHeld(key: Key): boolean {
    return this.#held.has(key);
  }

  /** To be called before a change of `key`; what it returns, once after. */
  hold(key: Key): () => void {
    this.#turns++;
    this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
    return () => {
      this.#turns++;
      const left = this.#held.get(key)! - 1;
      if (left === 0) this.#held.delete(key);
      else this.#held.set(key, left);
    };
  }
}
