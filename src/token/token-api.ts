// What the token API and its administration look like to a client.

import {
  count,
  type JsonSchema,
  object,
  parameter,
  type RouteDoc,
  schemaOf,
  text,
  textOrNull,
  time,
} from "../http/openapi.ts";
import {
  AppChangesBody,
  DeviceChangesBody,
  InstallationChangesBody,
  NewAppBody,
  NewDeviceBody,
  NewInstallationBody,
} from "./admin-bodies.ts";

const anyValue: JsonSchema = {};
const flag: JsonSchema = { type: "boolean" };
const names: JsonSchema = { type: "array", items: text };

const key = parameter("key", "path", "The key; slashes belong to it");
const pageParameters = [
  parameter("sortBy", "query", "What to sort by", {
    enum: ["key", "createdAt", "updatedAt", "creatorIp"],
    default: "key",
  }),
  parameter("sortDir", "query", "Which way", { enum: ["asc", "desc"], default: "asc" }),
  parameter("limit", "query", "At most so many; a larger number is cut", { type: "integer", minimum: 0, default: 100 }),
  parameter("skip", "query", "Leave out so many", { type: "integer", minimum: 0, default: 0 }),
];
const ifMatch = parameter("If-Match", "header", "Only if the entry has one of these ETags");
const ifNoneMatch = parameter(
  "If-None-Match",
  "header",
  "Only if the entry has none of these ETags, or does not exist (*)",
);

const nullableTime: JsonSchema = { ...textOrNull, format: "date-time" };
const device = object({ uuid: text, name: textOrNull, createdAt: time, updatedAt: time });
const app = object({
  id: text,
  name: text,
  description: textOrNull,
  homepage: textOrNull,
  permissionPrefix: textOrNull,
  permissionKey: names,
  createdAt: time,
  updatedAt: time,
});
const installationFields = {
  id: text,
  deviceUuid: text,
  appId: text,
  tokenHint: text,
  note: textOrNull,
  deviceType: textOrNull,
  permissionPrefix: textOrNull,
  permissionKey: names,
  isReadOnly: flag,
  expiresAt: nullableTime,
  installedAt: time,
  updatedAt: time,
};
const installation = object(installationFields);
const issued = object({ ...installationFields, token: text });

type AppRoute = Omit<RouteDoc, "tag" | "security">;

const APP_ROUTES: readonly AppRoute[] = [
  {
    path: "/kv/token/_keys",
    method: "get",
    summary: "The keys this token may read",
    parameters: pageParameters,
    answers: {
      200: object(
        { keys: names, total_rows: count, load_more: text, current_page: object({ limit: count, skip: count, count }) },
        ["keys", "total_rows", "current_page"],
      ),
    },
    refusals: [400],
  },
  {
    path: "/kv/token/",
    method: "get",
    summary: "Keys with values",
    parameters: pageParameters,
    answers: {
      200: object(
        {
          items: {
            type: "array",
            items: object(
              { key: text, value: anyValue, createdAt: time, updatedAt: time, contentType: text, size: count },
              ["key", "value", "createdAt", "updatedAt"],
            ),
          },
          total_rows: count,
          load_more: text,
        },
        ["items", "total_rows"],
      ),
    },
    refusals: [400],
  },
  {
    path: "/kv/token/",
    method: "delete",
    summary: "Deletes every entry of the namespace",
    answers: { 204: null },
    refusals: [500, 507],
  },
  {
    path: "/kv/token/_batchimport",
    method: "post",
    summary: "Stores many keys in one commit",
    body: { type: "object", additionalProperties: anyValue },
    answers: {
      200: object(
        {
          namespace: text,
          total: count,
          successful: count,
          failed: count,
          results: { type: "array", items: object({ key: text, created: flag }) },
          errors: { type: "array", items: object({ key: text, error: text, code: text }) },
        },
        ["namespace", "total", "successful", "failed", "results"],
      ),
    },
    refusals: [400, 413, 500, 507],
  },
  {
    path: "/kv/token/_info",
    method: "get",
    summary: "The device this token belongs to",
    answers: {
      200: object({
        device: object({ id: text, uuid: text, name: textOrNull, createdAt: time, updatedAt: time }),
        hasAccount: flag,
      }),
    },
    refusals: [],
  },
  {
    path: "/kv/token/_token",
    method: "get",
    summary: "What this token may do",
    answers: {
      200: object({
        success: flag,
        id: text,
        appId: text,
        deviceType: textOrNull,
        isReadOnly: flag,
        note: textOrNull,
        tokenHint: text,
        permissionPrefix: textOrNull,
        permissionKey: names,
        expiresAt: nullableTime,
        installedAt: time,
        updatedAt: time,
        device: object({ id: text, uuid: text, name: textOrNull, namespace: text }),
      }),
    },
    refusals: [],
  },
  {
    path: "/kv/token/{key}",
    method: "get",
    summary: "The value, as it was stored",
    parameters: [
      key,
      ifMatch,
      ifNoneMatch,
      parameter("Range", "header", "One range of bytes"),
      parameter("If-Range", "header", "An ETag"),
    ],
    answers: { 200: anyValue, 206: "bytes", 304: null },
    refusals: [400, 404, 412, 416, 500],
  },
  {
    path: "/kv/token/{key}",
    method: "post",
    summary: "Stores a JSON value, creating or replacing",
    parameters: [key, ifMatch, ifNoneMatch],
    body: anyValue,
    answers: { 200: object({ namespace: text, key: text, created: flag, updatedAt: time }) },
    refusals: [400, 412, 413, 500, 507],
  },
  {
    path: "/kv/token/{key}",
    method: "delete",
    summary: "Deletes a key",
    parameters: [key, ifMatch],
    answers: { 204: null },
    refusals: [400, 404, 412, 500],
  },
  {
    path: "/kv/token/{key}/metadata",
    method: "get",
    summary: "Times and creator of an entry",
    parameters: [key],
    answers: { 200: object({ key: text, createdAt: time, updatedAt: time, creatorIp: textOrNull }) },
    refusals: [400, 404],
  },
];

const rowParameters = [
  parameter("limit", "query", "At most so many", { type: "integer", minimum: 1, maximum: 1000, default: 100 }),
  parameter("cursor", "query", "nextCursor of the page before"),
];
const uuid = parameter("uuid", "path", "The device");
const id = parameter("id", "path", "The id");

function rows(items: JsonSchema): JsonSchema {
  return object({ items: { type: "array", items }, nextCursor: textOrNull });
}

const ADMIN_ROUTES: readonly AppRoute[] = [
  {
    path: "/api/kv/devices",
    method: "get",
    summary: "Devices",
    parameters: rowParameters,
    answers: { 200: rows(device) },
    refusals: [400],
  },
  {
    path: "/api/kv/devices",
    method: "post",
    summary: "Makes a device",
    body: schemaOf(NewDeviceBody),
    answers: { 201: device },
    refusals: [400, 409],
  },
  {
    path: "/api/kv/devices/{uuid}",
    method: "get",
    summary: "A device",
    parameters: [uuid],
    answers: { 200: device },
    refusals: [404],
  },
  {
    path: "/api/kv/devices/{uuid}",
    method: "patch",
    summary: "Renames a device",
    parameters: [uuid],
    body: schemaOf(DeviceChangesBody),
    answers: { 200: device },
    refusals: [400, 404],
  },
  {
    path: "/api/kv/devices/{uuid}",
    method: "delete",
    summary: "Deletes a device and its tokens",
    parameters: [uuid, parameter("purge", "query", "Its entries too", flag)],
    answers: { 204: null },
    refusals: [404, 409],
  },
  {
    path: "/api/kv/apps",
    method: "get",
    summary: "Apps",
    parameters: rowParameters,
    answers: { 200: rows(app) },
    refusals: [400],
  },
  {
    path: "/api/kv/apps",
    method: "post",
    summary: "Makes an app",
    body: schemaOf(NewAppBody),
    answers: { 201: app },
    refusals: [400, 409],
  },
  {
    path: "/api/kv/apps/{id}",
    method: "get",
    summary: "An app",
    parameters: [id],
    answers: { 200: app },
    refusals: [404],
  },
  {
    path: "/api/kv/apps/{id}",
    method: "patch",
    summary: "Changes an app",
    parameters: [id],
    body: schemaOf(AppChangesBody),
    answers: { 200: app },
    refusals: [400, 404],
  },
  {
    path: "/api/kv/apps/{id}",
    method: "delete",
    summary: "Deletes an app",
    parameters: [id, parameter("revoke", "query", "Its installations too", flag)],
    answers: { 204: null },
    refusals: [404, 409],
  },
  {
    path: "/api/kv/installations",
    method: "get",
    summary: "Installations",
    parameters: [
      parameter("device", "query", "Only of this device"),
      parameter("app", "query", "Only of this app"),
      ...rowParameters,
    ],
    answers: { 200: rows(installation) },
    refusals: [400],
  },
  {
    path: "/api/kv/installations",
    method: "post",
    summary: "Issues a token; shows it this once",
    body: schemaOf(NewInstallationBody),
    answers: { 201: issued },
    refusals: [400, 404],
  },
  {
    path: "/api/kv/installations/{id}",
    method: "get",
    summary: "An installation",
    parameters: [id],
    answers: { 200: installation },
    refusals: [404],
  },
  {
    path: "/api/kv/installations/{id}",
    method: "patch",
    summary: "Changes an installation",
    parameters: [id],
    body: schemaOf(InstallationChangesBody),
    answers: { 200: installation },
    refusals: [400, 404],
  },
  {
    path: "/api/kv/installations/{id}",
    method: "delete",
    summary: "Revokes a token",
    parameters: [id],
    answers: { 204: null },
    refusals: [404],
  },
  {
    path: "/api/kv/installations/{id}/rotate",
    method: "post",
    summary: "Replaces a token; shows the new one this once",
    parameters: [id],
    answers: { 200: issued },
    refusals: [404],
  },
];

export const TOKEN_ROUTES: readonly RouteDoc[] = [
  ...APP_ROUTES.map((route) => ({
    ...route,
    tag: "token",
    security: "app" as const,
    refusals: [...route.refusals, 400, 429, 500],
  })),
  ...ADMIN_ROUTES.map((route) => ({
    ...route,
    tag: "token administration",
    security: "operator" as const,
    refusals: [
      ...route.refusals,
      400,
      500,
      ...(route.method === "get" ? [] : [507]),
      ...(route.body === undefined ? [] : [413]),
    ],
  })),
];
