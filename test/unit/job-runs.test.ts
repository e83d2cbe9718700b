// What a node has room for, by what it runs.

import { expect, test } from "bun:test";
import type { ClaimedJob } from "../../src/jobs/job-claim-units.ts";
import { JobRun } from "../../src/jobs/job-run.ts";
import { JobRuns } from "../../src/jobs/job-runs.ts";
import { JOB_PRIORITY } from "../../src/jobs/job-units.ts";
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

test("half of the slots of a queue are for jobs that yield, of a single one all", () => {
  const { queues } = new JobRuns(SLOTS).room(["default", "webhook", "export", "system"]);
  expect(queues.map(({ queue, slots, yieldingSlots }) => [queue, slots, yieldingSlots])).toEqual([
    ["default", 5, 2],
    ["webhook", 8, 4],
    ["export", 1, 1],
    ["system", 2, 1],
  ]);
});

test("those that run already count, whatever makes them yield; those that are ending do not", () => {
  const runs = new JobRuns(SLOTS);
  const ending = running(runs, { priority: JOB_PRIORITY.later });
  running(runs, { priority: JOB_PRIORITY.later });
  running(runs, { priority: JOB_PRIORITY.last });
  running(runs, {});
  running(runs, { queue: "default", priority: JOB_PRIORITY.last });
  expect(runs.room(["webhook"]).queues).toMatchObject([{ slots: 4, yieldingSlots: 1 }]);
  expect(runs.room(["webhook"], [{ ...ending, end: "done" }]).queues).toMatchObject([{ slots: 5, yieldingSlots: 2 }]);
  for (let job = 0; job < 2; job++) running(runs, { priority: JOB_PRIORITY.last });
  expect(runs.room(["webhook"]).queues).toMatchObject([{ slots: 2, yieldingSlots: 0 }]);
});
