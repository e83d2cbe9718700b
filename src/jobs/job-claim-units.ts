// Claims jobs for a node: what is due, in the order of the queue, without looking at what is not due yet.

import type { Kysely } from "kysely";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { JOB_PRIORITY, jobTables } from "./job-base-units.ts";
import { type Bound, type Bounds, JobPick, Running } from "./job-pick-units.ts";
import type { JobTables } from "./job-tables.ts";

/** So that one slow receiver does not take all slots of a node. */
const GROUP_RUNNING_MAX = 2;
/** Of what yields: most of it is for receivers that nobody knows yet, or that fail. */
const GROUP_YIELDING_MAX = 1;

export interface Claim {
  /** Whoever holds the lease: one name per process. */
  readonly node: string;
  readonly leaseMs: number;
  readonly nowMs: number;
  readonly queues: readonly QueueClaim[];
  /** Jobs of each group that run on this node already. */
  readonly busyGroups: Readonly<Record<string, number>>;
}

/** By priority: owners who had a turn since everybody who waited had one. */
export type Turns = Readonly<Record<number, readonly number[]>>;

export interface QueueClaim {
  readonly queue: string;
  /** At most so many jobs of it. */
  readonly slots: number;
  /** So that one user does not take all slots of a node. */
  readonly owners?: OwnerBound;
  /** Who has had one; without it nobody. */
  readonly turns?: Turns;
  /** Jobs that are not of the usual priority; without it they are bounded as all are. */
  readonly yielding?: {
    /** At most so many. */
    readonly slots: number;
    /** Counts these jobs alone. */
    readonly owners?: OwnerBound;
  };
}

interface OwnerBound {
  /** Jobs of each that run at once. */
  readonly max: number;
  /** Jobs of each that run already. */
  readonly busy: Readonly<Record<string, number>>;
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

/**
 * Due jobs of queues that are not paused become running: by priority; among those of one, whoever has few that run goes
 * before whoever has many; of these whoever had no turn yet; then by time and id. At most two of a group at once, one
 * of a group that yields, and of an owner as many as the queue allows.
 */
export async function claimJobs(work: UnitOfWork, claim: Claim): Promise<ClaimedJob[]> {
  const db = jobTables(work);
  const groups = new Running(Object.entries(claim.busyGroups));
  const ids: string[] = [];
  for (const queue of claim.queues) {
    if (queue.slots === 0 || (await isPaused(db, queue.queue))) continue;
    ids.push(...(await pickOf(db, queue, groups, claim.nowMs)));
  }
  return ids.length === 0 ? [] : await take(db, ids, claim);
}

/** Ids of up to `slots` jobs; `groups` counts them. */
async function pickOf(
  db: Db,
  { queue, slots, owners, turns, yielding }: QueueClaim,
  groups: Running<string>,
  nowMs: number,
): Promise<string[]> {
  const pick = new JobPick(db, queue, nowMs);
  const ofOwner = boundOf(owners);
  const usual: Bounds = { groups: { max: GROUP_RUNNING_MAX, running: groups }, owners: [ofOwner] };
  const late: Bounds = {
    groups: { max: GROUP_YIELDING_MAX, running: groups },
    owners: [boundOf(yielding?.owners), ofOwner],
  };
  let end: number | null = null;
  for await (const priority of readyPriorities(db, queue)) {
    const yields = priority > JOB_PRIORITY.usual;
    // They come last, one priority behind the other.
    if (yields) end ??= Math.min(slots, pick.ids.length + (yielding?.slots ?? slots));
    await pick.fill(priority, end ?? slots, yields ? late : usual, new Set(turns?.[priority]));
    if (pick.ids.length >= (end ?? slots)) break;
  }
  return pick.ids;
}

function boundOf(bound: OwnerBound | undefined): Bound<number> {
  const busy = Object.entries(bound?.busy ?? {}).map(([id, running]) => [Number(id), running] as const);
  return { max: bound?.max ?? Number.POSITIVE_INFINITY, running: new Running(busy) };
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
