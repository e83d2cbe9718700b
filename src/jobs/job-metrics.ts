// The figures of the job queue. Labels hold queues, kinds and fixed words only.

import { Counter, Gauge, type Registry } from "prom-client";
import type { SettledRun } from "./job-finish-units.ts";
import type { QueueFigures } from "./job-store.ts";

export class JobMetrics {
  readonly #finished: Counter<"kind" | "outcome">;
  readonly #discarded: Counter;
  readonly #expired: Counter;
  readonly #jobs: Gauge<"queue" | "state">;

  /** `figures` by queue; asked when somebody looks. */
  constructor(figures: () => Promise<ReadonlyMap<string, QueueFigures>>) {
    const registers: Registry[] = [];
    this.#finished = new Counter({
      name: "gokv_jobs_finished_total",
      help: "Runs of jobs on this node, by how they ended.",
      labelNames: ["kind", "outcome"],
      registers,
    });
    this.#discarded = new Counter({
      name: "gokv_jobs_discarded_total",
      help: "Runs that ended after somebody else had taken over.",
      registers,
    });
    this.#expired = new Counter({
      name: "gokv_jobs_lease_expired_total",
      help: "Runs of other nodes whose lease ended without a word.",
      registers,
    });
    this.#jobs = new Gauge({
      name: "gokv_jobs",
      help: "Jobs of the store that wait and are due, or run.",
      labelNames: ["queue", "state"],
      registers,
      async collect() {
        for (const [queue, { depth, running }] of await figures()) {
          this.set({ queue, state: "ready" }, depth);
          this.set({ queue, state: "running" }, running);
        }
      },
    });
  }

  /** Once for a registry: a name that it knows is refused. */
  registerIn(registry: Registry): void {
    registry.registerMetric(this.#finished);
    registry.registerMetric(this.#discarded);
    registry.registerMetric(this.#expired);
    registry.registerMetric(this.#jobs);
  }

  count({ kind, outcome, isExpired }: SettledRun): void {
    if (outcome === "discarded") this.#discarded.inc();
    else this.#finished.inc({ kind, outcome });
    if (isExpired) this.#expired.inc();
  }
}
