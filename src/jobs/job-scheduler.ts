// Fires schedules: one job per time, whichever node is first; after a pause of the server, one for all it has missed.

import type { Clock } from "../shared/clock.ts";
import { AppError, messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { UnitRunner } from "../storage/unit-of-work.ts";
import { dueFireMs, nextFireMs, type Schedule } from "./job-schedules.ts";
import type { JobStore } from "./job-store.ts";
import type { JobUnits } from "./job-units.ts";

interface SchedulerParts {
  readonly store: UnitRunner<JobUnits>;
  readonly jobs: JobStore;
  readonly schedules: readonly Schedule[];
  /** How often the clock is looked at: a timer would not notice that it was set. */
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** A job was enqueued. */
  onFired(): void;
}

/** Times in ms since 1970. */
interface ScheduleState {
  readonly name: string;
  readonly expression: string;
  readonly lastFireMs: number | null;
  readonly nextFireMs: number | null;
}

export class JobScheduler {
  readonly #parts: SchedulerParts;
  /** The time after which a schedule counts: its last one, or when it was planned. */
  readonly #since = new Map<string, number>();
  #timer: Timer | null = null;
  #isFiring = false;

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
  }

  /** Throws what the store throws. */
  async start(): Promise<void> {
    const { store, jobs, schedules, clock, pollMs } = this.#parts;
    const known = new Map((await jobs.schedules()).map((row) => [row.name, row.expression]));
    const changed = schedules.filter(({ name, expression }) => known.get(name) !== expression);
    if (changed.length > 0) {
      const plain = changed.map(({ name, expression }) => ({ name, expression }));
      await store.run("jobs.plan", { schedules: plain, nowMs: clock() });
    }
    await this.#readTimes();
    this.#timer = setInterval(() => void this.#tick(), pollMs);
    await this.#tick();
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  async list(): Promise<ScheduleState[]> {
    const rows = new Map((await this.#parts.jobs.schedules()).map((row) => [row.name, row.last_fire_ms]));
    const nowMs = this.#parts.clock();
    return this.#parts.schedules.map(({ name, expression }) => {
      const lastFireMs = rows.get(name) ?? 0;
      return {
        name,
        expression,
        lastFireMs: lastFireMs > 0 ? lastFireMs : null,
        nextFireMs: nextFireMs(expression, nowMs),
      };
    });
  }

  /** Out of turn, at once. The id of the job. @throws AppError not_found */
  async fireNow(name: string): Promise<string> {
    const schedule = this.#parts.schedules.find((one) => one.name === name);
    if (schedule === undefined) throw new AppError("not_found", "schedule not found");
    return (await this.#fire(schedule, null))!;
  }

  async #tick(): Promise<void> {
    if (this.#isFiring) return;
    this.#isFiring = true;
    try {
      const nowMs = this.#parts.clock();
      for (const schedule of this.#parts.schedules) {
        const { name, expression } = schedule;
        const atMs = dueFireMs(expression, this.#sinceUntil(name, nowMs), nowMs);
        if (atMs === null) continue;
        await this.#fire(schedule, atMs);
        this.#since.set(name, atMs);
      }
    } catch (error) {
      // The next look at the clock finds it due again.
      this.#parts.log.warn("a schedule could not be fired", { cause: messageOf(error) });
    } finally {
      this.#isFiring = false;
    }
  }

  /** A time that is ahead was noted by a clock that was: the schedule would wait for it, for years perhaps. */
  #sinceUntil(name: string, nowMs: number): number {
    const sinceMs = this.#since.get(name)!;
    if (sinceMs <= nowMs) return sinceMs;
    this.#parts.log.warn("the last time of a schedule is ahead of the clock; it counts from now on", { name });
    this.#since.set(name, nowMs);
    return nowMs;
  }

  async #fire({ name, kind }: Schedule, atMs: number | null): Promise<string | null> {
    const { store, clock, onFired } = this.#parts;
    const id = await store.run("jobs.fireSchedule", { name, kind, atMs, nowMs: clock() });
    if (id !== null) onFired();
    return id;
  }

  async #readTimes(): Promise<void> {
    for (const row of await this.#parts.jobs.schedules()) this.#since.set(row.name, Math.abs(row.last_fire_ms));
  }
}
