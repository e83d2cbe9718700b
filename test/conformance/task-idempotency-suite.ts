// Requests with an Idempotency-Key: sent twice, done once.

import { describe, expect, test } from "bun:test";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

export function taskIdempotencySuite(name: string, open: OpenTarget): void {
  describe(`a request with an Idempotency-Key on ${name}`, () => keyTests(useTarget(open, UNLIMITED)));
}

/** What a client sees of an answer but its request id. */
async function post(target: Target, by: Account, path: string, body: unknown, key: string) {
  const answer = await ask(target, "POST", path, { token: by.token, body, headers: { "Idempotency-Key": key } });
  const { headers } = answer;
  return {
    status: answer.status,
    text: await answer.text(),
    isReplayed: headers.get("idempotent-replayed") === "true",
    location: headers.get("location"),
    etag: headers.get("etag"),
  };
}

function keyTests(target: () => Target): void {
  test("sent at once many times makes one task and equal answers", async () => {
    const ann = await signUp(target());
    const body = { title: "once", labels: ["a"], remind_at: "2030-01-01T00:00:00Z" };
    const answers = await Promise.all(Array.from({ length: 8 }, () => post(target(), ann, "/tasks", body, "k 1!")));
    expect(answers.map(({ isReplayed }) => isReplayed).toSorted()).toEqual([false, ...Array(7).fill(true)]);
    expect(new Set(answers.map((answer) => JSON.stringify({ ...answer, isReplayed: null })))).toHaveProperty("size", 1);
    const made = JSON.parse(answers[0]!.text) as Task;
    expect(answers[0]).toMatchObject({ status: 201, location: `/api/v1/tasks/${made.id}`, etag: '"v1"' });
    expect(await eventsOf(target(), ann, made.id)).toHaveLength(1);
    expect((await createTask(target(), ann)).id).toBe(made.id + 1);
  });

  test("is answered as before after a restart and after the task has changed", async () => {
    const ann = await signUp(target());
    const first = await post(target(), ann, "/tasks", { title: "lasting" }, "lasting");
    const path = first.location!.slice("/api/v1".length);
    await sendOk(target(), ann, "PUT", path, { title: "changed" });
    await target().restart();
    expect(await post(target(), ann, "/tasks", { title: "lasting" }, "lasting")).toEqual({
      ...first,
      isReplayed: true,
    });
    await sendOk(target(), ann, "DELETE", path);
    expect(await post(target(), ann, "/tasks", { title: "lasting" }, "lasting")).toEqual({
      ...first,
      isReplayed: true,
    });
  });

  test("is refused with another body or on another path, and belongs to its user", async () => {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const { text } = await post(target(), ann, "/tasks", { title: "x" }, "mine");
    const { id } = JSON.parse(text) as Task;
    const headers = { "Idempotency-Key": "mine" };
    const refusals = [
      ["/tasks", { title: "y" }],
      ["/tasks", '{ "title": "x" }'],
      [`/tasks/${id}/comments`, { body: "x" }],
    ] as const;
    for (const [path, body] of refusals) {
      expect(await refusalBy(target(), ann, "POST", path, body, headers)).toBe("422 idempotency_mismatch");
    }
    const other = await post(target(), ben, "/tasks", { title: "y" }, "mine");
    expect([other.status, other.isReplayed]).toEqual([201, false]);
    expect(await sendOk<unknown[]>(target(), ann, "GET", `/tasks/${id}/comments`)).toEqual([]);
  });

  test("that was refused can be sent again with what is right", async () => {
    const ann = await signUp(target());
    const headers = { "Idempotency-Key": "second try" };
    expect(await refusalBy(target(), ann, "POST", "/tasks", { title: "" }, headers)).toBe("400 invalid_request title");
    const unknown = { title: "x", assignee_id: 999_999 };
    const refused = "400 invalid_request assignee_id";
    expect(await refusalBy(target(), ann, "POST", "/tasks", unknown, headers)).toBe(refused);
    expect((await send(target(), ann, "POST", "/tasks", { title: "x" }, headers)).status).toBe(201);
  });

  test("writes one comment; its author is told of it for as long as the task is in sight", async () => {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const { id } = await createTask(target(), ann, { assignee_id: ben.id });
    const path = `/tasks/${id}/comments`;
    const twice = await Promise.all([1, 2].map(() => post(target(), ben, path, { body: "hello" }, "c")));
    expect(twice.map(({ status }) => status)).toEqual([201, 201]);
    expect(twice[0]!.text).toBe(twice[1]!.text);
    expect(await sendOk<unknown[]>(target(), ann, "GET", path)).toEqual([JSON.parse(twice[0]!.text)]);
    await sendOk(target(), ann, "PUT", `/tasks/${id}`, { assignee_id: null });
    expect((await post(target(), ben, path, { body: "hello" }, "c")).status).toBe(404);
  });

  test("has a key of 1 to 255 printable characters", async () => {
    const ann = await signUp(target());
    for (const key of ["k".repeat(256), "é", "a\tb", ""]) {
      const answer = await refusalBy(target(), ann, "POST", "/tasks", { title: "x" }, { "Idempotency-Key": key });
      expect([key, answer]).toEqual([key, "400 invalid_request"]);
    }
    for (const key of ["k".repeat(255), "~", '"quoted"']) {
      expect((await post(target(), ann, "/tasks", { title: "x" }, key)).status).toBe(201);
    }
  });
}
