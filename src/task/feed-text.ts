// The words of a live stream (WHATWG HTML, server-sent events): what a client reads, line by line.

import { formatTime } from "../shared/iso-time.ts";
import type { FeedEntry } from "./feed-store.ts";

/** Keeps proxies and clients patient. */
export const PING = ": ping\n\n";

/** How long a client is to wait before it comes back, ms. */
const RETRY_MS = 2000;

/** Comes first: whoever is cut off before anything has happened comes back with this rev, and misses nothing. */
export function greeting(rev: number): string {
  return `retry: ${RETRY_MS}\nid: ${rev}\n\n`;
}

/** What lies between is too much or not there any more: the client reads its lists anew, and goes on from `rev`. */
export function resetText(rev: number): string {
  return `id: ${rev}\nevent: reset\ndata: {}\n\n`;
}

/** One event; of a task that was purged the rev alone, which a client keeps without being told anything. */
export function entryText({ rev, atMs, event }: FeedEntry): string {
  if (event === null) return `id: ${rev}\n\n`;
  if (event.isLost) return `id: ${rev}\nevent: task.gone\ndata: {"id":${event.taskId}}\n\n`;
  const { id, taskId, type, actorId, version, changes } = event;
  const at = formatTime(atMs);
  const head = `"id":${taskId},"event_id":${id},"type":"${type}","actor_id":${actorId},"version":${version}`;
  return `id: ${rev}\nevent: ${type}\ndata: {${head},"changes":${changes},"at":"${at}"}\n\n`;
}
