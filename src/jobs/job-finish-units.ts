// Ends runs of jobs: several in one transaction, each only by who holds its latest fence, each with the changes in the
// database that its kind makes at its end.

import type { Kysely } from "kysely";
import { AppError } from "../shared/errors.ts";
import type { UnitOfWork } from "../storage/unit-of-work.ts";
import { CANCELLED, jobTables } from "./job-base-units.ts";
import type { JobKind, JobOutcome, Requeued, Settlement } from "./job-kinds.ts";
import { retryDelayMs } from "./job-retry.ts";
import type { JobRow, JobTables } from "./job-tables.ts";

/**
 * What happens in the database when a run of a kind has ended, in the same transaction. It returns plain data for
 * whoever works the pool.
 */
type Settle = (work: UnitOfWork, settlement: Settlement) => Promise<unknown>;

/** Takes back what the settlement of an ended job has changed, when it is to run once more; in the same transaction. */
interface Requeue {
  /** Changes nothing. @throws AppError when the job must not run again */
  require(work: UnitOfWork, job: Requeued): Promise<void>;
  /** The job is ready by now. */
  settle(work: UnitOfWork, job: Requeued): Promise<void>;
}

/** What the units know of the kinds of jobs that there are. */
export interface JobRules {
  readonly kinds: Readonly<Record<string, JobKind>>;
  /** By kind; many have nothing to settle. */
  readonly settlements: Readonly<Record<string, Settle>>;
  /** By kind; many have nothing to take back. */
  readonly requeues: Readonly<Record<string, Requeue>>;
}

export interface EndedRun {
  readonly id: string;
  readonly fence: number;
  /**
   * `done`, `failed`: as its handler said. `cancelled`: it was stopped because somebody asked for that. `expired`:
   * nobody has kept up its lease, which is a failure. `released`: it goes back as if it had not been claimed.
   */
  readonly end: "done" | "failed" | "cancelled" | "expired" | "released";
  /** Plain data for the settlement. */
  readonly report?: unknown;
  readonly error?: string;
  /** No use to try again. */
  readonly isFatal?: boolean;
  /** When a released one may be claimed again. */
  readonly runAtMs?: number;
  /** Its settlement fails: the state is all that can be kept. */
  readonly skipsSettlement?: boolean;
}

export interface SettledRun {
  readonly id: string;
  readonly fence: number;
  /** Empty for a job that is gone. */
  readonly kind: string;
  readonly isExpired: boolean;
  /** `discarded`: somebody else has the job, or has ended it. */
  readonly outcome: JobOutcome | "released" | "discarded";
}

export interface Settled {
  readonly runs: readonly SettledRun[];
  /** What the settlements returned. */
  readonly results: readonly unknown[];
}

type Row = Pick<
  JobRow,
  | "id"
  | "kind"
  | "owner_id"
  | "payload"
  | "attempts"
  | "max_attempts"
  | "fence"
  | "cancel_requested"
  | "last_error"
  | "locked_until_ms"
>;
type Change = Partial<JobRow>;

const UNKNOWN_BACKOFF = { baseMs: 60_000, factor: 2, capMs: 3_600_000 };
const ERROR_CHARACTERS_MAX = 500;

/** Throws what a settlement throws, and AppError conflict: none of the runs has ended then. */
export async function finishRuns(
  rules: JobRules,
  work: UnitOfWork,
  { runs, nowMs }: { readonly runs: readonly EndedRun[]; readonly nowMs: number },
): Promise<Settled> {
  const db = jobTables(work);
  const rows = await runningRows(db, runs);
  const held = (run: EndedRun): Row | undefined => {
    const row = rows.get(run.id);
    const isHeld = row?.fence === run.fence && (run.end !== "expired" || (row.locked_until_ms ?? 0) < nowMs);
    return isHeld ? row : undefined;
  };
  await endDone(
    db,
    runs.filter((run) => run.end === "done" && held(run) !== undefined),
    nowMs,
  );
  const settled: SettledRun[] = [];
  const results: unknown[] = [];
  for (const run of runs) {
    const { id, fence } = run;
    const row = held(run);
    const end = row === undefined ? null : endOf(rules, run, row, nowMs);
    const isExpired = end !== null && run.end === "expired";
    settled.push({ id, fence, kind: row?.kind ?? "", isExpired, outcome: end?.outcome ?? "discarded" });
    if (row === undefined || end === null) continue;
    if (end.change !== null) await endOne(db, run, end.change);
    const settle = run.skipsSettlement || end.outcome === "released" ? undefined : rules.settlements[row.kind];
    if (settle === undefined) continue;
    results.push(await settle(work, settlementOf(row, end.outcome as JobOutcome, run)));
  }
  return { runs: settled, results };
}

async function runningRows(db: Kysely<JobTables>, runs: readonly EndedRun[]): Promise<ReadonlyMap<string, Row>> {
  const rows = await db
    .selectFrom("job")
    .select(["id", "kind", "owner_id", "payload", "attempts", "max_attempts", "fence", "cancel_requested"])
    .select(["last_error", "locked_until_ms"])
    .where("state", "=", "running")
    .where(
      "id",
      "in",
      runs.map(({ id }) => id),
    )
    .execute();
  return new Map(rows.map((row) => [row.id, row]));
}

const UNLOCKED = { locked_by: null, locked_until_ms: null } as const;

/** Most end so: one statement for those with the same fence. */
async function endDone(db: Kysely<JobTables>, runs: readonly EndedRun[], nowMs: number): Promise<void> {
  for (const [fence, same] of Map.groupBy(runs, (run) => run.fence)) {
    const ids = same.map(({ id }) => id);
    const { numUpdatedRows } = await db
      .updateTable("job")
      .set({ ...UNLOCKED, state: "done", finished_at_ms: nowMs, progress: 100, last_error: null })
      .where("id", "in", ids)
      .where("fence", "=", fence)
      .where("state", "=", "running")
      .executeTakeFirst();
    if (Number(numUpdatedRows) !== ids.length) throw lost();
  }
}

async function endOne(db: Kysely<JobTables>, { id, fence }: EndedRun, change: Change): Promise<void> {
  const { numUpdatedRows } = await db
    .updateTable("job")
    .set({ ...UNLOCKED, ...change })
    .where("id", "=", id)
    .where("fence", "=", fence)
    .where("state", "=", "running")
    .executeTakeFirst();
  if (numUpdatedRows !== 1n) throw lost();
}

/** Another node was quicker, between the reading and the change; on one node nothing is between them. */
function lost(): AppError {
  return new AppError("conflict", "A job was taken over meanwhile.");
}

/** `change` is null for what endDone has written. */
function endOf(
  { kinds }: JobRules,
  run: EndedRun,
  row: Row,
  nowMs: number,
): { outcome: JobOutcome | "released"; change: Change | null } {
  if (run.end === "done") return { outcome: "done", change: null };
  if (run.end === "cancelled" || row.cancel_requested === 1) {
    const change: Change = { state: "cancelled", cancel_requested: 1, finished_at_ms: nowMs, dedup_key: null };
    return { outcome: "cancelled", change: { ...change, last_error: row.last_error ?? CANCELLED } };
  }
  if (run.end === "released") {
    const change: Change = { state: "ready", attempts: row.attempts - 1, run_at_ms: run.runAtMs ?? nowMs };
    return { outcome: "released", change };
  }
  const last_error = errorOf(run);
  if (run.isFatal || row.attempts >= row.max_attempts) {
    return { outcome: "dead", change: { state: "dead", last_error, finished_at_ms: nowMs } };
  }
  const backoff = kinds[row.kind]?.backoff ?? UNKNOWN_BACKOFF;
  const run_at_ms = nowMs + retryDelayMs(backoff, row.attempts, Math.random());
  return { outcome: "retry", change: { state: "ready", last_error, run_at_ms } };
}

function errorOf({ end, error }: EndedRun): string | null {
  return end === "expired" ? "lease expired" : (error?.slice(0, ERROR_CHARACTERS_MAX) ?? null);
}

function settlementOf(row: Row, outcome: JobOutcome, run: EndedRun): Settlement {
  return {
    jobId: row.id,
    ownerId: row.owner_id,
    payload: JSON.parse(row.payload),
    attempt: row.attempts,
    outcome,
    report: run.report ?? null,
    error: errorOf(run),
  };
}
