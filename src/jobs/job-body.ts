// A job as it is shown: to its owner, and with more of it to operators.

import { formatTimeOrNull } from "../shared/iso-time.ts";
import type { JobRow } from "./job-tables.ts";

export function jobBody(row: JobRow): Record<string, unknown> {
  return {
    id: row.id,
    kind: row.kind,
    queue: row.queue,
    state: row.state,
    attempts: row.attempts,
    max_attempts: row.max_attempts,
    run_at: formatTimeOrNull(row.run_at_ms),
    created_at: formatTimeOrNull(row.created_at_ms),
    started_at: formatTimeOrNull(row.started_at_ms),
    finished_at: formatTimeOrNull(row.finished_at_ms),
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
    locked_until: formatTimeOrNull(row.locked_until_ms),
    cancel_requested: row.cancel_requested === 1,
    request_id: row.request_id,
  };
}
