// Reads lists of tasks: pages on the main thread when an index leads to them, anything longer in slices on the reader
// thread.

import { sql } from "kysely";
import { KiB } from "../shared/bounds.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { sortLabels } from "./item-rules.ts";
import { PAGE_LENGTH_MAX } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import type { Place } from "./task-cursor.ts";
import { NEWEST_FIRST, parseFilter, type TaskSort } from "./task-query.ts";
import type { TaskTables } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";
import type { ShownItem } from "./task-view.ts";
import {
  comparePlaces,
  type Db,
  directionOf,
  isEmptyView,
  lastOfSlice,
  type Plan,
  placesAmong,
  placesIn,
  placesOf,
  planFor,
  planForRows,
  planForSums,
  type Stretch,
  scansFor,
  siftOf,
  slices,
  sumsIn,
  type View,
} from "./visible-task-store.ts";

/** A row of a list, with the labels of its task. */
export interface ListedItem {
  readonly row: ShownItem;
  /** Sorted. */
  readonly labels: readonly string[];
  readonly place: Place;
}

/** As others see a user. */
interface Person {
  readonly id: number;
  readonly username: string;
}

/** Entries of an index that the main thread looks at for one page: about a millisecond. */
const GLANCE_ENTRIES = 8000;
/**
 * Slices along an order in which rows lie anywhere, at least, and at most as far as what was found lets expect. Beyond
 * that all rows are looked through as they lie: to read a row here and a row there takes five times as long, so that
 * fifty slices take what 125 000 rows do.
 */
const ORDERED_SLICES_MIN = 4;
const ORDERED_SLICES_MAX = 50;
const ROWS_ORDER = "created_at_ms";
const COUNT = sql<number>`count(*)`.as("count");
/** Rows that are read at once with all their text. */
const ROWS_AT_ONCE = 100;
/** The same of files, where what was read waits for its client; one whose texts are longer comes alone. */
const TEXT_AT_ONCE_BYTES = 64 * KiB;

const SHOWN = [
  "id",
  "user_id",
  "assignee_id",
  "title",
  "description",
  "status",
  "priority",
  "due_at_ms",
  "remind_at_ms",
  "completed_at_ms",
  "created_at_ms",
  "updated_at_ms",
  "version",
] satisfies readonly (keyof TaskTables["task_item"])[];

export class TaskListStore {
  readonly #db: Db;
  readonly #store: Pick<TableStore<TaskUnits>, "scansFor">;

  constructor(store: Pick<TableStore<TaskUnits>, "tables" | "scansFor">) {
    this.#db = taskTables(store);
    this.#store = store;
  }

  /** The number of the last change that the user could see; 0 before the first one. */
  async findRev(userId: number): Promise<number> {
    const head = await this.#db.selectFrom("task_head").select("rev").where("user_id", "=", userId).executeTakeFirst();
    return head?.rev ?? 0;
  }

  /** With its labels; who may see it is not asked. Null: there is none, or it is deleted. */
  async findLive(id: number): Promise<Omit<ListedItem, "place"> | null> {
    const [item] = await liveItems(this.#db, [id]);
    return item ?? null;
  }

  /**
   * Up to `limit` tasks behind `after`, fewer when their texts grow large; `hasMore` when others follow.
   * @throws AppError unavailable when `signal` is aborted
   */
  async page(
    view: View,
    sort: TaskSort,
    { after, limit, signal }: { after: Place | null; limit: number; signal: AbortSignal },
  ): Promise<{ items: readonly ListedItem[]; hasMore: boolean }> {
    const items: ListedItem[] = [];
    let length = 0;
    for await (const group of this.#groups(view, sort, after, limit + 1, signal)) {
      for (const item of group) {
        if (items.length === limit || length > PAGE_LENGTH_MAX) return { items, hasMore: true };
        items.push(item);
        length += item.row.title.length + item.row.description.length;
      }
    }
    return { items, hasMore: false };
  }

  /** Up to `limit` live tasks of an owner, read on the reader thread. */
  newestOf(userId: number, limit: number): Promise<readonly ListedItem[]> {
    const view = { userId, filter: parseFilter({ scope: "mine" }), nowMs: 0, goneUntilMs: 0 };
    const plan = planFor(view.filter, NEWEST_FIRST);
    const scans = scansFor(this.#store, userId, null);
    return itemsAt(scans, placesIn(scans, view, plan, { after: null, last: null, limit }), plan);
  }

  /** All of the list. @throws AppError unavailable when `signal` is aborted */
  async *items(view: View, sort: TaskSort, signal: AbortSignal): AsyncGenerator<readonly ListedItem[]> {
    const scans = scansFor(this.#store, view.userId, signal);
    const plan = planFor(view.filter, sort);
    for await (const { after, last } of slices(scans, view, plan, { signal })) {
      yield* shortGroupsIn(scans, view, plan, { after, last });
    }
  }

  /** Stops counting beyond `max`. @throws AppError unavailable when `signal` is aborted */
  async count(view: View, signal: AbortSignal, max = Number.POSITIVE_INFINITY): Promise<number> {
    const scans = scansFor(this.#store, view.userId, signal);
    const plan = planForSums(view.filter);
    const isSum = max === Number.POSITIVE_INFINITY;
    let total = 0;
    for await (const slice of slices(scans, view, plan, { isSum, signal })) {
      for (const { count } of await sumsIn(scans, view, plan, slice, [COUNT]).execute()) total += count;
      if (total > max) break;
    }
    return total;
  }

  async people(ids: ReadonlySet<number>): Promise<ReadonlyMap<number, Person>> {
    if (ids.size === 0) return new Map();
    const people = await this.#db
      .selectFrom("task_user")
      .select(["id", "username"])
      .where("id", "in", [...ids])
      .execute();
    return new Map(people.map((person) => [person.id, person]));
  }

  /** From `after` on; who has `wanted` of them, or all that there are, has seen enough. */
  async *#groups(
    view: View,
    sort: TaskSort,
    after: Place | null,
    wanted: number,
    signal: AbortSignal,
  ): AsyncGenerator<readonly ListedItem[]> {
    if (isEmptyView(view)) return;
    const plan = planFor(view.filter, sort);
    const sift = siftOf(view, plan);
    // Of equal size: the last group reads no rows in vain.
    const limit = Math.ceil(wanted / Math.ceil(wanted / ROWS_AT_ONCE));
    let from = after;
    if (sift !== "rows") {
      const last = sift === "nothing" ? null : await lastOfSlice(this.#db, view, plan, after, GLANCE_ENTRIES);
      yield* groupsIn(this.#db, view, plan, { after, last, limit });
      if (last === null) return;
      from = last;
    }
    const scans = scansFor(this.#store, view.userId, signal);
    const isScattered = sift === "rows" && plan.order !== ROWS_ORDER;
    let [found, looked] = [0, 0];
    for await (const slice of slices(scans, view, plan, { after: from, signal })) {
      for await (const group of groupsIn(scans, view, plan, { ...slice, limit })) {
        found += group.length;
        yield group;
      }
      looked++;
      if (!isScattered || looked < ORDERED_SLICES_MIN || slice.last === null) continue;
      if (((wanted - found) * looked) / found <= ORDERED_SLICES_MAX) continue;
      yield* this.#sweep(view, plan, slice.last, wanted - found, signal);
      return;
    }
  }

  /**
   * The first `wanted` behind a place, looked for in all rows as they lie, and put in order afterwards. A task that has
   * changed meanwhile stands where it was found, so that none behind it is passed over, or no more at all.
   */
  async *#sweep(
    view: View,
    plan: Plan,
    after: Place,
    wanted: number,
    signal: AbortSignal,
  ): AsyncGenerator<readonly ListedItem[]> {
    const scans = scansFor(this.#store, view.userId, signal);
    for (let [behind, missing] = [after, wanted]; missing > 0; ) {
      const places = await this.#sweptPlaces(view, plan, behind, missing, signal);
      const isLast = places.length < missing;
      for (let at = 0; at < places.length; at += ROWS_AT_ONCE) {
        const chunk = places.slice(at, at + ROWS_AT_ONCE);
        const group = await itemsOf(scans, view, plan, chunk);
        missing -= group.length;
        if (group.length > 0) yield group;
      }
      if (isLast) return;
      behind = places.at(-1)!;
    }
  }

  async #sweptPlaces(view: View, plan: Plan, behind: Place, limit: number, signal: AbortSignal): Promise<Place[]> {
    const scans = scansFor(this.#store, view.userId, signal);
    const along = planForRows(view.filter);
    let first: Place[] = [];
    for await (const slice of slices(scans, view, along, { signal })) {
      const among = await placesAmong(scans, view, { ...slice, along }, plan, { behind, limit }).execute();
      if (among.length > 0) first = [...first, ...among].sort((a, b) => comparePlaces(plan, a, b)).slice(0, limit);
    }
    return first;
  }
}

/** All of a stretch, up to `limit` at once. */
async function* groupsIn(
  db: Db,
  view: View,
  plan: Plan,
  { after, last, limit }: Stretch & { limit: number },
): AsyncGenerator<readonly ListedItem[]> {
  for (let place = after; ; ) {
    const items = await itemsAt(db, placesIn(db, view, plan, { after: place, last, limit }), plan);
    if (items.length > 0) yield items;
    if (items.length < limit) return;
    place = items.at(-1)!.place;
  }
}

/** All of a stretch, as much at once as has short texts. */
async function* shortGroupsIn(
  db: Db,
  view: View,
  plan: Plan,
  { after, last }: Stretch,
): AsyncGenerator<readonly ListedItem[]> {
  for (let place = after; ; ) {
    const places = await measured(db, placesIn(db, view, plan, { after: place, last, limit: ROWS_AT_ONCE }), plan);
    for (const chunk of inChunks(places)) {
      const items = await itemsOf(db, view, plan, chunk);
      if (items.length > 0) yield items;
    }
    if (places.length < ROWS_AT_ONCE) return;
    place = places.at(-1)!;
  }
}

/** With the length of what has to be read there, which is not read for that. */
function measured(db: Db, places: ReturnType<typeof placesOf>, plan: Plan): Promise<(Place & { bytes: number })[]> {
  const direction = directionOf(plan);
  return db
    .selectFrom(places.as("place"))
    .innerJoin("task_item", "task_item.id", "place.id")
    .select(["place.id", "place.key"])
    .select(sql<number>`octet_length(task_item.title) + octet_length(task_item.description)`.as("bytes"))
    .orderBy("place.key", direction)
    .orderBy("place.id", direction)
    .execute();
}

function* inChunks(places: readonly (Place & { bytes: number })[]): Generator<Place[]> {
  let [chunk, length] = [[] as Place[], 0];
  for (const { bytes, ...place } of places) {
    if (chunk.length > 0 && length + bytes > TEXT_AT_ONCE_BYTES) {
      yield chunk;
      [chunk, length] = [[], 0];
    }
    chunk.push(place);
    length += bytes;
  }
  if (chunk.length > 0) yield chunk;
}

/** Those of the tasks that are still in the view, each where it was found. */
async function itemsOf(db: Db, view: View, plan: Plan, places: readonly Place[]): Promise<ListedItem[]> {
  const ids = places.map(({ id }) => id);
  const items = await itemsAt(db, placesOf(db, view, plan, ids), plan);
  const byId = new Map(items.map((item) => [item.row.id, item]));
  return places.flatMap((place) => {
    const item = byId.get(place.id);
    return item === undefined ? [] : [{ ...item, place }];
  });
}

/** One statement, so that the labels are those of the row. */
async function liveItems(db: Db, ids: readonly number[]): Promise<readonly Omit<ListedItem, "place">[]> {
  if (ids.length === 0) return [];
  const rows = await db
    .selectFrom("task_item")
    .leftJoin("task_label", "task_label.task_id", "task_item.id")
    .select(SHOWN.map((column) => `task_item.${column}` as const))
    .select("task_label.label")
    .where("task_item.id", "in", [...ids])
    .where("deleted_at_ms", "=", 0)
    .execute();
  return [...Map.groupBy(rows, ({ id }) => id).values()].map((same) => {
    const { label: _, ...row } = same[0]!;
    return { row, labels: sortLabels(same.flatMap(({ label }) => (label === null ? [] : [label]))) };
  });
}

/** The rows of places: found by indexes alone where they tell enough, and joined to their texts afterwards. */
async function itemsAt(db: Db, places: ReturnType<typeof placesOf>, plan: Plan): Promise<ListedItem[]> {
  const direction = directionOf(plan);
  const rows = await db
    .selectFrom(places.as("place"))
    .innerJoin("task_item", "task_item.id", "place.id")
    .select("place.key")
    .select(SHOWN.map((column) => `task_item.${column}` as const))
    .orderBy("place.key", direction)
    .orderBy("place.id", direction)
    .execute();
  const labels = await labelsOfAll(
    db,
    rows.map(({ id }) => id),
  );
  return rows.map(({ key, ...row }) => ({ row, labels: labels.get(row.id) ?? [], place: { key, id: row.id } }));
}

/** By task; without those that have none. */
async function labelsOfAll(db: Db, taskIds: readonly number[]): Promise<ReadonlyMap<number, readonly string[]>> {
  if (taskIds.length === 0) return new Map();
  const rows = await db
    .selectFrom("task_label")
    .select(["task_id", "label"])
    .where("task_id", "in", [...taskIds])
    .execute();
  const byTask = Map.groupBy(rows, ({ task_id }) => task_id);
  return new Map([...byTask].map(([id, labels]) => [id, sortLabels(labels.map(({ label }) => label))]));
}
