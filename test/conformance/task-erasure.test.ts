// The end of an account with many tasks: at once for its names and tokens, soon for all it leaves behind.

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

describe("the end of a large account", () => {
  test(
    "is answered at once, leaves nothing, tells each other person once, and lets others write",
    async () => {
      await using target = await openInProcess({ ...UNLIMITED, TASK_MAX_PER_USER: "1000000" });
      const [alice, bob] = [await signUp(target), await signUp(target)];
      await createTask(target, bob);
      const shared = `CASE WHEN i % ${SHARED_EACH} = 0 THEN ${bob.id} END`;
      await alterStore(target.dbPath, insertTasks(OWNED, alice.id, shared));
      await alterStore(target.dbPath, insertTasks(ASSIGNED, bob.id, `${alice.id}`));
      const startMs = performance.now();
      const body = { current_password: alice.password };
      expect((await ask(target, "DELETE", "/auth/me", { token: alice.token, body })).status).toBe(200);
      const answeredMs = performance.now() - startMs;
      expect((await ask(target, "GET", "/auth/me", { token: alice.token })).status).toBe(401);
      expect((await signUp(target, alice.username)).id).not.toBe(alice.id);
      const waits: number[] = [];
      const left = async () => {
        const [row] = await queryStore<{ left: number }>(
          target.dbPath,
          `SELECT count(*) AS left FROM task_item
         WHERE assignee_id = ${alice.id} OR (user_id = ${alice.id} AND deleted_at_ms = 0)`,
        );
        return row!.left;
      };
      await eventually("nothing is left of the account", bySize(30_000, 300_000), async () => {
        const writeMs = performance.now();
        await createTask(target, bob);
        waits.push(performance.now() - writeMs);
        return (await left()) === 0;
      });
      const [events] = await queryStore<{ deleted: number; cleared: number; feed: number }>(
        target.dbPath,
        `SELECT (SELECT count(*) FROM task_event WHERE type = 'task.deleted' AND actor_id = ${alice.id}) AS deleted,
         (SELECT count(*) FROM task_event WHERE type = 'task.assigned' AND actor_id = ${alice.id}) AS cleared,
         (SELECT count(*) FROM task_feed JOIN task_event ON task_event.id = event_id
          WHERE task_feed.user_id = ${bob.id} AND actor_id = ${alice.id}) AS feed`,
      );
      expect(events).toEqual({ deleted: OWNED, cleared: ASSIGNED, feed: OWNED / SHARED_EACH + ASSIGNED });
      const longest = Math.max(...waits);
      const tookMs = performance.now() - startMs;
      report(
        `account of ${OWNED} tasks: answered in ${answeredMs.toFixed(0)} ms, gone in ${tookMs.toFixed(0)} ms, ` +
          `longest write of another meanwhile ${longest.toFixed(0)} ms`,
      );
      expectTime("the answer", answeredMs, 2000);
      expectTime("the longest write beside it", longest, 2000);
    },
    bySize(60_000, 400_000),
  );
});
