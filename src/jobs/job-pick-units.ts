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

/** Jobs of one priority that are looked for. */
interface Search {
  readonly priority: number;
  /** Jobs picked in all when it is over. */
  readonly end: number;
  readonly bounds: Bounds;
  /** Jobs picked before, of other priorities. */
  readonly before: number;
}

const NOBODY: ReadonlySet<number> = new Set();

export class JobPick {
  /** In the order in which they were picked. */
  readonly ids: string[] = [];
  readonly #db: Kysely<JobTables>;
  readonly #queue: string;
  readonly #nowMs: number;
  /** Whose jobs are all that is left of the priority, but for full groups; null = nobody has looked so far. */
  #left: ReadonlySet<number> | null = null;

  constructor(db: Kysely<JobTables>, queue: string, nowMs: number) {
    this.#db = db;
    this.#queue = queue;
    this.#nowMs = nowMs;
  }

  /**
   * Picks due jobs of a priority until there are `end` in all; the bounds count them. Among owners with as many that
   * run `rested` come last: they have had their turn.
   */
  async fill(priority: number, end: number, { groups, owners }: Bounds, rested: ReadonlySet<number>): Promise<void> {
    const before = this.ids.length;
    const [first, ...rest] = owners;
    this.#left = null;
    for (let turn = 1; this.ids.length < end; ) {
      // In this turn nobody gets beyond so many.
      const max = Math.min(turn, first.max);
      const search: Search = { priority, end, before, bounds: { groups, owners: [{ ...first, max }, ...rest] } };
      if (await this.#hasPassedOver(rested, search)) await this.#hasPassedOver(NOBODY, search);
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

  /** Picks what is found of others than `rested`, and tells whether something of those was found. */
  async #hasPassedOver(rested: ReadonlySet<number>, { priority, end, before, bounds }: Search): Promise<boolean> {
    const { groups, owners } = bounds;
    const picked = this.ids.slice(before);
    let passedOver = NOBODY;
    // Each round fills slots, or finds a group or an owner that is full now or rests, so there are few.
    for (let after: Candidate | null = null; this.ids.length < end; ) {
      const others = new Set([...passedOver, ...fullOwners(bounds)]);
      if (this.#left?.isSubsetOf(others)) break;
      const limit = end - this.ids.length;
      const rows: Candidate[] = await this.#candidates(priority, [...others], groups, picked, after)
        .limit(limit)
        .execute();
      for (const { id, group_key, owner_id } of rows) {
        if (groups.running.has(group_key, groups.max)) continue;
        if (owners.some((bound) => bound.running.has(owner_id, bound.max))) continue;
        if (owner_id !== null && rested.has(owner_id)) {
          passedOver = rested;
          continue;
        }
        groups.running.add(group_key);
        for (const bound of owners) bound.running.add(owner_id);
        this.ids.push(id);
      }
      if (rows.length < limit) {
        this.#left = new Set([...passedOver, ...fullOwners(bounds)]);
        break;
      }
      after = rows.at(-1)!;
    }
    return passedOver.size > 0;
  }

  /** Those behind `after`, by time and id, without those of `others` and of groups of which there are enough. */
  #candidates(
    priority: number,
    others: readonly number[],
    groups: Bound<string>,
    picked: readonly string[],
    after: Candidate | null,
  ) {
    const fullGroups = groups.running.from(groups.max).map(([key]) => key);
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
    if (others.length > 0) {
      query = query.where(({ eb, or }) => or([eb("owner_id", "is", null), eb("owner_id", "not in", others)]));
    }
    return query.orderBy("run_at_ms").orderBy("id");
  }
}

/** Of whom there are enough. */
function fullOwners({ owners }: Bounds): number[] {
  return owners.flatMap(({ max, running }) => running.from(max).map(([owner]) => owner));
}
