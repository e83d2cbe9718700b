// The one builder behind pages, counts, exports and statistics: which tasks a user sees, in which order.

import { type AliasedExpression, type Kysely, type RawBuilder, type SqlBool, sql } from "kysely";
import { MiB } from "../shared/bounds.ts";
import { requireSomebodyWaits } from "../shared/errors.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { taskTables } from "./task-base-units.ts";
import type { Place } from "./task-cursor.ts";
import type { TaskFilter, TaskSort } from "./task-query.ts";
import { NO_DUE_MS, type TaskTables } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";

export type Db = Kysely<TaskTables>;

/** For the scans of a user: what many of one user wait for holds up nobody else's. See TableStore. */
export function scansFor(
  store: Pick<TableStore<TaskUnits>, "scansFor">,
  userId: number,
  signal: AbortSignal | null,
): Db {
  return taskTables({ tables: store.scansFor(`user ${userId}`, signal) });
}

/** What is looked at. */
export interface View {
  readonly userId: number;
  readonly filter: TaskFilter;
  /** For what is overdue. */
  readonly nowMs: number;
  /** Tasks that were deleted by then are no more, purged or not: see goneUntilMs. */
  readonly goneUntilMs: number;
}

/** As the indexes of deleted tasks have it: in another form, or with the number bound, none of them would be taken. */
const IS_DELETED = sql<SqlBool>`coalesce(deleted_at_ms, 0) > 0`;

type KeyColumn = "created_at_ms" | "updated_at_ms" | "due_at_ms" | "priority";
/** Each comes first in an index of owned tasks and in one of assigned tasks. */
type IndexedColumn = KeyColumn | "status";

/** How it is looked at. */
export interface Plan {
  readonly order: KeyColumn;
  readonly isDescending: boolean;
  /** Columns that an index may be chosen by; the others are hidden from the planner, which has no statistics. */
  readonly open: ReadonlySet<IndexedColumn>;
}

/** A stretch of an order: behind `after`, up to `last`, which belongs to it; null = to either end. */
export interface Stretch {
  readonly after: Place | null;
  readonly last: Place | null;
}

/** Owned and assigned tasks lie in different indexes: one condition over both would sort every row. */
type Side = "owned" | "assigned";

interface Condition {
  /** What an index could be chosen by. */
  readonly column: IndexedColumn | null;
  /** The entries of most indexes do not tell. */
  readonly needsRow: boolean;
  readonly holds: RawBuilder<SqlBool>;
}

/** Rows that one statement looks at: other statements of the reader thread get their turn behind it. */
export const SLICE_ROWS = 2000;
/** The same of sums where the entries of an index tell all: they cost what so few rows do. */
const SLICE_ENTRIES = 10_000;
/** The same where texts are looked through: so many rows, and none that begins behind so much of their texts. */
const SEARCHED_ROWS = 500;
export const SEARCHED_BYTES = 4 * MiB;

const COLUMNS = {
  created_at: "created_at_ms",
  updated_at: "updated_at_ms",
  due_date: "due_at_ms",
  priority: "priority",
} as const satisfies Record<TaskSort["by"], KeyColumn>;

/** Along the index of the order; statuses come in the order of their creation as well. */
export function planFor({ statuses }: TaskFilter, { by, isDescending }: TaskSort): Plan {
  const order = COLUMNS[by];
  const isByStatus = by === "created_at" && statuses.length === 1;
  return { order, isDescending, open: new Set(isByStatus ? [order, "status"] : [order]) };
}

/** For sums, where the order does not matter: along the index that tells most. */
export function planForSums({ words, labels, assignee, updatedFromMs, scope, isDeleted }: TaskFilter): Plan {
  const asksForAssignee = assignee !== null || (isDeleted && scope === "assigned");
  const needsRows = words.length > 0 || labels.length > 0 || asksForAssignee;
  const order = updatedFromMs !== null ? "updated_at_ms" : needsRows ? "created_at_ms" : "priority";
  return { order, isDescending: false, open: new Set([order]) };
}

/** Along the rows as they lie, for what only they tell. */
export function planForRows(filter: TaskFilter): Plan {
  return planFor(filter, { by: "created_at", isDescending: false });
}

/**
 * What has to be judged of each entry of the index that the plan goes along: nothing, what the entry itself tells, or
 * what only the row does.
 */
export function siftOf(view: View, plan: Plan): "nothing" | "entries" | "rows" {
  const sifted = sidesOf(view)
    .flatMap((side) => conditionsOf(view, side, shownBy(plan)))
    .filter(({ column }) => column === null || !plan.open.has(column));
  if (sifted.some(({ needsRow }) => needsRow)) return "rows";
  return sifted.length === 0 ? "nothing" : "entries";
}

/**
 * Places in order, from the stretch. Unsifted, only what the index tells is judged. Each branch comes in order from its
 * index, and SQLite merges them entry by entry until it has enough: nothing is sorted.
 */
export function placesIn(
  db: Db,
  view: View,
  plan: Plan,
  { limit, skip = 0, isSifted = true, ...stretch }: Stretch & { limit: number; skip?: number; isSifted?: boolean },
) {
  const direction = directionOf(plan);
  const branches = branchesOf(db, view, plan, stretch, isSifted);
  const all = branches.reduce((built, next) => built.unionAll(next));
  return all.orderBy("key", direction).orderBy("id", direction).limit(limit).offset(skip);
}

/** The first places behind `behind` in the order of `plan`, sorted from among a stretch of another one. */
export function placesAmong(
  db: Db,
  view: View,
  { along, ...stretch }: Stretch & { readonly along: Plan },
  plan: Plan,
  { behind, limit }: { readonly behind: Place; readonly limit: number },
) {
  const direction = directionOf(plan);
  const all = branchesOf(db, view, along, stretch, true)
    .map((branch) =>
      branch
        .clearSelect()
        .select(["task_item.id", hidden(plan.order).as("key")])
        .$castTo<Place>(),
    )
    .reduce((built, next) => built.unionAll(next));
  const isBehind = sql<SqlBool>`(key, id) ${plan.isDescending ? sql`<` : sql`>`} (${behind.key}, ${behind.id})`;
  const sorted = db.selectFrom(all.as("found")).select(["id", "key"]).where(isBehind);
  return sorted.orderBy("key", direction).orderBy("id", direction).limit(limit);
}

/** Those of the tasks that are still in the view, in no order. */
export function placesOf(db: Db, view: View, plan: Plan, ids: readonly number[]) {
  // Found by their ids: no other index is to be chosen.
  return branchesOf(db, view, { ...plan, open: new Set() }, { after: null, last: null }, true)
    .map((branch) => branch.where("task_item.id", "in", [...ids]))
    .reduce((built, next) => built.unionAll(next));
}

/** Below zero when `a` comes first. */
export function comparePlaces({ isDescending }: Plan, a: Place, b: Place): number {
  return (isDescending ? -1 : 1) * (a.key - b.key || a.id - b.id);
}

/** Sums over the same tasks, in parts that add up: summed together, each row would go through a subquery. */
export function sumsIn<Name extends string>(
  db: Db,
  view: View,
  plan: Plan,
  stretch: Stretch,
  sums: readonly AliasedExpression<number, Name>[],
) {
  return branchesOf(db, view, plan, stretch, true)
    .map((branch) => branch.clearSelect().select(sums).$castTo<Record<Name, number>>())
    .reduce((built, next) => built.unionAll(next));
}

/** Nothing can match, and nothing is to be asked. */
export function isEmptyView(view: View): boolean {
  return sidesOf(view).length === 0;
}

/**
 * The stretches of at most `SLICE_ROWS` places that follow each other to the end, one statement for each. They may be
 * longer for a sum, of which no row is read.
 * @throws AppError unavailable when `signal` is aborted
 */
export async function* slices(
  db: Db,
  view: View,
  plan: Plan,
  { after = null, isSum = false, signal }: { after?: Place | null; isSum?: boolean; signal: AbortSignal },
): AsyncGenerator<Stretch> {
  const isSearch = view.filter.words.length > 0;
  const rows = isSum && siftOf(view, plan) !== "rows" ? SLICE_ENTRIES : SLICE_ROWS;
  for (let place = after; !isEmptyView(view); ) {
    requireSomebodyWaits(signal);
    const last = await (isSearch ? lastOfSearch(db, view, plan, place) : lastOfSlice(db, view, plan, place, rows));
    yield { after: place, last };
    if (last === null) return;
    place = last;
  }
}

/** The place `rows` places behind `after`; null when the order ends before. */
export async function lastOfSlice(
  db: Db,
  view: View,
  plan: Plan,
  after: Place | null,
  rows: number,
): Promise<Place | null> {
  return (await farthestPlace(db, view, plan, after, rows).executeTakeFirst()) ?? null;
}

function farthestPlace(db: Db, view: View, plan: Plan, after: Place | null, rows: number) {
  return placesIn(db, view, plan, { after, last: null, limit: 1, skip: rows - 1, isSifted: false });
}

/** The same where texts are looked through: nearer when they are long. */
async function lastOfSearch(db: Db, view: View, plan: Plan, after: Place | null): Promise<Place | null> {
  const places = placesIn(db, view, plan, { after, last: null, limit: SEARCHED_ROWS, isSifted: false });
  // Lengths stand at the head of a row: no text is read for them. The limit keeps it from being merged with the query
  // around it, which would hand on the texts.
  const sized = db
    .selectFrom(places.as("place"))
    .innerJoin("task_item", "task_item.id", "place.id")
    .select(["place.id", "place.key", sql<number>`octet_length(description) + octet_length(search_text)`.as("bytes")])
    .limit(SEARCHED_ROWS);
  const sum = db.selectFrom(sized.as("sized")).select(({ fn }) => fn.sum<number | null>("bytes").as("bytes"));
  const farthest = await db
    .selectFrom(sum.as("sum"))
    .leftJoin(farthestPlace(db, view, plan, after, SEARCHED_ROWS).as("last"), (join) => join.onTrue())
    .select(["bytes", "last.id", "last.key"])
    .executeTakeFirstOrThrow();
  // Of most tasks: to sum up row by row takes five times as long.
  if ((farthest.bytes ?? 0) <= SEARCHED_BYTES) {
    return farthest.id === null ? null : { id: farthest.id, key: farthest.key! };
  }
  const direction = sql.raw(directionOf(plan));
  const total = sql<number>`sum(bytes) OVER (ORDER BY key ${direction}, id ${direction})`;
  const summed = db.selectFrom(sized.as("sized")).select(["id", "key", sql<number>`${total} - bytes`.as("before")]);
  const back = plan.isDescending ? "asc" : "desc";
  const read = db.selectFrom(summed.as("summed")).select(["id", "key"]).where("before", "<", SEARCHED_BYTES);
  return read.orderBy("key", back).orderBy("id", back).limit(1).executeTakeFirstOrThrow();
}

function sidesOf({ userId, filter: { scope, assignee, isDeleted } }: View): readonly Side[] {
  // An assignee sees a deleted task no more: those that are assigned to the owner are left.
  if (isDeleted) return ["owned"];
  if (scope === "mine") return ["owned"];
  if (assignee === "me" || assignee === userId) return ["assigned"];
  // What is assigned to somebody else, or nobody, is visible to its owner alone.
  if (assignee !== null) return scope === "assigned" ? [] : ["owned"];
  return scope === "assigned" ? ["assigned"] : ["owned", "assigned"];
}

function branchesOf(db: Db, view: View, plan: Plan, stretch: Stretch, isSifted: boolean) {
  const runs = runsOf(stretch);
  return sidesOf(view).flatMap((side) => runs.map((run) => branchOf(db, view, plan, { side, run }, isSifted)));
}

/** The bounds of the run lie within those of the filter and come before them: see ARCHITECTURE.md on slices. */
function branchOf(
  db: Db,
  view: View,
  plan: Plan,
  { side, run }: { readonly side: Side; readonly run: Run },
  isSifted: boolean,
) {
  const shown = shownBy(plan);
  let query = db
    .selectFrom("task_item")
    .select(["task_item.id", shown(plan.order).as("key")])
    .where(side === "owned" ? "user_id" : "assignee_id", "=", view.userId)
    .where(view.filter.isDeleted ? IS_DELETED : sql<SqlBool>`deleted_at_ms = ${0}`)
    .$castTo<Place>();
  for (const bound of boundsOf(plan, run)) query = query.where(bound);
  for (const { column, holds } of conditionsOf(view, side, shown)) {
    if (isSifted || (column !== null && plan.open.has(column))) query = query.where(holds);
  }
  // Of what users have assigned to themselves, one of the two sides is enough.
  if (side === "assigned" && sidesOf(view).length > 1) query = query.where("user_id", "!=", view.userId);
  return query;
}

/** A range of an index: either of one key, where the ids are bounded, or of keys between two others. */
type Run =
  | { readonly key: number; readonly behindId: number | null; readonly upToId: number | null }
  | { readonly behindKey: number | null; readonly beforeKey: number | null };

/**
 * What a stretch consists of. One condition over key and id would have the index read from the key on: of a key that
 * half of all tasks have, such as no due date, each page would read half of all entries.
 */
function runsOf({ after, last }: Stretch): readonly Run[] {
  if (after !== null && last !== null && after.key === last.key) {
    return [{ key: after.key, behindId: after.id, upToId: last.id }];
  }
  return [
    ...(after === null ? [] : [{ key: after.key, behindId: after.id, upToId: null }]),
    { behindKey: after?.key ?? null, beforeKey: last?.key ?? null },
    ...(last === null ? [] : [{ key: last.key, behindId: null, upToId: last.id }]),
  ];
}

function boundsOf(plan: Plan, run: Run): readonly RawBuilder<SqlBool>[] {
  const key = shownBy(plan)(plan.order);
  const [behind, before, upTo] = plan.isDescending ? [sql`<`, sql`>`, sql`>=`] : [sql`>`, sql`<`, sql`<=`];
  const bounds: RawBuilder<SqlBool>[] = [];
  if ("key" in run) {
    bounds.push(sql`${key} = ${run.key}`);
    if (run.behindId !== null) bounds.push(sql`id ${behind} ${run.behindId}`);
    if (run.upToId !== null) bounds.push(sql`id ${upTo} ${run.upToId}`);
  } else {
    if (run.behindKey !== null) bounds.push(sql`${key} ${behind} ${run.behindKey}`);
    if (run.beforeKey !== null) bounds.push(sql`${key} ${before} ${run.beforeKey}`);
  }
  return bounds;
}

export function directionOf({ isDescending }: Plan): "asc" | "desc" {
  return isDescending ? "desc" : "asc";
}

type Shown = (column: IndexedColumn) => RawBuilder<unknown>;

function shownBy({ open }: Plan): Shown {
  return (column) => (open.has(column) ? bare(column) : hidden(column));
}

function conditionsOf({ userId, filter, nowMs, goneUntilMs }: View, side: Side, shown: Shown): readonly Condition[] {
  const { statuses, priorities, dueFromMs, dueBeforeMs, updatedFromMs, isOverdue, assignee, labels, words, scope } =
    filter;
  const [due, status] = [shown("due_at_ms"), shown("status")];
  const conditions: Condition[] = [];
  const add = (column: IndexedColumn | null, holds: RawBuilder<SqlBool>, needsRow = false) => {
    conditions.push({ column, needsRow, holds });
  };
  // No bound of an index: each of them that holds deleted tasks ends with it.
  if (filter.isDeleted) add(null, sql`coalesce(deleted_at_ms, 0) > ${goneUntilMs}`);
  if (statuses.length > 0) add("status", isAnyOf(status, statuses));
  if (priorities.length > 0) add("priority", isAnyOf(shown("priority"), priorities));
  if (dueFromMs !== null) add("due_at_ms", sql`${due} >= ${dueFromMs}`);
  // One bound for all that have one on this side: see branchOf.
  const untilMs = [dueFromMs === null ? null : NO_DUE_MS, dueBeforeMs, isOverdue === true ? nowMs : null];
  const dueUntilMs = Math.min(...untilMs.filter((ms) => ms !== null));
  if (dueUntilMs < Number.POSITIVE_INFINITY) add("due_at_ms", sql`${due} < ${dueUntilMs}`);
  if (isOverdue === true) add("status", sql`${status} != 'completed'`);
  if (isOverdue === false) add(null, sql`(${due} >= ${nowMs} OR ${status} = 'completed')`);
  if (updatedFromMs !== null) add("updated_at_ms", sql`${shown("updated_at_ms")} >= ${updatedFromMs}`, true);
  if (side === "owned" && assignee !== null) {
    const id = assignee === "me" ? userId : assignee === "none" ? 0 : assignee;
    add(null, sql`coalesce(assignee_id, 0) = ${id}`, true);
  }
  if (filter.isDeleted && scope === "assigned") add(null, sql`coalesce(assignee_id, 0) = ${userId}`, true);
  if (labels.length > 0) {
    const ofTask = sql`SELECT 1 FROM task_label WHERE task_id = task_item.id AND label_key IN (${sql.join(labels)})`;
    add(null, sql`EXISTS (${ofTask})`, true);
  }
  // A pattern for LIKE would be matched anew at each character, to the end of a long text.
  for (const word of words) add(null, sql`instr(search_text, ${word}) > 0`, true);
  return conditions;
}

function isAnyOf(column: RawBuilder<unknown>, values: readonly (string | number)[]): RawBuilder<SqlBool> {
  return values.length === 1 ? sql`${column} = ${values[0]}` : sql`${column} IN (${sql.join(values)})`;
}

function bare(column: IndexedColumn): RawBuilder<unknown> {
  return sql.ref(`task_item.${column}`);
}

/** No index helps with an expression. */
function hidden(column: IndexedColumn): RawBuilder<unknown> {
  return column === "status" ? sql`coalesce(status, '')` : sql`coalesce(${bare(column)}, 0)`;
}
