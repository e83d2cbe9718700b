// Runs jobs on this node: as many of each queue as it has slots, each until it has ended in the store.

import type { Clock } from "../shared/clock.ts";
import { causeTextOf } from "../shared/errors.ts";
import { every } from "../shared/every.ts";
import type { Log } from "../shared/log.ts";
import type { QueueName } from "../shared/setting-parsers.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import type { Claim, ClaimedJob } from "./job-claim-units.ts";
import type { EndedRun, Settled } from "./job-finish-units.ts";
import { JobFinisher } from "./job-finisher.ts";
import { JobFailure, type JobHandler, type JobKind } from "./job-kinds.ts";
import { ABORT_GRACE_MS, isStoreAway, JobRun } from "./job-run.ts";
import { JobRuns } from "./job-runs.ts";
import type { JobStore } from "./job-store.ts";
import type { JobUnits } from "./job-units.ts";

export interface PoolParts {
  readonly store: UnitRunner<JobUnits>;
  readonly jobs: JobStore;
  readonly kinds: Readonly<Record<string, JobKind>>;
  /** By kind. */
  readonly handlers: Readonly<Record<string, JobHandler>>;
  /** Jobs of each queue that run at once. */
  readonly slots: Readonly<Record<QueueName, number>>;
  readonly leaseMs: number;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** After a commit: how runs have ended, and what their settlements returned. */
  onSettled(settled: Settled): void;
}

/** Wakes that find nothing come at most this often: most new jobs are for later. */
const WAKE_PAUSE_MS = 20;
/** How long a store without room is left alone by all but the system queue. */
const AWAY_PAUSE_MS = 1_000;
/** How long after a claim that met a defect: it is told each time, and most of them stay. */
const DEFECT_PAUSE_MS = 1_000;
/** After the grace of the handlers: for the commit of what they have left. */
const LAST_COMMIT_MS = 2_000;
const EXPIRED_AT_ONCE = 100;
const FINISHED_AT_ONCE = 500;
const UNKNOWN_TIMEOUT_MS = 60_000;

export class WorkerPool {
  readonly #parts: PoolParts;
  readonly #finisher: JobFinisher;
  readonly #node = Bun.randomUUIDv7();
  /** Until their end is stored. */
  readonly #runs: JobRuns;
  readonly #idle = Promise.withResolvers<void>();
  #ended: EndedRun[] = [];
  #timers: Timer[] = [];
  #isTurning = false;
  #isWanted = false;
  #isReapDue = false;
  #isStopping = false;
  #awayUntilMs = 0;
  #hurry: () => void = () => undefined;

  constructor(parts: PoolParts) {
    this.#parts = parts;
    this.#finisher = new JobFinisher(parts.store, parts.log);
    this.#runs = new JobRuns(parts.slots);
  }

  /** Jobs that run here. */
  get running(): number {
    return this.#runs.size;
  }

  start(): void {
    const { leaseMs, pollMs, log } = this.#parts;
    this.#timers = [
      every(leaseMs / 3, log, "leases of jobs could not be kept up", () => this.#keepLeases()),
      every(pollMs, log, "the queues of jobs could not be looked at", () => this.#poll()),
      setInterval(() => {
        this.#isReapDue = !this.#isStopping;
        this.#turnSoon();
      }, leaseMs / 2),
    ];
    this.wake();
  }

  /** There may be something to do. */
  wake(): void {
    if (this.#isStopping) return;
    this.#isWanted = true;
    this.#turnSoon();
  }

  /** Somebody wants the end of a job: at once when it runs here, elsewhere with the next heartbeat. */
  cancel(id: string): void {
    for (const run of this.#runs.all()) if (run.job.id === id) run.abort("cancelled");
  }

  /**
   * Claims nothing more. What runs may end until `timeoutMs` have passed; then it is told to stop and goes back as it
   * was. Resolves when nothing runs any more. A second call can only shorten the time.
   */
  async stop(timeoutMs: number): Promise<void> {
    if (this.#isStopping) {
      if (timeoutMs === 0) this.#hurry();
      return this.#idle.promise;
    }
    this.#isStopping = true;
    this.#isWanted = false;
    this.#noteIdle();
    const hurried = new Promise<void>((resolve) => {
      this.#hurry = resolve;
    });
    await Promise.race([this.#idle.promise, hurried, wait(timeoutMs)]);
    for (const run of this.#runs.all()) run.abort("stopping");
    // What cannot be stored in time comes back when its lease ends.
    await Promise.race([this.#idle.promise, wait(ABORT_GRACE_MS + LAST_COMMIT_MS)]);
    for (const timer of this.#timers) clearInterval(timer);
    this.#idle.resolve();
  }

  #turnSoon(): void {
    if (this.#isTurning) return;
    this.#isTurning = true;
    void this.#turn().catch((error: unknown) => {
      this.#isTurning = false;
      this.#parts.log.error("the job pool has met a defect", { cause: causeTextOf(error) });
    });
  }

  /** One trip to the store after the other, while there is something to finish or to claim. */
  async #turn(): Promise<void> {
    while (this.#ended.length > 0 || this.#isWanted || this.#isReapDue) {
      if (this.#isReapDue) await this.#reap();
      // Runs that end in this turn of the event loop travel together.
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#ended.length === 0 && !this.#isWanted) continue;
      const pauseMs = await this.#exchange();
      if (pauseMs > 0) await wait(pauseMs);
    }
    this.#isTurning = false;
    this.#noteIdle();
  }

  /** Returns how long to wait before the next one. */
  async #exchange(): Promise<number> {
    const runs = this.#ended.splice(0, FINISHED_AT_ONCE);
    this.#isWanted = false;
    if (runs.length === 0) return await this.#claimAlone();
    const { claimed, unfinished, ...settled } = await this.#finisher.exchange(runs, this.#claim(runs));
    for (const run of settled.runs) this.#runs.remove(run);
    for (const job of claimed ?? []) void this.#run(job);
    this.#ended.unshift(...unfinished);
    if (settled.runs.length > 0) this.#parts.onSettled(settled);
    const pauseMs = unfinished.length > 0 ? this.#noteAway() : 0;
    if (claimed === null) await this.#claimAlone();
    return pauseMs;
  }

  async #claimAlone(): Promise<number> {
    const claim = this.#claim([]);
    if (claim.queues.length === 0) return 0;
    try {
      const claimed = await this.#parts.store.run("jobs.claim", claim);
      for (const job of claimed) void this.#run(job);
      return claimed.length === 0 ? WAKE_PAUSE_MS : 0;
    } catch (error) {
      // The poll tries again.
      if (isStoreAway(error)) return this.#noteAway();
      this.#parts.log.error("jobs cannot be claimed", { cause: causeTextOf(error) });
      return DEFECT_PAUSE_MS;
    }
  }

  #noteAway(): number {
    this.#awayUntilMs = performance.now() + AWAY_PAUSE_MS;
    return AWAY_PAUSE_MS;
  }

  /** For every slot that is free when `ending` are gone. */
  #claim(ending: readonly EndedRun[]): Claim {
    const { leaseMs, clock } = this.#parts;
    return { node: this.#node, leaseMs, nowMs: clock(), ...this.#runs.room(this.#openQueues(), ending) };
  }

  /** A full store has room for what gives it room again. */
  #openQueues(): QueueName[] {
    if (this.#isStopping) return [];
    const isAway = performance.now() < this.#awayUntilMs;
    const names = Object.keys(this.#parts.slots) as QueueName[];
    return names.filter((queue) => this.#parts.slots[queue] > 0 && (!isAway || queue === "system"));
  }

  async #run(job: ClaimedJob): Promise<void> {
    const { kinds, handlers, clock, log } = this.#parts;
    const run = new JobRun(job, kinds[job.kind]?.timeoutMs ?? UNKNOWN_TIMEOUT_MS, log);
    this.#runs.add(run);
    const isTooLate = this.#isStopping;
    // Claimed in the moment in which the pool was stopped.
    if (isTooLate) run.abort("stopping");
    this.#ended.push(await run.end(isTooLate ? refuse : (handlers[job.kind] ?? refuse), clock));
    this.#turnSoon();
  }

  /** Looks before it asks: a store that has nothing to do is not written to. */
  async #poll(): Promise<void> {
    const { jobs, clock } = this.#parts;
    const free = this.#runs.room(this.#openQueues()).queues.map(({ queue }) => queue);
    if ((await jobs.dueAmong(free, clock())).length > 0) this.wake();
  }

  async #keepLeases(): Promise<void> {
    const { store, leaseMs, clock } = this.#parts;
    if (this.#runs.size === 0) return;
    const beat = { node: this.#node, leaseMs, nowMs: clock(), runs: this.#runs.news() };
    const heard = await store.run("jobs.heartbeat", beat);
    // Not before: what a failed one would have told is told by the next.
    this.#runs.noteTold(beat.runs);
    for (const id of heard.cancelled) this.cancel(id);
    for (const lost of heard.lost) this.#runs.find(lost)?.abort("lost");
  }

  /** Ends runs of nodes that are gone, or stand still. Between two trips: no claim of this node is under way. */
  async #reap(): Promise<void> {
    const { jobs, clock, log } = this.#parts;
    this.#isReapDue = false;
    // Unreadable now: the next time.
    const expired = await jobs.expired(clock(), EXPIRED_AT_ONCE).catch((error: unknown) => {
      log.warn("leases of jobs that are over could not be read", { cause: causeTextOf(error) });
      return [];
    });
    // Some may wait here since the last time, for a store without room.
    const isNew = ({ id }: EndedRun) => this.#ended.every((ended) => ended.id !== id);
    this.#ended.push(...expired.filter((run) => this.#runs.find(run) === undefined && isNew(run)));
  }

  #noteIdle(): void {
    if (this.#isStopping && this.#runs.size === 0 && !this.#isTurning) this.#idle.resolve();
  }
}

/** Of a kind that perhaps a newer version knows. */
async function refuse(): Promise<never> {
  throw new JobFailure("no handler for this kind of job");
}

/** Nobody waits for it at the end of the process. */
function wait(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
