// The runs of a node: which jobs it holds, and what it has room for.

import type { QueueName } from "../shared/setting-parsers.ts";
import { JOB_PRIORITY } from "./job-base-units.ts";
import type { Claim, QueueClaim } from "./job-claim-units.ts";
import type { EndedRun } from "./job-finish-units.ts";
import type { Heartbeat } from "./job-lease-units.ts";
import type { JobRun } from "./job-run.ts";

/** A job may be here twice, if it was lost and claimed again: its fences differ. */
interface Named {
  readonly id: string;
  readonly fence: number;
}

export class JobRuns {
  readonly #slots: Readonly<Record<QueueName, number>>;
  readonly #runs = new Map<string, JobRun>();

  constructor(slots: Readonly<Record<QueueName, number>>) {
    this.#slots = slots;
  }

  get size(): number {
    return this.#runs.size;
  }

  add(run: JobRun): void {
    this.#runs.set(keyOf(run.job), run);
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

  /** What is free of each of `queues` when `ending` are gone, and who runs then. */
  room(
    queues: readonly QueueName[],
    ending: readonly EndedRun[] = [],
  ): Pick<Claim, "busyGroups"> & { readonly queues: readonly (QueueClaim & { readonly queue: QueueName })[] } {
    const gone = new Set(ending.map(keyOf));
    const taken: Record<string, number> = Object.create(null);
    const busyGroups: Record<string, number> = Object.create(null);
    const busyOwners: Record<string, Record<string, number>> = Object.create(null);
    const yielding: Record<string, number> = Object.create(null);
    for (const [key, { job }] of this.#runs) {
      if (gone.has(key)) continue;
      taken[job.queue] = (taken[job.queue] ?? 0) + 1;
      if (job.priority > JOB_PRIORITY.usual) yielding[job.queue] = (yielding[job.queue] ?? 0) + 1;
      if (job.groupKey !== null) busyGroups[job.groupKey] = (busyGroups[job.groupKey] ?? 0) + 1;
      if (job.ownerId === null) continue;
      busyOwners[job.queue] ??= Object.create(null) as Record<string, number>;
      const owners = busyOwners[job.queue]!;
      owners[job.ownerId] = (owners[job.ownerId] ?? 0) + 1;
    }
    const free = queues.map((queue) => ({
      queue,
      slots: this.#slots[queue] - (taken[queue] ?? 0),
      owners: { max: ownerMax(this.#slots[queue]), busy: busyOwners[queue] ?? {} },
      yieldingSlots: Math.max(0, yieldingMax(this.#slots[queue]) - (yielding[queue] ?? 0)),
    }));
    return { queues: free.filter(({ slots }) => slots > 0), busyGroups };
  }

  /** For the next heartbeat; progress is told once. */
  takeNews(): Heartbeat["runs"] {
    return [...this.#runs.values()].map((run) => {
      const { id, fence } = run.job;
      return { id, fence, progress: run.takeProgress() };
    });
  }
}

/** Half of the slots; of one or two all. */
function ownerMax(slots: number): number {
  return slots <= 2 ? slots : Math.ceil(slots / 2);
}

/** One is left to the others wherever there are two. */
function yieldingMax(slots: number): number {
  return Math.max(1, Math.floor(slots / 2));
}

function keyOf({ id, fence }: Named): string {
  return `${id} ${fence}`;
}
