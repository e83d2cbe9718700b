// The query parameters of lists, counts and exports, read strictly: an unknown value is an error, never an empty list.

import { pageLimit } from "../http/pagination.ts";
import { parameterError } from "../http/query-parameters.ts";
import type { AppError } from "../shared/errors.ts";
import { labelKeyOf } from "./item-rules.ts";
import { PAGE_DEFAULT } from "./page-sizes.ts";
import { searchWordsOf } from "./search-text.ts";
import { PRIORITIES, STATUSES, type TaskStatus } from "./task-tables.ts";
import { parseTime } from "./task-time.ts";

export const FILTER_PARAMETERS = [
  "status",
  "priority",
  "label",
  "scope",
  "assignee",
  "due_after",
  "due_before",
  "updated_after",
  "overdue",
  "q",
  "deleted",
] as const;
export const LIST_PARAMETERS = [...FILTER_PARAMETERS, "sort", "limit", "cursor", "count", "expand"] as const;

/** As they stand in a query string; left out = no filter. */
type FilterParameters = Readonly<Partial<Record<(typeof FILTER_PARAMETERS)[number], string>>>;
type ListParameters = Readonly<Partial<Record<(typeof LIST_PARAMETERS)[number], string>>>;

const SCOPES = ["all", "mine", "assigned"] as const;
type TaskScope = (typeof SCOPES)[number];

/** Plain data. Empty lists and nulls filter nothing; times in ms since 1970. */
export interface TaskFilter {
  /** Any of them; each once, in the order of STATUSES. */
  readonly statuses: readonly TaskStatus[];
  /** Any of them, by number. */
  readonly priorities: readonly number[];
  /** Any of them, as label keys. */
  readonly labels: readonly string[];
  readonly scope: TaskScope;
  readonly assignee: "me" | "none" | number | null;
  readonly dueFromMs: number | null;
  readonly dueBeforeMs: number | null;
  readonly updatedFromMs: number | null;
  /** Due in the past and not completed, or just not that. */
  readonly isOverdue: boolean | null;
  /** All of them, as parts of the search text. */
  readonly words: readonly string[];
  /** Deleted tasks in place of live ones. */
  readonly isDeleted: boolean;
}

export const SORT_KEYS = ["created_at", "updated_at", "due_date", "priority"] as const;

/** Ties are broken by id, in the same direction. */
export interface TaskSort {
  readonly by: (typeof SORT_KEYS)[number];
  readonly isDescending: boolean;
}

export interface TaskListQuery {
  readonly filter: TaskFilter;
  readonly sort: TaskSort;
  readonly limit: number;
  /** As it was sent. */
  readonly cursor: string | null;
  readonly hasCount: boolean;
  readonly hasUsers: boolean;
}

const WORDS_MAX = 8;
/** Of all words together, in the form that is searched for: folding makes some characters many. */
const WORDS_LENGTH_MAX = 200;
const LABELS_MAX = 20;
export const NEWEST_FIRST: TaskSort = { by: "created_at", isDescending: true };

/** @throws AppError invalid_request; the cursor is judged by task-cursor.ts */
export function parseListQuery(parameters: ListParameters): TaskListQuery {
  const { sort, limit, cursor, count, expand } = parameters;
  return {
    filter: parseFilter(parameters),
    sort: sort === undefined ? NEWEST_FIRST : parseSort(sort),
    limit: pageLimit(limit, { fallback: PAGE_DEFAULT, code: "invalid_request" }),
    cursor: cursor ?? null,
    hasCount: parseFlag("count", count) ?? false,
    hasUsers: parseExpand(expand),
  };
}

/** @throws AppError invalid_request */
export function parseFilter(parameters: FilterParameters): TaskFilter {
  const { status, priority, label, q } = parameters;
  return {
    statuses: parseList("status", status, STATUSES),
    priorities: parseList("priority", priority, PRIORITIES).map((name) => PRIORITIES.indexOf(name) + 1),
    labels: parseLabels(label),
    scope: parseScope(parameters.scope),
    assignee: parseAssignee(parameters.assignee),
    dueFromMs: parseMoment("due_after", parameters.due_after),
    dueBeforeMs: parseMoment("due_before", parameters.due_before),
    updatedFromMs: parseMoment("updated_after", parameters.updated_after),
    isOverdue: parseFlag("overdue", parameters.overdue),
    words: parseWords(q),
    isDeleted: parseFlag("deleted", parameters.deleted) ?? false,
  };
}

/** @throws AppError invalid_request */
export function parseScope(text: string | undefined): TaskScope {
  return text === undefined ? "all" : requireOneOf("scope", text, SCOPES);
}

/** The parameter `expand`: whether the users of a task are shown with it. @throws AppError invalid_request */
export function parseExpand(text: string | undefined): boolean {
  return text !== undefined && requireOneOf("expand", text, ["user"]) === "user";
}

/** What cursors belong to: one text for all queries of a user that mean the same rows in the same order. */
export function listKey(userId: number, filter: TaskFilter, { by, isDescending }: TaskSort): string {
  const { statuses, priorities, labels, scope, assignee, isDeleted, isOverdue, words } = filter;
  const times = [filter.dueFromMs, filter.dueBeforeMs, filter.updatedFromMs];
  return JSON.stringify([
    userId,
    statuses,
    priorities,
    labels,
    scope,
    assignee,
    times,
    isOverdue,
    words,
    isDeleted,
    by,
    isDescending,
  ]);
}

function parseSort(text: string): TaskSort {
  const isDescending = text.startsWith("-");
  const by = SORT_KEYS.find((key) => key === (isDescending ? text.slice(1) : text));
  if (by !== undefined) return { by, isDescending };
  throw invalid("sort", `is one of ${SORT_KEYS.join(", ")}, or one of them after a minus`);
}

/** Each of the known values at most once, in their order. */
function parseList<Value extends string>(name: string, text: string | undefined, known: readonly Value[]): Value[] {
  if (text === undefined || text === "") return [];
  const named = text.split(",").map((part) => requireOneOf(name, part, known));
  return known.filter((value) => named.includes(value));
}

function parseLabels(text: string | undefined): string[] {
  if (text === undefined || text === "") return [];
  requireText("label", text);
  const labels = text.split(",");
  if (labels.includes("")) throw invalid("label", "is a list of labels with commas between them");
  const keys = [...new Set(labels.map(labelKeyOf))].sort();
  if (keys.length > LABELS_MAX) throw invalid("label", `names at most ${LABELS_MAX} labels`);
  return keys;
}

function parseAssignee(text: string | undefined): TaskFilter["assignee"] {
  if (text === undefined) return null;
  if (text === "me" || text === "none") return text;
  const id = /^[1-9][0-9]{0,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(id)) return id;
  throw invalid("assignee", "is me, none, or the id of a user");
}

function parseMoment(name: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  const timeMs = parseTime(text);
  if (timeMs !== null) return timeMs;
  throw invalid(name, "is a time such as 2026-02-01T00:00:00Z; a plus in it is written %2B");
}

function parseWords(text: string | undefined): readonly string[] {
  if (text === undefined) return [];
  requireText("q", text);
  const words = searchWordsOf(text);
  if (words.length > WORDS_MAX) throw invalid("q", `has at most ${WORDS_MAX} words`);
  if ([...words.join("")].length > WORDS_LENGTH_MAX) throw invalid("q", `has at most ${WORDS_LENGTH_MAX} characters`);
  return words;
}

function parseFlag(name: string, text: string | undefined): boolean | null {
  return text === undefined ? null : requireOneOf(name, text, ["true", "false"]) === "true";
}

/** @throws AppError invalid_request */
export function requireOneOf<Value extends string>(name: string, text: string, known: readonly Value[]): Value {
  const value = known.find((each) => each === text);
  if (value !== undefined) return value;
  throw invalid(name, `is ${known.length === 1 ? known[0] : `one of ${known.join(", ")}`}`);
}

function requireText(name: string, text: string): void {
  if (text.includes("\0")) throw invalid(name, "is not valid text");
}

function invalid(name: string, words: string): AppError {
  return parameterError("invalid_request", name, words);
}
