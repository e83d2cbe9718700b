// The job queue on a real store: how fast it is drained, what a claim costs, what a job costs the write it comes with.

import { byKind, type JobHandler } from "../../src/jobs/job-kinds.ts";
import { JobStore } from "../../src/jobs/job-store.ts";
import type { JobUnits } from "../../src/jobs/job-units.ts";
import { WorkerPool } from "../../src/jobs/worker-pool.ts";
import { openLog } from "../../src/shared/log.ts";
import type { TableStore } from "../../src/storage/unit-of-work.ts";
import { TASK_JOBS } from "../../src/task/task-jobs.ts";
import { alterStore } from "../support/alter-store.ts";
import { JobRig, TEST_KINDS } from "../support/job-rig.ts";
import { ITEM_FIELDS, openTaskStore, type TaskStore } from "../support/task-store.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, median, ratioAtMost, reported } from "./figures.ts";

const ENQUEUED_AT_ONCE = 1_000;
const MANY_SLOTS = 500;
const READY = 100_000;
const WAITING = 10_000;
const FAR_MS = Date.UTC(2090, 0, 1);
const DRAIN_MS_MAX = 60_000;
const NONE = { webhook: 0, export: 0, system: 0 };

async function enqueueMany(rig: JobRig, count: number, runAtMs = 0): Promise<void> {
  for (let made = 0; made < count; made += ENQUEUED_AT_ONCE) {
    await rig.enqueue(TEST_KINDS.plain, ENQUEUED_AT_ONCE, { runAtMs });
  }
}

/** Jobs per second, from the first claim to the last commit. @throws InvalidRun unless each ran once */
async function drain(count: number, slots: number): Promise<number> {
  await using rig = await JobRig.open();
  await enqueueMany(rig, count);
  const ran = new Map<string, number>();
  const drained = Promise.withResolvers<void>();
  let done = 0;
  const startMs = performance.now();
  rig.pool(
    { [TEST_KINDS.plain.kind]: async ({ id }) => void ran.set(id, (ran.get(id) ?? 0) + 1) },
    {
      slots: { ...NONE, default: slots },
      onSettled({ runs }) {
        done += runs.filter(({ outcome }) => outcome === "done").length;
        if (done === count) drained.resolve();
      },
    },
  );
  await Promise.race([drained.promise, Bun.sleep(DRAIN_MS_MAX)]);
  const seconds = (performance.now() - startMs) / 1000;
  if (done !== count || ran.size !== count || [...ran.values()].some((times) => times !== 1)) {
    throw new InvalidRun(`${done} of ${count} jobs were done, ${ran.size} ran`);
  }
  return count / seconds;
}

const drains: Benchmark = {
  name: "task-jobs-drain",
  async run(bench) {
    const unit = "jobs/s";
    const measured = await drain(sized(bench, 40_000, 20_000), MANY_SLOTS);
    const name = `jobs drained, no-op handlers, ${MANY_SLOTS} slots`;
    const target = { of: "measured", bound: "at least", value: 5_000, gate: 1_000 } as const;
    const many: Figure = { name, unit, measured, floor: null, ratio: null, target };
    if (bench.isShort) return [many];
    // A commit for five of them: the disk decides.
    return [many, reported({ name: "  the same, 5 slots", unit, measured: await drain(5_000, 5) })];
  },
};

/** The median of claims of one job, their commits included, in ms. */
async function timeClaims(rig: JobRig, times: number): Promise<number> {
  const tookMs: number[] = [];
  for (let turn = 0; turn < times; turn++) {
    const startMs = performance.now();
    const claimed = await rig.store.run("jobs.claim", {
      node: "bench",
      leaseMs: 60_000,
      nowMs: Date.now(),
      busyGroups: {},
      queues: [{ queue: "default", slots: 5 }],
    });
    tookMs.push(performance.now() - startMs);
    if (claimed.length !== 5) throw new InvalidRun(`${claimed.length} of 5 jobs were claimed`);
  }
  return median(tookMs);
}

const claims: Benchmark = {
  name: "task-jobs-claim",
  async run(bench) {
    await using rig = await JobRig.open();
    const times = sized(bench, 200, 60);
    await enqueueMany(rig, ENQUEUED_AT_ONCE);
    const floor = await timeClaims(rig, times);
    await enqueueMany(rig, READY);
    await enqueueMany(rig, READY / 4, FAR_MS);
    const measured = await timeClaims(rig, times);
    const name = "claim of 5 jobs with 100 000 ready, median";
    return [atMost(5, { name, unit: "ms", measured, floor, ratio: measured / floor })];
  },
};

/** How long the creation of a task takes, one after the other, in ms. With a reminder there is a job. */
async function createTask({ store }: TaskStore, remindAtMs: number | null): Promise<number> {
  const startMs = performance.now();
  await store.run("task.createItem", {
    userId: 1,
    requestId: "bench",
    itemsMax: 1e6,
    keyed: null,
    nowMs: Date.now(),
    fields: { ...ITEM_FIELDS, remindAtMs },
  });
  return performance.now() - startMs;
}

/** Ten thousand jobs that are due, and workers that never end. */
async function occupy(tasks: TaskStore): Promise<WorkerPool> {
  const store = tasks.store as unknown as TableStore<JobUnits>;
  const { kind, queue } = TASK_JOBS.reminder;
  await alterStore(
    tasks.dbPath,
    `WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${WAITING})
     INSERT INTO job (id, queue, kind, payload, priority, state, run_at_ms, attempts, max_attempts, fence,
     cancel_requested, progress, created_at_ms) SELECT 'waiting ' || n, '${queue}', '${kind}', '{}', 0, 'ready', 0,
     0, 5, 0, 0, 0, 0 FROM numbers`,
  );
  const never: JobHandler = () => new Promise(() => undefined);
  const pool = new WorkerPool({
    store,
    jobs: new JobStore(store),
    kinds: byKind([{ ...TASK_JOBS.reminder, timeoutMs: DRAIN_MS_MAX }]),
    handlers: { [kind]: never },
    slots: { ...NONE, default: 5 },
    clock: Date.now,
    leaseMs: 30_000,
    pollMs: 1_000,
    onSettled: () => undefined,
    log: openLog({ mode: "test", logLevel: "error" }),
  });
  pool.start();
  while (pool.running < 5) await Bun.sleep(5);
  return pool;
}

const enqueues: Benchmark = {
  name: "task-jobs-enqueue",
  async run(bench: Bench) {
    await using tasks = await openTaskStore();
    await tasks.addUsers("bench");
    const times = sized(bench, 600, 200);
    const plain: number[] = [];
    const withJob: number[] = [];
    // In turns, so that whatever the machine does meets both.
    for (let turn = 0; turn < times; turn++) {
      plain.push(await createTask(tasks, null));
      withJob.push(await createTask(tasks, FAR_MS + turn));
    }
    const floor = median(plain);
    const pool = await occupy(tasks);
    const busy: number[] = [];
    for (let turn = 0; turn < times; turn++) busy.push(await createTask(tasks, null));
    await pool.stop(0);
    const figure = (name: string, samples: readonly number[]) => {
      const measured = median(samples);
      return { name, unit: "ms", measured, floor, ratio: measured / floor };
    };
    const target = ratioAtMost(1.25);
    return [
      { ...figure("a task with a job beside it, median; floor: without", withJob), target },
      { ...figure("  without, while 10 000 jobs wait and all workers are busy", busy), target },
    ];
  },
};

export const JOB_DRAIN: readonly Benchmark[] = [drains, claims, enqueues];
