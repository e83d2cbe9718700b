// What the administration of tasks, users and jobs looks like to an operator.

import { count, type JsonSchema, object, pageSize, parameter, type RouteDoc, schemaOf } from "../http/openapi.ts";
import { newUserBody, userChangesBody } from "./account-bodies.ts";
import * as shape from "./task-schemas.ts";

type AdminRouteDoc = Omit<RouteDoc, "tag" | "security">;

const id = (what: string, schema: JsonSchema = shape.id) => parameter("id", "path", what, schema);
const name = parameter("name", "path", "Its name");
const pages = [pageSize(1000, 100), parameter("cursor", "query", "Of the page before")];

const ROUTES: readonly AdminRouteDoc[] = [
  {
    path: "/_admin/task/users",
    method: "get",
    summary: "Users",
    parameters: [parameter("q", "query", "Part of a name or an address"), ...pages],
    answers: { 200: shape.adminUsers },
    refusals: [],
  },
  {
    path: "/_admin/task/users",
    method: "post",
    summary: "Makes a user",
    body: schemaOf(newUserBody(shape.PASSWORD_MIN)),
    answers: { 201: shape.adminUser },
    refusals: [409],
  },
  {
    path: "/_admin/task/users/{id}",
    method: "get",
    summary: "A user",
    parameters: [id("The user")],
    answers: { 200: shape.adminUser },
    refusals: [404],
  },
  {
    path: "/_admin/task/users/{id}",
    method: "patch",
    summary: "Disables a user, or sets a password",
    parameters: [id("The user")],
    body: schemaOf(userChangesBody(shape.PASSWORD_MIN)),
    answers: { 200: shape.adminUser },
    refusals: [404],
  },
  {
    path: "/_admin/task/users/{id}",
    method: "delete",
    summary: "Deletes a user",
    parameters: [id("The user")],
    answers: { 200: shape.message },
    refusals: [404],
  },
  {
    path: "/_admin/task/users/{id}/logout",
    method: "post",
    summary: "Ends all sessions of a user",
    parameters: [id("The user")],
    answers: { 200: object({ sessions: count }) },
    refusals: [404],
  },
  {
    path: "/_admin/task/tasks/{id}",
    method: "get",
    summary: "A task, deleted ones too",
    parameters: [id("The task")],
    answers: { 200: shape.adminTask },
    refusals: [404],
  },
  {
    path: "/_admin/task/tasks/{id}",
    method: "delete",
    summary: "Deletes a task",
    parameters: [id("The task")],
    answers: { 200: shape.message },
    refusals: [404],
  },
  {
    path: "/_admin/task/tasks/{id}/restore",
    method: "post",
    summary: "Brings a deleted task back",
    parameters: [id("The task")],
    answers: { 200: shape.adminTask },
    refusals: [404, 409],
  },
  {
    path: "/_admin/jobs",
    method: "get",
    summary: "Jobs",
    parameters: [...["state", "kind", "queue"].map((word) => parameter(word, "query", `Of this ${word}`)), ...pages],
    answers: { 200: shape.adminJobs },
    refusals: [],
  },
  {
    path: "/_admin/jobs/retry",
    method: "post",
    summary: "Has all dead jobs of a kind run again",
    parameters: [{ ...parameter("kind", "query", "The kind"), required: true }],
    answers: { 200: object({ retried: count }) },
    refusals: [],
  },
  {
    path: "/_admin/jobs/{id}",
    method: "get",
    summary: "A job",
    parameters: [id("The job", shape.uuid)],
    answers: { 200: shape.adminJob },
    refusals: [404],
  },
  ...(["retry", "cancel"] as const).map((verb) => ({
    path: `/_admin/jobs/{id}/${verb}`,
    method: "post" as const,
    summary: `To ${verb} it`,
    parameters: [id("The job", shape.uuid)],
    answers: { 200: shape.adminJob },
    refusals: verb === "retry" ? [403, 404, 409] : [404, 409],
  })),
  {
    path: "/_admin/queues",
    method: "get",
    summary: "Queues: what waits and what runs",
    answers: { 200: shape.adminQueues },
    refusals: [],
  },
  ...(["pause", "resume"] as const).map((verb) => ({
    path: `/_admin/queues/{name}/${verb}`,
    method: "post" as const,
    summary: `To ${verb} it`,
    parameters: [name],
    answers: { 200: shape.adminQueue },
    refusals: [404],
  })),
  {
    path: "/_admin/schedules",
    method: "get",
    summary: "Schedules: when they fired and will fire",
    answers: { 200: shape.adminSchedules },
    refusals: [],
  },
  {
    path: "/_admin/schedules/{name}/run",
    method: "post",
    summary: "Has it run now",
    parameters: [name],
    answers: { 202: shape.scheduledRun },
    refusals: [404],
  },
];

export const TASK_ADMIN_ROUTES: readonly RouteDoc[] = ROUTES.map((route) => ({
  ...route,
  tag: "task administration",
  security: "operator" as const,
  refusals: [
    ...route.refusals,
    400,
    500,
    ...(route.method === "get" ? [] : [507]),
    ...(route.body === undefined ? [] : [413]),
  ],
}));
