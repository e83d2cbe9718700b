// Comments of tasks: written by whoever sees the task, read oldest first, deleted by author and owner.

import { describe, expect, test } from "bun:test";
import { HOSTILE_KEYS } from "../support/hostile-values.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, refusalBy, send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

interface Comment {
  readonly id: number;
  readonly task_id: number;
  readonly user: { readonly id: number; readonly username: string };
  readonly body: string;
  readonly created_at: string;
}

export function taskCommentsSuite(name: string, open: OpenTarget): void {
  describe(`comments of a task on ${name}`, () => {
    commentTests(useTarget(open, UNLIMITED));
    pageTests(useTarget(open, UNLIMITED));
  });
}

async function comment(target: Target, by: Account, taskId: number, body: string): Promise<Comment> {
  const answer = await send<Comment>(target, by, "POST", `/tasks/${taskId}/comments`, { body });
  expect(answer.status).toBe(201);
  return answer.body;
}

/** Follows the links from page to page; `onPage` is told how many rows were seen so far. */
async function walk(
  target: Target,
  { token }: Account,
  first: string,
  onPage: (count: number) => Promise<void> = async () => undefined,
): Promise<unknown[]> {
  const seen: unknown[] = [];
  for (let next: string | null = first; next !== null; ) {
    const answer = await ask(target, "GET", next, { token });
    expect(answer.status).toBe(200);
    seen.push(...((await answer.json()) as unknown[]));
    const link = answer.headers.get("link");
    next = link === null ? null : /^<\/api\/v1([^>]+)>; rel="next"$/.exec(link)![1]!;
    const cursor = answer.headers.get("x-next-cursor");
    expect(next === null ? null : new URLSearchParams(next.split("?")[1]).get("cursor")).toBe(cursor);
    await onPage(seen.length);
  }
  return seen;
}

function commentTests(target: () => Target): void {
  test("come back as they were written, whatever they say", async () => {
    const ann = await signUp(target());
    const task = await createTask(target(), ann);
    const written: Comment[] = [];
    for (const body of [...HOSTILE_KEYS, "😀".repeat(10_000)]) {
      const made = await comment(target(), ann, task.id, body);
      const { id, created_at } = made;
      const user = { id: ann.id, username: ann.username };
      expect(made).toEqual({ id, task_id: task.id, user, body, created_at });
      written.push(made);
    }
    const path = `/tasks/${task.id}/comments`;
    expect(await sendOk<Comment[]>(target(), ann, "GET", path)).toEqual(written);
    for (const body of [{}, { body: "" }, { body: null }, { body: 1 }, { body: "x".repeat(10_001) }]) {
      expect(await refusalBy(target(), ann, "POST", path, body)).toBe("400 invalid_request body");
    }
    const unknown = { body: "x", user_id: 1 };
    expect(await refusalBy(target(), ann, "POST", path, unknown)).toBe("400 invalid_request user_id");
    expect(await sendOk(target(), ann, "GET", `/tasks/${task.id}`)).toEqual(task);
  });

  test("are deleted by their author and by the owner of the task, by nobody else", async () => {
    const [ann, ben, eve] = [await signUp(target()), await signUp(target()), await signUp(target())];
    const task = await createTask(target(), ann, { assignee_id: ben.id });
    const path = `/tasks/${task.id}/comments`;
    const [first, second, third] = [
      await comment(target(), ann, task.id, "by ann"),
      await comment(target(), ben, task.id, "by ben"),
      await comment(target(), ben, task.id, "by ben, too"),
    ];
    expect(await refusalBy(target(), ben, "DELETE", `${path}/${first.id}`)).toBe("403 forbidden");
    expect(await refusalBy(target(), eve, "DELETE", `${path}/${first.id}`)).toBe("404 not_found");
    const message = { message: "Comment deleted successfully" };
    expect(await sendOk<object>(target(), ben, "DELETE", `${path}/${second.id}`)).toEqual(message);
    expect(await sendOk<object>(target(), ann, "DELETE", `${path}/${third.id}`)).toEqual(message);
    expect(await sendOk<Comment[]>(target(), ben, "GET", path)).toEqual([first]);
    for (const id of [second.id, 999_999]) {
      const answer = await send(target(), ann, "DELETE", `${path}/${id}`);
      expect([answer.status, answer.body]).toEqual([404, { error: "comment not found", code: "not_found" }]);
    }
    expect(await refusalBy(target(), ann, "DELETE", `${path}/x`)).toBe("400 invalid_id");
    const other = await createTask(target(), ann);
    const elsewhere = `/tasks/${other.id}/comments/${first.id}`;
    expect(await refusalBy(target(), ann, "DELETE", elsewhere)).toBe("404 not_found");
    const history = (await eventsOf(target(), ben, task.id)).filter(({ type }) => type.startsWith("comment."));
    expect(history.map(({ type, actor_id, version, changes }) => [type, actor_id, version, changes])).toEqual([
      ["comment.created", ann.id, 1, { comment_id: [null, first.id] }],
      ["comment.created", ben.id, 1, { comment_id: [null, second.id] }],
      ["comment.created", ben.id, 1, { comment_id: [null, third.id] }],
      ["comment.deleted", ben.id, 1, { comment_id: [second.id, null] }],
      ["comment.deleted", ann.id, 1, { comment_id: [third.id, null] }],
    ]);
  });
}

function pageTests(target: () => Target): void {
  test("and events are walked oldest first, each once, while others are added and deleted", async () => {
    const ann = await signUp(target());
    const task = await createTask(target(), ann);
    const path = `/tasks/${task.id}`;
    const made: Comment[] = [];
    for (let index = 0; index < 120; index++) made.push(await comment(target(), ann, task.id, `comment ${index}`));
    expect(await sendOk<Comment[]>(target(), ann, "GET", `${path}/comments`)).toEqual(made);
    const walked = await walk(target(), ann, `${path}/comments?limit=7`, async (count) => {
      if (count === 63) await sendOk(target(), ann, "DELETE", `${path}/comments/${made.at(-1)!.id}`);
    });
    expect(walked).toEqual(made.slice(0, -1));
    const history = await eventsOf(target(), ann, task.id);
    expect(history).toHaveLength(122);
    for (const limit of [1, 60, 61, 122, 1000]) {
      expect(await walk(target(), ann, `${path}/events?limit=${limit}`)).toEqual(history);
    }
  });

  test("have cursors that belong to one list, and limits from 1 to 1000", async () => {
    const ann = await signUp(target());
    const [one, two] = [await createTask(target(), ann), await createTask(target(), ann)];
    for (const { id } of [one, two]) for (const body of ["a", "b"]) await comment(target(), ann, id, body);
    const path = `/tasks/${one.id}/comments`;
    const answer = await ask(target(), "GET", `${path}?limit=1`, { token: ann.token });
    const cursor = answer.headers.get("x-next-cursor")!;
    expect(await sendOk<Comment[]>(target(), ann, "GET", `${path}?cursor=${cursor}`)).toHaveLength(1);
    const damaged = `${cursor[0] === "A" ? "B" : "A"}${cursor.slice(1)}`;
    for (const wrong of [
      `/tasks/${two.id}/comments?cursor=${cursor}`,
      `/tasks/${one.id}/events?cursor=${cursor}`,
      `${path}?cursor=${damaged}`,
      `${path}?cursor=`,
      `${path}?cursor=1`,
    ]) {
      expect(await refusalBy(target(), ann, "GET", wrong)).toBe("400 invalid_cursor");
    }
    for (const wrong of ["limit=0", "limit=1001", "limit=x", "limit=1&limit=1", "offset=1"]) {
      expect(await refusalBy(target(), ann, "GET", `${path}?${wrong}`)).toBe(
        `400 invalid_request ${wrong.split("=")[0]}`,
      );
    }
    const empty = await createTask(target(), ann);
    expect(await sendOk<Comment[]>(target(), ann, "GET", `/tasks/${empty.id}/comments`)).toEqual([]);
  });
}
