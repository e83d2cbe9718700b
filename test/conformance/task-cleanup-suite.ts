// What the server removes by itself: exactly what is due, without anybody having to wait for it.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { queryStore } from "../support/query-store.ts";
import { report } from "../support/run-size.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, logIn, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { fillTasks, makeExport } from "../support/task-exports.ts";
import { useTarget } from "../support/use-target.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Between what is due and what is not, on either side of the limit. */
const MARGIN_MS = HOUR_MS / 2;
const MANY_TASKS = 1200;

export function taskCleanupSuite(name: string, open: OpenTarget): void {
  setDefaultTimeout(120_000);
  describe(`the purge of deleted tasks on ${name}`, () => {
    purgeTests(useTarget(open, { ...UNLIMITED, TASK_MAX_PER_USER: "3" }));
    loadTests(useTarget(open, UNLIMITED));
  });
  describe(`the cleanup on ${name}`, () => cleanupTests(useTarget(open, UNLIMITED)));
}

/** Out of turn, to its end. */
async function runSchedule(target: Target, name: string): Promise<void> {
  const fired = await target.fetch(`/_admin/schedules/${name}/run`, { method: "POST" });
  expect(fired.status).toBe(202);
  const { job_id } = (await fired.json()) as { job_id: string };
  await eventually(`${name} is done`, 20_000, async () => {
    const { state } = (await (await target.fetch(`/_admin/jobs/${job_id}`)).json()) as { state: string };
    return state === "done";
  });
}

/** Rows of the tables, in their order. */
async function countRows({ dbPath }: Target, ...tables: readonly string[]): Promise<number[]> {
  const columns = tables.map((from, index) => `(SELECT count(*) FROM ${from}) AS c${index}`);
  const [row] = await queryStore<Record<string, number>>(dbPath, `SELECT ${columns.join(", ")}`);
  return Object.values(row!);
}

/** A deleted task that was deleted so long ago. */
async function deleteTask(target: Target, by: Account, id: number, agoMs: number): Promise<void> {
  await sendOk(target, by, "DELETE", `/tasks/${id}`);
  await alterStore(target.dbPath, `UPDATE task_item SET deleted_at_ms = ${Date.now() - agoMs} WHERE id = ${id}`);
}

function purgeTests(target: () => Target): void {
  test("takes whatever was deleted thirty days ago, and leaves what can be restored as it was", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const full = { labels: ["a", "b"], remind_at: "2090-01-01T00:00:00Z", assignee_id: bob.id };
    const [old, young, live] = [
      await createTask(target(), ann, full),
      await createTask(target(), ann, full),
      await createTask(target(), ann, full),
    ];
    for (const { id } of [old, young, live]) {
      expect((await send(target(), bob, "POST", `/tasks/${id}/comments`, { body: "hello" })).status).toBe(201);
    }
    await deleteTask(target(), ann, old.id, 30 * DAY_MS + MARGIN_MS);
    await deleteTask(target(), ann, young.id, 30 * DAY_MS - MARGIN_MS);
    expect(await sendOk<Task[]>(target(), bob, "GET", "/tasks?deleted=true")).toEqual([]);
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "one more" })).toBe("403 quota_exceeded");
    await runSchedule(target(), "task.purge");

    const left = await sendOk<Task[]>(target(), ann, "GET", "/tasks?deleted=true");
    expect(left.map(({ id }) => id)).toEqual([young.id]);
    expect(await refusalBy(target(), ann, "POST", `/tasks/${old.id}/restore`)).toBe("404 not_found");
    const ofOld = ["task_item WHERE id", "task_label WHERE task_id", "task_comment WHERE task_id"];
    const tables = [...ofOld, "task_event WHERE task_id"].map((table) => `${table} = ${old.id}`);
    expect(await countRows(target(), ...tables, "task_remains")).toEqual([0, 0, 0, 0, 0]);

    const restored = await sendOk<Task>(target(), ann, "POST", `/tasks/${young.id}/restore`);
    const { version, updated_at } = restored;
    expect(restored).toEqual({ ...young, version, updated_at });
    expect(await sendOk<object[]>(target(), bob, "GET", `/tasks/${young.id}/comments`)).toHaveLength(1);
    expect((await eventsOf(target(), ann, young.id)).map(({ type }) => type)).toEqual([
      "task.created",
      "comment.created",
      "task.deleted",
      "task.restored",
    ]);
    expect(await sendOk<Task>(target(), ann, "GET", `/tasks/${live.id}`)).toEqual(live);
  });

  test("is not waited for: what was deleted so long ago is found by nobody", async () => {
    const [ann, operator] = [
      await signUp(target()),
      (path: string, method = "GET") => target().fetch(path, { method }),
    ];
    const [old, young] = [await createTask(target(), ann), await createTask(target(), ann, { title: "young" })];
    await deleteTask(target(), ann, old.id, 30 * DAY_MS + MARGIN_MS);
    await deleteTask(target(), ann, young.id, 30 * DAY_MS - MARGIN_MS);
    for (const query of [
      "",
      "&sort=-priority",
      "&status=pending",
      "&q=a",
      "&q=young",
      "&updated_after=2000-01-01T00:00:00Z",
    ]) {
      const { headers, body } = await send<Task[]>(target(), ann, "GET", `/tasks?deleted=true&count=true${query}`);
      const ids = body.map(({ id }) => id);
      expect([query, ids, headers.get("x-total-count")]).toEqual([
        query,
        query === "&q=a" ? [] : [young.id],
        `${ids.length}`,
      ]);
    }
    const file = await ask(target(), "GET", "/tasks/export.csv?deleted=true", { token: ann.token });
    expect(
      (await file.text())
        .split("\r\n")
        .slice(1)
        .map((line) => line.split(",")[0]),
    ).toEqual([`${young.id}`, ""]);
    const exported = await makeExport(target(), ann, { format: "csv", filter: { deleted: "true" } });
    expect(exported.row_count).toBe(1);

    expect(await refusalBy(target(), ann, "POST", `/tasks/${old.id}/restore`)).toBe("404 not_found");
    expect((await operator(`/_admin/task/tasks/${old.id}`)).status).toBe(404);
    expect((await operator(`/_admin/task/tasks/${old.id}/restore`, "POST")).status).toBe(404);
    expect(await countRows(target(), `task_item WHERE id = ${old.id}`)).toEqual([1]);
    expect((await operator(`/_admin/task/tasks/${young.id}`)).status).toBe(200);
    await sendOk(target(), ann, "POST", `/tasks/${young.id}/restore`);
  });

  test("frees the place of a task and never its number, also when the server was started anew", async () => {
    const ann = await signUp(target());
    const ids: number[] = [];
    for (let round = 0; round < 3; round++) ids.push((await createTask(target(), ann)).id);
    await deleteTask(target(), ann, ids[2]!, 31 * DAY_MS);
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "one more" })).toBe("403 quota_exceeded");
    await runSchedule(target(), "task.purge");
    await target().restart();
    expect((await createTask(target(), ann)).id).toBe(ids[2]! + 1);
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "one more" })).toBe("403 quota_exceeded");
  });
}

function loadTests(target: () => Target): void {
  test("of many goes on beside other requests, which it does not hold up", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    const { id } = await createTask(target(), bob);
    await fillTasks(target(), ann, MANY_TASKS);
    const ofAnn = `SELECT id FROM task_item WHERE user_id = ${ann.id}`;
    await alterStore(
      target().dbPath,
      `INSERT INTO task_label SELECT id, n, n, user_id FROM task_item, (SELECT 'a' AS n UNION SELECT 'b')
         WHERE user_id = ${ann.id};
       INSERT INTO task_comment (task_id, user_id, body, created_at_ms) SELECT id, 0, 'x', 0 FROM (${ofAnn});
       INSERT INTO task_event (task_id, type, version, changes, at_ms)
         SELECT id, 'task.created', 1, '{}', 0 FROM (${ofAnn});
       INSERT INTO task_head VALUES (${ann.id}, 1, ${MANY_TASKS});
       UPDATE task_item SET deleted_at_ms = 1 WHERE user_id = ${ann.id}`,
    );
    let isOver = false;
    const readMs: number[] = [];
    const writeMs: number[] = [];
    const timed = async (into: number[], method: string, body?: object) => {
      const startMs = performance.now();
      const answer = await ask(target(), method, `/tasks/${id}`, { token: bob.token, ...(body && { body }) });
      expect(answer.status).toBe(200);
      await answer.text();
      into.push(performance.now() - startMs);
    };
    const beside = (async () => {
      for (let round = 0; !isOver; round++) {
        await timed(readMs, "GET");
        await timed(writeMs, "PATCH", { title: `round ${round}` });
      }
    })();
    await runSchedule(target(), "task.purge");
    isOver = true;
    await beside;
    const most = (times: number[]) => Math.max(...times).toFixed(1);
    report(
      `beside the purge of ${MANY_TASKS} tasks: longest read ${most(readMs)} ms, longest write ${most(writeMs)} ms`,
    );
    expectTime("the longest read beside a purge", Math.max(...readMs), 500);
    const tables = ["task_item", "task_label", "task_comment", "task_remains"];
    expect(await countRows(target(), ...tables)).toEqual([1, 0, 0, 0]);
    const [head] = await queryStore<{ n: number }>(
      target().dbPath,
      `SELECT item_count AS n FROM task_head WHERE user_id = ${ann.id}`,
    );
    expect(head!.n).toBe(0);
  });
}

function cleanupTests(target: () => Target): void {
  test("takes old sessions, dead tokens, kept answers, feeds and expired exports, nothing younger", async () => {
    const { dbPath } = target();
    const ann = await signUp(target());
    await createTask(target(), ann);
    const made = await makeExport(target(), ann);
    const file = await makeExport(target(), ann);
    const nowMs = Date.now();
    const session = (id: string, ended: string) =>
      `INSERT INTO task_session (id, user_id, created_at_ms, last_used_at_ms, idle_until_ms, expires_at_ms,
         revoked_at_ms) VALUES ('${id}', ${ann.id}, 0, 0, ${ended});
       INSERT INTO task_refresh VALUES ('hash of ${id}', '${id}', 0, NULL)`;
    const [far, long, short] = [nowMs + DAY_MS, nowMs - 30 * DAY_MS - MARGIN_MS, nowMs - 30 * DAY_MS + MARGIN_MS];
    const answered = (key: string, atMs: number) =>
      `INSERT INTO task_idempotency VALUES (${ann.id}, '${key}', 'r', 'b', 201, '{}', ${atMs})`;
    const fed = (rev: number, atMs: number) => `INSERT INTO task_feed VALUES (${ann.id}, ${rev}, 1, ${atMs})`;
    await alterStore(
      dbPath,
      [
        session("idle long ago", `${long}, ${far}, NULL`),
        session("expired long ago", `${far}, ${long}, NULL`),
        session("revoked long ago", `${far}, ${far}, ${long}`),
        session("revoked", `${far}, ${far}, ${short}`),
        answered("old", nowMs - DAY_MS - MARGIN_MS),
        answered("young", nowMs - DAY_MS + MARGIN_MS),
        fed(100, nowMs - 7 * DAY_MS - MARGIN_MS),
        fed(101, nowMs - 7 * DAY_MS + MARGIN_MS),
        `UPDATE task_export SET expires_at_ms = ${nowMs - 1} WHERE id = '${made.id}'`,
      ].join(";\n"),
    );
    expect(await refusalBy(target(), ann, "GET", `/exports/${made.id}/file`)).toBe("410 expired");
    await runSchedule(target(), "auth.cleanup");

    const sessions = await queryStore<{ id: string }>(
      dbPath,
      "SELECT id FROM task_session WHERE id LIKE '% %' OR id = 'revoked'",
    );
    expect(sessions.map(({ id }) => id)).toEqual(["revoked"]);
    expect(await countRows(target(), "task_refresh WHERE hash LIKE 'hash of %'")).toEqual([0]);
    const keys = await queryStore<{ key_hash: string }>(dbPath, "SELECT key_hash FROM task_idempotency");
    expect(keys.map(({ key_hash }) => key_hash)).toEqual(["young"]);
    const revs = await queryStore<{ rev: number }>(dbPath, "SELECT rev FROM task_feed ORDER BY rev");
    expect(revs.map(({ rev }) => rev)).toEqual([1, 101]);
    const parts = await queryStore<{ export_id: string }>(dbPath, "SELECT export_id FROM task_export_part");
    expect(parts.map(({ export_id }) => export_id)).toEqual([file.id]);
    expect(await refusalBy(target(), ann, "GET", `/exports/${made.id}/file`)).toBe("410 expired");
    expect((await ask(target(), "GET", `/exports/${file.id}/file`, { token: ann.token })).status).toBe(200);
    // Who is signed in stays so, and can refresh.
    expect((await ask(target(), "GET", "/tasks", { token: ann.token })).status).toBe(200);
    const refreshed = await ask(target(), "POST", "/auth/refresh", { body: { refresh_token: ann.refreshToken } });
    expect(refreshed.status).toBe(200);

    await alterStore(dbPath, `UPDATE task_export SET expires_at_ms = 1 WHERE id = '${made.id}'`);
    await runSchedule(target(), "auth.cleanup");
    expect(await refusalBy(target(), ann, "GET", `/exports/${made.id}/file`)).toBe("404 not_found");
  });

  test("goes through more rows than it takes at once", async () => {
    const { dbPath } = target();
    const ann = await signUp(target());
    await logIn(target(), ann.email, ann.password);
    const numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)";
    await alterStore(
      dbPath,
      `INSERT INTO task_feed ${numbers} SELECT ${ann.id}, 1000 + i, 1, i / 2 FROM n;
       INSERT INTO task_idempotency ${numbers} SELECT ${ann.id}, i, 'r', 'b', 201, '{}', 7 FROM n;
       INSERT INTO task_session (id, user_id, created_at_ms, last_used_at_ms, idle_until_ms, expires_at_ms)
         ${numbers} SELECT 'many ' || i, ${ann.id}, 0, 0, 1, 1 FROM n;
       INSERT INTO task_refresh ${numbers} SELECT 'many ' || i || '.' || j, 'many ' || i, 0, NULL
         FROM n, (SELECT 1 AS j UNION SELECT 2)`,
    );
    const due = ["task_feed WHERE rev > 1000", "task_idempotency WHERE created_at_ms = 7"];
    const all = [...due, "task_session WHERE id LIKE 'many %'", "task_refresh WHERE hash LIKE 'many %'"];
    expect(await countRows(target(), ...all)).toEqual([1300, 1300, 1300, 2600]);
    await runSchedule(target(), "auth.cleanup");
    expect(await countRows(target(), ...all)).toEqual([0, 0, 0, 0]);
  });
}
