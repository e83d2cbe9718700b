// What is said of each kind of job: where it waits, how often it is tried and how long apart, how long a try may take.

import { expect, test } from "bun:test";
import type { JobKind } from "../../src/jobs/job-kinds.ts";
import { PURGE_KIND, PURGE_SCHEDULE } from "../../src/jobs/job-purge.ts";
import { readSettings } from "../../src/shared/settings.ts";
import { TASK_JOBS } from "../../src/task/task-jobs.ts";
import { TASK_SCHEDULES } from "../../src/task/task-workers.ts";

const [SECOND_MS, MINUTE_MS, HOUR_MS] = [1000, 60_000, 3_600_000];

function ruleOf({ kind, queue, maxAttempts, backoff, timeoutMs }: JobKind) {
  return [kind, queue, maxAttempts, backoff.baseMs, backoff.factor, backoff.capMs, timeoutMs];
}

test("each kind of job waits, is tried again and ends as the table of kinds says", () => {
  const { warm, deliver, erase, ...others } = TASK_JOBS;
  const system = [5, MINUTE_MS, 2, HOUR_MS, 10 * MINUTE_MS];
  expect([...Object.values(others), PURGE_KIND].map(ruleOf)).toEqual([
    ["task.reminder", "default", 5, 5 * SECOND_MS, 2, 5 * MINUTE_MS, 10 * SECOND_MS],
    ["task.overdue", "default", 5, 5 * SECOND_MS, 2, 5 * MINUTE_MS, 10 * SECOND_MS],
    ["export.build", "export", 3, 5 * SECOND_MS, 2, MINUTE_MS, 10 * MINUTE_MS],
    ["task.purge", "system", ...system],
    ["auth.cleanup", "system", ...system],
    ["job.purge", "system", ...system],
  ]);
  // Tried once, so that it never waits for another try.
  expect([warm.kind, warm.queue, warm.maxAttempts, warm.timeoutMs]).toEqual([
    "cache.warm",
    "system",
    1,
    30 * SECOND_MS,
  ]);
  expect(ruleOf(erase)).toEqual(["account.erase", "system", 20, ...system.slice(1)]);
});

test("a delivery is tried eight times within its own timeout, which ends before its job's does", () => {
  const { deliver } = TASK_JOBS;
  const deliveryMs = readSettings({ JWT_SECRET: "x".repeat(32) }).webhookTimeoutMs;
  const longestMs = readSettings({ JWT_SECRET: "x".repeat(32), WEBHOOK_TIMEOUT: "60s" }).webhookTimeoutMs;
  const { kind, queue, maxAttempts, backoff, timeoutMs } = deliver;
  expect([kind, queue, maxAttempts, deliveryMs]).toEqual(["webhook.deliver", "webhook", 8, 10 * SECOND_MS]);
  expect(backoff).toEqual({ baseMs: 10 * SECOND_MS, factor: 4, capMs: 6 * HOUR_MS });
  expect(timeoutMs).toBeGreaterThan(longestMs);
});

test("what nobody asks for runs at its minute of each hour, the purge of tasks once in a night", () => {
  expect(
    [...TASK_SCHEDULES, PURGE_SCHEDULE].map(({ name, expression, kind }) => [name, expression, kind.kind]),
  ).toEqual([
    ["task.purge", "17 3 * * *", "task.purge"],
    ["auth.cleanup", "7 * * * *", "auth.cleanup"],
    ["job.purge", "37 * * * *", "job.purge"],
  ]);
});
