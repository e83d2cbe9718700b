// What the task service looks like to a client.

import { type JsonSchema, object, pageSize, parameter, type RouteDoc, schemaOf, text } from "../http/openapi.ts";
import { PAGE_MAX } from "../http/pagination.ts";
import {
  DeleteAccountBody,
  LoginBody,
  LogoutBody,
  newPasswordBody,
  newUserBody,
  ProfileBody,
  RefreshBody,
} from "./account-bodies.ts";
import { NewCommentBody } from "./comment-bodies.ts";
import { NewExportBody } from "./export-bodies.ts";
import { NewTaskBody, TaskPatchBody } from "./item-bodies.ts";
import { DELIVERIES_DEFAULT, DELIVERIES_MAX, PAGE_DEFAULT } from "./page-sizes.ts";
import { TASK_ADMIN_ROUTES } from "./task-admin-api.ts";
import * as shape from "./task-schemas.ts";
import { NewWebhookBody, WebhookChangesBody } from "./webhook-bodies.ts";

type TaskRouteDoc = Omit<RouteDoc, "tag" | "security">;

const taskId = parameter("id", "path", "The task", shape.id);
const uuid = (what: string) => parameter("id", "path", what, shape.uuid);
const ifMatch = parameter("If-Match", "header", "Only if the task has this ETag");
const ifNoneMatch = parameter("If-None-Match", "header", "304 when nothing has changed since");
const idempotencyKey = parameter("Idempotency-Key", "header", "What has the same key is done once within 24 h");
const cursor = parameter("cursor", "query", "X-Next-Cursor of the page before");
const pages = [pageSize(PAGE_MAX, PAGE_DEFAULT), cursor];
const instant: JsonSchema = { type: "string", format: "date-time" };
const filters = [
  parameter("status", "query", "Any of these, separated by commas"),
  parameter("priority", "query", "Any of these, separated by commas"),
  parameter("label", "query", "Any of these, separated by commas"),
  parameter("scope", "query", "Whose tasks", { enum: ["all", "mine", "assigned"], default: "all" }),
  parameter("assignee", "query", "me, none, or the id of a user"),
  parameter("due_after", "query", "Due then or later", instant),
  parameter("due_before", "query", "Due before that", instant),
  parameter("updated_after", "query", "Changed then or later", instant),
  parameter("overdue", "query", "Past its due date and not completed, or not", shape.flag),
  parameter("q", "query", "All of these words, up to 8 of 200 characters in all, anywhere in title or description"),
  parameter("deleted", "query", "true = own deleted tasks instead of live ones", shape.flag),
  parameter("sort", "query", "created_at, updated_at, due_date or priority; downwards with - in front"),
];
const expand = parameter("expand", "query", "user = the names of owner and assignee", { const: "user" });

const OPEN_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/auth/register",
    method: "post",
    summary: "Makes an account",
    body: schemaOf(newUserBody(shape.PASSWORD_MIN)),
    answers: { 201: object({ message: text, user: shape.ownUser }) },
    refusals: [403, 409],
  },
  {
    path: "/auth/login",
    method: "post",
    summary: "Begins a session",
    body: schemaOf(LoginBody),
    answers: { 200: shape.signedIn },
    refusals: [401, 403],
  },
  {
    path: "/auth/refresh",
    method: "post",
    summary: "Continues a session",
    body: schemaOf(RefreshBody),
    answers: { 200: shape.tokenPair },
    refusals: [401],
  },
];

const ACCOUNT_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/auth/logout",
    method: "post",
    summary: "Ends this session; a refresh token will do, too",
    body: schemaOf(LogoutBody),
    isBodyCredential: true,
    answers: { 200: shape.message },
    refusals: [401],
  },
  {
    path: "/auth/logout-all",
    method: "post",
    summary: "Ends all sessions",
    answers: { 200: object({ message: text, sessions: shape.id }) },
    refusals: [],
  },
  {
    path: "/auth/sessions",
    method: "get",
    summary: "Sessions; ended ones for 30 days",
    answers: { 200: shape.listOf(shape.session) },
    refusals: [],
  },
  {
    path: "/auth/sessions/{id}",
    method: "delete",
    summary: "Ends a session",
    parameters: [uuid("The session")],
    answers: { 200: shape.message },
    refusals: [404],
  },
  { path: "/auth/me", method: "get", summary: "The account", answers: { 200: shape.profile }, refusals: [404] },
  {
    path: "/auth/me",
    method: "patch",
    summary: "Renames it; another address needs the password",
    body: schemaOf(ProfileBody),
    answers: { 200: shape.profile },
    refusals: [403, 404, 409],
  },
  {
    path: "/auth/me",
    method: "delete",
    summary: "Deletes it with its tasks",
    body: schemaOf(DeleteAccountBody),
    answers: { 200: shape.message },
    refusals: [403, 404],
  },
  {
    path: "/auth/password",
    method: "post",
    summary: "Another password; all other sessions end",
    body: schemaOf(newPasswordBody(shape.PASSWORD_MIN)),
    answers: { 200: shape.tokenPair },
    refusals: [403, 404],
  },
  {
    path: "/users",
    method: "get",
    summary: "The user of a name",
    parameters: [{ ...parameter("username", "query", "The name, in any case of its letters"), required: true }],
    answers: { 200: shape.listOf(shape.person) },
    refusals: [],
  },
];

const ITEM_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/tasks",
    method: "post",
    summary: "Makes a task",
    parameters: [idempotencyKey],
    body: schemaOf(NewTaskBody),
    answers: { 201: shape.task },
    refusals: [403, 422],
  },
  {
    path: "/tasks",
    method: "get",
    summary: "Tasks that the user owns or is assigned to; a page of long texts ends before its limit",
    parameters: [
      ...filters,
      ...pages,
      expand,
      ifNoneMatch,
      parameter("count", "query", "true = X-Total-Count as well", shape.flag),
    ],
    answers: { 200: shape.listOf(shape.task), 304: null },
    refusals: [],
  },
  {
    path: "/tasks/{id}",
    method: "get",
    summary: "A task",
    parameters: [taskId, expand, ifNoneMatch],
    answers: { 200: shape.task, 304: null },
    refusals: [404],
  },
  ...(["put", "patch"] as const).map((method) => ({
    path: "/tasks/{id}",
    method,
    summary: "Changes the members that are sent",
    parameters: [taskId, ifMatch],
    body: schemaOf(TaskPatchBody),
    answers: { 200: shape.task },
    refusals: [403, 404, 409, 412, 428],
  })),
  {
    path: "/tasks/{id}",
    method: "delete",
    summary: "Deletes a task; it can be restored for a while",
    parameters: [taskId, ifMatch],
    answers: { 200: shape.message },
    refusals: [403, 404, 412, 428],
  },
  {
    path: "/tasks/{id}/restore",
    method: "post",
    summary: "Brings a deleted task back",
    parameters: [taskId],
    answers: { 200: shape.task },
    refusals: [404, 409],
  },
  {
    path: "/tasks/{id}/events",
    method: "get",
    summary: "Its history, oldest first",
    parameters: [taskId, ...pages],
    answers: { 200: shape.listOf(shape.taskEvent) },
    refusals: [404],
  },
  {
    path: "/tasks/{id}/comments",
    method: "get",
    summary: "Its comments, oldest first",
    parameters: [taskId, ...pages],
    answers: { 200: shape.listOf(shape.comment) },
    refusals: [404],
  },
  {
    path: "/tasks/{id}/comments",
    method: "post",
    summary: "Comments on it",
    parameters: [taskId, idempotencyKey],
    body: schemaOf(NewCommentBody),
    answers: { 201: shape.comment },
    refusals: [404, 422],
  },
  {
    path: "/tasks/{id}/comments/{cid}",
    method: "delete",
    summary: "Deletes a comment",
    parameters: [taskId, parameter("cid", "path", "The comment", shape.id)],
    answers: { 200: shape.message },
    refusals: [403, 404],
  },
];

const BOARD_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/labels",
    method: "get",
    summary: "The up to 1000 labels that most of the own tasks have, with how many",
    parameters: [ifNoneMatch],
    answers: { 200: shape.listOf(shape.labelCount), 304: null },
    refusals: [],
  },
  {
    path: "/tasks/stats",
    method: "get",
    summary: "Counts",
    answers: { 200: shape.stats, 304: null },
    parameters: [parameter("scope", "query", "Whose tasks", { enum: ["all", "mine", "assigned"] }), ifNoneMatch],
    refusals: [],
  },
  {
    path: "/tasks/export.csv",
    method: "get",
    summary: "Up to 10 000 tasks as CSV; counts as ten requests",
    parameters: [...filters, parameter("bom", "query", "1 = with a byte order mark", { const: "1" })],
    answers: { 200: "bytes" },
    refusals: [413],
  },
  {
    path: "/tasks/export.ics",
    method: "get",
    parameters: filters,
    summary: "Up to 10 000 tasks as iCalendar; counts as ten requests",
    answers: { 200: "bytes" },
    refusals: [413],
  },
  {
    path: "/tasks/stream",
    method: "get",
    summary: "Changes as they happen, as server-sent events",
    parameters: [parameter("Last-Event-ID", "header", "Go on behind this event")],
    answers: { 200: "bytes" },
    refusals: [],
  },
];

const OUTLET_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/exports",
    method: "post",
    summary: "Has a file made of any number of tasks; counts as ten requests",
    parameters: [idempotencyKey],
    body: schemaOf(NewExportBody),
    answers: { 202: shape.queuedExport },
    refusals: [403, 422],
  },
  {
    path: "/exports",
    method: "get",
    summary: "Exports",
    answers: { 200: shape.listOf(shape.taskExport) },
    refusals: [],
  },
  {
    path: "/exports/{id}",
    method: "get",
    summary: "An export",
    parameters: [uuid("The export")],
    answers: { 200: shape.taskExport },
    refusals: [404],
  },
  {
    path: "/exports/{id}",
    method: "delete",
    summary: "Deletes an export",
    parameters: [uuid("The export")],
    answers: { 200: shape.message },
    refusals: [404],
  },
  {
    path: "/exports/{id}/file",
    method: "get",
    summary: "Its file",
    parameters: [uuid("The export"), ifNoneMatch],
    answers: { 200: "bytes", 304: null },
    refusals: [404, 409, 410],
  },
  {
    path: "/jobs",
    method: "get",
    summary: "Jobs of one's own",
    parameters: [parameter("state", "query", "In this state"), parameter("kind", "query", "Of this kind"), ...pages],
    answers: { 200: shape.listOf(shape.job) },
    refusals: [],
  },
  {
    path: "/jobs/{id}",
    method: "get",
    summary: "A job",
    parameters: [uuid("The job")],
    answers: { 200: shape.job },
    refusals: [404],
  },
  ...(["retry", "cancel"] as const).map((verb) => ({
    path: `/jobs/{id}/${verb}`,
    method: "post" as const,
    summary: `To ${verb} it`,
    parameters: [uuid("The job")],
    answers: { 200: shape.job },
    refusals: verb === "retry" ? [403, 404, 409] : [404, 409],
  })),
];

const hook = uuid("The webhook");

const WEBHOOK_ROUTES: readonly TaskRouteDoc[] = [
  {
    path: "/webhooks",
    method: "post",
    summary: "Makes a webhook; shows its secret this once",
    body: schemaOf(NewWebhookBody),
    answers: { 201: shape.newWebhook },
    refusals: [403],
  },
  {
    path: "/webhooks",
    method: "get",
    summary: "Webhooks",
    answers: { 200: shape.listOf(shape.webhook) },
    refusals: [],
  },
  {
    path: "/webhooks/{id}",
    method: "get",
    summary: "A webhook",
    parameters: [hook],
    answers: { 200: shape.webhook },
    refusals: [404],
  },
  {
    path: "/webhooks/{id}",
    method: "patch",
    summary: "Changes a webhook",
    parameters: [hook],
    body: schemaOf(WebhookChangesBody),
    answers: { 200: shape.webhook },
    refusals: [404],
  },
  {
    path: "/webhooks/{id}",
    method: "delete",
    summary: "Deletes a webhook",
    parameters: [hook],
    answers: { 200: shape.message },
    refusals: [404],
  },
  {
    path: "/webhooks/{id}/ping",
    method: "post",
    summary: "Sends it an event to try it",
    parameters: [hook],
    answers: { 202: object({ id: shape.uuid }) },
    refusals: [404, 409],
  },
  {
    path: "/webhooks/{id}/rotate-secret",
    method: "post",
    summary: "Another secret; the old one signs for 24 h",
    parameters: [hook],
    answers: { 200: shape.newWebhook },
    refusals: [404],
  },
  {
    path: "/webhooks/{id}/deliveries",
    method: "get",
    summary: "What was sent to it, newest first",
    parameters: [hook, pageSize(DELIVERIES_MAX, DELIVERIES_DEFAULT), cursor],
    answers: { 200: shape.listOf(shape.delivery) },
    refusals: [404],
  },
  {
    path: "/webhooks/{id}/deliveries/{did}/redeliver",
    method: "post",
    summary: "Sends the same once more",
    parameters: [hook, parameter("did", "path", "The delivery", shape.uuid)],
    answers: { 202: object({ id: shape.uuid }) },
    refusals: [404, 409],
  },
];

const USER_ROUTES = [...ACCOUNT_ROUTES, ...ITEM_ROUTES, ...BOARD_ROUTES, ...OUTLET_ROUTES, ...WEBHOOK_ROUTES];

function documented(route: TaskRouteDoc, security: "user" | "none"): RouteDoc {
  return {
    ...route,
    path: `/api/v1${route.path}`,
    tag: "tasks",
    security,
    errors: "task",
    refusals: [
      ...route.refusals,
      400,
      429,
      500,
      ...(route.method === "get" ? [] : [507]),
      ...(route.body === undefined ? [] : [413, 415]),
    ],
  };
}

export const TASK_ROUTES: readonly RouteDoc[] = [
  ...OPEN_ROUTES.map((route) => documented(route, "none")),
  ...USER_ROUTES.map((route) => documented(route, "user")),
  ...TASK_ADMIN_ROUTES,
];
