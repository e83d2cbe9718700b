// The runs of a node: which jobs it holds, and what it has room for.

import type { QueueName } from "../shared/setting-parsers.ts";
import { JOB_PRIORITY } from "./job-base-units.ts";
import type { Claim, ClaimedJob, QueueClaim } from "./job-claim-units.ts";
import type { EndedRun } from "./job-finish-units.ts";
import type { Heartbeat } from "./job-lease-units.ts";
import type { JobRun } from "./job-run.ts";
import { OwnerTurns } from "./owner-turns.ts";

/** A job may be here twice, if it was lost and claimed again: its fences differ. */
interface Named {
  readonly id: string;
  readonly fence: number;
}

export class JobRuns {
  readonly #slots: Readonly<Record<QueueName, number>>;
  readonly #runs = new Map<string, JobRun>();
  readonly #turns = new OwnerTurns();

  constructor(slots: Readonly<Record<QueueName, number>>) {
    this.#slots = slots;
  }

  get size(): number {
    return this.#runs.size;
  }

  /** In the order in which they were claimed. */
  add(run: JobRun): void {
    this.#runs.set(keyOf(run.job), run);
    this.#turns.note(run.job);
  }

  remove(named: Named): void {
    this.#runs.delete(keyOf(named));
  }

  find(named: Named): JobRun | undefined {
    return this.#runs.get(keyOf(named));
  }

  all(): Iterable<JobRun> {
    return this.#runs.values();
  }

  /** What is free of each of `queues` when `ending` are gone, who runs then, and whose turn it was. */
  room(
    queues: readonly QueueName[],
    ending: readonly EndedRun[] = [],
  ): Pick<Claim, "busyGroups"> & { readonly queues: readonly (QueueClaim & { readonly queue: QueueName })[] } {
    const gone = new Set(ending.map(keyOf));
    const here = [...this.#runs].filter(([key]) => !gone.has(key)).map(([, { job }]) => job);
    const busyGroups = countBy(here, ({ groupKey }) => groupKey);
    const free = queues.map((queue) => {
      const jobs = here.filter((job) => job.queue === queue);
      const late = jobs.filter(({ priority }) => priority > JOB_PRIORITY.usual);
      const slots = this.#slots[queue];
      const lateSlots = yieldingMax(slots);
      return {
        queue,
        slots: slots - jobs.length,
        turns: this.#turns.of(queue),
        owners: { max: ownerMax(slots), busy: countBy(jobs, ({ ownerId }) => ownerId) },
        yielding: {
          slots: Math.max(0, lateSlots - late.length),
          owners: { max: ownerMax(lateSlots), busy: countBy(late, ({ ownerId }) => ownerId) },
        },
      };
    });
    return { queues: free.filter(({ slots }) => slots > 0), busyGroups };
  }

  /** For the next heartbeat. */
  news(): Heartbeat["runs"] {
    return [...this.#runs.values()].map((run) => {
      const { id, fence } = run.job;
      return { id, fence, progress: run.untoldProgress };
    });
  }

  /** A heartbeat has stored the progress that it told. */
  noteTold(told: Heartbeat["runs"]): void {
    for (const run of told) if (run.progress !== null) this.find(run)?.noteTold(run.progress);
  }
}

/** So few that two of them leave some to the others; of one or two slots all. */
function ownerMax(slots: number): number {
  return slots <= 2 ? slots : Math.floor((slots - 1) / 2);
}

/** The others are kept for usual jobs, which wait for nobody: one at least wherever there are two. */
function yieldingMax(slots: number): number {
  return Math.max(1, Math.floor((3 * slots) / 4));
}

function countBy(jobs: readonly ClaimedJob[], of: (job: ClaimedJob) => string | number | null): Record<string, number> {
  const counts: Record<string, number> = Object.create(null);
  for (const job of jobs) {
    const key = of(job);
    if (key !== null) counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

function keyOf({ id, fence }: Named): string {
  return `${id} ${fence}`;
}
