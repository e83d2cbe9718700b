// Tasks one at a time: made, read, changed, deleted, restored; what their members may be.

import { describe, expect, test } from "bun:test";
import { storeFiles } from "../../src/storage/store-files.ts";
import { alterStore } from "../support/alter-store.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { HOSTILE_KEYS } from "../support/hostile-values.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const EXAMPLE = {
  title: "完成项目文档",
  description: "编写项目的技术文档",
  priority: "high",
  due_date: "2026-02-01T00:00:00Z",
};
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
/** As large as nothing else: the bodies of other tests are far below. */
const BODY_MAX = 128 * 1024;

export function taskItemsSuite(name: string, open: OpenTarget): void {
  const env = { ...UNLIMITED, SERVICES: "task", TASK_BODY_MAX: `${BODY_MAX}` };
  describe(`tasks on ${name}`, () => lifeTests(useTarget(open, env)));
  describe(`the members of a task on ${name}`, () => {
    memberTests(useTarget(open, env));
    listedTests(useTarget(open, env));
  });
  describe(`dates of a task on ${name}`, () => dateTests(useTarget(open, env)));
  describe(`a patch of a task on ${name}`, () => patchTests(useTarget(open, env)));
}

function lifeTests(target: () => Target): void {
  test("are made, listed, read, changed and deleted as in the examples, and number from 1", async () => {
    const ann = await signUp(target(), "alice");
    const made = await send<Task>(target(), ann, "POST", "/tasks", EXAMPLE);
    const { created_at, updated_at } = made.body;
    expect([created_at, updated_at].every((time) => TIME.test(time))).toBe(true);
    expect([made.status, made.body]).toEqual([
      201,
      {
        id: 1,
        title: "完成项目文档",
        description: "编写项目的技术文档",
        status: "pending",
        priority: "high",
        user_id: ann.id,
        assignee_id: null,
        labels: [],
        due_date: "2026-02-01T00:00:00.000Z",
        remind_at: null,
        completed_at: null,
        created_at,
        updated_at,
        version: 1,
      },
    ]);
    expect([made.headers.get("location"), made.headers.get("etag")]).toEqual(["/api/v1/tasks/1", '"v1"']);
    expect(await sendOk<Task[]>(target(), ann, "GET", "/tasks?status=pending&priority=high")).toEqual([made.body]);
    expect(await sendOk(target(), ann, "GET", "/tasks/1")).toEqual(made.body);
    const put = await send<Task>(target(), ann, "PUT", "/tasks/1", { status: "in_progress" }, { "If-Match": '"v1"' });
    const expected = { ...made.body, status: "in_progress", version: 2, updated_at: put.body.updated_at };
    expect([put.status, put.headers.get("etag"), put.body]).toEqual([200, '"v2"', expected as Task]);
    expect(await sendOk(target(), ann, "DELETE", "/tasks/1")).toEqual({
      message: "Task deleted successfully",
    } as never);
    const gone = await send(target(), ann, "DELETE", "/tasks/1");
    expect([gone.status, gone.body]).toEqual([404, { error: "task not found", code: "not_found" }]);
    await target().restart();
    expect((await createTask(target(), ann)).id).toBe(2);
  });

  test("take a body that curl sends, and refuse what does not say that it is JSON", async () => {
    const ann = await signUp(target());
    const types = ["application/x-www-form-urlencoded", "application/json; charset=utf-8"];
    for (const type of [...types, "application/merge-patch+json"]) {
      const headers = { "Content-Type": type };
      expect((await send(target(), ann, "POST", "/tasks", { title: "x" }, headers)).status).toBe(201);
    }
    const xml = { "Content-Type": "application/xml" };
    expect(await refusalBy(target(), ann, "POST", "/tasks", "<a/>", xml)).toBe("415 unsupported_media_type");
    expect(await refusalBy(target(), ann, "POST", "/tasks", "{")).toBe("400 invalid_json");
    expect(await refusalBy(target(), ann, "POST", "/tasks", "[]")).toBe("400 invalid_request");
    expect(await refusalBy(target(), ann, "POST", "/tasks?x=1", { title: "x" })).toBe("400 invalid_request x");
  });

  test("are named by positive numbers: other ids are malformed, unknown ones not found", async () => {
    const ann = await signUp(target());
    const own = [
      ["GET", ""],
      ["PUT", ""],
      ["PATCH", ""],
      ["DELETE", ""],
      ["POST", "/restore"],
      ["GET", "/comments"],
      ["POST", "/comments"],
      ["GET", "/events"],
    ] as const;
    for (const [method, rest] of own) {
      const body = method === "GET" || method === "DELETE" ? undefined : { body: "x" };
      for (const id of ["abc", "0", "-1", "1e3", "01", "1.0", "9007199254740992", "99999999999999999"]) {
        const answer = await send(target(), ann, method, `/tasks/${id}${rest}`, body);
        expect([id, answer.status, answer.body]).toEqual([id, 400, { error: "Invalid task ID", code: "invalid_id" }]);
      }
      const patch = rest === "" && body !== undefined ? { title: "x" } : body;
      for (const id of ["4294967296", "9007199254740991"]) {
        expect(await refusalBy(target(), ann, method, `/tasks/${id}${rest}`, patch)).toBe("404 not_found");
      }
    }
  });

  test("tell apart what is missing, what is stale and what cannot be had right now", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    const stale = await send(target(), ann, "PUT", `/tasks/${id}`, { title: "x" }, { "If-Match": '"v2"' });
    const words = { error: "task was changed by someone else", code: "version_mismatch" };
    expect([stale.status, stale.headers.get("etag"), stale.body]).toEqual([412, '"v1"', words]);
    expect(await refusalBy(target(), ann, "PUT", "/tasks/999999", { title: "x" })).toBe("404 not_found");
    const other = { "If-Match": '"v2"' };
    expect(await refusalBy(target(), ann, "PUT", "/tasks/999999", { title: "x" }, other)).toBe("404 not_found");
    expect(await refusalBy(target(), ann, "DELETE", `/tasks/${id}`, undefined, other)).toBe("412 version_mismatch");
    expect(await refusalBy(target(), ann, "PUT", `/tasks/${id}`, {}, { "If-Match": "v1" })).toBe("400 invalid_request");
    await sendOk(target(), ann, "DELETE", `/tasks/${id}`, undefined, { "If-Match": '"v1"' });
    expect(await refusalBy(target(), ann, "DELETE", `/tasks/${id}`)).toBe("404 not_found");
    const { id: locked } = await createTask(target(), ann);
    await using _lock = await holdWriteLock(storeFiles(target().dbPath).database);
    const busy = await send(target(), ann, "PUT", `/tasks/${locked}`, { title: "x" });
    expect([busy.status, busy.headers.get("retry-after"), busy.body]).toMatchObject([503, "1", { code: "busy" }]);
    expect((await send(target(), ann, "GET", `/tasks/${locked}`)).status).toBe(200);
  });
}

function memberTests(target: () => Target): void {
  test("are bounded: titles, descriptions, bodies, names", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    const refused = [
      [{}, "title"],
      [{ title: "" }, "title"],
      [{ title: " \t\n\u3000" }, "title"],
      [{ title: "题".repeat(256) }, "title"],
      [{ title: "😀".repeat(256) }, "title"],
      [{ title: 5 }, "title"],
      [{ title: null }, "title"],
      [{ title: "x", description: "d".repeat(20_001) }, "description"],
      [{ title: "x", description: 1 }, "description"],
      [{ title: "x", assignee_id: "1" }, "assignee_id"],
      [{ title: "x", assignee_id: 0 }, "assignee_id"],
      [{ title: "x", titel: "y" }, "titel"],
      [{ title: "x", due_at: "y", name: "z" }, "due_at name"],
    ] as const;
    for (const [body, members] of refused) {
      expect(await refusalBy(target(), ann, "POST", "/tasks", body)).toBe(`400 invalid_request ${members}`);
      if (members === "title" && !("title" in body)) continue;
      expect(await refusalBy(target(), ann, "PUT", `/tasks/${id}`, body)).toBe(`400 invalid_request ${members}`);
    }
    const large = { title: "x", description: "d".repeat(BODY_MAX) };
    expect(await refusalBy(target(), ann, "POST", "/tasks", large)).toBe("413 body_too_large");
    const most = { title: ` ${"😀".repeat(255)} `, description: "😀".repeat(20_000) };
    const made = await createTask(target(), ann, most);
    expect([made.title, made.description]).toEqual([most.title.trim(), most.description]);
  });

  test("of statuses and priorities have three values, and nothing else enters, not even by SQL", async () => {
    const ann = await signUp(target());
    const made = await createTask(target(), ann);
    expect([made.status, made.priority, made.completed_at]).toEqual(["pending", "medium", null]);
    for (const wrong of ["done", "PENDING", "", "urgent", 1, null, ["pending"]]) {
      for (const member of ["status", "priority"]) {
        const body = { title: "x", [member]: wrong };
        expect(await refusalBy(target(), ann, "POST", "/tasks", body)).toBe(`400 invalid_request ${member}`);
        expect(await refusalBy(target(), ann, "PUT", `/tasks/${made.id}`, body)).toBe(`400 invalid_request ${member}`);
      }
    }
    for (const set of ["status = 'done'", "status = 'Pending'", "priority = 0", "priority = 4"]) {
      const altered = alterStore(target().dbPath, `UPDATE task_item SET ${set} WHERE id = ${made.id}`);
      expect(await altered.then(String, String)).toContain("CHECK constraint failed");
    }
    expect(await sendOk(target(), ann, "GET", `/tasks/${made.id}`)).toEqual(made);
  });

  test("say since when the task is completed, for as long as it is", async () => {
    const ann = await signUp(target());
    const made = await createTask(target(), ann, { status: "completed", priority: "low" });
    expect([made.status, made.priority, made.completed_at]).toEqual(["completed", "low", made.created_at]);
    const path = `/tasks/${made.id}`;
    const still = await sendOk(target(), ann, "PUT", path, { title: "y", status: "completed" });
    expect(still.completed_at).toBe(made.completed_at);
    for (const status of ["in_progress", "pending"]) {
      const again = await sendOk(target(), ann, "PUT", path, { status: "completed" });
      expect(again.completed_at).toMatch(TIME);
      expect((await sendOk(target(), ann, "PUT", path, { status })).completed_at).toBeNull();
    }
  });
}

function listedTests(target: () => Target): void {
  test("that are labels are a set: sorted, unique ignoring case, replaced as a whole, at most twenty", async () => {
    const ann = await signUp(target());
    const made = await createTask(target(), ann, { labels: ["work", "Docs", "WORK", "docs", "a"] });
    expect(made.labels).toEqual(["a", "Docs", "work"]);
    const path = `/tasks/${made.id}`;
    expect((await sendOk(target(), ann, "GET", path)).labels).toEqual(made.labels);
    expect((await sendOk(target(), ann, "PATCH", path, { labels: ["docs", "b"] })).labels).toEqual(["b", "docs"]);
    expect((await sendOk(target(), ann, "PATCH", path, { title: "other" })).labels).toEqual(["b", "docs"]);
    const many = Array.from({ length: 20 }, (_, index) => `label ${index + 10}`);
    expect((await sendOk(target(), ann, "PATCH", path, { labels: [...many, "LABEL 10"] })).labels).toEqual(many);
    for (const wrong of [[...many, "one more"], [""], ["a,b"], ["a\u0007"], ["x".repeat(41)], [1], "docs", { a: 1 }]) {
      expect(await refusalBy(target(), ann, "PATCH", path, { labels: wrong })).toBe(
        `400 invalid_request labels${Array.isArray(wrong) && wrong.length === 1 ? "[0]" : ""}`,
      );
    }
    expect((await sendOk(target(), ann, "GET", path)).labels).toEqual(many);
    expect((await sendOk(target(), ann, "PATCH", path, { labels: null })).labels).toEqual([]);
    expect((await createTask(target(), ann, { labels: ["😀".repeat(40)] })).labels).toEqual(["😀".repeat(40)]);
  });

  test("come back as they were sent, whatever they say, also after a restart", async () => {
    const ann = await signUp(target());
    const sent = HOSTILE_KEYS.filter((text) => [...text].length <= 255 && text.trim() === text);
    const make = async (title: string) => {
      const labels = /[,\p{Cc}]/u.test(title) || [...title].length > 40 ? [] : [title];
      const task = await createTask(target(), ann, { title, description: title, labels });
      expect(task).toMatchObject({ title, description: title, labels });
      return task;
    };
    const tasks = await Promise.all(sent.map(make));
    const pair = ["\u00e9", "e\u0301"];
    expect((await createTask(target(), ann, { labels: pair })).labels.toSorted()).toEqual(pair.toSorted());
    await target().restart();
    for (const task of tasks) expect(await sendOk(target(), ann, "GET", `/tasks/${task.id}`)).toEqual(task);
  });

  test("are refused with a NUL character or half of a surrogate pair in them", async () => {
    const ann = await signUp(target());
    const { id } = await createTask(target(), ann);
    for (const bad of ["\\u0000", "a\\u0000b", "\\ud800", "\\udc00x", "\\ud83d\\ud83d"]) {
      for (const member of ["title", "description", "labels", "due_date"]) {
        const value = member === "labels" ? `["${bad}"]` : `"${bad}"`;
        const body = `{"title":"x","${member}":${value}}`;
        const place = member === "labels" ? "labels[0]" : member;
        expect(await refusalBy(target(), ann, "POST", "/tasks", body)).toBe(`400 invalid_request ${place}`);
      }
      expect(await refusalBy(target(), ann, "PUT", `/tasks/${id}`, `{"${bad}":1}`)).toBe("400 invalid_request");
      expect(await refusalBy(target(), ann, "POST", `/tasks/${id}/comments`, `{"body":"${bad}"}`)).toStartWith("400");
    }
    for (const name of ["__proto__", "constructor", "toString"]) {
      const answer = await refusalBy(target(), ann, "POST", "/tasks", `{"title":"x","${name}":{}}`);
      expect(answer).toBe(`400 invalid_request ${name}`);
    }
  });
}

function dateTests(target: () => Target): void {
  test("are stored and shown in UTC, whatever offset they were sent with", async () => {
    const ann = await signUp(target());
    const cases = [
      ["2026-02-01T00:00:00Z", "2026-02-01T00:00:00.000Z"],
      ["2026-02-01T08:00:00+08:00", "2026-02-01T00:00:00.000Z"],
      ["2026-01-31T18:30:00.123456-05:30", "2026-02-01T00:00:00.123Z"],
      ["2024-02-29t23:59:59.9z", "2024-02-29T23:59:59.900Z"],
      ["0099-12-31T23:59:59Z", "0099-12-31T23:59:59.000Z"],
      ["9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"],
    ] as const;
    for (const [sent, shown] of cases) {
      const made = await createTask(target(), ann, { due_date: sent, remind_at: sent });
      expect([made.due_date, made.remind_at]).toEqual([shown, shown]);
      expect(await sendOk(target(), ann, "GET", `/tasks/${made.id}`)).toEqual(made);
    }
  });

  test("that no calendar has, that are bare or no text are refused, and null clears them", async () => {
    const ann = await signUp(target());
    const made = await createTask(target(), ann, { ...EXAMPLE, remind_at: "2026-01-31T00:00:00Z" });
    const wrong = [
      "2026-02-30T00:00:00Z",
      "2025-02-29T00:00:00Z",
      "2026-13-01T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-02-01",
      "2026-02-01T00:00:00",
      "2026-02-01T24:00:00Z",
      "2026-02-01T00:60:00Z",
      "2026-02-01T00:00:60Z",
      "2026-02-01T00:00Z",
      "2026-02-01 00:00:00Z",
      "2026-02-01T00:00:00+24:00",
      "2026-02-01T00:00:00+0800",
      "",
      "now",
      "0000-01-01T00:00:00+00:01",
      "9999-12-31T23:59:59-00:01",
      "+02026-02-01T00:00:00Z",
      1_769_904_000_000,
      true,
      {},
    ];
    for (const value of wrong) {
      for (const member of ["due_date", "remind_at"]) {
        const body = { title: "x", [member]: value };
        expect(await refusalBy(target(), ann, "POST", "/tasks", body)).toBe(`400 invalid_request ${member}`);
        expect(await refusalBy(target(), ann, "PUT", `/tasks/${made.id}`, body)).toBe(`400 invalid_request ${member}`);
      }
    }
    const cleared = await sendOk(target(), ann, "PUT", `/tasks/${made.id}`, { due_date: null });
    expect([cleared.due_date, cleared.remind_at]).toEqual([null, made.remind_at]);
  });
}

function patchTests(target: () => Target): void {
  const FULL = { ...EXAMPLE, labels: ["a"], remind_at: "2026-01-01T00:00:00Z", status: "in_progress" };

  for (const method of ["PUT", "PATCH"]) {
    test(`by ${method} changes what it names and nothing else; null and "" clear`, async () => {
      const ann = await signUp(target());
      const made = await createTask(target(), ann, { ...FULL, assignee_id: ann.id });
      const path = `/tasks/${made.id}`;
      let expected: Record<string, unknown> = { ...made };
      const patch = async (body: object, changes: object) => {
        const answer = await sendOk(target(), ann, method, path, body);
        const version = (expected.version as number) + 1;
        expected = { ...expected, ...changes, version, updated_at: answer.updated_at };
        expect(answer).toEqual(expected as never);
      };
      await patch({ status: "pending" }, { status: "pending" });
      await patch({ description: "" }, { description: "" });
      await patch({ description: "again", title: " trimmed " }, { description: "again", title: "trimmed" });
      await patch({ description: null }, { description: "" });
      const cleared = { due_date: null, remind_at: null, assignee_id: null };
      await patch({ ...cleared, labels: null }, { ...cleared, labels: [] });
      for (const member of ["title", "status", "priority"]) {
        const refused = await refusalBy(target(), ann, method, path, { [member]: null });
        expect(refused).toBe(`400 invalid_request ${member}`);
      }
      expect(await sendOk(target(), ann, "GET", path)).toEqual(expected as never);
    });

    test(`by ${method} with the task as it was read leaves version and history as they are`, async () => {
      const ann = await signUp(target());
      const made = await createTask(target(), ann, FULL);
      const path = `/tasks/${made.id}`;
      const people = { user: { id: ann.id, username: ann.username }, assignee: null };
      for (const body of [
        made,
        { ...made, ...people },
        {},
        "",
        { labels: ["a", "A"] },
        { title: ` ${made.title}\n` },
      ]) {
        expect(await sendOk(target(), ann, method, path, body)).toEqual(made);
      }
      // What nobody may set is not looked at.
      expect(await sendOk(target(), ann, method, path, { id: 7, version: "x", user_id: null })).toEqual(made);
      expect(await eventsOf(target(), ann, made.id)).toHaveLength(1);
      const stale = { "If-Match": '"v9"' };
      expect(await refusalBy(target(), ann, method, path, made, stale)).toBe("412 version_mismatch");
    });
  }

  test("of two at once with the same version lets one through; of two members without one keeps both", async () => {
    const ann = await signUp(target());
    for (let round = 0; round < 5; round++) {
      const { id } = await createTask(target(), ann);
      const headers = { "If-Match": '"v1"' };
      const writers = ["one", "two", "three"].map((title) =>
        send(target(), ann, "PUT", `/tasks/${id}`, { title }, headers),
      );
      expect((await Promise.all(writers)).map(({ status }) => status).toSorted()).toEqual([200, 412, 412]);
      const both = [{ description: "kept" }, { priority: "high" }, { labels: ["kept"] }];
      await Promise.all(both.map((body) => sendOk(target(), ann, "PATCH", `/tasks/${id}`, body)));
      const task = await sendOk(target(), ann, "GET", `/tasks/${id}`);
      expect(task).toMatchObject({ description: "kept", priority: "high", labels: ["kept"], version: 5 });
    }
  });

  test("may name several versions, any, or one that is weak and so equals none", async () => {
    const ann: Account = await signUp(target());
    const { id } = await createTask(target(), ann);
    const change = (title: string, match: string) =>
      ask(target(), "PUT", `/tasks/${id}`, { token: ann.token, body: { title }, headers: { "If-Match": match } });
    const statuses = [];
    for (const [index, match] of ['"x", "v1"', "*", 'W/"v3"', '"v3"', '"3"'].entries()) {
      statuses.push((await change(`title ${index}`, match)).status);
    }
    expect(statuses).toEqual([200, 200, 412, 200, 412]);
  });
}
