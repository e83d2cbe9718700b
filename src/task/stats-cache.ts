// Statistics that were asked for lately: the number of the last change stands in their names, so they are never stale.

import { type BoundedCache, createBoundedCache } from "../limits/bounded-cache.ts";
import { MiB } from "../shared/bounds.ts";

const STATS_BYTES = MiB;
/** What an entry costs besides its texts. */
const OVERHEAD_BYTES = 256;

/** Summing up for whoever asks for the same meanwhile; given up when all of them have left. */
interface UnderWay {
  readonly json: Promise<string>;
  readonly abort: AbortController;
  waiting: number;
}

export class StatsCache {
  readonly #kept: BoundedCache<{ readonly json: string }> = createBoundedCache<{ readonly json: string }>(STATS_BYTES)!;
  readonly #underWay = new Map<string, UnderWay>();

  /** JSON text. Throws what `sum` throws, whose signal is aborted when nobody waits any more. */
  async of(name: string, signal: AbortSignal, sum: (signal: AbortSignal) => Promise<unknown>): Promise<string> {
    const kept = this.#kept.get(name);
    if (kept !== undefined) return kept.json;
    const joined = this.#underWay.get(name) ?? this.#begin(name, sum);
    joined.waiting++;
    const leave = () => {
      if (--joined.waiting > 0) return;
      this.#forget(name, joined);
      joined.abort.abort();
    };
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
    try {
      return await joined.json;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  #begin(name: string, sum: (signal: AbortSignal) => Promise<unknown>): UnderWay {
    const abort = new AbortController();
    const json = sum(abort.signal).then((sums) => {
      const text = JSON.stringify(sums);
      this.#kept.set(name, { json: text }, 2 * (name.length + text.length) + OVERHEAD_BYTES);
      return text;
    });
    const begun: UnderWay = { json, abort, waiting: 0 };
    this.#underWay.set(name, begun);
    const forget = () => this.#forget(name, begun);
    json.then(forget, forget);
    return begun;
  }

  #forget(name: string, ended: UnderWay): void {
    if (this.#underWay.get(name) === ended) this.#underWay.delete(name);
  }
}
