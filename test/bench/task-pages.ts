// A user with a hundred thousand tasks: how long pages, searches and statistics take, and what others feel meanwhile.

import { formatCursor, type Place } from "../../src/task/task-cursor.ts";
import { listKey, parseFilter, type TaskSort } from "../../src/task/task-query.ts";
import { ask } from "../support/task-client.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { atMost, type Figure, InvalidRun, median, percentile, reported } from "./figures.ts";
import { countByStatus, startOpenLoop, withoutLag } from "./open-loop.ts";
import {
  type FilledTask,
  type FilledUser,
  fillTasks,
  getOf,
  requireOk,
  startTaskServer,
  taskTarget,
} from "./task-user.ts";

const TASKS = 100_000;
const ASSIGNED = 5000;
const PAGE = 50;
const DAY_MS = 86_400_000;
const OTHERS_PER_SECOND = 200;
const COLD_READS = 100;

const SORTS = ["created_at", "updated_at", "due_date", "priority"] as const satisfies readonly TaskSort["by"][];
const KEYS: Readonly<Record<TaskSort["by"], (task: FilledTask) => number>> = {
  created_at: ({ createdMs }) => createdMs,
  updated_at: ({ updatedMs }) => updatedMs,
  due_date: ({ dueMs }) => dueMs,
  priority: ({ priority }) => priority,
};

type Filter = Readonly<Record<string, string>>;

function filtersAt(nowMs: number): readonly Filter[] {
  const week = { due_after: new Date(nowMs).toISOString(), due_before: new Date(nowMs + 7 * DAY_MS).toISOString() };
  return [
    {},
    { status: "pending" },
    { status: "in_progress" },
    { status: "completed" },
    { priority: "low" },
    { priority: "medium" },
    { priority: "high" },
    week,
    { scope: "mine" },
    { scope: "assigned" },
  ];
}

/** The filter in plain words, for finding the places where pages begin. */
function isIn(task: FilledTask, filter: Filter): boolean {
  const { status, priority, due_after, due_before, scope } = filter;
  if (status !== undefined && task.status !== status) return false;
  if (priority !== undefined && ["low", "medium", "high"][task.priority - 1] !== priority) return false;
  if (due_after !== undefined && task.dueMs < Date.parse(due_after)) return false;
  if (due_before !== undefined && task.dueMs >= Date.parse(due_before)) return false;
  return scope === undefined || (scope === "mine") === task.id <= TASKS;
}

/** Behind which the first, the middle and the last page begin. */
function placesOf(tasks: readonly FilledTask[], filter: Filter, { by, isDescending }: TaskSort): (Place | null)[] {
  const sign = isDescending ? -1 : 1;
  const places = tasks.filter((task) => isIn(task, filter)).map((task) => ({ key: KEYS[by](task), id: task.id }));
  places.sort((a, b) => sign * (a.key - b.key || a.id - b.id));
  return [null, places[places.length >> 1]!, places[places.length - PAGE - 1]!];
}

async function timePages(url: string, { me, tasks, nowMs }: FilledUser, repeats: number): Promise<readonly Figure[]> {
  const target = taskTarget(url);
  const tookMs: number[] = [];
  const slowest = { name: "", ms: 0 };
  for (const filter of filtersAt(nowMs)) {
    for (const sort of SORTS.flatMap((by) => [true, false].map((isDescending) => ({ by, isDescending })))) {
      const order = `${sort.isDescending ? "-" : ""}${sort.by}`;
      for (const place of placesOf(tasks, filter, sort)) {
        const cursor = place === null ? {} : { cursor: formatCursor(place, listKey(me.id, parseFilter(filter), sort)) };
        const query = new URLSearchParams({ ...filter, sort: order, limit: `${PAGE}`, ...cursor });
        const times: number[] = [];
        for (let repeat = 0; repeat < repeats; repeat++) {
          const startMs = performance.now();
          const page = (await (await requireOk(target, `/tasks?${query}`, me.token)).json()) as unknown[];
          times.push(performance.now() - startMs);
          if (page.length !== PAGE) throw new InvalidRun(`a page of ${query} has ${page.length} tasks`);
        }
        tookMs.push(...times);
        const ms = median(times);
        if (ms > slowest.ms) Object.assign(slowest, { name: `${new URLSearchParams(filter)} by ${order}`, ms });
      }
    }
  }
  return [
    atMost(5, {
      name: `page of ${PAGE} of ${TASKS} tasks, every order and filter, p95`,
      unit: "ms",
      measured: percentile(tookMs, 0.95),
    }),
    reported({ name: "  such a page, median", unit: "ms", measured: median(tookMs) }),
    reported({ name: `  the slowest kind, median (${slowest.name})`, unit: "ms", measured: slowest.ms }),
  ];
}

const pages: Benchmark = {
  name: "task-pages",
  async run(bench) {
    const user = await fillTasks(bench.newPath(), TASKS, ASSIGNED);
    await using server = await startTaskServer(user.dbPath);
    await timePages(server.url, user, 1);
    // Awaited here: the server ends with this scope.
    return await timePages(server.url, user, sized(bench, 10, 3));
  },
};

async function timeSearches(url: string, { me }: Pick<FilledUser, "me">, sort: string, searches: number) {
  const target = taskTarget(url);
  const tookMs: number[] = [];
  for (let search = 0; search < searches; search++) {
    const startMs = performance.now();
    const found = await (await requireOk(target, `/tasks?q=nowhere+to+be+found&sort=${sort}`, me.token)).text();
    tookMs.push(performance.now() - startMs);
    if (found !== "[]") throw new InvalidRun("something was found");
  }
  return tookMs;
}

/** Milliseconds of each search that finds nothing, and of the reads of a task that another user makes meanwhile. */
async function searchBeside(bench: Bench, url: string, { me }: FilledUser) {
  const target = taskTarget(url);
  const stream = getOf("/tasks/1", me.token);
  // The first answers of a new process are those of a cold one, whatever runs beside them.
  for (let read = 0; read < COLD_READS; read++) await (await requireOk(target, "/tasks/1", me.token)).text();
  const load = startOpenLoop({ url, stream, connections: 8, phases: [{ rate: OTHERS_PER_SECOND, seconds: 60 }] });
  await load.started;
  const searchMs = await timeSearches(url, { me }, "-created_at", sized(bench, 20, 8));
  load.stop();
  const { samples, lagP99Ms } = await load.report;
  const odd = [...countByStatus(samples).keys()].filter((status) => status !== 200);
  if (odd.length > 0) throw new InvalidRun(`reads were answered with ${odd.join(", ")}`);
  return { searchMs, readsMs: samples.latencyMs, lagP99Ms };
}

/** Each time something has changed before, so that none is known already. */
async function timeStats(url: string, { me }: FilledUser, repeats: number): Promise<number> {
  const target = taskTarget(url);
  const tookMs: number[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    const body = { title: `Changed ${repeat}` };
    const changed = await ask(target, "PATCH", "/tasks/1", { token: me.token, body });
    if (changed.status !== 200) throw new InvalidRun(`a change is answered with ${changed.status}`);
    const startMs = performance.now();
    const { total } = (await (await requireOk(target, "/tasks/stats", me.token)).json()) as { total: number };
    tookMs.push(performance.now() - startMs);
    if (total !== TASKS + ASSIGNED) throw new InvalidRun(`the statistics count ${total} tasks`);
  }
  return median(tookMs);
}

const search: Benchmark = {
  name: "task-search",
  async run(bench) {
    const user = await fillTasks(bench.newPath(), TASKS, ASSIGNED);
    await using server = await startTaskServer(user.dbPath);
    const { searchMs, readsMs } = await withoutLag(() => searchBeside(bench, server.url, user));
    const ordered = await timeSearches(server.url, user, "-updated_at", sized(bench, 10, 5));
    const statsMs = await timeStats(server.url, user, sized(bench, 10, 5));
    return [
      atMost(400, { name: `search of ${TASKS} tasks without a match, median`, unit: "ms", measured: median(searchMs) }),
      atMost(400, { name: "  the same in the order of the last change", unit: "ms", measured: median(ordered) }),
      atMost(10, { name: "  GET p99 of a task meanwhile", unit: "ms", measured: percentile(readsMs, 0.99) }),
      atMost(100, { name: `statistics of ${TASKS} tasks, median`, unit: "ms", measured: statsMs }),
    ];
  },
};

export const TASK_PAGES: readonly Benchmark[] = [pages, search];
