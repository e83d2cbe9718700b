// The shapes of what the task service answers, as its document shows them.

import { count, type JsonSchema, object, text, textOrNull, time } from "../http/openapi.ts";

/** What the document says of passwords; a server may ask for more. */
export const PASSWORD_MIN = 6;

export const flag: JsonSchema = { type: "boolean" };
export const id: JsonSchema = { type: "integer", minimum: 1 };
export const uuid: JsonSchema = { type: "string", format: "uuid" };
const timeOrNull: JsonSchema = { ...textOrNull, format: "date-time" };
const countOrNull: JsonSchema = { type: ["integer", "null"] };
const idOrNull: JsonSchema = { type: ["integer", "null"], minimum: 1 };

export function listOf(items: JsonSchema): JsonSchema {
  return { type: "array", items };
}

/** With `optional` members that need not be there. */
function extended(
  base: Readonly<Record<string, JsonSchema>>,
  optional: Readonly<Record<string, JsonSchema>> = {},
): JsonSchema {
  return object({ ...base, ...optional }, Object.keys(base));
}

export const message = object({ message: text });
export const person = object({ id, username: text });
export const ownUser = object({ id, username: text, email: text });
const TOKENS = { token: text, refresh_token: text, expires_in: count, token_type: { const: "Bearer" } };
export const tokenPair = object(TOKENS);
export const signedIn = object({ ...TOKENS, user: ownUser });
export const profile = object({ id, username: text, email: text, created_at: time, updated_at: time });
export const session = object({
  id: uuid,
  created_at: time,
  last_used_at: time,
  expires_at: time,
  ip: textOrNull,
  user_agent: textOrNull,
  current: flag,
  revoked_at: timeOrNull,
  revoked_reason: textOrNull,
});

const STATUS: JsonSchema = { enum: ["pending", "in_progress", "completed"] };
const PRIORITY: JsonSchema = { enum: ["low", "medium", "high"] };

export const task = extended(
  {
    id,
    title: text,
    description: text,
    status: STATUS,
    priority: PRIORITY,
    user_id: id,
    assignee_id: idOrNull,
    labels: listOf(text),
    due_date: timeOrNull,
    remind_at: timeOrNull,
    completed_at: timeOrNull,
    created_at: time,
    updated_at: time,
    version: id,
  },
  { user: person, assignee: { anyOf: [person, { type: "null" }] } },
);
export const comment = object({ id, task_id: id, user: person, body: text, created_at: time });
export const taskEvent = object({
  id,
  type: text,
  actor_id: idOrNull,
  version: count,
  at: time,
  changes: { type: "object", additionalProperties: { type: "array", minItems: 2, maxItems: 2 } },
});
export const labelCount = object({ label: text, count });
export const stats = object({
  total: count,
  overdue: count,
  due_within_24h: count,
  completed_last_7_days: count,
  by_status: object({ pending: count, in_progress: count, completed: count }),
  by_priority: object({ low: count, medium: count, high: count }),
  completion_rate: { type: "number", minimum: 0, maximum: 1 },
});

export const job = extended({
  id: uuid,
  kind: text,
  queue: text,
  attempts: count,
  max_attempts: count,
  run_at: time,
  created_at: time,
  state: { enum: ["ready", "running", "done", "dead", "cancelled"] },
  started_at: timeOrNull,
  finished_at: timeOrNull,
  progress: count,
  last_error: textOrNull,
});
export const queuedExport = object({ id: uuid, job_id: uuid, state: text });
export const taskExport = extended(
  { id: uuid, job_id: uuid, state: text, format: { enum: ["csv", "ics"] }, created_at: time, expires_at: time },
  { filter: { type: "object" }, row_count: countOrNull, byte_count: countOrNull, sha256: textOrNull },
);

const WEBHOOK = {
  id: uuid,
  url: text,
  events: listOf(text),
  active: flag,
  disabled_reason: textOrNull,
  created_at: time,
  updated_at: time,
};
const WEBHOOK_FIGURES = { failures: count, pending: count };
export const webhook = extended(WEBHOOK, WEBHOOK_FIGURES);
export const newWebhook = extended({ ...WEBHOOK, secret: text }, WEBHOOK_FIGURES);
export const delivery = object({
  id: uuid,
  event_type: text,
  state: text,
  attempts: count,
  last_status: countOrNull,
  last_ms: countOrNull,
  last_error: textOrNull,
  response_excerpt: textOrNull,
  created_at: time,
  finished_at: timeOrNull,
});

export const adminUser = object({
  id,
  username: text,
  email: text,
  disabled: flag,
  created_at: time,
  updated_at: time,
  deleted_at: timeOrNull,
});
export const adminUsers = listOf(adminUser);
export const adminTask: JsonSchema = {
  ...task,
  properties: { ...(task.properties as object), deleted_at: timeOrNull },
};
export const adminJob = object({
  ...(job.properties as Record<string, JsonSchema>),
  owner_id: idOrNull,
  group_key: textOrNull,
  priority: { type: "integer" },
  locked_by: textOrNull,
  locked_until: timeOrNull,
  cancel_requested: flag,
  request_id: textOrNull,
});
export const adminJobs = listOf(adminJob);
export const adminQueues = listOf(
  object({ name: text, depth: count, oldest: timeOrNull, running: count, paused: flag }),
);
export const adminQueue = object({ name: text, paused: flag });
export const adminSchedules = listOf(
  object({ name: text, expression: text, last_fire: timeOrNull, next_fire: timeOrNull }),
);
export const scheduledRun = object({ job_id: { type: ["string", "null"] } });
