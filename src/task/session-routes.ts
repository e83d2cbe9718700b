// Routes of the task service that begin, continue and end sessions.

import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import { LoginBody, LogoutBody, RefreshBody } from "./account-bodies.ts";
import { readFields } from "./account-request.ts";
import type { SessionRow } from "./account-store.ts";
import {
  forAnybody,
  forEither,
  forUsers,
  requireUuid,
  type TaskRequest,
  type TaskRoutes,
  type UserRequest,
} from "./task-request.ts";

const SHOWN_AFTER_END_MS = 30 * 86_400_000;

export const SESSION_ROUTES: TaskRoutes = {
  "/auth/login": { POST: forAnybody(logIn) },
  "/auth/refresh": { POST: forAnybody(refresh) },
  "/auth/logout": { POST: forEither(logOut) },
  "/auth/logout-all": { POST: forUsers(logOutEverywhere) },
  "/auth/sessions": { GET: forUsers(listSessions) },
  "/auth/sessions/:id": { DELETE: forUsers(revokeSession) },
};

async function logIn(request: TaskRequest): Promise<Response> {
  const { services, scope } = request;
  services.rates.takeStricter(scope, "login");
  const body = await readFields(request, LoginBody);
  const { user, pair } = await services.accounts.logIn(scope, body.email, body.password);
  scope.subject = `${user.id}`;
  const { token, ...rest } = pair;
  const { id, username, email } = user;
  return respondJson(scope, 200, { token, user: { id, username, email }, ...rest });
}

async function refresh(request: TaskRequest): Promise<Response> {
  const { services, scope } = request;
  const body = await readFields(request, RefreshBody);
  return respondJson(scope, 200, await services.accounts.refresh(scope, body.refresh_token));
}

/** By the access token, or, when that has ended, by the refresh token. */
async function logOut(request: TaskRequest): Promise<Response> {
  const { services, scope } = request;
  const body = await readFields(request, LogoutBody);
  const { userId, sessionId } = await sessionToEnd(request, body.refresh_token);
  scope.subject = `${userId}`;
  const args = { userId, sessionId, reason: "logout", nowMs: services.clock() } as const;
  await services.accounts.change(userId, "task.endSession", args);
  return respondJson(scope, 200, { message: "Logged out" });
}

async function sessionToEnd({ services, who, refusal }: TaskRequest, refreshToken: string | undefined) {
  if (who !== null) return who;
  if (refreshToken === undefined) throw refusal;
  return services.accounts.requireLiveRefresh(refreshToken);
}

async function logOutEverywhere({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const args = { userId: who.userId, reason: "logout_all", nowMs: services.clock() } as const;
  const sessions = await services.accounts.change(who.userId, "task.endSessions", args);
  return respondJson(scope, 200, { message: "Logged out everywhere", sessions });
}

async function listSessions({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const nowMs = services.clock();
  const rows = await services.accounts.store.listSessions(who.userId, nowMs, nowMs - SHOWN_AFTER_END_MS);
  return respondJson(
    scope,
    200,
    rows.toSorted((a, b) => (a.id < b.id ? 1 : -1)).map((row) => sessionBody(row, who.sessionId)),
  );
}

async function revokeSession({ services, scope, who, params }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const sessionId = requireUuid(params.id, "session");
  const args = { userId: who.userId, sessionId, reason: "revoked", nowMs: services.clock() } as const;
  await services.accounts.change(who.userId, "task.endSession", args);
  return respondJson(scope, 200, { message: "Session revoked" });
}

function sessionBody(row: SessionRow, currentId: string) {
  return {
    id: row.id,
    created_at: formatTime(row.created_at_ms),
    last_used_at: formatTime(row.last_used_at_ms),
    expires_at: formatTime(Math.min(row.idle_until_ms, row.expires_at_ms)),
    ip: row.ip,
    user_agent: row.user_agent,
    current: row.id === currentId,
    revoked_at: formatTimeOrNull(row.revoked_at_ms),
    revoked_reason: row.revoked_reason,
  };
}
