// Tasks read from memory: never older than the last answered write, never shown to anybody else.

import { describe, expect, test } from "bun:test";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const TASKS = 6;
const ROUNDS = 150;

export function taskCacheSuite(name: string, open: OpenTarget): void {
  for (const cache of ["auto", "off"]) {
    describe(`reading tasks with TASK_CACHE=${cache} on ${name}`, () => {
      cacheTests(useTarget(open, { ...UNLIMITED, TASK_CACHE: cache }));
    });
  }
  describe(`a cache that was warmed on ${name}`, () => {
    warmTests(useTarget(open, { ...UNLIMITED, JOBS_POLL: "50ms" }));
  });
}

/** What the server has last said of a task; null = it is deleted. */
interface Known {
  readonly id: number;
  task: Task | null;
}

function cacheTests(target: () => Target): void {
  test("agrees with a model over random reads, changes, deletions and restores", async () => {
    const random = seededRandom("cached tasks against a model");
    const [owner, assignee, stranger] = [await signUp(target()), await signUp(target()), await signUp(target())];
    const known: Known[] = [];
    for (let made = 0; made < TASKS; made++) {
      const task = await createTask(target(), owner, { assignee_id: made % 2 === 0 ? assignee.id : null });
      known.push({ id: task.id, task });
    }
    // Each task is acted upon by one after the other, all tasks at the same time.
    await Promise.all(
      known.map(async (item) => {
        for (let round = 0; round < ROUNDS / TASKS; round++) {
          await change(target(), random, owner, assignee, item);
          const seen = await Promise.all(
            [owner, assignee, stranger, owner].map(({ token }) => ask(target(), "GET", `/tasks/${item.id}`, { token })),
          );
          const isShared = item.task?.assignee_id === assignee.id;
          const expected = [item.task !== null, isShared, false, item.task !== null].map((is) => (is ? 200 : 404));
          expect(seen.map(({ status }) => status)).toEqual(expected);
          for (const answer of seen) {
            const body = await answer.json();
            if (answer.status === 200) expect(body).toEqual(item.task as Task);
            else expect(body).toEqual({ error: "task not found", code: "not_found" });
          }
        }
      }),
    );
  }, 30_000);

  test("shows a reader no version older than one that was answered before it asked", async () => {
    const owner = await signUp(target());
    const { id } = await createTask(target(), owner);
    let answered = 1;
    let isDone = false;
    const reader = async () => {
      while (!isDone) {
        const floor = answered;
        const task = (await (await ask(target(), "GET", `/tasks/${id}`, { token: owner.token })).json()) as Task;
        expect(task.version).toBeGreaterThanOrEqual(floor);
      }
    };
    const writer = async () => {
      for (let version = 2; version <= 40; version++) {
        const body = { title: `Version ${version}` };
        const task = (await (
          await ask(target(), "PATCH", `/tasks/${id}`, { token: owner.token, body })
        ).json()) as Task;
        answered = task.version;
      }
      isDone = true;
    };
    await Promise.all([writer(), ...Array.from({ length: 4 }, reader)]);
    expect(answered).toBe(40);
  });

  test("is 404 for another user on each hit, and 304 only for those who may see the task", async () => {
    const [owner, stranger] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), owner, { title: "secret" });
    for (let round = 0; round < 5; round++) {
      const headers = round % 2 === 0 ? {} : { "If-None-Match": '"v1"' };
      const mine = await ask(target(), "GET", `/tasks/${task.id}`, { token: owner.token, headers });
      expect(mine.status).toBe(round % 2 === 0 ? 200 : 304);
      const theirs = await ask(target(), "GET", `/tasks/${task.id}`, { token: stranger.token, headers });
      expect([theirs.status, await theirs.text()]).toEqual([404, '{"error":"task not found","code":"not_found"}']);
      expect(theirs.headers.get("etag")).toBe(null);
    }
  });

  test("forgets what an account that is deleted owned, and whom it was assigned to", async () => {
    const [owner, leaving] = [await signUp(target()), await signUp(target())];
    const mine = await createTask(target(), owner, { assignee_id: leaving.id });
    const theirs = await createTask(target(), leaving, { assignee_id: owner.id });
    const read = (id: number) => ask(target(), "GET", `/tasks/${id}`, { token: owner.token });
    expect([(await read(mine.id)).status, (await read(theirs.id)).status]).toEqual([200, 200]);
    const body = { current_password: leaving.password };
    expect((await ask(target(), "DELETE", "/auth/me", { token: leaving.token, body })).status).toBe(200);
    expect((await read(theirs.id)).status).toBe(404);
    expect(((await (await read(mine.id)).json()) as Task).assignee_id).toBe(null);
  });
}

async function change(target: Target, random: Random, owner: Account, assignee: Account, item: Known): Promise<void> {
  const path = `/tasks/${item.id}`;
  const { token } = owner;
  if (item.task === null) {
    const restored = await ask(target, "POST", `${path}/restore`, { token });
    expect(restored.status).toBe(200);
    item.task = (await restored.json()) as Task;
  } else if (random.chance(0.2)) {
    expect((await ask(target, "DELETE", path, { token })).status).toBe(200);
    item.task = null;
  } else {
    const assigned = random.pick([assignee.id, null]);
    const body = random.chance(0.3)
      ? { assignee_id: assigned }
      : { title: `Title ${random.below(1e6)}`, labels: ["x"] };
    const changed = await ask(target, "PATCH", path, { token, body });
    expect(changed.status).toBe(200);
    item.task = (await changed.json()) as Task;
  }
}

function warmTests(target: () => Target): void {
  test("after a restart answers as before, and goes on to follow every change", async () => {
    const owner = await signUp(target());
    const tasks: Task[] = [];
    for (let made = 0; made < 5; made++) tasks.push(await createTask(target(), owner, { labels: ["warm"] }));
    await target().restart();
    for (const task of tasks) {
      const answer = await ask(target(), "GET", `/tasks/${task.id}`, { token: owner.token });
      expect(await answer.json()).toEqual(task);
      const body = { title: "changed" };
      const changed = (await (
        await ask(target(), "PATCH", `/tasks/${task.id}`, { token: owner.token, body })
      ).json()) as Task;
      const again = await ask(target(), "GET", `/tasks/${task.id}`, { token: owner.token });
      expect(await again.json()).toEqual(changed);
    }
  });
}
