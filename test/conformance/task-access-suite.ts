// Who may see and do what with a task: its owner, its assignee, everybody else, operators.

import { describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { queryStore } from "../support/query-store.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

export function taskAccessSuite(name: string, open: OpenTarget): void {
  describe(`a task on ${name}`, () => strangerTests(useTarget(open, UNLIMITED)));
  describe(`the assignee of a task on ${name}`, () => assigneeTests(useTarget(open, UNLIMITED)));
  describe(`a deleted task on ${name}`, () => deletedTests(useTarget(open, UNLIMITED)));
  describe(`tasks on ${name}`, () => {
    conditionTests(useTarget(open, { ...UNLIMITED, TASK_REQUIRE_IF_MATCH: "1" }));
    quotaTests(useTarget(open, { ...UNLIMITED, TASK_MAX_PER_USER: "3", TASK_PURGE_AFTER: "1s" }));
  });
}

/** Everything that can be asked of one task. */
const REQUESTS = [
  ["GET", "", undefined],
  ["GET", "?expand=user", undefined],
  ["PUT", "", { title: "x" }],
  ["PATCH", "", { status: "completed" }],
  ["PATCH", "", {}],
  ["DELETE", "", undefined],
  ["POST", "/restore", undefined],
  ["GET", "/comments", undefined],
  ["POST", "/comments", { body: "x" }],
  ["DELETE", "/comments/1", undefined],
  ["GET", "/events", undefined],
] as const;

function administer(target: Target, method: string, path: string, body?: unknown): Promise<Response> {
  return target.fetch(`/_admin/task${path}`, { method, body: body === undefined ? undefined : JSON.stringify(body) });
}

function strangerTests(target: () => Target): void {
  test("of somebody else is answered like one that does not exist, whatever is asked of it", async () => {
    const [ann, eve] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), ann, { description: "secret" });
    await sendOk(target(), ann, "GET", `/tasks/${task.id}`);
    expect((await send(target(), ann, "POST", `/tasks/${task.id}/comments`, { body: "first" })).status).toBe(201);
    for (const [method, rest, body] of REQUESTS) {
      const foreign = await send(target(), eve, method, `/tasks/${task.id}${rest}`, body);
      const missing = await send(target(), eve, method, `/tasks/4294967296${rest}`, body);
      expect([method, rest, foreign.status, foreign.body]).toEqual([method, rest, 404, missing.body]);
      expect(foreign.body).toEqual({ error: "task not found", code: "not_found" });
    }
    const claimed = { assignee_id: eve.id, user_id: eve.id };
    expect(await refusalBy(target(), eve, "PUT", `/tasks/${task.id}`, claimed)).toBe("404 not_found");
    expect(await sendOk(target(), ann, "GET", `/tasks/${task.id}`)).toEqual(task);
    expect(await eventsOf(target(), ann, task.id)).toHaveLength(2);
  });

  test("shows nobody's e-mail address and no empty person", async () => {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), ann, { assignee_id: ben.id });
    await send(target(), ben, "POST", `/tasks/${task.id}/comments`, { body: "hello" });
    for (const path of ["", "?expand=user", "/comments", "/events"]) {
      for (const [reader, other] of [
        [ann, ben],
        [ben, ann],
      ] as const) {
        const answer = await ask(target(), "GET", `/tasks/${task.id}${path}`, { token: reader.token });
        const text = await answer.text();
        expect([answer.status, text.includes(other.email), text.includes("@")]).toEqual([200, false, false]);
      }
    }
    const expanded = await sendOk<object>(target(), ben, "GET", `/tasks/${task.id}?expand=user`);
    expect(expanded).toEqual({
      ...task,
      user: { id: ann.id, username: ann.username },
      assignee: { id: ben.id, username: ben.username },
    });
  });
}

function assigneeTests(target: () => Target): void {
  async function assigned(): Promise<{ ann: Account; ben: Account; task: Task; path: string }> {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), ann, { title: "shared", labels: ["a"] });
    const path = `/tasks/${task.id}`;
    const [{ id }] = await sendOk<[{ id: number }]>(target(), ann, "GET", `/users?username=${ben.username}`);
    return { ann, ben, task: await sendOk(target(), ann, "PUT", path, { assignee_id: id }), path };
  }

  test("found by name, lists and reads it, comments and reports progress", async () => {
    const { ann, ben, task, path } = await assigned();
    expect(task.assignee_id).toBe(ben.id);
    expect(await sendOk<Task[]>(target(), ben, "GET", "/tasks")).toEqual([task]);
    expect(await sendOk(target(), ben, "GET", path)).toEqual(task);
    expect((await send(target(), ben, "POST", `${path}/comments`, { body: "on it" })).status).toBe(201);
    const done = await sendOk(target(), ben, "PUT", path, { status: "completed" });
    expect([done.status, done.version]).toEqual(["completed", 3]);
    // The task as it was read, with another status: nothing else is changed.
    const again = await sendOk(target(), ben, "PUT", path, { ...done, status: "pending" });
    expect(again.status).toBe("pending");
    expect(await sendOk(target(), ann, "GET", path)).toEqual(again);
    const history = await eventsOf(target(), ben, task.id);
    expect(history.map(({ type, actor_id }) => [type, actor_id])).toEqual([
      ["task.created", ann.id],
      ["task.assigned", ann.id],
      ["comment.created", ben.id],
      ["task.updated", ben.id],
      ["task.updated", ben.id],
    ]);
  });

  test("may neither change anything else nor delete it, and leaves for good", async () => {
    const { ann, ben, task, path } = await assigned();
    const changes = [
      { title: "mine" },
      { description: "x" },
      { priority: "low" },
      { labels: [] },
      { assignee_id: ann.id },
      { due_date: "2030-01-01T00:00:00Z" },
      { remind_at: "2030-01-01T00:00:00Z" },
      { status: "completed", title: "mine" },
      { assignee_id: null, labels: ["b"] },
      { assignee_id: 999_999 },
    ];
    for (const body of changes) {
      expect(await refusalBy(target(), ben, "PATCH", path, body)).toBe("403 forbidden");
    }
    expect(await refusalBy(target(), ben, "DELETE", path)).toBe("403 forbidden");
    expect(await refusalBy(target(), ben, "POST", `${path}/restore`)).toBe("404 not_found");
    expect(await sendOk(target(), ben, "GET", path)).toEqual(task);
    const left = await sendOk(target(), ben, "PUT", path, { assignee_id: null });
    expect([left.assignee_id, left.version]).toEqual([null, 3]);
    for (const [method, rest, body] of REQUESTS) {
      expect(await refusalBy(target(), ben, method, path + rest, body)).toBe("404 not_found");
    }
    expect(await sendOk<Task[]>(target(), ben, "GET", "/tasks")).toEqual([]);
    expect(await sendOk(target(), ann, "GET", path)).toEqual(left);
  });

  test("must be a user who is there and not disabled", async () => {
    const { ann, task, path } = await assigned();
    const [disabled, gone] = [await signUp(target()), await signUp(target())];
    expect((await administer(target(), "PATCH", `/users/${disabled.id}`, { disabled: true })).status).toBe(200);
    await sendOk(target(), gone, "DELETE", "/auth/me", { current_password: gone.password });
    for (const assignee_id of [disabled.id, gone.id, 999_999]) {
      for (const [method, at] of [
        ["POST", "/tasks"],
        ["PUT", path],
      ] as const) {
        const body = { title: "x", assignee_id };
        expect(await refusalBy(target(), ann, method, at, body)).toBe("400 invalid_request assignee_id");
      }
    }
    expect(await sendOk(target(), ann, "GET", path)).toEqual(task);
    expect((await createTask(target(), ann, { assignee_id: ann.id })).assignee_id).toBe(ann.id);
  });
}

function deletedTests(target: () => Target): void {
  test("is its owner's alone, among the deleted ones, until it is restored with all it had", async () => {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const members = { labels: ["a", "b"], due_date: "2030-01-01T00:00:00Z", status: "completed", assignee_id: ben.id };
    const task = await createTask(target(), ann, { description: "d", priority: "high", ...members });
    const path = `/tasks/${task.id}`;
    for (const body of ["one", "two"]) await send(target(), ben, "POST", `${path}/comments`, { body });
    const comments = await sendOk<unknown[]>(target(), ann, "GET", `${path}/comments`);
    const history = await eventsOf(target(), ann, task.id);
    await sendOk(target(), ann, "DELETE", path);
    for (const by of [ann, ben]) {
      for (const [method, rest, body] of REQUESTS) {
        if (rest === "/restore" && by === ann) continue;
        expect(await refusalBy(target(), by, method, path + rest, body)).toBe("404 not_found");
      }
      expect(await sendOk<Task[]>(target(), by, "GET", "/tasks")).toEqual([]);
    }
    const deleted = await sendOk<Task[]>(target(), ann, "GET", "/tasks?deleted=true");
    expect(deleted.map(({ id, title }) => [id, title])).toEqual([[task.id, task.title]]);
    expect(await sendOk<Task[]>(target(), ben, "GET", "/tasks?deleted=true")).toEqual([]);
    const { version, updated_at, ...rest } = await sendOk(target(), ann, "POST", `${path}/restore`);
    expect({ ...task, version, updated_at }).toEqual({ ...rest, version: 3, updated_at });
    expect(await refusalBy(target(), ann, "POST", `${path}/restore`)).toBe("409 state_conflict");
    expect(await sendOk(target(), ben, "GET", path)).toEqual({ ...rest, version, updated_at });
    expect(await sendOk<unknown[]>(target(), ann, "GET", `${path}/comments`)).toEqual(comments);
    const later = await eventsOf(target(), ann, task.id);
    expect(later.slice(0, history.length)).toEqual(history);
    expect(later.slice(history.length).map(({ type }) => type)).toEqual(["task.deleted", "task.restored"]);
  });

  test("is seen, deleted and restored by operators, who change nothing else", async () => {
    const ann = await signUp(target());
    const task = await createTask(target(), ann);
    const path = `/tasks/${task.id}`;
    expect((await administer(target(), "DELETE", path)).status).toBe(200);
    expect(await refusalBy(target(), ann, "GET", path)).toBe("404 not_found");
    expect((await administer(target(), "DELETE", path)).status).toBe(404);
    expect((await administer(target(), "GET", path)).status).toBe(200);
    expect((await administer(target(), "POST", `${path}/restore`)).status).toBe(200);
    expect((await administer(target(), "POST", `${path}/restore`)).status).toBe(409);
    expect((await administer(target(), "PUT", path, { title: "x" })).status).toBe(405);
    expect((await sendOk(target(), ann, "GET", path)).title).toBe(task.title);
    expect((await eventsOf(target(), ann, task.id)).map(({ type, actor_id }) => [type, actor_id])).toEqual([
      ["task.created", ann.id],
      ["task.deleted", null],
      ["task.restored", null],
    ]);
  });

  test("of an account that is gone stays deleted", async () => {
    const gone = await signUp(target());
    const { id } = await createTask(target(), gone);
    await sendOk(target(), gone, "DELETE", "/auth/me", { current_password: gone.password });
    const isDeleted = async () => (await administer(target(), "DELETE", `/tasks/${id}`)).status === 404;
    await eventually("the task is deleted", 10_000, isDeleted);
    expect((await administer(target(), "POST", `/tasks/${id}/restore`)).status).toBe(409);
  });
}

function conditionTests(target: () => Target): void {
  test("where changes need If-Match are not changed without one", async () => {
    const ann = await signUp(target());
    const path = `/tasks/${(await createTask(target(), ann)).id}`;
    for (const method of ["PUT", "PATCH"]) {
      expect(await refusalBy(target(), ann, method, path, { title: "x" })).toBe("428 if_match_required");
      expect(await refusalBy(target(), ann, "DELETE", path)).toBe("428 if_match_required");
      await sendOk(target(), ann, method, path, { title: method }, { "If-Match": "*" });
    }
    const headers = { "If-Match": '"v3"' };
    expect((await sendOk(target(), ann, "PUT", path, { title: "y" }, headers)).version).toBe(4);
    expect(await refusalBy(target(), ann, "PUT", "/tasks/999999", { title: "x" })).toBe("404 not_found");
  });
}

function quotaTests(target: () => Target): void {
  test("beyond the quota are refused until a purge frees a place, and no number is used again", async () => {
    const ann = await signUp(target());
    const ids = [];
    for (let index = 0; index < 3; index++) ids.push((await createTask(target(), ann)).id);
    expect(ids).toEqual([1, 2, 3]);
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "x" })).toBe("403 quota_exceeded");
    await sendOk(target(), ann, "DELETE", "/tasks/3");
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "x" })).toBe("403 quota_exceeded");
    const isPurged = async () => {
      await target().fetch("/_admin/schedules/task.purge/run", { method: "POST" });
      return (await queryStore(target().dbPath, "SELECT id FROM task_item WHERE id = 3")).length === 0;
    };
    await eventually("the deleted task is purged", 20_000, isPurged);
    expect(await refusalBy(target(), ann, "POST", "/tasks/3/restore")).toBe("404 not_found");
    await target().restart();
    expect((await createTask(target(), ann)).id).toBe(4);
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "x" })).toBe("403 quota_exceeded");
    expect((await createTask(target(), await signUp(target()))).id).toBe(5);
  }, 30_000);
}
