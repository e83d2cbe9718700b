// The job queue of a node: its workers, its schedules, and what people may do with jobs.

import type { Metrics } from "../http/metrics.ts";
import type { Clock } from "../shared/clock.ts";
import type { Log } from "../shared/log.ts";
import type { QueueName } from "../shared/setting-parsers.ts";
import type { Settings } from "../shared/settings.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import type { Settled } from "./job-finish-units.ts";
import { byKind, type JobHandler, type JobKind } from "./job-kinds.ts";
import type { EndedAt } from "./job-management-units.ts";
import { JobMetrics } from "./job-metrics.ts";
import { createPurge, PURGE_KIND, PURGE_SCHEDULE } from "./job-purge.ts";
import { JobScheduler } from "./job-scheduler.ts";
import type { Schedule } from "./job-schedules.ts";
import { JobStore, type QueueFigures } from "./job-store.ts";
import type { JobRow } from "./job-tables.ts";
import type { JobUnits } from "./job-units.ts";
import { WorkerPool } from "./worker-pool.ts";

interface JobServiceParts {
  readonly settings: Settings;
  readonly store: TableStore<JobUnits>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  readonly kinds: readonly JobKind[];
  /** By kind. */
  readonly handlers: Readonly<Record<string, JobHandler>>;
  readonly schedules: readonly Schedule[];
  /** What settlements returned, after their commit. */
  onSettled(results: readonly unknown[]): void;
}

export class JobService {
  readonly rows: JobStore;
  readonly pool: WorkerPool;
  readonly scheduler: JobScheduler;
  readonly queues: readonly QueueName[];
  readonly kinds: readonly string[];
  readonly #parts: JobServiceParts;
  readonly #metrics: JobMetrics;

  private constructor(parts: JobServiceParts) {
    const { settings, store, clock, log, handlers, schedules } = parts;
    this.#parts = parts;
    this.rows = new JobStore(store);
    this.kinds = [...parts.kinds, PURGE_KIND].map(({ kind }) => kind);
    this.queues = Object.keys(settings.jobsConcurrency) as QueueName[];
    const metrics = new JobMetrics(() => this.figures(null));
    this.#metrics = metrics;
    const keep = { keepDoneMs: settings.jobsKeepDoneMs, keepDeadMs: settings.jobsKeepDeadMs };
    this.pool = new WorkerPool({
      store,
      jobs: this.rows,
      clock,
      log,
      kinds: byKind([...parts.kinds, PURGE_KIND]),
      slots: settings.jobsConcurrency,
      leaseMs: settings.jobsLeaseMs,
      pollMs: settings.jobsPollMs,
      handlers: { ...handlers, [PURGE_KIND.kind]: createPurge(store, clock, keep) },
      onSettled({ runs, results }: Settled) {
        for (const run of runs) metrics.count(run);
        parts.onSettled(results);
      },
    });
    this.scheduler = new JobScheduler({
      store,
      jobs: this.rows,
      schedules: [...schedules, PURGE_SCHEDULE],
      pollMs: settings.jobsPollMs,
      clock,
      log,
      onFired: () => this.pool.wake(),
    });
  }

  /** Throws what the store throws. */
  static async open(parts: JobServiceParts): Promise<JobService> {
    const service = new JobService(parts);
    await service.scheduler.start();
    // Registered for good, so behind all that may fail: the opening is tried again then.
    service.#metrics.registerIn(parts.metrics.registry);
    service.pool.start();
    return service;
  }

  /** Of a dead or cancelled job. `ownerId` null: whoever owns it. @throws AppError as retryJob */
  async retry(id: string, ownerId: number | null): Promise<JobRow> {
    const { store, clock } = this.#parts;
    const job = await store.run("jobs.retry", { id, ownerId, nowMs: clock() });
    this.pool.wake();
    return job;
  }

  /** Of a ready or running job; elsewhere it is heard of later. @throws AppError not_found, state_conflict */
  async cancel(id: string, ownerId: number | null): Promise<JobRow> {
    const { store, clock, onSettled } = this.#parts;
    const { job, result } = await store.run("jobs.cancel", { id, ownerId, nowMs: clock() });
    if (result !== null) onSettled([result]);
    this.pool.cancel(id);
    return job;
  }

  /** All dead ones of a kind but for those that it refuses; how many. */
  async retryDead(kind: string): Promise<number> {
    const { store, clock } = this.#parts;
    const nowMs = clock();
    let retried = 0;
    let after: EndedAt | null = null;
    do {
      const slice: { retried: number; last: EndedAt | null } = await store.run("jobs.retryDead", {
        kind,
        nowMs,
        after,
      });
      this.pool.wake();
      retried += slice.retried;
      after = slice.last;
    } while (after !== null);
    return retried;
  }

  /** What runs goes on. */
  async pauseQueue(name: QueueName, isPaused: boolean): Promise<void> {
    await this.#parts.store.run("jobs.pauseQueue", { name, isPaused });
    if (!isPaused) this.pool.wake();
  }

  /** See JobStore.figures. */
  async figures(signal: AbortSignal | null): Promise<Map<QueueName, QueueFigures>> {
    const figures = new Map<QueueName, QueueFigures>();
    for (const queue of this.queues) figures.set(queue, await this.rows.figures(queue, this.#parts.clock(), signal));
    return figures;
  }

  /** See WorkerPool.stop. */
  async stop(timeoutMs: number): Promise<void> {
    this.scheduler.stop();
    await this.pool.stop(timeoutMs);
  }
}
