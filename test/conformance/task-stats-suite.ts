// Statistics and label counts: they say what a count over the list says, and change when anything does.

import { describe, expect, test } from "bun:test";
import { seededRandom } from "../support/seeded-random.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { randomFields, walk } from "../support/task-lists.ts";
import { useTarget } from "../support/use-target.ts";

const TASKS = 60;
const DAY_MS = 86_400_000;
const EMPTY = {
  total: 0,
  by_status: { pending: 0, in_progress: 0, completed: 0 },
  by_priority: { low: 0, medium: 0, high: 0 },
  overdue: 0,
  due_within_24h: 0,
  completed_last_7_days: 0,
  completion_rate: 0,
};

export function taskStatsSuite(name: string, open: OpenTarget): void {
  describe(`statistics of tasks on ${name}`, () => statsTests(useTarget(open, UNLIMITED)));
}

async function read(target: Target, { token }: Account, path: string): Promise<unknown> {
  const answer = await ask(target, "GET", path, { token });
  expect([path, answer.status]).toEqual([path, 200]);
  return answer.json();
}

function countedFrom(tasks: readonly Task[], nowMs: number) {
  const many = (match: (task: Task) => boolean) => tasks.filter(match).length;
  const isDue = (task: Task, fromMs: number, beforeMs: number) =>
    task.due_date !== null &&
    task.status !== "completed" &&
    Date.parse(task.due_date) >= fromMs &&
    Date.parse(task.due_date) < beforeMs;
  const byStatus = (status: string) => many((task) => task.status === status);
  const byPriority = (priority: string) => many((task) => task.priority === priority);
  return {
    total: tasks.length,
    by_status: { pending: byStatus("pending"), in_progress: byStatus("in_progress"), completed: byStatus("completed") },
    by_priority: { low: byPriority("low"), medium: byPriority("medium"), high: byPriority("high") },
    overdue: many((task) => isDue(task, Number.NEGATIVE_INFINITY, nowMs)),
    due_within_24h: many((task) => isDue(task, nowMs, nowMs + DAY_MS)),
    completed_last_7_days: many(
      ({ completed_at }) => completed_at !== null && Date.parse(completed_at) >= nowMs - 7 * DAY_MS,
    ),
    completion_rate: tasks.length === 0 ? 0 : byStatus("completed") / tasks.length,
  };
}

function statsTests(target: () => Target): void {
  test("equal a count over the list, of each scope", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    expect(await read(target(), me, "/tasks/stats")).toEqual(EMPTY);
    const random = seededRandom("statistics of tasks");
    // Due times lie half an hour beside full hours from now: none becomes due while this runs.
    const nowMs = Date.now();
    for (let made = 0; made < TASKS; made++) {
      const fields = randomFields(random, nowMs, random.pick([me.id, other.id]));
      await createTask(target(), random.pick([me, other]), fields);
    }
    const gone = await createTask(target(), me, { labels: ["docs"] });
    await ask(target(), "DELETE", `/tasks/${gone.id}`, { token: me.token });
    for (const account of [me, other]) {
      for (const scope of ["all", "mine", "assigned"]) {
        const tasks = await walk(target(), account, { scope });
        expect(await read(target(), account, `/tasks/stats?scope=${scope}`)).toEqual(countedFrom(tasks, Date.now()));
      }
      const mine = await walk(target(), account, { scope: "mine" });
      const counts = ["docs", "été", "Home"].map((label) => ({
        label,
        count: mine.filter(({ labels }) => labels.includes(label)).length,
      }));
      const expected = counts
        .filter(({ count }) => count > 0)
        .sort((a, b) => (a.label.toLowerCase() < b.label.toLowerCase() ? -1 : 1));
      expect(await read(target(), account, "/labels")).toEqual(expected);
    }
  });

  test("have a tag that one write changes, also one of somebody else, and are 304 before", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), me, { assignee_id: other.id });
    const stats = async (account: Account, tag: string | null = null) =>
      ask(target(), "GET", "/tasks/stats", { token: account.token, headers: { "If-None-Match": tag } });
    let tag = (await stats(me)).headers.get("etag")!;
    // The tag tells the minute, too, which may end right here.
    const again = await stats(me, tag);
    if (again.status !== 304) tag = again.headers.get("etag")!;
    expect([304, 200]).toContain(again.status);
    const unchanged = await stats(me, tag);
    expect([unchanged.status, await unchanged.text(), unchanged.headers.get("etag")]).toEqual([304, "", tag]);
    const done = await ask(target(), "PATCH", `/tasks/${task.id}`, {
      token: other.token,
      body: { status: "completed" },
    });
    expect(done.status).toBe(200);
    const changed = await stats(me, tag);
    expect([changed.status, changed.headers.get("etag") === tag]).toEqual([200, false]);
    expect(await changed.json()).toEqual(countedFrom([(await done.json()) as Task], Date.now()));
  });

  test("count a label once however it is written, and no labels of deleted tasks or of others", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    expect(await read(target(), me, "/labels")).toEqual([]);
    await createTask(target(), me, { labels: ["Docs", "b"] });
    await createTask(target(), me, { labels: ["docs"], assignee_id: other.id });
    const gone = await createTask(target(), me, { labels: ["docs", "gone"] });
    await ask(target(), "DELETE", `/tasks/${gone.id}`, { token: me.token });
    expect(await read(target(), me, "/labels")).toEqual([
      { label: "b", count: 1 },
      { label: "Docs", count: 2 },
    ]);
    expect(await read(target(), other, "/labels")).toEqual([]);
    const refused = await ask(target(), "GET", "/tasks/stats?scope=theirs", { token: me.token });
    expect(refused.status).toBe(400);
  });
}
