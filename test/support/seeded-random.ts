// Randomness that can be had again: the seed is printed, and GOKV_SEED replays it.

export interface Random {
  readonly seed: number;
  /** 0 <= x < 1 */
  next(): number;
  /** A whole number, 0 <= x < `bound`. */
  below(bound: number): number;
  chance(probability: number): boolean;
  pick<T>(items: readonly T[]): T;
}

/** Prints the seed with `purpose`. */
export function seededRandom(purpose: string): Random {
  const seed = Number(process.env.GOKV_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]) >>> 0;
  process.stderr.write(`${purpose}: GOKV_SEED=${seed} replays this\n`);
  return randomFrom(seed);
}

/** Mulberry32, by Tommy Ettinger: small, fast, and good enough to choose moments and sizes with. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (bound: number) => Math.floor(next() * bound);
  return {
    seed,
    next,
    below,
    chance: (probability) => next() < probability,
    pick: (items) => items[below(items.length)]!,
  };
}
