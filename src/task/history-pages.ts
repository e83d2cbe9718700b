// Pages of what hangs on a task, its comments and its events, oldest first.

import { respondHeldJson } from "../http/held-bytes.ts";
import { nextPageHeaders, pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { type HistoryReader, requireVisibleItem } from "./item-store.ts";
import { PAGE_DEFAULT } from "./page-sizes.ts";
import { taskTables } from "./task-base-units.ts";
import { formatCursor, parseCursor } from "./task-cursor.ts";
import { parseId, type UserRequest } from "./task-request.ts";

/**
 * Of the task in the path; `kind` tells the cursors of two lists apart.
 * @throws AppError invalid_id, not_found, invalid_parameter, invalid_cursor, query_invalid
 */
export async function respondOldestFirst(
  { services, scope, who, params }: UserRequest,
  kind: string,
  read: HistoryReader,
): Promise<Response> {
  const taskId = parseId(params.id);
  const { limit: limitText, cursor } = parseQuery(scope.request.url, ["limit", "cursor"]);
  const limit = pageLimit(limitText, { fallback: PAGE_DEFAULT });
  const list = `${kind} of ${taskId}`;
  const afterId = cursor === undefined ? 0 : parseCursor(cursor, list).id;
  const db = taskTables(services.store);
  await requireVisibleItem(db, taskId, who.userId);
  const { items, hasMore } = await read(db, { taskId, afterId, limit });
  const last = hasMore ? items.at(-1)!.id : null;
  const next = last === null ? null : formatCursor({ key: last, id: last }, list);
  const headers = nextPageHeaders(scope.request.url, { limit: `${limit}` }, next);
  return respondHeldJson(scope, services.budget.ofHolder(`user ${who.userId}`), items, headers);
}
