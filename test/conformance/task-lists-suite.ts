// Lists of tasks: what filters leave, orders and their pages, what is refused, and when nothing has changed.

import { describe, expect, test } from "bun:test";
import { bySize } from "../support/run-size.ts";
import { type Random, seededRandom } from "../support/seeded-random.ts";
import type { OpenTarget, Target } from "../support/targets.ts";
import { type Account, ask, createTask, signUp, type Task, UNLIMITED } from "../support/task-client.ts";
import { filtered, listPage, randomFields, randomFilter, SORTS, walk } from "../support/task-lists.ts";
import { useTarget } from "../support/use-target.ts";

const RANDOM_TASKS = 120;
const RANDOM_FILTERS = 50;
const AT_ONCE = 16;

export function taskListsSuite(name: string, open: OpenTarget): void {
  describe(`lists of tasks on ${name}`, () => {
    const target = useTarget(open, UNLIMITED);
    filterTests(target);
    walkTests(target);
    refusalTests(target);
    refusedParameterTests(target);
    unchangedTests(target);
    deletedTests(target);
  });
}

async function createMany(target: Target, owner: Account, fields: readonly Record<string, unknown>[]): Promise<Task[]> {
  const tasks: Task[] = [];
  for (let first = 0; first < fields.length; first += AT_ONCE) {
    const some = fields.slice(first, first + AT_ONCE);
    tasks.push(...(await Promise.all(some.map((each) => createTask(target, owner, each)))));
  }
  return tasks;
}

function idsOf(tasks: readonly Task[]): number[] {
  return tasks.map(({ id }) => id);
}

interface Mixed {
  readonly me: Account;
  readonly other: Account;
  readonly random: Random;
  readonly nowMs: number;
  readonly all: readonly Task[];
}

/** Two users with tasks of their own, each assigned to either of them, or nobody. */
async function mixedTasks(target: Target): Promise<Mixed> {
  const random = seededRandom("random filters over tasks");
  const [me, other] = [await signUp(target), await signUp(target)];
  const nowMs = Date.now();
  for (const owner of [me, other]) {
    const fields = Array.from({ length: RANDOM_TASKS / 2 }, () =>
      randomFields(random, nowMs, random.pick([me.id, other.id])),
    );
    await createMany(target, owner, fields);
  }
  const all = await walk(target, me, { limit: "1000" });
  expect(all.every(({ user_id, assignee_id }) => user_id === me.id || assignee_id === me.id)).toBe(true);
  return { me, other, random, nowMs, all };
}

function filterTests(target: () => Target): void {
  test("show what a reference filter over all tasks shows, in its order, and count as much", async () => {
    const { me, other, random, nowMs, all } = await mixedTasks(target());
    for (let round = 0; round < RANDOM_FILTERS; round++) {
      const filter = randomFilter(random, nowMs, [me.id, other.id]);
      const expected = filtered(all, me, filter, nowMs);
      const found = await walk(target(), me, filter);
      expect([JSON.stringify(filter), ...idsOf(found)]).toEqual([JSON.stringify(filter), ...idsOf(expected)]);
      const { total, tasks } = await listPage(target(), me, `?${new URLSearchParams({ ...filter, count: "true" })}`);
      expect([JSON.stringify(filter), total]).toEqual([JSON.stringify(filter), expected.length]);
      expect(tasks).toEqual(expected.slice(0, Number(filter.limit)));
    }
  });

  test("are narrowed by status and priority, by several of one kind, and not at all by an empty list", async () => {
    const me = await signUp(target());
    const kinds = ["pending", "in_progress", "completed"].flatMap((status) =>
      ["low", "medium", "high"].map((priority) => ({ status, priority })),
    );
    const tasks = await createMany(target(), me, kinds);
    const found = async (query: string) => idsOf((await listPage(target(), me, query)).tasks).sort((a, b) => a - b);
    const those = (match: (task: Task) => boolean) => idsOf(tasks.filter(match)).sort((a, b) => a - b);
    const pendingHigh = those(({ status, priority }) => status === "pending" && priority === "high");
    expect(await found("?status=pending&priority=high")).toEqual(pendingHigh);
    expect(await found("?status=pending,in_progress")).toEqual(those(({ status }) => status !== "completed"));
    for (const query of ["", "?status=", "?priority=", "?label=", "?status=&priority=&label="]) {
      expect(await found(query)).toEqual(those(() => true));
    }
    const refused = await ask(target(), "GET", "/tasks?status=done", { token: me.token });
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([400, "invalid_request"]);
  });

  test("are filtered by the time of the last change, from that very moment on", async () => {
    const me = await signUp(target());
    const [first, second] = await createMany(target(), me, [{}, {}]);
    const body = { description: "later" };
    const changed = (await (
      await ask(target(), "PATCH", `/tasks/${first!.id}`, { token: me.token, body })
    ).json()) as Task;
    const since = async (time: string) => idsOf((await listPage(target(), me, `?updated_after=${time}`)).tasks);
    const later = Date.parse(changed.updated_at) > Date.parse(second!.updated_at);
    expect(await since(changed.updated_at)).toEqual(later ? [first!.id] : [second!.id, first!.id]);
    expect(await since(new Date(Date.parse(changed.updated_at) + 1).toISOString())).toEqual([]);
  });
}

function walkTests(target: () => Target): void {
  test("are walked by their links in every order while others come and go: each untouched task once", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const random = seededRandom("walking lists");
    const count = bySize(240, 1000);
    const fields = () => randomFields(random, Date.now(), null);
    const mine = await createMany(target(), me, Array.from({ length: (count * 3) / 4 }, fields));
    const theirs = await createMany(
      target(),
      other,
      Array.from({ length: count / 4 }, () => ({ ...fields(), assignee_id: me.id })),
    );
    const untouched = new Set(idsOf([...mine, ...theirs]));
    for (const sort of SORTS.flatMap((by) => [by, `-${by}`])) {
      const passing: Task[] = [await createTask(target(), me, fields())];
      const found = await walk(target(), me, { sort, limit: `${count / 8}` }, async () => {
        passing.push(await createTask(target(), me, fields()));
        const gone = passing.shift()!;
        await ask(target(), "DELETE", `/tasks/${gone.id}`, { token: me.token });
      });
      const seen = idsOf(found).filter((id) => untouched.has(id));
      expect([sort, seen.length, new Set(seen).size]).toEqual([sort, count, count]);
      const order = filtered(
        found.filter(({ id }) => untouched.has(id)),
        me,
        { sort },
        0,
      );
      expect(seen).toEqual(idsOf(order));
      for (const { id } of passing) await ask(target(), "DELETE", `/tasks/${id}`, { token: me.token });
    }
    expect((await listPage(target(), me, "?limit=1")).total).toBe(null);
    expect((await listPage(target(), me, "?limit=1&count=true")).total).toBe(count);
  }, 60_000);

  test("end early where texts are long, with a link to the rest", async () => {
    const me = await signUp(target());
    const fields = Array.from({ length: 60 }, () => ({ title: "long", description: "😀".repeat(20_000) }));
    const ids = idsOf(await createMany(target(), me, fields)).sort((a, b) => b - a);
    for (const query of ["?limit=1000", "?limit=60&sort=-priority", "?limit=60&q=long", "?limit=60&expand=user"]) {
      const { tasks, next } = await listPage(target(), me, query);
      expect([query, tasks.length > 1, tasks.length < 60, next !== null]).toEqual([query, true, true, true]);
      const rest = await listPage(target(), me, next!);
      expect(idsOf([...tasks, ...rest.tasks])).toEqual(ids);
      expect(rest.next).toBe(null);
    }
  });

  test("end without a link, and are empty lists when nothing is there", async () => {
    const me = await signUp(target());
    for (const query of ["", "?status=completed", "?q=nothing", "?deleted=true", "?scope=assigned&assignee=none"]) {
      const answer = await ask(target(), "GET", `/tasks${query}`, { token: me.token });
      expect([answer.status, await answer.text(), answer.headers.get("link")]).toEqual([200, "[]", null]);
    }
    await createMany(target(), me, [{}, {}]);
    expect((await listPage(target(), me, "?limit=2")).next).toBe(null);
    expect((await listPage(target(), me, "?limit=1")).next).not.toBe(null);
  });
}

function refusalTests(target: () => Target): void {
  const refusalOf = async (account: Account, query: string) => {
    const answer = await ask(target(), "GET", `/tasks${query}`, { token: account.token });
    const { error, code } = (await answer.json()) as { error: string; code: string };
    expect(typeof error).toBe("string");
    return [query, answer.status, code];
  };

  test("refuse a cursor of another filter, order or user, or with any character changed", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    for (const owner of [me, other]) await createMany(target(), owner, [{}, {}, {}]);
    const { next } = await listPage(target(), me, "?limit=1&status=pending");
    const cursor = new URLSearchParams(next!).get("cursor")!;
    const rest = await listPage(target(), me, `?limit=2&status=pending&cursor=${cursor}`);
    expect(rest.tasks.length).toBe(2);
    const queries = [`status=completed&cursor=${cursor}`, `cursor=${cursor}`, "status=pending&cursor="];
    queries.push(`status=pending&sort=created_at&cursor=${cursor}`, `status=pending&cursor=${cursor}A`);
    queries.push(`status=pending&q=x&cursor=${cursor}`, `status=pending&cursor=${encodeURIComponent(`${cursor}=`)}`);
    for (const at of cursor.split("").keys()) {
      const changed = `${cursor.slice(0, at)}${cursor[at] === "A" ? "B" : "A"}${cursor.slice(at + 1)}`;
      queries.push(`status=pending&cursor=${changed}`);
    }
    for (const query of queries) {
      expect(await refusalOf(me, `?${query}`)).toEqual([`?${query}`, 400, "invalid_cursor"]);
    }
    const theirs = `?status=pending&cursor=${cursor}`;
    expect(await refusalOf(other, theirs)).toEqual([theirs, 400, "invalid_cursor"]);
  });

  test("refuse what no parameter means, is unknown, or given twice", async () => {
    const me = await signUp(target());
    const queries = ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1.5", "limit=-1", "page=2", "STATUS=pending"];
    queries.push("limit=1&limit=1", "status=pending&status=pending", "sort=title", "sort=", "sort=--created_at");
    queries.push(
      "status=Pending",
      "status=pending,",
      "status=pending,done",
      "priority=urgent",
      "priority=1",
      "label=,",
    );
    queries.push("scope=", "scope=theirs", "assignee=", "assignee=0", "assignee=you", "assignee=9007199254740992");
    queries.push("due_after=2026-02-01", "due_before=tomorrow", "due_after=2026-02-30T00:00:00Z", "updated_after=1");
    queries.push("overdue=", "overdue=1", "overdue=yes", "deleted=x", "count=1", "count=", "expand=users", "expand=");
    queries.push("q=%00", "label=%00", "q=1+2+3+4+5+6+7+8+9", "q=%ff", "due_after=2026-01-01T00:00:00+01:00");
    for (const query of queries) {
      expect(await refusalOf(me, `?${query}`)).toEqual([`?${query}`, 400, "invalid_request"]);
    }
    const fine = ["limit=1", "limit=1000", "q=1+2+3+4+5+6+7+8", "q=", "overdue=false", "count=false", "deleted=false"];
    for (const query of fine) await listPage(target(), me, `?${query}`);
  });
}

function refusedParameterTests(target: () => Target): void {
  test("name the parameter that is wrong, in the words of the message and as a field", async () => {
    const me = await signUp(target());
    const wrong: readonly (readonly [path: string, name: string, words: string])[] = [
      ["/tasks?scope=theirs", "scope", "is one of all, mine, assigned"],
      ["/tasks?limit=0", "limit", "is a whole number from 1 to 1000"],
      ["/tasks?status=done", "status", "is one of pending, in_progress, completed"],
      ["/tasks?q=a&q=b", "q", "is given twice"],
      ["/tasks/export.csv?bom=2", "bom", "is one of 0, 1"],
      ["/jobs?state=lost", "state", "is one of ready, running, done, dead, cancelled"],
    ];
    for (const [path, name, words] of wrong) {
      const refused = await ask(target(), "GET", path, { token: me.token });
      expect([refused.status, await refused.json()]).toEqual([
        400,
        { error: `${name} ${words}.`, code: "invalid_request", fields: { [name]: words } },
      ]);
    }
    const unknown = await ask(target(), "GET", "/users?username=a&na%22me=x", { token: me.token });
    expect([unknown.status, await unknown.json()]).toEqual([
      400,
      {
        error: 'Unknown query parameter "na\\"me". Known here: username.',
        code: "invalid_request",
        fields: { 'na"me': "unknown" },
      },
    ]);
  });
}

function unchangedTests(target: () => Target): void {
  const again = (account: Account, path: string, tag: string) =>
    ask(target(), "GET", path, { token: account.token, headers: { "If-None-Match": tag } });

  test("and single tasks answer 304 without a body until something changes, whoever changes it", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), me, { assignee_id: other.id });
    for (const path of ["/tasks", "/tasks?status=pending&count=true", `/tasks/${task.id}`, "/labels"]) {
      const first = await ask(target(), "GET", path, { token: me.token });
      const tag = first.headers.get("etag")!;
      expect([path, first.headers.get("cache-control")]).toEqual([path, "private, no-cache"]);
      for (const sent of [tag, `"other", ${tag}`, "*", tag.replace(/^W\//, "")]) {
        const unchanged = await again(me, path, sent);
        expect([path, unchanged.status, await unchanged.text()]).toEqual([path, 304, ""]);
        expect(unchanged.headers.get("etag")).toBe(tag);
      }
      expect((await again(me, path, 'W/"0-x"')).status).toBe(200);
      const body = { status: Math.random() < 0.5 ? "in_progress" : "completed" };
      const status = await ask(target(), "PATCH", `/tasks/${task.id}`, { token: other.token, body });
      expect(status.status).toBe(200);
      expect([path, (await again(me, path, tag)).status]).toEqual([path, 200]);
      await ask(target(), "PATCH", `/tasks/${task.id}`, { token: other.token, body: { status: "pending" } });
    }
    const single = await ask(target(), "GET", `/tasks/${task.id}`, { token: me.token });
    expect(single.headers.get("etag")).toBe(`"v${((await single.json()) as Task).version}"`);
  });

  test("have tags of their own for each query and user, and none where time or names of users have a say", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    for (const owner of [me, other]) await createTask(target(), owner, { labels: ["x"] });
    const tagOf = async (account: Account, query: string) =>
      (await ask(target(), "GET", `/tasks${query}`, { token: account.token })).headers.get("etag");
    const queries = ["", "?status=pending", "?sort=created_at", "?limit=1", "?count=true", "?q=x", "?label=x"];
    const tags = await Promise.all([...queries.map((query) => tagOf(me, query)), tagOf(other, "")]);
    expect(new Set(tags).size).toBe(tags.length);
    expect(tags).not.toContain(null);
    for (const query of ["?overdue=true", "?overdue=false", "?expand=user", "?deleted=true"]) {
      expect([query, await tagOf(me, query)]).toEqual([query, null]);
    }
  });

  test("show users by id and name alone, and only when asked to", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const task = await createTask(target(), me, { assignee_id: other.id });
    const plain = await createTask(target(), me);
    const person = ({ id, username }: Account) => ({ id, username });
    for (const account of [me, other]) {
      const answer = await ask(target(), "GET", `/tasks/${task.id}?expand=user`, { token: account.token });
      expect(answer.headers.get("etag")).toBe(null);
      expect(await answer.json()).toEqual({ ...task, user: person(me), assignee: person(other) });
    }
    const list = await (await ask(target(), "GET", "/tasks?expand=user", { token: me.token })).json();
    expect(list).toEqual([
      { ...plain, user: person(me), assignee: null },
      { ...task, user: person(me), assignee: person(other) },
    ]);
    const text = await (await ask(target(), "GET", "/tasks", { token: other.token })).text();
    expect(text).not.toContain(me.email);
    expect(JSON.parse(text)).toEqual([task]);
  });

  test("have heads of the length of what they would send", async () => {
    const me = await signUp(target());
    const task = await createTask(target(), me, { title: "长度" });
    for (const path of ["/tasks", `/tasks/${task.id}`, "/labels", "/tasks/stats"]) {
      const [get, head] = await Promise.all(
        ["GET", "HEAD"].map((how) => ask(target(), how, path, { token: me.token })),
      );
      const length = Buffer.byteLength(await get!.text());
      expect([path, head!.status, head!.headers.get("content-length")]).toEqual([path, 200, `${length}`]);
      expect([head!.headers.get("etag"), await head!.text()]).toEqual([get!.headers.get("etag"), ""]);
    }
  });
}

function deletedTests(target: () => Target): void {
  test("of deleted tasks are their owner's, filtered and ordered like others", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const random = seededRandom("lists of deleted tasks");
    const fields = Array.from({ length: 20 }, () => randomFields(random, Date.now(), other.id));
    const tasks = await createMany(target(), me, fields);
    const gone = tasks.filter((_, index) => index % 2 === 0);
    for (const { id } of gone) await ask(target(), "DELETE", `/tasks/${id}`, { token: me.token });
    const seen = await walk(target(), me, { deleted: "true", limit: "1000" });
    expect(idsOf(seen).sort()).toEqual(idsOf(gone).sort());
    for (const sort of SORTS) {
      const filter = { sort, deleted: "true", priority: "low,high", limit: "3" };
      expect(idsOf(await walk(target(), me, filter))).toEqual(idsOf(filtered(seen, me, filter, 0)));
    }
    const { total } = await listPage(target(), me, "?deleted=true&count=true&limit=1");
    expect(total).toBe(gone.length);
    expect(await walk(target(), other, { deleted: "true" })).toEqual([]);
    expect(idsOf(await walk(target(), me, {})).sort()).toEqual(
      idsOf(tasks.filter((task) => !gone.includes(task))).sort(),
    );
  });

  test("of deleted tasks that are assigned to their owner are those that assignee=me shows", async () => {
    const [me, other] = [await signUp(target()), await signUp(target())];
    const people = [me.id, other.id, null, me.id];
    const [first, , , last] = await createMany(
      target(),
      me,
      people.map((assignee_id) => ({ title: "gone", assignee_id })),
    );
    const theirs = await createTask(target(), other, { assignee_id: me.id });
    await ask(target(), "DELETE", `/tasks/${theirs.id}`, { token: other.token });
    for (const { id } of await walk(target(), me, {})) await ask(target(), "DELETE", `/tasks/${id}`, me);
    const mine = [first!.id, last!.id].sort((a, b) => b - a);
    for (const filter of [{ scope: "assigned" }, { assignee: "me" }, { scope: "assigned", assignee: "me" }]) {
      const query = { deleted: "true", count: "true", ...filter };
      const { tasks, total } = await listPage(target(), me, `?${new URLSearchParams(query)}`);
      expect([filter, idsOf(tasks), total]).toEqual([filter, mine, 2]);
    }
    for (const assignee of ["none", `${other.id}`]) {
      expect(await walk(target(), me, { deleted: "true", scope: "assigned", assignee })).toEqual([]);
    }
    expect(await walk(target(), other, { deleted: "true", scope: "assigned" })).toEqual([]);
  });
}
