// Administration of the task service, for operators: accounts, and single tasks whoever owns them.

import { requireRight } from "../auth/principal.ts";
import type { ByteBudget } from "../http/byte-budget.ts";
import { below, createOperatorHandler, type OperatorRequest, type OperatorRoutes } from "../http/operator-routes.ts";
import { nextPageHeaders, pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import type { Handler, OperatorSurface } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import { newUserBody, userChangesBody } from "./account-bodies.ts";
import { readOperatorFields } from "./account-request.ts";
import { createUser } from "./account-routes.ts";
import { goneUntilMs, isGone } from "./item-rules.ts";
import { findItem, labelsOf, taskNotFound } from "./item-store.ts";
import { taskTables } from "./task-base-units.ts";
import { parseId } from "./task-request.ts";
import type { TaskServices } from "./task-services.ts";
import type { User } from "./task-tables.ts";
import { taskView } from "./task-view.ts";

interface TaskAdminServices extends OperatorSurface {
  readonly tasks: TaskServices;
  /** That of users has no room for operators when users hold all of it. */
  readonly budget: ByteBudget;
}

type AdminRequest = OperatorRequest<TaskAdminServices>;

const ROUTES: OperatorRoutes<TaskAdminServices> = below("/_admin/task", {
  "/users": { GET: listUsers, POST: addUser },
  "/users/:id": { GET: showUser, PATCH: updateUser, DELETE: deleteUser },
  "/users/:id/logout": { POST: logOutUser },
  "/tasks/:id": { GET: showTask, DELETE: deleteTask },
  "/tasks/:id/restore": { POST: restoreTask },
});

export function createTaskAdminHandler(services: TaskAdminServices): Handler {
  return createOperatorHandler(services, ROUTES, (principal) => requireRight(principal, "admin"));
}

/** In the order of ids; the cursor is the one to go on behind. */
async function listUsers({ services, scope }: AdminRequest): Promise<Response> {
  const { url } = scope.request;
  const query = parseQuery(url, ["q", "limit", "cursor"]);
  const limit = pageLimit(query.limit);
  const wanted = { text: query.q || null, limit: limit + 1, afterId: cursorId(query.cursor) };
  const users = await scope.whileReading((signal) => services.tasks.accounts.store.listUsers(wanted, signal));
  const page = users.slice(0, limit);
  const next = users.length > limit ? `${page.at(-1)!.id}` : null;
  return respondJson(scope, 200, page.map(userBody), nextPageHeaders(url, query, next));
}

async function addUser({ services, scope }: AdminRequest): Promise<Response> {
  const { tasks, budget } = services;
  const body = await readOperatorFields(scope, budget, newUserBody(tasks.settings.passwordMin));
  return respondJson(scope, 201, userBody(await createUser(tasks, body)));
}

async function showUser(request: AdminRequest): Promise<Response> {
  const user = await request.services.tasks.accounts.store.requireAnyUser(idOf(request, "user"));
  return respondJson(request.scope, 200, userBody(user));
}

async function updateUser(request: AdminRequest): Promise<Response> {
  const { services, scope } = request;
  const { accounts, clock, settings } = services.tasks;
  const userId = idOf(request, "user");
  const schema = userChangesBody(settings.passwordMin);
  const { disabled: isDisabled, password } = await readOperatorFields(scope, services.budget, schema);
  await accounts.store.requireCredentials(userId);
  const passwordHash = password === undefined ? undefined : await accounts.passwords.hash(password);
  const args = { userId, isDisabled, passwordHash, nowMs: clock() };
  return respondJson(scope, 200, userBody(await accounts.administer(args)));
}

async function deleteUser(request: AdminRequest): Promise<Response> {
  const userId = idOf(request, "user");
  await request.services.tasks.accounts.delete(request.scope, userId, null);
  return respondJson(request.scope, 200, { message: "Account deleted" });
}

async function logOutUser(request: AdminRequest): Promise<Response> {
  const { accounts, clock } = request.services.tasks;
  const userId = idOf(request, "user");
  await accounts.store.requireCredentials(userId);
  const args = { userId, reason: "operator", nowMs: clock() } as const;
  return respondJson(request.scope, 200, { sessions: await accounts.change(userId, "task.endSessions", args) });
}

async function showTask(request: AdminRequest): Promise<Response> {
  const id = idOf(request, "task");
  const { tasks } = request.services;
  const db = taskTables(tasks.store);
  const row = await findItem(db, id);
  if (row === null || isGone(row, goneUntilMs(tasks))) throw taskNotFound();
  const deleted_at = formatTimeOrNull(row.deleted_at_ms || null);
  return respondJson(request.scope, 200, { ...taskView(row, await labelsOf(db, id)), deleted_at });
}

async function deleteTask(request: AdminRequest): Promise<Response> {
  const { services, scope } = request;
  const taskId = idOf(request, "task");
  const act = { userId: null, requestId: scope.id, taskId, match: null, isMatchRequired: false };
  await services.tasks.writer.run("task.deleteItem", act, [taskId]);
  return respondJson(scope, 200, { message: "Task deleted successfully" });
}

async function restoreTask(request: AdminRequest): Promise<Response> {
  const { services, scope } = request;
  const taskId = idOf(request, "task");
  const act = { userId: null, requestId: scope.id, taskId, goneUntilMs: goneUntilMs(services.tasks) };
  const task = await services.tasks.writer.run("task.restoreItem", act, [taskId]);
  return respondJson(scope, 200, { ...task, deleted_at: null });
}

/** Nothing in the query. @throws AppError query_invalid, invalid_id */
function idOf({ scope, params }: AdminRequest, what: string): number {
  parseQuery(scope.request.url, []);
  return parseId(params.id, what);
}

/** @throws AppError cursor_invalid */
function cursorId(cursor: string | undefined): number {
  if (!cursor) return 0;
  if (/^[1-9]\d{0,14}$/.test(cursor)) return Number(cursor);
  throw new AppError("cursor_invalid", "The cursor is none that a list has given.");
}

function userBody({ id, username, email, isDisabled, createdAtMs, updatedAtMs, deletedAtMs }: User) {
  return {
    id,
    username,
    email,
    disabled: isDisabled,
    created_at: formatTime(createdAtMs),
    updated_at: formatTime(updatedAtMs),
    deleted_at: formatTimeOrNull(deletedAtMs),
  };
}
