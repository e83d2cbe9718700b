// How lists are read: along indexes, in slices, no longer than somebody waits, and into the cache after a start.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { CompiledQuery, type KyselyPlugin, sql } from "kysely";
import { KiB, MiB } from "../../src/shared/bounds.ts";
import { createCacheWarming } from "../../src/task/cache-warming.ts";
import { taskTables } from "../../src/task/task-base-units.ts";
import { TaskCache } from "../../src/task/task-cache.ts";
import type { Place } from "../../src/task/task-cursor.ts";
import { TaskListStore } from "../../src/task/task-list-store.ts";
import { NEWEST_FIRST, parseFilter, SORT_KEYS, type TaskSort } from "../../src/task/task-query.ts";
import { sumsAt, TaskStatsStore } from "../../src/task/task-stats-store.ts";
import { NO_DUE_MS } from "../../src/task/task-tables.ts";
import {
  placesIn,
  placesOf,
  planFor,
  planForSums,
  SEARCHED_BYTES,
  SLICE_ROWS,
  type Stretch,
  siftOf,
  slices,
  sumsIn,
  type View,
} from "../../src/task/visible-task-store.ts";
import { alterStore } from "../support/alter-store.ts";
import { expectFigure, expectTime } from "../support/figures-in-bounds.ts";
import { openTaskStore, type TaskStore } from "../support/task-store.ts";

const TASKS = 5000;
const ME = 1;
const signal = new AbortController().signal;

let opened: TaskStore;
beforeAll(async () => {
  opened = await openTaskStore();
  // Of user 1, and a tenth as many of user 2, all of them assigned to user 1.
  await alterStore(
    opened.dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ${TASKS})
     INSERT INTO task_item (user_id, assignee_id, title, description, search_text, status, priority, due_at_ms,
       created_at_ms, updated_at_ms, deleted_at_ms, version)
     SELECT CASE WHEN n % 10 = 0 THEN 2 ELSE 1 END, CASE WHEN n % 10 = 0 THEN 1 END, 'Task ' || n, '', 'task ' || n,
       CASE WHEN n % 100 = 0 THEN 'completed' ELSE 'pending' END, 1 + n % 3,
       CASE WHEN n % 2 = 0 THEN ${NO_DUE_MS} ELSE n END, n, n, 0, 1 FROM counted`,
  );
  await alterStore(
    opened.dbPath,
    `INSERT INTO task_head (user_id, rev, item_count) VALUES (1, 1, 1);
     INSERT INTO task_feed (user_id, rev, event_id, at_ms) VALUES (2, 1, 1, 1), (1, 1, 2, 2)`,
  );
});
afterAll(() => opened[Symbol.asyncDispose]());

function viewOf(parameters: Parameters<typeof parseFilter>[0]): View {
  return { userId: ME, filter: parseFilter(parameters), nowMs: TASKS / 2, goneUntilMs: 0 };
}

const SORTS: readonly TaskSort[] = SORT_KEYS.flatMap((by) => [
  { by, isDescending: true },
  { by, isDescending: false },
]);
const COVERED = [
  {},
  { status: "pending" },
  { status: "pending,completed" },
  { priority: "high" },
  { scope: "mine" },
  { scope: "assigned" },
  { due_after: "1970-01-01T00:00:01Z" },
  { overdue: "true" },
  { overdue: "false" },
  { status: "pending", priority: "low", due_before: "1970-01-01T00:00:01Z" },
];
const STRETCHES: readonly Stretch[] = [
  { after: null, last: null },
  { after: { key: 2, id: 20 }, last: null },
  { after: { key: 2, id: 20 }, last: { key: 3, id: 30 } },
];

/** Of user 1: `values` are those of `columns` in the row numbered n. */
async function addTasks({ dbPath }: TaskStore, count: number, columns: string, values: string): Promise<void> {
  await alterStore(
    dbPath,
    `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ${count})
     INSERT INTO task_item (user_id, title, status, priority, due_at_ms, created_at_ms, updated_at_ms, version,
       ${columns})
     SELECT ${ME}, 'Task ' || n, 'pending', 1 + n % 3, CASE WHEN n % 2 = 0 THEN ${NO_DUE_MS} ELSE n END, n, n, 1,
       ${values} FROM counted`,
  );
}

async function planOf(query: { compile(): CompiledQuery }): Promise<string> {
  const { sql, parameters } = query.compile();
  const explain = CompiledQuery.raw(`EXPLAIN QUERY PLAN ${sql}`, [...parameters]);
  const { rows } = await opened.store.tables.executeQuery<{ detail: string }>(explain);
  return rows.map(({ detail }) => detail).join("\n");
}

describe("the places of a page", () => {
  test("come from covering indexes, merged and never sorted, for each order, filter and stretch", async () => {
    const db = taskTables(opened.store);
    for (const parameters of COVERED) {
      for (const sort of SORTS) {
        for (const stretch of STRETCHES) {
          const view = viewOf(parameters);
          const plan = await planOf(placesIn(db, view, planFor(view.filter, sort), { ...stretch, limit: 50 }));
          const searches = plan.split("\n").filter((line) => line.includes("task_item"));
          expect(plan).not.toContain("TEMP B-TREE");
          expect(searches.filter((line) => !line.startsWith("SEARCH task_item USING COVERING INDEX"))).toEqual([]);
        }
      }
    }
  });

  test("of deleted tasks come from covering indexes in their orders, too", async () => {
    const db = taskTables(opened.store);
    for (const parameters of [{}, { status: "pending" }, { priority: "high" }, { overdue: "true" }]) {
      const view = viewOf({ ...parameters, deleted: "true" });
      const queries = [
        ...STRETCHES.map((stretch) => sumsIn(db, view, planForSums(view.filter), stretch, sumsAt(0))),
        ...SORTS.flatMap((sort) =>
          STRETCHES.map((stretch) => placesIn(db, view, planFor(view.filter, sort), { ...stretch, limit: 50 })),
        ),
      ];
      for (const query of queries) {
        const plan = await planOf(query);
        const searches = plan.split("\n").filter((line) => line.includes("task_item"));
        expect(plan).not.toContain("TEMP B-TREE");
        expect(searches.length).toBeGreaterThan(0);
        expect(searches.filter((line) => !line.startsWith("SEARCH task_item USING COVERING INDEX"))).toEqual([]);
      }
    }
  });

  test("behind a key that many tasks share begin at the id, not at the key", async () => {
    const db = taskTables(opened.store);
    const view = viewOf({ scope: "mine" });
    const stretch = { after: { key: NO_DUE_MS, id: 400 }, last: null, limit: 50 };
    const plan = await planOf(
      placesIn(db, view, planFor(view.filter, { by: "due_date", isDescending: false }), stretch),
    );
    expect(plan).toContain("due_at_ms=? AND id>?");
  });

  test("are summed up from covering indexes as well", async () => {
    const db = taskTables(opened.store);
    const view = viewOf({});
    const plan = await planOf(sumsIn(db, view, planForSums(view.filter), STRETCHES[2]!, sumsAt(0)));
    const searches = plan.split("\n").filter((line) => line.includes("task_item"));
    expect(searches.length).toBeGreaterThan(0);
    expect(searches.filter((line) => !line.startsWith("SEARCH task_item USING COVERING INDEX"))).toEqual([]);
  });
});

describe("what takes long", () => {
  test("is read in slices that follow each other without a gap", async () => {
    const db = taskTables({ tables: opened.store.scansFor("test", null) });
    const view = viewOf({});
    for (const sort of SORTS) {
      const plan = planFor(view.filter, sort);
      const seen: number[] = [];
      for await (const stretch of slices(db, view, plan, { signal })) {
        const rows = await placesIn(db, view, plan, { ...stretch, limit: 2 * SLICE_ROWS }).execute();
        expect(rows.length).toBeLessThanOrEqual(SLICE_ROWS);
        seen.push(...rows.map(({ id }) => id));
      }
      expect([seen.length, new Set(seen).size]).toEqual([TASKS, TASKS]);
    }
  });

  test("is summed up in fewer slices where an index tells all, and not where rows have to be looked at", async () => {
    const db = taskTables({ tables: opened.store.scansFor("test", null) });
    const slicesOf = async (parameters: Readonly<Record<string, string>>, isSum: boolean) => {
      const view = viewOf(parameters);
      let count = 0;
      for await (const _ of slices(db, view, planForSums(view.filter), { isSum, signal })) count++;
      return count;
    };
    for (const parameters of [{}, { status: "pending" }, { overdue: "true" }, { scope: "mine" }]) {
      expect(await slicesOf(parameters, true)).toBe(1);
      expect(await slicesOf(parameters, false)).toBeGreaterThan(1);
    }
    for (const parameters of [{ label: "rare" }, { assignee: "none" }, { q: "rare" }]) {
      expect(await slicesOf(parameters, true)).toBeGreaterThan(1);
    }
  });

  test("is read in such slices of deleted tasks as well", async () => {
    await using store = await openTaskStore();
    await addTasks(store, TASKS, "description, search_text, deleted_at_ms", "'', '', 1 + n % 7");
    const db = taskTables({ tables: store.store.scansFor("test", null) });
    const view = viewOf({ deleted: "true" });
    for (const sort of SORTS) {
      const plan = planFor(view.filter, sort);
      const seen: number[] = [];
      for await (const stretch of slices(db, view, plan, { signal })) {
        const rows = await placesIn(db, view, plan, { ...stretch, limit: 2 * SLICE_ROWS }).execute();
        expect(rows.length).toBeLessThanOrEqual(SLICE_ROWS);
        seen.push(...rows.map(({ id }) => id));
      }
      expect([seen.length, new Set(seen).size]).toEqual([TASKS, TASKS]);
    }
    expect(await new TaskListStore(store.store).count(view, signal)).toBe(TASKS);
  });

  test("leaves out what was deleted too long ago, in each order, and looks at no more entries at once", async () => {
    await using store = await openTaskStore();
    // All but the last hundred, which begin behind two slices and more.
    await addTasks(store, TASKS, "description, search_text, deleted_at_ms", `'', '', iif(n > ${TASKS - 100}, 8, 7)`);
    const lists = new TaskListStore(store.store);
    const view = { ...viewOf({ deleted: "true" }), goneUntilMs: 7 };
    expect(siftOf(view, planFor(view.filter, NEWEST_FIRST))).toBe("entries");
    for (const sort of SORTS) {
      const { items, hasMore } = await lists.page(view, sort, { after: null, limit: 200, signal });
      expect([items.length, hasMore]).toEqual([100, false]);
      expect(items.every(({ row }) => row.created_at_ms > TASKS - 100)).toBe(true);
      expect((await Array.fromAsync(lists.items(view, sort, signal))).flat()).toHaveLength(100);
    }
    expect(await lists.count(view, signal)).toBe(100);
    expect(await lists.count({ ...view, goneUntilMs: 8 }, signal)).toBe(0);
  });

  test("is searched in slices of few rows where their texts are long, of many where they are short", async () => {
    await using store = await openTaskStore();
    const texts = "'', replace(printf('%0*d', iif(n BETWEEN 301 AND 400, 300000, 20), 0), '0', '密'), 0";
    await addTasks(store, 1000, "description, search_text, deleted_at_ms", texts);
    const db = taskTables({ tables: store.store.scansFor("test", null) });
    const view = viewOf({ q: "word" });
    for (const sort of SORTS) {
      const plan = planFor(view.filter, sort);
      const seen: number[] = [];
      const bytes: number[] = [];
      for await (const stretch of slices(db, view, plan, { signal })) {
        const places = placesIn(db, view, plan, { ...stretch, limit: TASKS, isSifted: false });
        const rows = await db
          .selectFrom(places.as("place"))
          .innerJoin("task_item", "task_item.id", "place.id")
          .select(["place.id", sql<number>`octet_length(search_text)`.as("bytes")])
          .execute();
        seen.push(...rows.map(({ id }) => id));
        bytes.push(rows.reduce((total, row) => total + row.bytes, 0));
      }
      expect([seen.length, new Set(seen).size]).toEqual([1000, 1000]);
      expect(Math.max(...bytes)).toBeLessThan(SEARCHED_BYTES + 900_001);
      expect(bytes.length).toBeLessThan(30);
    }
    expect(await new TaskListStore(store.store).count(viewOf({ q: "密" }), signal)).toBe(1000);
  });

  test("looks through long texts of one letter in a moment", async () => {
    await using store = await openTaskStore();
    const long = "'', replace(printf('%020000d', 0), '0', 'a'), 0";
    await addTasks(store, 1000, "description, search_text, deleted_at_ms", long);
    const lists = new TaskListStore(store.store);
    const startMs = performance.now();
    expect(await lists.count(viewOf({ q: `${"a".repeat(199)}b` }), signal)).toBe(0);
    expectTime("a search through 20 MB of one letter", performance.now() - startMs, 400);
  });

  test("ends when nobody waits for it any more", async () => {
    const [lists, stats] = [new TaskListStore(opened.store), new TaskStatsStore(opened.store)];
    const left = new AbortController();
    const view = viewOf({ q: "nothing like it" });
    const reads = [
      lists.page(view, NEWEST_FIRST, { after: null, limit: 10, signal: left.signal }),
      lists.count(view, left.signal),
      stats.stats(viewOf({}), left.signal),
      Array.fromAsync(lists.items(view, NEWEST_FIRST, left.signal)),
    ];
    left.abort();
    const ends = await Promise.allSettled(reads);
    const codes = ends.map((end) => (end.status === "rejected" ? (end.reason as { code: string }).code : end.value));
    expect(codes).toEqual(["unavailable", "unavailable", "unavailable", "unavailable"]);
    expect(await lists.count(viewOf({}), signal)).toBe(TASKS);
  });

  test("stops counting behind the most that matters", async () => {
    const lists = new TaskListStore(opened.store);
    expect(await lists.count(viewOf({}), signal, 10)).toBeLessThanOrEqual(SLICE_ROWS);
    expect(await lists.count(viewOf({ status: "completed" }), signal)).toBe(TASKS / 100);
  });

  test("finds rare matches far behind the first ones that were looked at", async () => {
    const lists = new TaskListStore(opened.store);
    for (const sort of SORTS) {
      for (const parameters of [{ q: "task 4999" }, { q: "task 1", status: "completed", priority: "low" }]) {
        const view = viewOf(parameters);
        const page = await lists.page(view, sort, { after: null, limit: 1000, signal });
        expect(page.hasMore).toBe(false);
        expect(page.items.length).toBe(await lists.count(view, signal));
        expect(page.items.length).toBeGreaterThan(0);
      }
    }
  });
});

describe("a filter on what the list is in the order of", () => {
  const MANY = 40_000;
  /** In ms: the tasks have the times 1, 2, 3 and so on, every second one is due at it. */
  const FROM_MS = 100;
  const FILTERED: readonly (readonly [TaskSort["by"], Parameters<typeof parseFilter>[0], (n: number) => boolean])[] = [
    ["updated_at", { updated_after: new Date(FROM_MS).toISOString() }, (n) => n >= FROM_MS],
    ["due_date", { due_after: new Date(FROM_MS).toISOString() }, (n) => n % 2 === 1 && n >= FROM_MS],
    [
      "due_date",
      { due_after: new Date(FROM_MS).toISOString(), due_before: new Date(MANY / 2).toISOString() },
      (n) => n % 2 === 1 && n >= FROM_MS && n < MANY / 2,
    ],
    [
      "due_date",
      { due_after: new Date(FROM_MS).toISOString(), overdue: "true" },
      (n) => n % 2 === 1 && n >= FROM_MS && n < TASKS / 2,
    ],
  ];

  let many: TaskStore;
  beforeAll(async () => {
    many = await openTaskStore();
    await addTasks(many, MANY, "description, search_text, deleted_at_ms", "'', '', 0");
  });
  afterAll(() => many[Symbol.asyncDispose]());

  /** The shortest of some times, in ms: others may have the processor for a while. */
  async function shortestMs(times: number, act: () => Promise<unknown>): Promise<number> {
    const taken: number[] = [];
    for (let turn = 0; turn < times; turn++) {
      const startMs = performance.now();
      await act();
      taken.push(performance.now() - startMs);
    }
    return Math.min(...taken);
  }

  test("leaves the tasks that it names, in their order", async () => {
    const lists = new TaskListStore(many.store);
    for (const [by, parameters, matches] of FILTERED) {
      const expected = Array.from({ length: MANY }, (_, index) => index + 1).filter(matches);
      expect([parameters, await lists.count(viewOf(parameters), signal)]).toEqual([parameters, expected.length]);
      for (const isDescending of [false, true]) {
        if (isDescending) expected.reverse();
        const found: number[] = [];
        for (let hasMore = true, after: Place | null = null; hasMore; ) {
          const page = await lists.page(viewOf(parameters), { by, isDescending }, { after, limit: 1000, signal });
          found.push(...page.items.map(({ row }) => row.id));
          ({ hasMore } = page);
          after = page.items.at(-1)?.place ?? null;
        }
        expect([parameters, isDescending, found]).toEqual([parameters, isDescending, expected]);
      }
    }
  });

  test("makes the last pages as quick to find as the first one", async () => {
    const db = taskTables(many.store);
    for (const [by, parameters, matches] of FILTERED) {
      const last = Array.from({ length: MANY }, (_, index) => index + 1).filter(matches);
      for (const isDescending of [false, true]) {
        const view = viewOf(parameters);
        const plan = planFor(view.filter, { by, isDescending });
        const id = isDescending ? last[1]! : last.at(-2)!;
        const read = (after: Place | null) => () => placesIn(db, view, plan, { after, last: null, limit: 1 }).execute();
        const firstMs = await shortestMs(10, read(null));
        const lastMs = await shortestMs(10, read({ key: id, id }));
        const label = `the last page by ${by} of ${JSON.stringify(parameters)}, the first one taking 1`;
        expectFigure(label, lastMs / firstMs, 3, 2.5);
      }
    }
  });

  test("makes counting take a time that grows with the tasks, not with their square", async () => {
    const lists = new TaskListStore(many.store);
    const part = 12;
    const countMs = (fromMs: number) =>
      shortestMs(7, () => lists.count(viewOf({ updated_after: new Date(fromMs).toISOString() }), signal));
    const wholeMs = await countMs(1);
    const partMs = await countMs(Math.floor(MANY - MANY / part));
    expectFigure(`counting all tasks, a ${part}th of them taking 1`, wholeMs / partMs, 1.5 * part, 1.7);
  });
});

describe("matches that lie far apart", () => {
  /** As they were filled in: the keys of task number n. */
  const KEYS: Readonly<Record<TaskSort["by"], (n: number) => number>> = {
    created_at: (n) => n,
    updated_at: (n) => n,
    due_date: (n) => (n % 2 === 0 ? NO_DUE_MS : n),
    priority: (n) => 1 + (n % 3),
  };
  const isOwn = (n: number) => n % 10 !== 0;
  const SEARCHES: readonly (readonly [Parameters<typeof parseFilter>[0], (n: number) => boolean])[] = [
    [{ q: "9" }, (n) => `${n}`.includes("9")],
    [{ q: "49" }, (n) => `${n}`.includes("49")],
    [{ q: "49", scope: "assigned" }, (n) => `${n}`.includes("49") && !isOwn(n)],
    [{ q: "7", status: "completed" }, (n) => `${n}`.includes("7") && n % 100 === 0],
    [{ q: "99", scope: "mine", priority: "low" }, (n) => `${n}`.includes("99") && n % 3 === 0 && isOwn(n)],
  ];

  test.each([
    [7, "few at once"],
    [150, "more than are read at once"],
  ])("are all found, once and in order, page by page of %d, in each order", async (limit) => {
    const lists = new TaskListStore(opened.store);
    for (const [parameters, matches] of SEARCHES) {
      for (const sort of SORTS) {
        const key = KEYS[sort.by];
        const expected = Array.from({ length: TASKS }, (_, index) => index + 1).filter(matches);
        expected.sort((a, b) => (sort.isDescending ? -1 : 1) * (key(a) - key(b) || a - b));
        const found: number[] = [];
        for (let hasMore = true, after: Place | null = null; hasMore; ) {
          const page = await lists.page(viewOf(parameters), sort, { after, limit, signal });
          found.push(...page.items.map(({ row }) => row.id));
          ({ hasMore } = page);
          if (hasMore) expect(page.items.length).toBe(limit);
          after = page.items.at(-1)?.place ?? null;
        }
        expect([parameters, sort, found]).toEqual([parameters, sort, expected]);
      }
    }
  });

  /** The lists of a store in which `act` happens between the finding of task `id` among all rows and its reading. */
  function listsWith({ store }: TaskStore, id: number, act: () => Promise<void>): TaskListStore {
    let hasActed = false;
    const between: KyselyPlugin = {
      transformQuery: ({ node }) => node,
      async transformResult({ result }) {
        const isFound = result.rows.some((row) => row.id === id && "key" in row && !("title" in row));
        if (isFound && !hasActed) {
          hasActed = true;
          await act();
        }
        return result;
      },
    };
    return new TaskListStore({
      tables: store.tables,
      scansFor: (caller, signal) => store.scansFor(caller, signal).withPlugin(between),
    });
  }

  test.each([
    ["is deleted", "UPDATE task_item SET deleted_at_ms = 1 WHERE id IN (4010, 4011)", [4010, 4011]],
    ["stands elsewhere", "UPDATE task_item SET updated_at_ms = 1000000 WHERE id IN (4010, 4011)", []],
    ["is given away", "UPDATE task_item SET user_id = 3 WHERE id IN (4010, 4011)", [4010, 4011]],
  ])("are listed to their end when one that was found %s before it is read", async (_, change, gone) => {
    for (const limit of [25, 50, 100]) {
      await using store = await openTaskStore();
      await addTasks(store, TASKS, "description, search_text, deleted_at_ms", "'', iif(n > 4000, 'rare', 'common'), 0");
      const lists = listsWith(store, 4010, () => alterStore(store.dbPath, change));
      const found: number[] = [];
      for (let hasMore = true, after: Place | null = null; hasMore; ) {
        const sort = { by: "updated_at", isDescending: false } as const;
        const page = await lists.page(viewOf({ q: "rare" }), sort, { after, limit, signal });
        found.push(...page.items.map(({ row }) => row.id));
        ({ hasMore } = page);
        after = page.items.at(-1)?.place ?? null;
      }
      const expected = Array.from({ length: 1000 }, (_, index) => 4001 + index).filter((id) => !gone.includes(id));
      expect([...new Set(found)].sort((a, b) => a - b)).toEqual(expected);
    }
  });

  test("are read by their ids, and only those that are still to be seen", async () => {
    const db = taskTables(opened.store);
    for (const sort of SORTS) {
      const view = viewOf({ q: "task" });
      const plan = planFor(view.filter, sort);
      const found = placesOf(db, view, plan, [20, 7, 9]);
      const searches = (await planOf(found)).split("\n").filter((line) => line.includes("task_item"));
      expect(searches.filter((line) => !line.includes("USING INTEGER PRIMARY KEY (rowid=?)"))).toEqual([]);
      expect((await found.execute()).map(({ id }) => id).sort((a, b) => a - b)).toEqual([7, 9, 20]);
      expect(await placesOf(db, { ...view, userId: 3 }, plan, [20, 7, 9]).execute()).toEqual([]);
      expect(await placesOf(db, viewOf({ q: "no such" }), plan, [20, 7, 9]).execute()).toEqual([]);
    }
  });
});

describe("the figures of a user", () => {
  const [MINUTE_MS, HOUR_MS, DAY_MS] = [60_000, 3_600_000, 86_400_000];

  test("count what was completed in the last seven days and what is due within 24 hours, no more", async () => {
    await using store = await openTaskStore();
    const nowMs = 1_800_000_000_000;
    const completed = [6 * DAY_MS, 7 * DAY_MS, 7 * DAY_MS + MINUTE_MS, 8 * DAY_MS].map((agoMs) => {
      return `'completed', ${NO_DUE_MS}, ${nowMs - agoMs}`;
    });
    const due = [-MINUTE_MS, 0, 24 * HOUR_MS - MINUTE_MS, 24 * HOUR_MS, 24 * HOUR_MS + MINUTE_MS].map((inMs) => {
      return `'pending', ${nowMs + inMs}, NULL`;
    });
    const rows = [...completed, ...due].map((columns) => `(${ME}, 'A task', 2, 1, 1, 1, '', '', 0, ${columns})`);
    await alterStore(
      store.dbPath,
      `INSERT INTO task_item (user_id, title, priority, created_at_ms, updated_at_ms, version, description,
       search_text, deleted_at_ms, status, due_at_ms, completed_at_ms) VALUES ${rows.join(", ")}`,
    );
    const stats = await new TaskStatsStore(store.store).stats({ ...viewOf({}), nowMs }, signal);
    expect(stats).toMatchObject({ total: 9, completed_last_7_days: 2, overdue: 1, due_within_24h: 2 });
  });
});

describe("the labels of a user", () => {
  test("are the thousand that most tasks have, in their order, over all slices", async () => {
    await using store = await openTaskStore();
    await addTasks(store, TASKS, "description, search_text, deleted_at_ms", "'', '', 0");
    // Each of 1500 labels has three tasks, but every fifth one four.
    await alterStore(
      store.dbPath,
      `INSERT INTO task_label (task_id, label_key, label, user_id)
       SELECT id, printf('l%04d', id % 1500), printf('L%04d', id % 1500), ${ME} FROM task_item WHERE id <= 4500
       UNION ALL SELECT 4501 + n, printf('l%04d', n), printf('L%04d', n), ${ME}
         FROM (SELECT 5 * id - 5 AS n FROM task_item WHERE id <= 99)`,
    );
    const counts = await new TaskStatsStore(store.store).labels(ME, signal);
    const label = (n: number) => `L${`${n}`.padStart(4, "0")}`;
    const expected = Array.from({ length: 1500 }, (_, n) => ({ n, count: n % 5 === 0 && n < 495 ? 4 : 3 }));
    const high = expected.filter(({ count }) => count === 4);
    const chosen = [...high, ...expected.filter(({ count }) => count === 3).slice(0, 1000 - high.length)];
    chosen.sort((a, b) => a.n - b.n);
    expect(counts).toEqual(chosen.map(({ n, count }) => ({ label: label(n), count })));
  });
});

describe("warming the cache", () => {
  const job = { id: "", ownerId: null, payload: null, attempt: 1, fence: 1, signal, progress: () => undefined };

  async function warmed(rows: number): Promise<{ cached: number[]; report: unknown }> {
    const cache = new TaskCache({ taskCache: "auto", taskCacheBytes: 16 * MiB, taskCacheTtlMs: 60_000 }, () => 0);
    const { store } = opened;
    const settings = { taskCacheWarm: rows } as never;
    const report = await createCacheWarming({ store, lists: new TaskListStore(store), cache, settings })(job);
    const ids = Array.from({ length: TASKS }, (_, index) => index + 1);
    return { cached: ids.filter((id) => cache.find(id) !== null), report };
  }

  test("takes the newest fifty tasks of each user who was active, and no more than it may", async () => {
    const all = await warmed(10_000);
    expect(all).toEqual({ cached: expect.any(Array), report: { rows: 100 } });
    expect(all.cached.filter((id) => id % 10 === 0).length).toBe(50);
    expect(Math.min(...all.cached.filter((id) => id % 10 !== 0))).toBe(TASKS - 55);
    // User 1 was active last.
    const some = await warmed(60);
    expect([some.cached.length, some.cached.filter((id) => id % 10 === 0)]).toEqual([
      60,
      Array.from({ length: 10 }, (_, index) => TASKS - 90 + 10 * index),
    ]);
    expect((await warmed(0)).cached).toEqual([]);
  });

  test("asks for one job, however many starts there were", async () => {
    await using empty = await openTaskStore();
    for (const runAtMs of [1, 2, 3]) await empty.store.run("task.requestWarming", { runAtMs });
    const jobs = await empty.rows("job");
    expect(jobs.map(({ kind, state }) => [kind, state])).toEqual([["cache.warm", "ready"]]);
  });
});

test("the tasks of a file are read a few at a time when their texts are long, all of them and in order", async () => {
  const long = [70, 0, 40, 40, 0].map(
    (kibibytes, index) => `(9, 'x', printf('%.*c', ${kibibytes * KiB}, '-'), ${index})`,
  );
  await alterStore(
    opened.dbPath,
    `INSERT INTO task_item (user_id, title, description, search_text, status, priority, due_at_ms, created_at_ms,
       updated_at_ms, deleted_at_ms, version)
     SELECT column1, column2, column3, '', 'pending', 1, ${NO_DUE_MS}, column4, 0, 0, 1 FROM (VALUES ${long.join()})`,
  );
  const view = { ...viewOf({}), userId: 9 };
  const groups = await Array.fromAsync(
    new TaskListStore(opened.store).items(view, { by: "created_at", isDescending: false }, signal),
  );
  expect(groups.map((group) => group.map(({ row }) => row.created_at_ms))).toEqual([[0], [1, 2], [3, 4]]);
});
