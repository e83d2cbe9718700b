// Routes of the task service that lead to streams.

import { parseQuery } from "../http/query-parameters.ts";
import { respond, UNKNOWN_LENGTH } from "../http/respond.ts";
import { UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { forUsers, type TaskRoutes, type UserRequest } from "./task-request.ts";

const REV = /^[0-9]{1,15}$/;

export const STREAM_ROUTES: TaskRoutes = {
  "/tasks/stream": { GET: forUsers(openStream) },
};

async function openStream({ services, scope, who }: UserRequest): Promise<Response> {
  const { request } = scope;
  parseQuery(request.url, []);
  const lastRev = readLastEventId(request.headers.get("last-event-id"));
  // Nginx would hold events back until it has a page of them.
  const headers = { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no" };
  if (scope.isHead) return respond(scope, 200, { ...headers, ...UNKNOWN_LENGTH });
  const body = await services.streams.open(who, lastRev, request.signal);
  scope.extendIdleTimeout(UNREAD_SECONDS_MAX);
  return respond(scope, 200, headers, body);
}

/** @throws AppError invalid_request */
function readLastEventId(text: string | null): number | null {
  if (text === null || text === "") return null;
  if (REV.test(text)) return Number(text);
  throw new AppError("invalid_request", "Last-Event-ID is the id of an event of this stream.");
}
