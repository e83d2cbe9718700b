// Lists of tasks as a client walks them, and as a reference filter over all tasks says they should be.

import { expect } from "bun:test";
import type { Random } from "./seeded-random.ts";
import type { Target } from "./targets.ts";
import { type Account, ask, type Task } from "./task-client.ts";

type Asker = Pick<Account, "id" | "token">;
export type ListFilter = Readonly<Record<string, string>>;

export const SORTS = ["created_at", "updated_at", "due_date", "priority"] as const;
const PRIORITIES = ["low", "medium", "high"];
const HOUR_MS = 3_600_000;

export interface ListPage {
  readonly tasks: readonly Task[];
  readonly next: string | null;
  readonly total: number | null;
}

export async function listPage(target: Target, { token }: Pick<Account, "token">, query: string): Promise<ListPage> {
  const answer = await ask(target, "GET", `/tasks${query}`, { token });
  expect([query, answer.status]).toEqual([query, 200]);
  const total = answer.headers.get("x-total-count");
  const link = answer.headers.get("link");
  const next = link === null ? null : /^<\/api\/v1\/tasks(\?[^>]*)>; rel="next"$/.exec(link)![1]!;
  expect(answer.headers.has("x-next-cursor")).toBe(next !== null);
  return { tasks: (await answer.json()) as Task[], next, total: total === null ? null : Number(total) };
}

/** All pages by their links; `between` runs behind each but the last. */
export async function walk(
  target: Target,
  account: Pick<Account, "token">,
  filter: ListFilter,
  between: () => Promise<void> = async () => undefined,
): Promise<Task[]> {
  const found: Task[] = [];
  for (let query: string | null = `?${new URLSearchParams(filter)}`; query !== null; ) {
    const page = await listPage(target, account, query);
    found.push(...page.tasks);
    query = page.next;
    if (query !== null) await between();
  }
  return found;
}

/** What the list has to be, judged task by task; `all` are all live tasks of the account, owned and assigned. */
export function filtered(all: readonly Task[], account: Asker, filter: ListFilter, nowMs: number): Task[] {
  return all.filter((task) => matches(task, account, filter, nowMs)).sort(byOrder(filter.sort ?? "-created_at"));
}

function matches(task: Task, { id }: Asker, filter: ListFilter, nowMs: number): boolean {
  const dueMs = task.due_date === null ? null : Date.parse(task.due_date);
  const isOverdue = dueMs !== null && dueMs < nowMs && task.status !== "completed";
  const text = `${task.title}\n${task.description}`.normalize("NFKC").toLowerCase();
  const judges: Record<string, (value: string) => boolean> = {
    status: (value) => value.split(",").includes(task.status),
    priority: (value) => value.split(",").includes(task.priority),
    label: (value) => task.labels.some((label) => value.toLowerCase().split(",").includes(label.toLowerCase())),
    scope: (value) => value === "all" || (value === "mine" ? task.user_id : task.assignee_id) === id,
    assignee: (value) => task.assignee_id === (value === "me" ? id : value === "none" ? null : Number(value)),
    due_after: (value) => dueMs !== null && dueMs >= Date.parse(value),
    due_before: (value) => dueMs !== null && dueMs < Date.parse(value),
    updated_after: (value) => Date.parse(task.updated_at) >= Date.parse(value),
    overdue: (value) => isOverdue === (value === "true"),
    q: (value) => value.split(" ").every((word) => text.includes(word.normalize("NFKC").toLowerCase())),
  };
  return Object.entries(filter).every(([name, value]) => value === "" || (judges[name]?.(value) ?? true));
}

function byOrder(sort: string): (a: Task, b: Task) => number {
  const by = sort.replace("-", "") as (typeof SORTS)[number];
  const keyOf = (task: Task) => {
    if (by === "priority") return PRIORITIES.indexOf(task.priority);
    return task[by] === null ? Number.POSITIVE_INFINITY : Date.parse(task[by]);
  };
  const sign = sort.startsWith("-") ? -1 : 1;
  return (a, b) => {
    const [left, right] = [keyOf(a), keyOf(b)];
    return sign * (left === right ? a.id - b.id : left < right ? -1 : 1);
  };
}

/** A task as random as filters are: few values, so that each of them meets some. */
export function randomFields(random: Random, nowMs: number, assigneeId: number | null): Record<string, unknown> {
  const hours = () => (random.below(96) - 48) * HOUR_MS;
  return {
    title: `${random.pick(["Alpha", "beta", "文档", "100%", "under_score"])} ${random.below(10)}`,
    description: random.pick(["", "quick brown", "Ｗｉｄｅ text", "back\\slash"]),
    status: random.pick(["pending", "in_progress", "completed"]),
    priority: random.pick(PRIORITIES),
    due_date: random.chance(0.3) ? null : new Date(nowMs + hours() + HOUR_MS / 2).toISOString(),
    labels: ["docs", "Home", "été"].filter(() => random.chance(0.3)),
    assignee_id: random.chance(0.3) ? assigneeId : null,
  };
}

/** Any combination of parameters; no two of them mean the same. */
export function randomFilter(random: Random, nowMs: number, people: readonly number[]): ListFilter {
  const time = () => new Date(nowMs + (random.below(96) - 48) * HOUR_MS).toISOString();
  const some = (values: readonly string[]) => values.filter(() => random.chance(0.5)).join(",");
  const possible: Record<string, () => string> = {
    status: () => some(["pending", "in_progress", "completed"]),
    priority: () => some(PRIORITIES),
    label: () => some(["docs", "home", "ÉTÉ", "nowhere"]),
    scope: () => random.pick(["all", "mine", "assigned"]),
    assignee: () => random.pick(["me", "none", ...people.map(String)]),
    due_after: time,
    due_before: time,
    overdue: () => random.pick(["true", "false"]),
    q: () => random.pick(["alpha", "BETA 3", "文", "%", "_", "\\", "wide", "nothing like it"]),
  };
  const chosen = Object.entries(possible).filter(() => random.chance(0.25));
  const sort = `${random.pick(["", "-"])}${random.pick(SORTS)}`;
  return {
    ...Object.fromEntries(chosen.map(([name, value]) => [name, value()])),
    sort,
    limit: `${1 + random.below(40)}`,
  };
}
