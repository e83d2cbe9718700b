// Runs the write units of this service, and carries what they did to where it matters, before the answer is given.

import type { UnitRunner } from "../storage/unit-of-work.ts";
import type { TaskCache } from "./task-cache.ts";
import type { Changed, Effects } from "./task-effects.ts";
import type { TaskUnits } from "./task-units.ts";

type Value<Name extends keyof TaskUnits & string> =
  Awaited<ReturnType<TaskUnits[Name]>> extends Changed<infer T> ? T : never;

/** Whoever has to hear of committed changes. Called before the change is answered. */
type EffectListener = (effects: Effects) => void;

export class TaskWriter {
  readonly #store: UnitRunner<TaskUnits>;
  readonly #cache: TaskCache;
  readonly #listeners: EffectListener[] = [];

  constructor(store: UnitRunner<TaskUnits>, cache: TaskCache) {
    this.#store = store;
    this.#cache = cache;
  }

  onEffects(listener: EffectListener): void {
    this.#listeners.push(listener);
  }

  /**
   * Throws what the unit throws; see UnitRunner. `stale` are the tasks whose cached copies the change may outdate: they
   * are neither served nor filled from now until it has ended.
   */
  async run<Name extends keyof TaskUnits & string>(
    name: Name,
    args: Parameters<TaskUnits[Name]>[1],
    stale: readonly number[] | "all" = [],
  ): Promise<Value<Name>> {
    const release = this.#cache.hold(stale);
    try {
      const { value, effects } = (await this.#store.run(name, args)) as Changed<Value<Name>>;
      this.tell(effects);
      return value;
    } finally {
      release();
    }
  }

  /** For changes that were made elsewhere: by the settlement of a job. */
  tell(effects: Effects): void {
    for (const listener of this.#listeners) listener(effects);
  }
}
