// The log of a webhook, page by page: what was delivered, what was not, and why.

import { nextPageHeaders, pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { AppError } from "../shared/errors.ts";
import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import { DELIVERIES_DEFAULT, DELIVERIES_MAX } from "./page-sizes.ts";
import { requireUuid, type UserRequest } from "./task-request.ts";
import type { WebhookStore } from "./webhook-store.ts";

type Row = Awaited<ReturnType<WebhookStore["deliveries"]>>[number];

/** Newest first. @throws AppError query_invalid, invalid_request, invalid_cursor */
export async function respondDeliveries({ services, scope }: UserRequest, webhookId: string): Promise<Response> {
  const { limit: text, cursor } = parseQuery(scope.request.url, ["limit", "cursor"]);
  const limit = pageLimit(text, { max: DELIVERIES_MAX, fallback: DELIVERIES_DEFAULT, code: "invalid_request" });
  const rows = await services.webhooks.deliveries(webhookId, limit + 1, cursor === undefined ? null : placeOf(cursor));
  const shown = rows.slice(0, limit);
  const next = rows.length > limit ? shown.at(-1)!.id : null;
  const headers = nextPageHeaders(scope.request.url, { limit: `${limit}` }, next);
  return respondJson(scope, 200, shown.map(deliveryView), headers);
}

/** A cursor is the id of the last delivery that was shown. */
function placeOf(cursor: string): string {
  try {
    return requireUuid(cursor, "cursor");
  } catch {
    throw new AppError("invalid_cursor", "The cursor does not belong to this list.");
  }
}

function deliveryView(row: Row) {
  return {
    id: row.id,
    event_type: row.event_type,
    state: row.state,
    attempts: row.attempts,
    last_status: row.last_status,
    last_ms: row.last_ms,
    last_error: row.last_error,
    response_excerpt: row.response_excerpt,
    created_at: formatTime(row.created_at_ms),
    finished_at: formatTimeOrNull(row.finished_at_ms),
  };
}
