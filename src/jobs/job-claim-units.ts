// Claims jobs for a node: what is due, in the order of the queue, without looking at what is not due yet.

import type { Kysely } from "kysely";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { JOB_PRIORITY, jobTables } from "./job-base-units.ts";
import type { JobTables } from "./job-tables.ts";

/** So that one slow receiver does not take all slots of a node. */
const GROUP_RUNNING_MAX = 2;

export interface Claim {
  /** Whoever holds the lease: one name per process. */
  readonly node: string;
  readonly leaseMs: number;
  readonly nowMs: number;
  readonly queues: readonly QueueClaim[];
  /** Jobs of each group that run on this node already. */
  readonly busyGroups: Readonly<Record<string, number>>;
}

export interface QueueClaim {
  readonly queue: string;
  /** At most so many jobs of it. */
  readonly slots: number;
  /** So that one user does not take all slots of a node: jobs of each that run at most, and that run already. */
  readonly owners?: { readonly max: number; readonly busy: Readonly<Record<string, number>> };
  /** At most so many that are not of the usual priority; without it as many as there are slots. */
  readonly yieldingSlots?: number;
}

/** A job that is this node's until its lease ends. */
export interface ClaimedJob {
  readonly id: string;
  readonly queue: string;
  readonly kind: string;
  readonly ownerId: number | null;
  readonly groupKey: string | null;
  readonly priority: number;
  /** JSON. */
  readonly payload: string;
  /** From 1. */
  readonly attempt: number;
  readonly fence: number;
}

type Db = Kysely<JobTables>;
type Candidate = Pick<JobTables["job"], "id" | "group_key" | "owner_id" | "run_at_ms">;

/**
 * Due jobs of queues that are not paused become running; by priority, time, id. At most two of a group at once, and of
 * an owner as many as the queue allows.
 */
export async function claimJobs(work: UnitOfWork, claim: Claim): Promise<ClaimedJob[]> {
  const db = jobTables(work);
  const groups = new Running(GROUP_RUNNING_MAX, Object.entries(claim.busyGroups));
  const ids: string[] = [];
  for (const { queue, slots, owners, yieldingSlots = slots } of claim.queues) {
    if (slots === 0 || (await isPaused(db, queue))) continue;
    const busy = Object.entries(owners?.busy ?? {}).map(([id, running]) => [Number(id), running] as const);
    const running = { groups, owners: new Running(owners?.max ?? slots, busy) };
    ids.push(...(await pick(db, { queue, slots, yieldingSlots }, claim.nowMs, running)));
  }
  return ids.length === 0 ? [] : await take(db, ids, claim);
}

/** The priorities of the ready jobs of a queue, ascending: a look into the index for each. */
export async function* readyPriorities(db: Db, queue: string): AsyncGenerator<number> {
  for (let priority = Number.NEGATIVE_INFINITY; ; ) {
    let query = db.selectFrom("job").select("priority").where("queue", "=", queue).where("state", "=", "ready");
    if (priority !== Number.NEGATIVE_INFINITY) query = query.where("priority", ">", priority);
    const next = await query.orderBy("priority").limit(1).executeTakeFirst();
    if (next === undefined) return;
    priority = next.priority;
    yield priority;
  }
}

async function isPaused(db: Db, name: string): Promise<boolean> {
  const row = await db.selectFrom("job_queue").select("paused").where("name", "=", name).executeTakeFirst();
  return row?.paused === 1;
}

/** Jobs that run at once, by what they have in common, if anything. */
class Running<Key> {
  readonly #max: number;
  readonly #counts: Map<Key, number>;

  constructor(max: number, counts: Iterable<readonly [Key, number]>) {
    this.#max = max;
    this.#counts = new Map(counts);
  }

  hasRoom(key: Key | null): boolean {
    return key === null || (this.#counts.get(key) ?? 0) < this.#max;
  }

  add(key: Key | null): void {
    if (key !== null) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  full(): Key[] {
    return [...this.#counts].filter(([, running]) => running >= this.#max).map(([key]) => key);
  }
}

/** Ids of up to `slots` jobs; `running` counts them. */
async function pick(
  db: Db,
  { queue, slots, yieldingSlots }: Required<Omit<QueueClaim, "owners">>,
  nowMs: number,
  { groups, owners }: { readonly groups: Running<string>; readonly owners: Running<number> },
): Promise<string[]> {
  const ids: string[] = [];
  let end = slots;
  for await (const priority of readyPriorities(db, queue)) {
    // They come last, one priority behind the other.
    if (priority > JOB_PRIORITY.usual && end === slots) end = Math.min(slots, ids.length + yieldingSlots);
    // Each round fills slots or finds a group or an owner that is full now, so there are few.
    for (let after: Candidate | null = null; ids.length < end; ) {
      const limit = end - ids.length;
      const full = { groups: groups.full(), owners: owners.full() };
      const rows = await candidates(db, { queue, priority, nowMs, after, limit, full });
      for (const { id, group_key, owner_id } of rows) {
        if (!groups.hasRoom(group_key) || !owners.hasRoom(owner_id)) continue;
        groups.add(group_key);
        owners.add(owner_id);
        ids.push(id);
      }
      if (rows.length < limit) break;
      after = rows.at(-1)!;
    }
    if (ids.length === end) break;
  }
  return ids;
}

function candidates(
  db: Db,
  place: {
    readonly queue: string;
    readonly priority: number;
    readonly nowMs: number;
    readonly after: Candidate | null;
    readonly limit: number;
    readonly full: { readonly groups: readonly string[]; readonly owners: readonly number[] };
  },
): Promise<Candidate[]> {
  const { after, full } = place;
  let query = db
    .selectFrom("job")
    .select(["id", "group_key", "owner_id", "run_at_ms"])
    .where("queue", "=", place.queue)
    .where("state", "=", "ready")
    .where("priority", "=", place.priority)
    .where("run_at_ms", "<=", place.nowMs);
  if (after !== null) {
    query = query.where(({ eb, refTuple, tuple }) =>
      eb(refTuple("run_at_ms", "id"), ">", tuple(after.run_at_ms, after.id)),
    );
  }
  if (full.groups.length > 0) {
    query = query.where(({ eb, or }) => or([eb("group_key", "is", null), eb("group_key", "not in", full.groups)]));
  }
  if (full.owners.length > 0) {
    query = query.where(({ eb, or }) => or([eb("owner_id", "is", null), eb("owner_id", "not in", full.owners)]));
  }
  return query.orderBy("run_at_ms").orderBy("id").limit(place.limit).execute();
}

async function take(db: Db, ids: readonly string[], { node, leaseMs, nowMs }: Claim): Promise<ClaimedJob[]> {
  const rows = await db
    .updateTable("job")
    .set(({ eb }) => ({
      state: "running" as const,
      fence: eb("fence", "+", 1),
      attempts: eb("attempts", "+", 1),
      locked_by: node,
      locked_until_ms: nowMs + leaseMs,
      started_at_ms: nowMs,
      progress: 0,
    }))
    .where("id", "in", ids)
    .where("state", "=", "ready")
    .returning(["id", "queue", "kind", "owner_id", "group_key", "priority", "payload", "attempts", "fence"])
    .execute();
  const order = new Map(ids.map((id, index) => [id, index]));
  return rows
    .toSorted((a, b) => order.get(a.id)! - order.get(b.id)!)
    .map(({ owner_id, group_key, attempts, ...row }) => ({
      ...row,
      ownerId: owner_id,
      groupKey: group_key,
      attempt: attempts,
    }));
}
