// The history of a task: one event for each accepted change, never altered.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { eventsOf, send, sendOk, type TaskEvent } from "../support/task-answers.ts";
import { type Account, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const MEMBERS = [
  "title",
  "description",
  "status",
  "priority",
  "due_date",
  "remind_at",
  "assignee_id",
  "labels",
] as const satisfies readonly (keyof Task)[];
const CHANGES = 120;

export function taskHistorySuite(name: string, open: OpenTarget): void {
  describe(`the history of a task on ${name}`, () => {
    historyTests(useTarget(open, UNLIMITED));
    permanenceTests(useTarget(open, UNLIMITED));
  });
}

/** From and to of every member that differs. */
function differences(before: Task, after: Task): TaskEvent["changes"] {
  const differing = MEMBERS.filter((name) => !Bun.deepEquals(before[name], after[name]));
  return Object.fromEntries(differing.map((name) => [name, [before[name], after[name]]]));
}

function randomPatch(random: Random, people: readonly Account[]): Record<string, unknown> {
  const values: Record<(typeof MEMBERS)[number], () => unknown> = {
    title: () => random.pick(["one", "two", " two ", "题目", null]),
    description: () => random.pick(["", "text", null]),
    status: () => random.pick(["pending", "in_progress", "completed"]),
    priority: () => random.pick(["low", "medium", "high"]),
    due_date: () => random.pick(["2030-01-01T00:00:00Z", "2030-01-01T08:00:00+08:00", null]),
    remind_at: () => random.pick(["2031-01-01T00:00:00.5Z", null]),
    assignee_id: () => random.pick([...people.map(({ id }) => id), null, 999_999]),
    labels: () => random.pick([["a"], ["b", "a"], ["A"], [], null]),
  };
  const names = MEMBERS.filter(() => random.chance(0.25));
  return Object.fromEntries(names.map((name) => [name, values[name]()]));
}

function historyTests(target: () => Target): void {
  test("holds exactly one event for each accepted change, with its actor, what was and what is", async () => {
    const random = seededRandom("history of a task");
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    let task = await createTask(target(), ann, { labels: ["a"], description: "text" });
    const path = `/tasks/${task.id}`;
    let history = await eventsOf(target(), ann, task.id);
    expect(history.map(({ type, version, changes }) => [type, version, changes])).toEqual([
      [
        "task.created",
        1,
        {
          title: [null, "A task"],
          description: [null, "text"],
          status: [null, "pending"],
          priority: [null, "medium"],
          labels: [null, ["a"]],
        },
      ],
    ]);
    const statuses = new Map<number, number>();
    for (let change = 0; change < CHANGES; change++) {
      const by = random.chance(0.3) ? ben : ann;
      const answer = await send<Task>(target(), by, "PATCH", path, randomPatch(random, [ann, ben]));
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      const now = await eventsOf(target(), ann, task.id);
      const fresh = now.slice(history.length);
      expect(now.slice(0, history.length)).toEqual(history);
      const changes = answer.status === 200 ? differences(task, answer.body) : {};
      if (Object.keys(changes).length === 0) expect(fresh).toEqual([]);
      else {
        const { id, at, version } = fresh[0]!;
        const type = changes.assignee_id === undefined ? "task.updated" : "task.assigned";
        expect(fresh).toEqual([{ id, type, actor_id: by.id, version, changes, at }]);
        expect([version, at]).toEqual([answer.body.version, answer.body.updated_at]);
        expect(version).toBe(task.version + 1);
      }
      if (answer.status === 200) task = answer.body;
      history = now;
    }
    expect([...statuses.keys()].toSorted().slice(0, 2)).toEqual([200, 400]);
    expect(await sendOk(target(), ann, "GET", path)).toEqual(task);
  }, 20_000);
}

function permanenceTests(target: () => Target): void {
  test("is written once: no request alters an event, where the store would refuse it", async () => {
    const [ann, ben] = [await signUp(target()), await signUp(target())];
    const refusal = "BEFORE UPDATE ON task_event BEGIN SELECT RAISE(ABORT, 'events are permanent'); END";
    await alterStore(target().dbPath, `CREATE TRIGGER permanent ${refusal}`);
    const task = await createTask(target(), ann, { assignee_id: ben.id });
    const path = `/tasks/${task.id}`;
    await sendOk(target(), ben, "PUT", path, { status: "completed" });
    const { body } = await send<{ id: number }>(target(), ben, "POST", `${path}/comments`, { body: "x" });
    await sendOk(target(), ann, "DELETE", `${path}/comments/${body.id}`);
    await sendOk(target(), ann, "PATCH", path, { assignee_id: null });
    await sendOk(target(), ann, "DELETE", path);
    await sendOk(target(), ann, "POST", `${path}/restore`);
    const [first, ...others] = await eventsOf(target(), ann, task.id);
    const types = ["comment.created", "comment.deleted", "task.assigned", "task.deleted", "task.restored"];
    expect([first!.type, ...others.map(({ type }) => type)]).toEqual(["task.created", "task.updated", ...types]);
    const altered = alterStore(target().dbPath, "UPDATE task_event SET type = 'x'");
    expect(await altered.then(String, String)).toContain("events are permanent");
  });
}
