// Picks the jobs of a queue that come next: owners take turns, so that nobody stands behind the backlog of another.

import type { Kysely } from "kysely";
import type { JobTables } from "./job-tables.ts";

type Candidate = Pick<JobTables["job"], "id" | "group_key" | "owner_id" | "run_at_ms">;

/** Jobs that run at once, by what they have in common, if anything. */
export class Running<Key> {
  readonly #counts: Map<Key, number>;

  constructor(counts: Iterable<readonly [Key, number]>) {
    this.#counts = new Map(counts);
  }

  has(key: Key | null, max: number): boolean {
    return key !== null && (this.#counts.get(key) ?? 0) >= max;
  }

  add(key: Key | null): void {
    if (key !== null) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  /** Those of which at least `min` run. */
  from(min: number): [Key, number][] {
    return [...this.#counts].filter(([, running]) => running >= min);
  }
}

export interface Bound<Key> {
  readonly max: number;
  readonly running: Running<Key>;
}

export interface Bounds {
  readonly groups: Bound<string>;
  /** All of them hold, and by what the first one counts owners take turns. */
  readonly owners: readonly [Bound<number>, ...Bound<number>[]];
}

export class JobPick {
  /** In the order in which they were picked. */
  readonly ids: string[] = [];
  readonly #db: Kysely<JobTables>;
  readonly #queue: string;
  readonly #nowMs: number;

  constructor(db: Kysely<JobTables>, queue: string, nowMs: number) {
    this.#db = db;
    this.#queue = queue;
    this.#nowMs = nowMs;
  }

  /** Picks due jobs of a priority until there are `end` in all; the bounds count them. */
  async fill(priority: number, end: number, { groups, owners }: Bounds): Promise<void> {
    const before = this.ids.length;
    const [first, ...rest] = owners;
    for (let turn = 1; this.ids.length < end; ) {
      // In this turn nobody gets beyond so many.
      const max = Math.min(turn, first.max);
      const now: Bounds = { groups, owners: [{ ...first, max }, ...rest] };
      await this.#fillTurn(priority, end, now, this.ids.slice(before));
      const passedOver = first.running
        .from(max)
        .filter(
          ([owner, running]) => running < first.max && !rest.some((bound) => bound.running.has(owner, bound.max)),
        );
      if (passedOver.length === 0) return;
      // Doubled, so that there are few turns where there are many slots.
      turn = Math.max(2 * turn, 1 + Math.min(...passedOver.map(([, running]) => running)));
    }
  }

  async #fillTurn(priority: number, end: number, bounds: Bounds, picked: readonly string[]): Promise<void> {
    const { groups, owners } = bounds;
    // Each round fills slots or finds a group or an owner that is full now, so there are few.
    for (let after: Candidate | null = null; this.ids.length < end; ) {
      const limit = end - this.ids.length;
      const rows: Candidate[] = await this.#candidates(priority, bounds, picked, after).limit(limit).execute();
      for (const { id, group_key, owner_id } of rows) {
        if (groups.running.has(group_key, groups.max)) continue;
        if (owners.some((bound) => bound.running.has(owner_id, bound.max))) continue;
        groups.running.add(group_key);
        for (const bound of owners) bound.running.add(owner_id);
        this.ids.push(id);
      }
      if (rows.length < limit) break;
      after = rows.at(-1)!;
    }
  }

  /** Those behind `after`, by time and id, without those of whom there are enough. */
  #candidates(priority: number, { groups, owners }: Bounds, picked: readonly string[], after: Candidate | null) {
    const fullGroups = groups.running.from(groups.max).map(([key]) => key);
    const fullOwners = [...new Set(owners.flatMap((bound) => bound.running.from(bound.max).map(([key]) => key)))];
    let query = this.#db
      .selectFrom("job")
      .select(["id", "group_key", "owner_id", "run_at_ms"])
      .where("queue", "=", this.#queue)
      .where("state", "=", "ready")
      .where("priority", "=", priority)
      .where("run_at_ms", "<=", this.#nowMs);
    if (after !== null) {
      query = query.where(({ eb, refTuple, tuple }) =>
        eb(refTuple("run_at_ms", "id"), ">", tuple(after.run_at_ms, after.id)),
      );
    }
    if (picked.length > 0) query = query.where("id", "not in", picked);
    if (fullGroups.length > 0) {
      query = query.where(({ eb, or }) => or([eb("group_key", "is", null), eb("group_key", "not in", fullGroups)]));
    }
    if (fullOwners.length > 0) {
      query = query.where(({ eb, or }) => or([eb("owner_id", "is", null), eb("owner_id", "not in", fullOwners)]));
    }
    return query.orderBy("run_at_ms").orderBy("id");
  }
}
