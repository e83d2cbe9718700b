// The job queue as it is read: single jobs, lists, what is due, figures.

import type { Kysely } from "kysely";
import { requireSomebodyWaits } from "../shared/errors.ts";
import { SCANS_OF, type TableStore } from "../storage/unit-of-work.ts";
import { jobTables } from "./job-base-units.ts";
import { readyPriorities } from "./job-claim-units.ts";
import type { EndedRun } from "./job-finish-units.ts";
import type { JobRow, JobState, JobTables } from "./job-tables.ts";

/** Rows that one statement looks at: others get their turn between two. */
const SLICE_ROWS = 2000;

type Db = Kysely<JobTables>;

/** Null filters nothing. */
interface JobFilter {
  readonly ownerId: number | null;
  readonly state: JobState | null;
  readonly kind: string | null;
  readonly queue: string | null;
}

export interface QueueFigures {
  /** Jobs that are due and wait. */
  readonly depth: number;
  /** Since when the first of them is due; null without one. */
  readonly oldestMs: number | null;
  /** On all nodes. */
  readonly running: number;
  readonly isPaused: boolean;
}

export class JobStore {
  readonly #points;
  readonly #store: Pick<TableStore<never>, "scansFor">;

  constructor(store: Pick<TableStore<never>, "tables" | "scansFor">) {
    this.#points = jobTables(store);
    this.#store = store;
  }

  async find(id: string, ownerId: number | null = null): Promise<JobRow | null> {
    const row = await this.#points.selectFrom("job").selectAll().where("id", "=", id).executeTakeFirst();
    return row === undefined || (ownerId !== null && row.owner_id !== ownerId) ? null : row;
  }

  /**
   * Up to `limit` jobs, newest first, older than the job `before`. `next` is where to go on, null at the end.
   * @throws AppError unavailable when `signal` is aborted
   */
  async list(
    filter: JobFilter,
    { limit, before }: { readonly limit: number; readonly before: string | null },
    signal: AbortSignal,
  ): Promise<{ rows: JobRow[]; next: string | null }> {
    const scans = this.#scansFor(filter.ownerId === null ? SCANS_OF.operators : `user ${filter.ownerId}`, signal);
    const rows: JobRow[] = [];
    for (let place = before; ; ) {
      requireSomebodyWaits(signal);
      const last = await sliceEnd(scans, filter, place);
      rows.push(...(await rowsBetween(scans, filter, place, last, limit + 1 - rows.length)));
      if (rows.length > limit) {
        rows.length = limit;
        return { rows, next: rows.at(-1)!.id };
      }
      if (last === null) return { rows, next: null };
      place = last;
    }
  }

  /** Those of the queues that have a job to run now. */
  async dueAmong(queues: readonly string[], nowMs: number): Promise<string[]> {
    const found: string[] = [];
    for (const queue of queues) {
      for await (const priority of readyPriorities(this.#points, queue)) {
        if ((await due(this.#points, queue, priority, nowMs).limit(1).execute()).length === 0) continue;
        found.push(queue);
        break;
      }
    }
    return found;
  }

  /** Runs whose lease has ended. */
  async expired(nowMs: number, limit: number): Promise<EndedRun[]> {
    const rows = await this.#points
      .selectFrom("job")
      .select(["id", "fence"])
      .where("state", "=", "running")
      .where("locked_until_ms", "<", nowMs)
      .limit(limit)
      .execute();
    return rows.map((row) => ({ ...row, end: "expired" }));
  }

  /** `signal` null: for whoever scrapes the figures. @throws AppError unavailable when `signal` is aborted */
  async figures(queue: string, nowMs: number, signal: AbortSignal | null): Promise<QueueFigures> {
    const scans = this.#scansFor(signal === null ? SCANS_OF.server : SCANS_OF.operators, signal);
    let depth = 0;
    let oldestMs: number | null = null;
    for await (const priority of readyPriorities(scans, queue)) {
      const first = await due(scans, queue, priority, nowMs).executeTakeFirst();
      if (first === undefined) continue;
      oldestMs = Math.min(first.run_at_ms, oldestMs ?? first.run_at_ms);
      depth += await countDue(scans, queue, priority, nowMs);
    }
    const { running } = await scans
      .selectFrom("job")
      .select(({ fn }) => fn.countAll<number>().as("running"))
      .where("queue", "=", queue)
      .where("state", "=", "running")
      .executeTakeFirstOrThrow();
    const row = await scans.selectFrom("job_queue").select("paused").where("name", "=", queue).executeTakeFirst();
    return { depth, oldestMs, running, isPaused: row?.paused === 1 };
  }

  async schedules(): Promise<JobTables["job_schedule"][]> {
    return this.#points.selectFrom("job_schedule").selectAll().execute();
  }

  #scansFor(caller: string, signal: AbortSignal | null): Db {
    return jobTables({ tables: this.#store.scansFor(caller, signal) });
  }
}

function due(db: Db, queue: string, priority: number, nowMs: number) {
  return db
    .selectFrom("job")
    .select(["run_at_ms", "id"])
    .where("queue", "=", queue)
    .where("state", "=", "ready")
    .where("priority", "=", priority)
    .where("run_at_ms", "<=", nowMs)
    .orderBy("run_at_ms")
    .orderBy("id");
}

async function countDue(db: Db, queue: string, priority: number, nowMs: number): Promise<number> {
  for (let [count, query] = [0, due(db, queue, priority, nowMs)]; ; count += SLICE_ROWS) {
    const last = await query
      .offset(SLICE_ROWS - 1)
      .limit(1)
      .executeTakeFirst();
    if (last === undefined) {
      const rest = db.selectFrom(query.limit(SLICE_ROWS).as("rest"));
      const { rows } = await rest.select(({ fn }) => fn.countAll<number>().as("rows")).executeTakeFirstOrThrow();
      return count + rows;
    }
    query = due(db, queue, priority, nowMs).where(({ eb, refTuple, tuple }) =>
      eb(refTuple("run_at_ms", "id"), ">", tuple(last.run_at_ms, last.id)),
    );
  }
}

/** The last of the jobs that are looked at together; null when they are the last ones. */
async function sliceEnd(db: Db, filter: JobFilter, before: string | null): Promise<string | null> {
  const query = within(db, filter.ownerId, before, null).select("id").orderBy("id", "desc");
  const row = await query
    .offset(SLICE_ROWS - 1)
    .limit(1)
    .executeTakeFirst();
  return row?.id ?? null;
}

function rowsBetween(
  db: Db,
  filter: JobFilter,
  before: string | null,
  last: string | null,
  limit: number,
): Promise<JobRow[]> {
  let query = within(db, filter.ownerId, before, last).selectAll();
  // An expression keeps the database from the index of states, in which ids have no order.
  for (const name of ["state", "kind", "queue"] as const) {
    const wanted = filter[name];
    if (wanted !== null) query = query.where(({ eb, fn }) => eb(fn.coalesce(name, name), "=", wanted));
  }
  return query.orderBy("id", "desc").limit(limit).execute();
}

/** Jobs of an owner, or all, older than `before`, not older than `last`. */
function within(db: Db, ownerId: number | null, before: string | null, last: string | null) {
  let query = db.selectFrom("job");
  if (ownerId !== null) query = query.where("owner_id", "=", ownerId);
  if (before !== null) query = query.where("id", "<", before);
  if (last !== null) query = query.where("id", ">=", last);
  return query;
}
