// Reading tasks: one, lists of them, what they add up to, and lists as files.

import { isUnchanged } from "../http/entity-tags.ts";
import { respondHeldJson } from "../http/held-bytes.ts";
import { nextPageHeaders } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { type ResponseHeaders, respond, respondFrom, respondJson } from "../http/respond.ts";
import type { Eventually } from "../shared/eventual.ts";
import { goneUntilMs } from "./item-rules.ts";
import { taskNotFound } from "./item-store.ts";
import { type CachedTask, cachedTask, taskHeaders } from "./task-cache.ts";
import { formatCursor, parseCursor } from "./task-cursor.ts";
import { showCalendar, showTable } from "./task-files.ts";
import type { ListedItem } from "./task-list-store.ts";
import {
  LIST_PARAMETERS,
  listKey,
  parseExpand,
  parseFilter,
  parseListQuery,
  parseScope,
  type TaskListQuery,
} from "./task-query.ts";
import { forUsers, parseId, type TaskRoutes, type UserRequest } from "./task-request.ts";
import { taskView } from "./task-view.ts";

const FILE_COST = 10;
const MINUTE_MS = 60_000;
/** Of a hash in an entity tag: two queries of one user meet in it once in 2^72. */
const HASH_BYTES = 9;

export const LIST_ROUTES: TaskRoutes = {
  "/tasks": { GET: forUsers(listTasks) },
  "/tasks/:id": { GET: forUsers(showTask) },
  "/tasks/stats": { GET: forUsers(showStats) },
  "/tasks/export.csv": { GET: forUsers(showTable, FILE_COST) },
  "/tasks/export.ics": { GET: forUsers(showCalendar, FILE_COST) },
  "/labels": { GET: forUsers(listLabels) },
};

/** Without a promise when the task is cached. */
function showTask(request: UserRequest): Eventually<Response> {
  const { services, scope, who, params } = request;
  const id = parseId(params.id);
  const { expand } = parseQuery(scope.request.url, ["expand"]);
  if (parseExpand(expand)) return showExpanded(request, id);
  const { cache, lists } = services;
  const cached = cache.find(id);
  if (cached !== null) return answer(request, cached);
  return cache
    .load(id, async () => {
      const item = await lists.findLive(id);
      return item === null ? null : cachedTask(taskView(item.row, item.labels));
    })
    .then((task) => {
      if (task === null) throw taskNotFound();
      return answer({ services, scope, who, params }, task);
    });
}

/** Cached or not, each request is judged. @throws AppError not_found */
function answer({ scope, who }: UserRequest, task: CachedTask): Response {
  if (task.ownerId !== who.userId && task.assigneeId !== who.userId) throw taskNotFound();
  const { etag, body, template, unchangedTemplate } = task;
  const isKnown = isUnchanged(scope.request.headers.get("if-none-match"), etag);
  if (isKnown) return respondFrom(scope, 304, unchangedTemplate, null);
  if (!scope.isHead) return respondFrom(scope, 200, template, body);
  return respond(scope, 200, { ...taskHeaders(etag), "Content-Type": "application/json" }, body);
}

/** Names of users change without a change of the task: hence no entity tag. */
async function showExpanded({ services, scope, who }: UserRequest, id: number): Promise<Response> {
  const item = await services.lists.findLive(id);
  const isVisible = item !== null && (item.row.user_id === who.userId || item.row.assignee_id === who.userId);
  if (!isVisible) throw taskNotFound();
  const [shown] = await withUsers(services.lists, [item]);
  return respondJson(scope, 200, shown);
}

async function listTasks({ services, scope, who }: UserRequest): Promise<Response> {
  const { lists, clock } = services;
  const { url, headers } = scope.request;
  const parameters = parseQuery(url, LIST_PARAMETERS);
  const query = parseListQuery(parameters);
  const { filter, sort, limit, hasCount, hasUsers } = query;
  const list = listKey(who.userId, filter, sort);
  const after = query.cursor === null ? null : parseCursor(query.cursor, list);
  const answered: ResponseHeaders = {};
  if (isTagged(query)) {
    // Before the rows: a change in between makes the tag older than what it stands for, never newer.
    const rev = await lists.findRev(who.userId);
    answered.ETag = weakTag(rev, `${list} ${limit} ${query.cursor} ${hasCount}`);
    answered["Cache-Control"] = "private, no-cache";
    if (isUnchanged(headers.get("if-none-match"), answered.ETag)) return respond(scope, 304, answered);
  }
  const view = { userId: who.userId, filter, nowMs: clock(), goneUntilMs: goneUntilMs(services) };
  const { items, hasMore, total } = await scope.whileReading(async (signal) => ({
    ...(await lists.page(view, sort, { after, limit, signal })),
    total: hasCount ? await lists.count(view, signal) : null,
  }));
  const next = hasMore ? formatCursor(items.at(-1)!.place, list) : null;
  Object.assign(answered, nextPageHeaders(url, parameters, next));
  if (total !== null) answered["X-Total-Count"] = `${total}`;
  const shown = hasUsers ? await withUsers(lists, items) : items.map(({ row, labels }) => taskView(row, labels));
  return respondHeldJson(scope, services.budget.ofHolder(`user ${who.userId}`), shown, answered);
}

/** What time alone changes is not told by the number of the last change. */
function isTagged({ filter, hasUsers }: TaskListQuery): boolean {
  return filter.isOverdue === null && !filter.isDeleted && !hasUsers;
}

/** `query` names the user: numbers of changes of two are often the same, and one browser may have been both. */
function weakTag(rev: number, query: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(query).digest() as Buffer;
  return `W/"${rev}-${hash.subarray(0, HASH_BYTES).toString("base64url")}"`;
}

async function withUsers(
  lists: UserRequest["services"]["lists"],
  items: readonly Pick<ListedItem, "row" | "labels">[],
) {
  const ids = items.flatMap(({ row }) => [row.user_id, ...(row.assignee_id === null ? [] : [row.assignee_id])]);
  const people = await lists.people(new Set(ids));
  const personOf = (id: number | null) => (id === null ? null : (people.get(id) ?? null));
  return items.map(({ row, labels }) => ({
    ...taskView(row, labels),
    user: personOf(row.user_id),
    assignee: personOf(row.assignee_id),
  }));
}

async function showStats({ services, scope, who }: UserRequest): Promise<Response> {
  const { scope: which } = parseQuery(scope.request.url, ["scope"]);
  const filter = { ...parseFilter({}), scope: parseScope(which) };
  const rev = await services.lists.findRev(who.userId);
  const nowMs = services.clock();
  const minute = Math.floor(nowMs / MINUTE_MS);
  const tag = weakTag(rev, `stats ${who.userId} ${minute} ${filter.scope}`);
  return respondStats({ services, scope, who }, tag, (signal) =>
    services.stats.stats({ userId: who.userId, filter, nowMs, goneUntilMs: 0 }, signal),
  );
}

async function listLabels({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const rev = await services.lists.findRev(who.userId);
  return respondStats({ services, scope, who }, weakTag(rev, `labels ${who.userId}`), (signal) =>
    services.stats.labels(who.userId, signal),
  );
}

/** What belongs to a tag is the same until the tag is another. */
async function respondStats(
  { services, scope, who }: Pick<UserRequest, "services" | "scope" | "who">,
  tag: string,
  sum: (signal: AbortSignal) => Promise<unknown>,
): Promise<Response> {
  if (isUnchanged(scope.request.headers.get("if-none-match"), tag)) return respond(scope, 304, taskHeaders(tag));
  const json = await scope.whileReading((signal) => services.statsCache.of(`${who.userId} ${tag}`, signal, sum));
  return respond(scope, 200, { ...taskHeaders(tag), "Content-Type": "application/json" }, json);
}
