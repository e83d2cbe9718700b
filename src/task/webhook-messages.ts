// What webhooks are told of an event: a body that is frozen when the event is stored.

import { formatTime } from "../shared/iso-time.ts";
import type { EventType, ItemRow } from "./task-tables.ts";
import { taskView } from "./task-view.ts";

/** One event, as the webhooks of its recipients are told of it. */
export interface Announced {
  /** Ascending, each once. */
  readonly recipients: readonly number[];
  readonly type: Exclude<EventType, "task.gone">;
  /** As it is after the change. */
  readonly task: ItemRow;
  readonly labels: readonly string[];
  readonly changes: Readonly<Record<string, readonly [unknown, unknown]>>;
  readonly actorId: number | null;
  readonly requestId: string | null;
}

/** What a ping is called; no hook has to ask for it. */
const PING_TYPE = "webhook.ping";

export interface WebhookMessage {
  readonly type: EventType | typeof PING_TYPE;
  /** JSON. */
  readonly body: string;
}

/** For a recipient who may still see the task, and for one who may not: that one learns the id and no more. */
export function messagesOf(event: Announced, atMs: number): (userId: number) => WebhookMessage {
  const { task, labels, changes, actorId } = event;
  const shown = message(event.type, atMs, { task: taskView(task, labels), changes, actor_id: actorId });
  const gone = message("task.gone", atMs, { task: { id: task.id }, changes: {}, actor_id: null });
  const isLive = task.deleted_at_ms === 0;
  return (userId) => (userId === task.user_id || (isLive && userId === task.assignee_id) ? shown : gone);
}

export function pingMessage(atMs: number): WebhookMessage {
  return message(PING_TYPE, atMs, {});
}

function message(type: WebhookMessage["type"], atMs: number, data: object): WebhookMessage {
  return { type, body: JSON.stringify({ type, timestamp: formatTime(atMs), data }) };
}
