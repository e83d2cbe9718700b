// One run of a job on this node: its handler, its signal, its time.

import { AppError, causeTextOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { ClaimedJob } from "./job-claim-units.ts";
import type { EndedRun } from "./job-finish-units.ts";
import { JobFailure, type JobHandler } from "./job-kinds.ts";

/** A handler that does not heed its signal is given up after this long; what it still does is its own affair. */
export const ABORT_GRACE_MS = 500;
/** The store has no room or no time: how long a job waits then, and is not to blame. */
const STORE_AWAY_MS = 5_000;

/** `lost`: somebody else has the job now. */
type Reason = "timeout" | "cancelled" | "lost" | "stopping";

export class JobRun {
  readonly job: ClaimedJob;
  readonly #timeoutMs: number;
  readonly #log: Log;
  readonly #controller = new AbortController();
  readonly #givenUp = Promise.withResolvers<never>();
  #reason: Reason | null = null;
  #progress = 0;
  #toldProgress = 0;

  constructor(job: ClaimedJob, timeoutMs: number, log: Log) {
    this.job = job;
    this.#timeoutMs = timeoutMs;
    this.#log = log;
    this.#givenUp.promise.catch(() => undefined);
  }

  /** Never rejects, whatever the handler does. */
  async end(handler: JobHandler, nowMs: () => number): Promise<EndedRun> {
    const { id, fence, ownerId, payload, attempt } = this.job;
    const { signal } = this.#controller;
    const timer = setTimeout(() => this.abort("timeout"), this.#timeoutMs);
    try {
      const progress = (percent: number) => this.#note(percent);
      const running = { id, ownerId, payload: JSON.parse(payload), attempt, fence, signal, progress };
      const report = await Promise.race([Promise.try(handler, running), this.#givenUp.promise]);
      return { id, fence, end: "done", report: plain(report) };
    } catch (error) {
      return { id, fence, ...this.#failure(error, nowMs()) };
    } finally {
      clearTimeout(timer);
    }
  }

  /** The first reason counts. */
  abort(reason: Reason): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.#controller.abort(new Error(REASONS[reason]));
    setTimeout(() => this.#givenUp.reject(new Error(REASONS[reason])), ABORT_GRACE_MS).unref();
  }

  /** What it has become since it was last told; null when nothing has changed. */
  get untoldProgress(): number | null {
    return this.#progress === this.#toldProgress ? null : this.#progress;
  }

  /** It is stored that the job has come to `percent`. */
  noteTold(percent: number): void {
    this.#toldProgress = percent;
  }

  #note(percent: number): void {
    if (Number.isFinite(percent)) this.#progress = Math.max(0, Math.min(100, Math.floor(percent)));
  }

  #failure(error: unknown, nowMs: number): Omit<EndedRun, "id" | "fence"> {
    if (this.#reason === "stopping") return { end: "released", runAtMs: nowMs };
    if (this.#reason === "cancelled") return { end: "cancelled" };
    // Whatever it says, the job is another's.
    if (this.#reason === "lost") return { end: "failed", error: REASONS.lost };
    if (this.#reason === "timeout") return { end: "failed", error: `timed out after ${this.#timeoutMs} ms` };
    if (isStoreAway(error)) return { end: "released", runAtMs: nowMs + STORE_AWAY_MS };
    if (!(error instanceof JobFailure)) return { end: "failed", error: this.#shown(error) };
    const { message, isFatal } = error;
    try {
      return { end: "failed", error: message, report: plain(error.report), isFatal };
    } catch (uncloneable) {
      return { end: "failed", error: this.#shown(uncloneable), isFatal };
    }
  }

  #shown(thrown: unknown): string {
    if (!isMeantForClients(thrown) || thrown.status >= 500) {
      this.#log.error("a job has met a defect", { id: this.job.id, kind: this.job.kind, cause: causeTextOf(thrown) });
    }
    return shownText(thrown);
  }
}

/** A report crosses a thread border: what cannot is noticed here, where only its own job is harmed. */
function plain(report: unknown): unknown {
  return typeof report === "object" || typeof report === "function" ? structuredClone(report) : report;
}

const REASONS: Readonly<Record<Reason, string>> = {
  timeout: "the job has taken too long",
  cancelled: "the job was cancelled",
  lost: "the job was taken over",
  stopping: "the server is stopping",
};

const AWAY: ReadonlySet<string> = new Set(["storage_full", "busy", "overloaded", "draining", "unavailable"]);

/** Surely nothing was stored, and it is not the fault of what was to be stored. */
export function isStoreAway(error: unknown): boolean {
  return error instanceof AppError && AWAY.has(error.code);
}

const DEFECT = "the server failed; its log says more";

/** What the owner of a job is told: an error with a code of its own, never one of the engine or of the program. */
export function shownText(thrown: unknown): string {
  return isMeantForClients(thrown) ? thrown.message : DEFECT;
}

function isMeantForClients(thrown: unknown): thrown is AppError {
  return thrown instanceof AppError && thrown.code !== "internal_error";
}
