// Figures over the tasks a user sees, summed up slice by slice on the reader thread.

import { type SqlBool, sql } from "kysely";
import { requireSomebodyWaits } from "../shared/errors.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import type { PRIORITIES, STATUSES } from "./task-tables.ts";
import type { TaskUnits } from "./task-units.ts";
import { type Db, planForSums, SLICE_ROWS, scansFor, slices, sumsIn, type View } from "./visible-task-store.ts";

const DAY_MS = 86_400_000;
const WEEK_MS = 7 * DAY_MS;
const LABELS_MAX = 1000;

interface TaskStats {
  readonly total: number;
  readonly by_status: Readonly<Record<(typeof STATUSES)[number], number>>;
  readonly by_priority: Readonly<Record<(typeof PRIORITIES)[number], number>>;
  /** Due in the past and not completed. */
  readonly overdue: number;
  /** From now on, and not completed. */
  readonly due_within_24h: number;
  readonly completed_last_7_days: number;
  /** Of all; 0 of none. */
  readonly completion_rate: number;
}

interface LabelCount {
  readonly label: string;
  readonly count: number;
}

type LabelPlace = { readonly label_key: string; readonly task_id: number };

const SUMS = ["total", "pending", "in_progress", "low", "medium", "overdue", "dueSoon", "lately"] as const;
/** What they do not tell is the rest of the total. */
type Sums = Record<(typeof SUMS)[number], number>;

export class TaskStatsStore {
  readonly #store: Pick<TableStore<TaskUnits>, "scansFor">;

  constructor(store: Pick<TableStore<TaskUnits>, "scansFor">) {
    this.#store = store;
  }

  /** @throws AppError unavailable when `signal` is aborted */
  async stats(view: View, signal: AbortSignal): Promise<TaskStats> {
    const scans = scansFor(this.#store, view.userId, signal);
    const plan = planForSums(view.filter);
    const sums = Object.fromEntries(SUMS.map((name) => [name, 0])) as Sums;
    for await (const slice of slices(scans, view, plan, { isSum: true, signal })) {
      for (const part of await sumsIn(scans, view, plan, slice, sumsAt(view.nowMs)).execute()) {
        for (const name of SUMS) sums[name] += part[name];
      }
    }
    return statsOf(sums);
  }

  /**
   * Of the live tasks that the user owns, those that most of them have, in the order of the labels.
   * @throws AppError unavailable, as above
   */
  async labels(userId: number, signal: AbortSignal): Promise<readonly LabelCount[]> {
    const scans = scansFor(this.#store, userId, signal);
    let counts: (LabelCount & { readonly label_key: string })[] = [];
    for (let after: LabelPlace | null = null; ; ) {
      requireSomebodyWaits(signal);
      const last = await lastLabel(scans, userId, after);
      for (const { label_key, label, count } of await countLabels(scans, userId, after, last)) {
        const isNew = counts.at(-1)?.label_key !== label_key;
        const known = isNew ? { label, count: 0 } : counts.pop()!;
        counts.push({ label_key, label: firstOf(known.label, label), count: known.count + count });
      }
      if (last === null) return mostOf(counts).map(({ label, count }) => ({ label, count }));
      // The last one may go on in the next slice.
      counts = [...mostOf(counts.slice(0, -1)), ...counts.slice(-1)];
      after = last;
    }
  }
}

async function lastLabel(db: Db, userId: number, after: LabelPlace | null): Promise<LabelPlace | null> {
  const query = labelsBehind(db, userId, after).select(["label_key", "task_id"]);
  const ordered = query.orderBy("label_key").orderBy("task_id");
  return (
    (await ordered
      .limit(1)
      .offset(SLICE_ROWS - 1)
      .executeTakeFirst()) ?? null
  );
}

/** A label may have been written in several ways; the one that sorts first is shown. */
function countLabels(db: Db, userId: number, after: LabelPlace | null, last: LabelPlace | null) {
  let query = labelsBehind(db, userId, after);
  if (last !== null) query = query.where(sql<SqlBool>`(label_key, task_id) <= (${last.label_key}, ${last.task_id})`);
  return query
    .innerJoin("task_item", "task_item.id", "task_label.task_id")
    .where("task_item.deleted_at_ms", "=", 0)
    .select(({ fn }) => ["label_key", fn.min("label").as("label"), fn.countAll<number>().as("count")])
    .groupBy("label_key")
    .orderBy("label_key")
    .execute();
}

function labelsBehind(db: Db, userId: number, after: LabelPlace | null) {
  const query = db.selectFrom("task_label").where("task_label.user_id", "=", userId);
  if (after === null) return query;
  return query.where(sql<SqlBool>`(label_key, task_id) > (${after.label_key}, ${after.task_id})`);
}

/** How many rows of a slice are what. */
export function sumsAt(nowMs: number) {
  const many = (name: keyof Sums, condition: ReturnType<typeof sql>) =>
    sql<number>`count(*) FILTER (WHERE ${condition})`.as(name);
  const open = sql`status != 'completed'`;
  return [
    sql<number>`count(*)`.as("total" as keyof Sums),
    many("pending", sql`status = 'pending'`),
    many("in_progress", sql`status = 'in_progress'`),
    many("low", sql`priority = 1`),
    many("medium", sql`priority = 2`),
    many("overdue", sql`due_at_ms < ${nowMs} AND ${open}`),
    many("dueSoon", sql`due_at_ms >= ${nowMs} AND due_at_ms < ${nowMs + DAY_MS} AND ${open}`),
    many("lately", sql`completed_at_ms >= ${nowMs - WEEK_MS}`),
  ];
}

function statsOf({ total, pending, in_progress, low, medium, ...sums }: Sums): TaskStats {
  const completed = total - pending - in_progress;
  return {
    total,
    by_status: { pending, in_progress, completed },
    by_priority: { low, medium, high: total - low - medium },
    overdue: sums.overdue,
    due_within_24h: sums.dueSoon,
    completed_last_7_days: sums.lately,
    completion_rate: total === 0 ? 0 : completed / total,
  };
}

/** The highest counts, the first of equal ones, in the order they came in. */
function mostOf<Counted extends LabelCount>(counts: readonly Counted[]): Counted[] {
  const highest = counts.toSorted((a, b) => b.count - a.count).slice(0, LABELS_MAX);
  const chosen = new Set(highest);
  return counts.filter((each) => chosen.has(each));
}

/** Math.min is for numbers. */
function firstOf(a: string, b: string): string {
  return [a, b].sort()[0]!;
}
