// The end of an account with many tasks: with its answer all that it leaves behind is gone.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { queryStore } from "../support/query-store.ts";
import { bySize, report } from "../support/run-size.ts";
import { openInProcess } from "../support/targets.ts";
import { ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";

const OWNED = bySize(4000, 200_000);
const ASSIGNED = bySize(600, 2000);
/** Every so many of the account's own tasks is somebody else's to do. */
const SHARED_EACH = 10;

function insertTasks(count: number, userId: number, assignee: string): string {
  return `INSERT INTO task_item (user_id, assignee_id, title, description, search_text, status, priority, due_at_ms,
      created_at_ms, updated_at_ms, deleted_at_ms, version)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
    SELECT ${userId}, ${assignee}, 'task ' || i, '', 'task', 'pending', 2, 9e15, i, i, 0, 1 FROM n`;
}

/** As many deliveries as one commit may hold: of what was the account's to do, and of what it had others do. */
const DELIVERIES_MAX = 2 * 250;

/** What of the account is still to be seen by somebody. */
async function leftOf(dbPath: string, userId: number): Promise<number> {
  const [row] = await queryStore<{ left: number }>(
    dbPath,
    `SELECT count(*) AS left FROM task_item
     WHERE assignee_id = ${userId} OR (user_id = ${userId} AND deleted_at_ms = 0)`,
  );
  return row!.left;
}

describe("the end of a large account", () => {
  test(
    "leaves nothing when it is answered, though no job runs, tells each other person once, and lets others write",
    async () => {
      const noJobs = { JOBS_CONCURRENCY: "none", TASK_MAX_PER_USER: "1000000" };
      await using target = await openInProcess({ ...UNLIMITED, ...noJobs });
      const [alice, bob] = [await signUp(target), await signUp(target)];
      await createTask(target, bob);
      const shared = `CASE WHEN i % ${SHARED_EACH} = 0 THEN ${bob.id} END`;
      await alterStore(target.dbPath, insertTasks(OWNED, alice.id, shared));
      await alterStore(target.dbPath, insertTasks(ASSIGNED, bob.id, `${alice.id}`));
      const startMs = performance.now();
      const body = { current_password: alice.password };
      const deletion = { isAnswered: false };
      const deleted = ask(target, "DELETE", "/auth/me", { token: alice.token, body });
      deleted.finally(() => (deletion.isAnswered = true)).catch(() => undefined);
      const waits: number[] = [];
      do {
        const writeMs = performance.now();
        await createTask(target, bob);
        waits.push(performance.now() - writeMs);
      } while (!deletion.isAnswered);
      expect((await deleted).status).toBe(200);
      const answeredMs = performance.now() - startMs;
      expect(await leftOf(target.dbPath, alice.id)).toBe(0);
      expect((await ask(target, "GET", "/auth/me", { token: alice.token })).status).toBe(401);
      expect((await signUp(target, alice.username)).id).not.toBe(alice.id);
      const [events] = await queryStore<{ deleted: number; cleared: number; feed: number; jobs: number }>(
        target.dbPath,
        `SELECT (SELECT count(*) FROM task_event WHERE type = 'task.deleted' AND actor_id = ${alice.id}) AS deleted,
         (SELECT count(*) FROM task_event WHERE type = 'task.assigned' AND actor_id = ${alice.id}) AS cleared,
         (SELECT count(*) FROM task_feed JOIN task_event ON task_event.id = event_id
          WHERE task_feed.user_id = ${bob.id} AND actor_id = ${alice.id}) AS feed,
         (SELECT count(*) FROM job WHERE kind = 'account.erase') AS jobs`,
      );
      const feed = OWNED / SHARED_EACH + ASSIGNED;
      expect(events).toEqual({ deleted: OWNED, cleared: ASSIGNED, feed, jobs: 0 });
      const longest = Math.max(...waits);
      report(
        `account of ${OWNED} tasks: gone and answered in ${answeredMs.toFixed(0)} ms, ` +
          `longest write of another meanwhile ${longest.toFixed(0)} ms`,
      );
      expectTime("the answer", answeredMs, bySize(2000, 30_000));
      expectTime("the longest write beside it", longest, 2000);
    },
    bySize(60_000, 400_000),
  );

  test("tells webhooks of it in commits that are short enough for others to write between", async () => {
    const env = { JOBS_CONCURRENCY: "none", WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32" };
    await using target = await openInProcess({ ...UNLIMITED, ...env });
    const [alice, bob] = [await signUp(target), await signUp(target)];
    const body = { url: "http://127.0.0.1:9/", events: ["task.gone", "task.assigned"] };
    const hooks = Array.from({ length: 10 }, () => ask(target, "POST", "/webhooks", { token: bob.token, body }));
    for (const hook of await Promise.all(hooks)) expect(hook.status).toBe(201);
    await alterStore(target.dbPath, insertTasks(150, alice.id, `${bob.id}`));
    await alterStore(target.dbPath, insertTasks(150, bob.id, `${alice.id}`));
    const left = { token: alice.token, body: { current_password: alice.password } };
    expect((await ask(target, "DELETE", "/auth/me", left)).status).toBe(200);
    expect(await leftOf(target.dbPath, alice.id)).toBe(0);
    const commits = await queryStore<{ deliveries: number }>(
      target.dbPath,
      "SELECT count(*) AS deliveries FROM task_delivery GROUP BY created_at_ms",
    );
    const sizes = commits.map(({ deliveries }) => deliveries);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(2 * 150 * 10);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(DELIVERIES_MAX);
  });

  test("goes on with the next start where the server was stopped in the middle, though no job runs", async () => {
    await using target = await openInProcess({ ...UNLIMITED, JOBS_CONCURRENCY: "none" });
    const [alice, bob] = [await signUp(target), await signUp(target)];
    await createTask(target, alice, { assignee_id: bob.id });
    await alterStore(target.dbPath, insertTasks(OWNED, alice.id, `${bob.id}`));
    // As the first commit leaves it.
    await alterStore(
      target.dbPath,
      `UPDATE task_user SET username_key = NULL, email_key = NULL, deleted_at_ms = 1 WHERE id = ${alice.id};
       INSERT INTO job (id, queue, kind, payload, state, run_at_ms, priority, attempts, max_attempts, fence,
         cancel_requested, progress, created_at_ms)
       VALUES ('${Bun.randomUUIDv7()}', 'system', 'account.erase', '{"userId":${alice.id}}', 'ready', 9e15, 0, 0, 20,
         0, 0, 0, 1)`,
    );
    await target.restart();
    const gone = async () => (await leftOf(target.dbPath, alice.id)) === 0;
    await eventually("nothing is left of the account", bySize(30_000, 300_000), gone);
    const list = await ask(target, "GET", "/tasks", { token: bob.token });
    expect(await list.json()).toEqual([]);
  });
});
