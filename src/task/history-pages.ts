// Pages of what hangs on a task, its comments and its events, oldest first.

import { respondHeldJson } from "../http/held-bytes.ts";
import { pageLimit } from "../http/page-limit.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { requestPath } from "../http/request-path.ts";
import type { ResponseHeaders } from "../http/respond.ts";
import { type HistoryReader, requireVisibleItem } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import { formatCursor, parseCursor } from "./task-cursor.ts";
import { parseId, type UserRequest } from "./task-request.ts";

const PAGE_DEFAULT = 200;

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
  const headers: ResponseHeaders = {};
  if (hasMore) {
    const { id } = items.at(-1)!;
    const next = formatCursor({ key: id, id }, list);
    headers["X-Next-Cursor"] = next;
    headers.Link = `<${requestPath(scope.request.url)}?limit=${limit}&cursor=${next}>; rel="next"`;
  }
  return respondHeldJson(scope, services.budget, items, headers);
}
