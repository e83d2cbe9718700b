// The rows of the task service, as Kysely sees them and as the program does.

import type { Generated } from "kysely";

export const STATUSES = ["pending", "in_progress", "completed"] as const;
export type TaskStatus = (typeof STATUSES)[number];
/** By the number that stands in a row, which is also their order. */
export const PRIORITIES = ["low", "medium", "high"] as const;
export type TaskPriority = (typeof PRIORITIES)[number];

export const EVENT_TYPES = [
  "task.created",
  "task.updated",
  "task.assigned",
  "task.deleted",
  "task.restored",
  "task.reminder",
  "task.overdue",
  "task.gone",
  "comment.created",
  "comment.deleted",
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** `due_at_ms` of a task without a due date: the farthest future. */
export const NO_DUE_MS = 9e15;

export type TaskTables = {
  task_user: {
    id: Generated<number>;
    username: string;
    email: string;
    username_key: string | null;
    email_key: string | null;
    password_hash: string;
    token_version: number;
    disabled_at_ms: number | null;
    created_at_ms: number;
    updated_at_ms: number;
    deleted_at_ms: number | null;
  };
  task_session: {
    id: string;
    user_id: number;
    ip: string | null;
    user_agent: string | null;
    created_at_ms: number;
    last_used_at_ms: number;
    idle_until_ms: number;
    expires_at_ms: number;
    revoked_at_ms: number | null;
    revoked_reason: string | null;
  };
  task_refresh: { hash: string; session_id: string; created_at_ms: number; used_at_ms: number | null };
  task_item: {
    id: Generated<number>;
    user_id: number;
    assignee_id: number | null;
    title: string;
    description: string;
    search_text: string;
    status: TaskStatus;
    /** 1 low, 2 medium, 3 high. */
    priority: number;
    due_at_ms: number;
    remind_at_ms: number | null;
    completed_at_ms: number | null;
    created_at_ms: number;
    updated_at_ms: number;
    /** 0 = live. */
    deleted_at_ms: number;
    version: number;
  };
  /** `user_id` is the owner of the task. */
  task_label: { task_id: number; label_key: string; label: string; user_id: number };
  task_comment: {
    id: Generated<number>;
    task_id: number;
    user_id: number;
    body: string;
    created_at_ms: number;
    deleted_at_ms: number | null;
  };
  /** Tasks that were purged, and have labels, comments or events left. */
  task_remains: { task_id: number };
  /** Never updated; removed only with their task. `actor_id` null: the server itself. */
  task_event: {
    id: Generated<number>;
    task_id: number;
    type: string;
    actor_id: number | null;
    version: number;
    /** JSON: `{"status":["pending","completed"]}`. */
    changes: string;
    at_ms: number;
  };
  /** `item_count` counts the rows a user owns, deleted ones that are not purged yet included. */
  task_head: { user_id: number; rev: number; item_count: number };
  task_feed: { user_id: number; rev: number; event_id: number; at_ms: number };
  task_idempotency: {
    user_id: number;
    key_hash: string;
    route: string;
    body_hash: string;
    status: number;
    response: string;
    created_at_ms: number;
  };
  task_webhook: {
    id: string;
    user_id: number;
    url: string;
    /** JSON array of event types. */
    events: string;
    /** Sealed. */
    secret: string;
    /** Those that also sign for a while: see formerSecrets. */
    previous_secret: string | null;
    previous_until_ms: number | null;
    active: number;
    disabled_reason: string | null;
    /** Dead deliveries in a row. */
    failures: number;
    pending: number;
    created_at_ms: number;
    updated_at_ms: number;
    /** Of the jobs that deliver to it, by how its receiver has fared: see JOB_PRIORITY. */
    job_priority: number;
  };
  task_delivery: {
    id: string;
    webhook_id: string;
    /** The latest job that is to deliver it. */
    job_id: string;
    event_type: string;
    /** Empty when it has a message. */
    body: string;
    state: "pending" | "done" | "dead";
    attempts: number;
    last_status: number | null;
    last_ms: number | null;
    last_error: string | null;
    response_excerpt: string | null;
    created_at_ms: number;
    finished_at_ms: number | null;
    message_id: string | null;
  };
  /** What deliveries of the same event send. */
  task_message: { id: string; body: string };
  task_export: {
    id: string;
    user_id: number;
    job_id: string;
    format: "csv" | "ics";
    /** JSON: the list filters. */
    filter: string;
    state: "pending" | "ready" | "failed";
    row_count: number | null;
    byte_count: number | null;
    sha256: string | null;
    created_at_ms: number;
    expires_at_ms: number;
  };
  task_export_part: { export_id: string; seq: number; data: Uint8Array };
};

export type ItemRow = Omit<TaskTables["task_item"], "id"> & { id: number };

/** A row of accounts without its secrets. Times in ms since 1970. */
export interface User {
  readonly id: number;
  readonly username: string;
  readonly email: string;
  readonly isDisabled: boolean;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly deletedAtMs: number | null;
}

type UserRow = Omit<TaskTables["task_user"], "id"> & { id: number };

export function toUser(row: Omit<UserRow, "password_hash" | "token_version" | "username_key" | "email_key">): User {
  return {
    id: row.id,
    username: row.username,
    email: row.email,
    isDisabled: row.disabled_at_ms !== null,
    createdAtMs: row.created_at_ms,
    updatedAtMs: row.updated_at_ms,
    deletedAtMs: row.deleted_at_ms,
  };
}
