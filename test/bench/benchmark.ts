// What a benchmark is, and what it is given.

import type { Figure } from "./figures.ts";
import type { StoreShape } from "./filled-store.ts";

export interface Benchmark {
  /** For the command line. */
  readonly name: string;
  /** What the machine lacks for it, or null. */
  missing?(): string | null;
  /** @throws InvalidRun, GeneratorLagged */
  run(bench: Bench): Promise<readonly Figure[]>;
}

export interface Bench {
  /** Only figures with a target, in shorter rounds. */
  readonly isShort: boolean;
  /** A token that may do everything. */
  readonly token: string;
  /** A path below the folder of this run, which is removed in the end; nothing is there yet. */
  newPath(): string;
  /** A copy of its own of a store of that shape, as a data directory. */
  filledStore(shape: StoreShape): Promise<string>;
}

/** The figure of the full run, or that of the short one. */
export function sized<T>({ isShort }: Bench, full: T, short: T): T {
  return isShort ? short : full;
}
