// What a service says of each kind of job it has: where it queues, how often it is tried, who does it.

import type { QueueName } from "../shared/setting-parsers.ts";

/** Plain data: units enqueue by it, workers run by it. */
export interface JobKind {
  /** `service.verb`. */
  readonly kind: string;
  readonly queue: QueueName;
  readonly maxAttempts: number;
  /** The n-th failure waits between half and all of min(capMs, baseMs * factor^(n-1)). */
  readonly backoff: { readonly baseMs: number; readonly factor: number; readonly capMs: number };
  readonly timeoutMs: number;
}

/** What a handler is given. */
export interface RunningJob {
  readonly id: string;
  readonly ownerId: number | null;
  readonly payload: unknown;
  /** From 1. */
  readonly attempt: number;
  readonly fence: number;
  /** Aborts on timeout, cancellation, loss of the lease, and when the node stops. */
  readonly signal: AbortSignal;
  /** 0 to 100; told to the store with the next heartbeat. */
  progress(percent: number): void;
}

/**
 * Does what a job is about outside the database, and returns a report for the settlement (plain data, or nothing). It
 * may run more than once. What has to change in the database is the settlement's, in the transaction that ends the job.
 */
export type JobHandler = (job: RunningJob) => Promise<unknown>;

/** Thrown by a handler to say more of a failure than its message. */
export class JobFailure extends Error {
  override readonly name = "JobFailure";
  readonly report: unknown;
  /** No use to try again. */
  readonly isFatal: boolean;

  constructor(message: string, options: { report?: unknown; isFatal?: boolean; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.report = options.report ?? null;
    this.isFatal = options.isFatal ?? false;
  }
}

/** How a run of a job ended. `retry`: it will run again. */
export type JobOutcome = "done" | "retry" | "dead" | "cancelled";

/** What a settlement is given, inside the transaction that ends the run. */
export interface Settlement {
  readonly jobId: string;
  readonly ownerId: number | null;
  readonly payload: unknown;
  readonly attempt: number;
  readonly outcome: JobOutcome;
  /** Of the handler; null when it gave none, or never came to it. */
  readonly report: unknown;
  readonly error: string | null;
}

/** A job that has ended and is to run once more, as its kind is told inside the transaction that makes it ready. */
export interface Requeued {
  readonly jobId: string;
  readonly payload: unknown;
  readonly nowMs: number;
}

export function byKind(kinds: readonly JobKind[]): Readonly<Record<string, JobKind>> {
  return Object.fromEntries(kinds.map((kind) => [kind.kind, kind]));
}
