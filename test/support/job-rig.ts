// A real store with jobs in it, and pools of workers over it, for tests of the queue.

import type { NewJob } from "../../src/jobs/job-base-units.ts";
import { byKind, type JobHandler, type JobKind } from "../../src/jobs/job-kinds.ts";
import { JobStore } from "../../src/jobs/job-store.ts";
import type { JobRow, JobTables } from "../../src/jobs/job-tables.ts";
import { type PoolParts, WorkerPool } from "../../src/jobs/worker-pool.ts";
import type { Log } from "../../src/shared/log.ts";
import type { TableStore } from "../../src/storage/unit-of-work.ts";
import { eventually } from "./eventually.ts";
import type { Environment } from "./executable.ts";
import type { TestUnits } from "./job-units-thread.ts";
import { type OwnStore, openOwnStore } from "./own-store.ts";
import { threadEntry } from "./thread-entries.ts";

const ENDED_MS_MAX = 10_000;

const quiet = () => undefined;
/** What goes wrong here is meant to. */
export const QUIET: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet, fatal: quiet, flush: quiet };

const common = { maxAttempts: 3, backoff: { baseMs: 2, factor: 2, capMs: 10 }, timeoutMs: 5_000 };

export const TEST_KINDS = {
  plain: { kind: "test.plain", queue: "default", ...common },
  /** How it ended is noted in the database. */
  noted: { kind: "test.noted", queue: "default", ...common },
  hook: { kind: "test.hook", queue: "webhook", ...common },
  system: { kind: "test.system", queue: "system", ...common },
  hasty: { kind: "test.hasty", queue: "default", ...common, maxAttempts: 1, timeoutMs: 50 },
  /** A failure of it is seen, since the next attempt is far. */
  patient: { kind: "test.patient", queue: "default", ...common, backoff: { baseMs: 1e7, factor: 2, capMs: 1e9 } },
} as const satisfies Record<string, JobKind>;

export type PoolOptions = Partial<Omit<PoolParts, "store" | "jobs">>;

export class JobRig implements AsyncDisposable {
  readonly store: TableStore<TestUnits>;
  readonly jobs: JobStore;
  readonly #own: OwnStore;
  readonly #pools: WorkerPool[] = [];

  private constructor(own: OwnStore) {
    this.#own = own;
    this.store = own.sqlite;
    this.jobs = new JobStore(own.sqlite);
  }

  static async open(env: Environment = {}): Promise<JobRig> {
    return new JobRig(await openOwnStore(env, threadEntry("jobs")));
  }

  /** Their ids. */
  async enqueue(kind: JobKind, count = 1, fields: Partial<NewJob> = {}): Promise<string[]> {
    const jobs = Array.from({ length: count }, () => ({ kind, payload: {}, ownerId: null, runAtMs: 0, ...fields }));
    return (await this.store.run("test.enqueue", { jobs, isRefused: false })) as string[];
  }

  /** Started, and stopped with the rig. */
  pool(handlers: Readonly<Record<string, JobHandler>>, options: PoolOptions = {}): WorkerPool {
    const pool = new WorkerPool({
      store: this.store,
      jobs: this.jobs,
      kinds: byKind(Object.values(TEST_KINDS)),
      handlers,
      slots: { default: 5, webhook: 8, export: 1, system: 1 },
      leaseMs: 30_000,
      pollMs: 20,
      clock: Date.now,
      log: QUIET,
      onSettled: () => undefined,
      ...options,
    });
    this.#pools.push(pool);
    pool.start();
    return pool;
  }

  async row(id: string): Promise<JobRow> {
    return (await this.jobs.find(id))!;
  }

  /** Once none of them is ready or running. */
  async ended(ids: readonly string[]): Promise<JobRow[]> {
    let rows: JobRow[] = [];
    await eventually("all jobs have ended", ENDED_MS_MAX, async () => {
      rows = await Promise.all(ids.map((id) => this.row(id)));
      return rows.every(({ state }) => state !== "ready" && state !== "running");
    });
    return rows;
  }

  /** Outcomes that the settlement of a job has noted, by attempt. */
  async settledAs(id: string): Promise<string[]> {
    const db = this.store.tables.withTables<JobTables>();
    const noted = db.selectFrom("job_queue").select("name").where("name", "like", `settled ${id} %`);
    return (await noted.orderBy("name").execute()).map(({ name }) => name.split(" ")[3]!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#pools.map((pool) => pool.stop(0)));
    await this.#own[Symbol.asyncDispose]();
  }
}
