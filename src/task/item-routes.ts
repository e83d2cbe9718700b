// Routes that make, change, delete and restore tasks, and show their history.

import { parseQuery } from "../http/query-parameters.ts";
import { requestPath } from "../http/request-path.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respondJson } from "../http/respond.ts";
import { respondOldestFirst } from "./history-pages.ts";
import { readIdempotencyKey } from "./idempotency-key.ts";
import { itemPatchOf, NewTaskBody, newItemOf, TaskPatchBody } from "./item-bodies.ts";
import { goneUntilMs, parseVersionMatch } from "./item-rules.ts";
import { listEvents } from "./item-store.ts";
import { parseFields } from "./request-bodies.ts";
import { forUsers, parseId, readJsonBody, type TaskRoutes, type UserRequest } from "./task-request.ts";
import { etagOf, type TaskView } from "./task-view.ts";

export const ITEM_ROUTES: TaskRoutes = {
  "/tasks": { POST: forUsers(createTask) },
  "/tasks/:id": {
    PUT: forUsers(changeTask),
    PATCH: forUsers(changeTask),
    DELETE: forUsers(deleteTask),
  },
  "/tasks/:id/restore": { POST: forUsers(restoreTask) },
  "/tasks/:id/events": { GET: forUsers((request) => respondOldestFirst(request, "events", listEvents)) },
};

async function createTask(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  parseQuery(scope.request.url, []);
  const keyedBy = readIdempotencyKey(request);
  const { fields, keyed } = await readJsonBody(request, services.settings.taskBodyMax, (bytes) => ({
    fields: newItemOf(parseFields(bytes, NewTaskBody)),
    keyed: keyedBy(bytes),
  }));
  const answer = await services.writer.run("task.createItem", {
    userId: who.userId,
    requestId: scope.id,
    nowMs: services.clock(),
    fields,
    itemsMax: services.settings.taskMaxPerUser,
    keyed,
  });
  const { status, body: task, isReplayed } = answer;
  return respondTask(scope, task, status, {
    Location: `${requestPath(scope.request.url)}/${task.id}`,
    ...(isReplayed ? { "Idempotent-Replayed": "true" } : {}),
  });
}

async function changeTask(request: UserRequest): Promise<Response> {
  const { services, scope, who, params } = request;
  const taskId = parseId(params.id);
  parseQuery(scope.request.url, []);
  const match = parseVersionMatch(scope.request.headers.get("if-match"));
  const patch = await readJsonBody(request, services.settings.taskBodyMax, (bytes) =>
    itemPatchOf(parseFields(bytes, TaskPatchBody)),
  );
  const change = {
    userId: who.userId,
    requestId: scope.id,
    nowMs: services.clock(),
    taskId,
    patch,
    match,
    isMatchRequired: services.settings.taskRequireIfMatch,
  };
  return respondTask(scope, await services.writer.run("task.patchItem", change, [taskId]));
}

async function deleteTask({ services, scope, who, params }: UserRequest): Promise<Response> {
  const taskId = parseId(params.id);
  parseQuery(scope.request.url, []);
  const match = parseVersionMatch(scope.request.headers.get("if-match"));
  const isMatchRequired = services.settings.taskRequireIfMatch;
  const act = { userId: who.userId, requestId: scope.id, taskId, match, isMatchRequired };
  await services.writer.run("task.deleteItem", act, [taskId]);
  return respondJson(scope, 200, { message: "Task deleted successfully" });
}

async function restoreTask({ services, scope, who, params }: UserRequest): Promise<Response> {
  const taskId = parseId(params.id);
  parseQuery(scope.request.url, []);
  const act = { userId: who.userId, requestId: scope.id, taskId, goneUntilMs: goneUntilMs(services) };
  return respondTask(scope, await services.writer.run("task.restoreItem", act, [taskId]));
}

function respondTask(
  scope: RequestScope,
  task: TaskView,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const all = { ...headers, ETag: etagOf(task.version), "Cache-Control": "private, no-cache" };
  return respondJson(scope, status, task, all);
}
