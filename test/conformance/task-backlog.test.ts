// A queue that is long and stuck: whoever makes tasks does not feel it.

import { expect, setDefaultTimeout, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { queryStore } from "../support/query-store.ts";
import { report } from "../support/run-size.ts";
import { openBinary, type Target } from "../support/targets.ts";
import { send } from "../support/task-answers.ts";
import { type Account, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { neverAnswer, WebhookReceiver } from "../support/webhook-receiver.ts";

setDefaultTimeout(120_000);

const WAITING = 10_000;
const WORKERS = 8;
const CREATED = 60;
const FAR = "2090-01-01T00:00:00Z";

/** The median over tasks that each leave a job behind, ms. */
async function timeCreations(target: Target, by: Account): Promise<number> {
  const tookMs: number[] = [];
  for (let round = 0; round < CREATED; round++) {
    const startMs = performance.now();
    await createTask(target, by, { remind_at: FAR });
    tookMs.push(performance.now() - startMs);
  }
  return tookMs.toSorted((a, b) => a - b)[CREATED >> 1]!;
}

test("a task is made in its usual time while ten thousand jobs wait and every worker of a queue is busy", async () => {
  await using receiver = new WebhookReceiver();
  receiver.answer("/slow", neverAnswer);
  await using target = await openBinary({ ...UNLIMITED, WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32", WEBHOOK_TIMEOUT: "60s" });
  const [ann, bob] = [await signUp(target), await signUp(target)];
  const usualMs = await timeCreations(target, ann);

  const hook = { url: receiver.url("/slow"), events: ["task.created"] };
  expect((await send(target, bob, "POST", "/webhooks", hook)).status).toBe(201);
  await createTask(target, bob);
  // Deliveries without end, as of a hook that has answered before, but of no hook's group; of three users, since two
  // may not have every worker.
  await alterStore(
    target.dbPath,
    `INSERT INTO job (id, queue, kind, owner_id, payload, priority, state, run_at_ms, attempts, max_attempts, fence,
       cancel_requested, progress, created_at_ms)
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${WAITING})
     SELECT 'waiting ' || i, queue, kind, owner_id + 1000 * (i % 3), payload, 0, 'ready', 0, 0, 8, 0, 0, 0, 0
       FROM n, (SELECT * FROM job WHERE kind = 'webhook.deliver' LIMIT 1)`,
  );
  await eventually("every worker is busy", 10_000, () => receiver.seen.length === WORKERS);
  const busyMs = await timeCreations(target, ann);
  report(`a task is made in ${usualMs.toFixed(1)} ms, with ${WAITING} jobs waiting in ${busyMs.toFixed(1)} ms`);
  expect(busyMs).toBeLessThan(5 * usualMs + 500);
  expect(receiver.seen.length).toBe(WORKERS);
  const [row] = await queryStore<{ jobs: number }>(
    target.dbPath,
    "SELECT count(*) AS jobs FROM job WHERE kind = 'task.reminder' AND state = 'ready'",
  );
  expect(row!.jobs).toBe(2 * CREATED);
});
