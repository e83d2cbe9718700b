// What a node has room for, by what it runs.

import { expect, test } from "bun:test";
import { JOB_PRIORITY } from "../../src/jobs/job-base-units.ts";
import type { ClaimedJob } from "../../src/jobs/job-claim-units.ts";
import { JobRun } from "../../src/jobs/job-run.ts";
import { JobRuns } from "../../src/jobs/job-runs.ts";
import { QUIET } from "../support/job-rig.ts";

const SLOTS = { default: 5, webhook: 8, export: 1, system: 2 };

let jobs = 0;
function running(runs: JobRuns, fields: Partial<ClaimedJob>): ClaimedJob {
  const job: ClaimedJob = {
    id: `job-${++jobs}`,
    queue: "webhook",
    kind: "test",
    ownerId: null,
    groupKey: null,
    priority: 0,
    payload: "{}",
    attempt: 1,
    fence: 1,
    ...fields,
  };
  runs.add(new JobRun(job, 1000, QUIET));
  return job;
}

test("jobs that yield leave a slot to usual ones wherever there are two, and two owners leave one to a third", () => {
  const { queues } = new JobRuns(SLOTS).room(["default", "webhook", "export", "system"]);
  const shown = queues.map(({ queue, slots, owners, yielding }) => {
    return { [queue]: [slots, owners?.max, yielding?.slots, yielding?.owners?.max] };
  });
  expect(shown).toEqual([
    { default: [5, 2, 3, 1] },
    { webhook: [8, 3, 6, 2] },
    { export: [1, 1, 1, 1] },
    { system: [2, 2, 1, 1] },
  ]);
});

test("those that run already count, whatever makes them yield; those that are ending do not", () => {
  const runs = new JobRuns(SLOTS);
  const ending = running(runs, { priority: JOB_PRIORITY.later, ownerId: 7 });
  running(runs, { priority: JOB_PRIORITY.later, ownerId: 7 });
  running(runs, { priority: JOB_PRIORITY.last });
  running(runs, { ownerId: 7 });
  running(runs, { queue: "default", priority: JOB_PRIORITY.last, ownerId: 7 });
  const room = (ended: readonly ClaimedJob[] = []) => {
    const { queues } = runs.room(
      ["webhook"],
      ended.map((job) => ({ ...job, end: "done" })),
    );
    return queues.map(({ slots, owners, yielding }) => [slots, owners?.busy, yielding?.slots, yielding?.owners?.busy]);
  };
  expect(room()).toEqual([[4, { 7: 3 }, 3, { 7: 2 }]]);
  expect(room([ending])).toEqual([[5, { 7: 2 }, 4, { 7: 1 }]]);
  for (let job = 0; job < 3; job++) running(runs, { priority: JOB_PRIORITY.last });
  expect(room()).toEqual([[1, { 7: 3 }, 0, { 7: 2 }]]);
});

test("an owner has had a turn until it gets another one, of each priority; few owners are remembered", () => {
  const runs = new JobRuns(SLOTS);
  const turns = (queue: "default" | "webhook") => runs.room([queue]).queues[0]!.turns;
  const end = (job: ClaimedJob) => runs.remove(job);
  expect(turns("webhook")).toEqual({});
  for (const ownerId of [7, 8, null]) end(running(runs, { ownerId }));
  end(running(runs, { ownerId: 7, priority: JOB_PRIORITY.last }));
  end(running(runs, { ownerId: 9, queue: "default" }));
  expect([turns("webhook"), turns("default")]).toEqual([{ 0: [7, 8], 2: [7] }, { 0: [9] }]);
  end(running(runs, { ownerId: 8 }));
  expect(turns("webhook")).toEqual({ 0: [8], 2: [7] });
  for (let ownerId = 1; ownerId <= 1000; ownerId++) end(running(runs, { queue: "default", ownerId: 10 + ownerId }));
  const remembered = turns("default")![0]!;
  expect([remembered.length, remembered.at(-1)]).toEqual([100, 1010]);
});
