// A job as it is shown: to its owner, and with more of it to operators.

import type { JobRow } from "./job-tables.ts";

export function jobBody(row: JobRow): Record<string, unknown> {
  return {
    id: row.id,
    kind: row.kind,
    queue: row.queue,
    state: row.state,
    attempts: row.attempts,
    max_attempts: row.max_attempts,
    run_at: timeText(row.run_at_ms),
    created_at: timeText(row.created_at_ms),
    started_at: timeText(row.started_at_ms),
    finished_at: timeText(row.finished_at_ms),
    progress: row.progress,
    last_error: row.last_error,
  };
}

export function operatorJobBody(row: JobRow): Record<string, unknown> {
  return {
    ...jobBody(row),
    owner_id: row.owner_id,
    group_key: row.group_key,
    priority: row.priority,
    locked_by: row.locked_by,
    locked_until: timeText(row.locked_until_ms),
    cancel_requested: row.cancel_requested === 1,
    request_id: row.request_id,
  };
}

/** `2026-02-01T00:00:00.000Z` */
export function timeText(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
