// Administration of the token API: devices, apps, installations, for operators with the administrative scope.

import type { z } from "zod";
import { type Principal, requireBucket, requireRight } from "../auth/principal.ts";
import type { ByteBudget } from "../http/byte-budget.ts";
import { methodNotAllowed, respondOptions } from "../http/methods.ts";
import { pageLimit } from "../http/page-limit.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { readBody } from "../http/read-body.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respond, respondJson } from "../http/respond.ts";
import { type AppContext, asOperator, type OperatorSurface } from "../http/surface.ts";
import { decodePath, isReserved, requireBucketName, requireNoFragment } from "../kv/kv-path.ts";
import { KiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { requireJson } from "../shared/json-text.ts";
import type { Eventually } from "../storage/kv-engine.ts";
import {
  AppChangesBody,
  DeviceChangesBody,
  InstallationChangesBody,
  NewAppBody,
  NewDeviceBody,
  NewInstallationBody,
} from "./admin-bodies.ts";
import { createToken } from "./app-token.ts";
import type { RowQuery, Rows, TokenStore } from "./token-store.ts";
import type { App, Device, Installation } from "./token-tables.ts";

export interface TokenAdminServices extends OperatorSurface {
  readonly tokens: TokenStore;
  readonly budget: ByteBudget;
  readonly reservedBuckets: ReadonlySet<string>;
}

interface AdminRequest {
  readonly services: TokenAdminServices;
  readonly scope: RequestScope;
  readonly principal: Principal;
  /** The `:id` of the path, decoded; empty without one. */
  readonly id: string;
}

type Act = (request: AdminRequest) => Promise<Response>;

const ADMIN_MOUNT = "/api/kv";
const BODY_BYTES_MAX = 64 * KiB;

/** Paths below the mount, with `:id` where one stands. */
const ROUTES: Readonly<Record<string, Readonly<Record<string, Act>>>> = {
  "/devices": { GET: listDevices, POST: createDevice },
  "/devices/:id": { GET: showDevice, PATCH: updateDevice, DELETE: deleteDevice },
  "/apps": { GET: listApps, POST: createApp },
  "/apps/:id": { GET: showApp, PATCH: updateApp, DELETE: deleteApp },
  "/installations": { GET: listInstallations, POST: createInstallation },
  "/installations/:id": { GET: showInstallation, PATCH: updateInstallation, DELETE: deleteInstallation },
  "/installations/:id/rotate": { POST: rotateInstallation },
};

export function createTokenAdminHandler(services: TokenAdminServices): (context: AppContext) => Eventually<Response> {
  return function tokenAdmin(context) {
    const { scope } = context.env;
    const segments = context.req.path.slice(ADMIN_MOUNT.length + 1).split("/");
    const route = `/${segments.map((segment, index) => (index === 1 ? ":id" : segment)).join("/")}`;
    const methods = Object.hasOwn(ROUTES, route) ? ROUTES[route] : undefined;
    if (methods === undefined || segments[1] === "") {
      throw new AppError("route_not_found", "There is nothing at this path.");
    }
    scope.route = ADMIN_MOUNT + route;
    const { method } = scope.request;
    const act = methods[method === "HEAD" ? "GET" : method];
    if (act === undefined) {
      const allow = [...Object.keys(methods), ...("GET" in methods ? ["HEAD"] : []), "OPTIONS"].join(", ");
      if (method === "OPTIONS") return respondOptions(scope, allow);
      throw methodNotAllowed(allow);
    }
    return asOperator(services, scope, (principal) => {
      requireRight(principal, "admin");
      // A prefix speaks of keys; there is no part of a device that it could stand for.
      if (principal.prefix !== null) throw new AppError("forbidden", "This token may not do that.", ADMIN_SCOPE);
      requireNoFragment(scope.request.url);
      return act({ services, scope, principal, id: decodePath(segments[1] ?? "") });
    });
  };
}

const ADMIN_SCOPE = { details: { scope: "admin" } };

async function listDevices({ services, scope, principal }: AdminRequest): Promise<Response> {
  const query = rowQuery(parseQuery(scope.request.url, ["limit", "cursor"]));
  return respondRows(scope, await services.tokens.listDevices(query, principal.buckets), deviceBody);
}

async function createDevice({ services, scope, principal }: AdminRequest): Promise<Response> {
  const { uuid = crypto.randomUUID(), name = null } = await bodyOf(services, scope, NewDeviceBody);
  requireBucketName(uuid);
  if (isReserved(uuid, services.reservedBuckets)) throw new AppError("bucket_reserved", "This name is reserved.");
  requireBucket(principal, "admin", uuid);
  return respondJson(scope, 201, deviceBody(await services.tokens.change("token.createDevice", { uuid, name })));
}

async function showDevice({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  requireBucket(principal, "admin", id);
  return respondJson(scope, 200, deviceBody(await services.tokens.requireDevice(id)));
}

async function updateDevice({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  requireBucket(principal, "admin", id);
  const { name } = await bodyOf(services, scope, DeviceChangesBody);
  return respondJson(scope, 200, deviceBody(await services.tokens.change("token.updateDevice", { uuid: id, name })));
}

async function deleteDevice({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  requireBucket(principal, "admin", id);
  const isPurge = flagOf(parseQuery(scope.request.url, ["purge"]).purge, "purge");
  await services.tokens.change("token.deleteDevice", { uuid: id, isPurge });
  return respond(scope, 204, {});
}

async function listApps({ services, scope }: AdminRequest): Promise<Response> {
  const rows = await services.tokens.listApps(rowQuery(parseQuery(scope.request.url, ["limit", "cursor"])));
  return respondRows(scope, rows, appBody);
}

async function createApp({ services, scope, principal }: AdminRequest): Promise<Response> {
  requireAllBuckets(principal);
  const body = await bodyOf(services, scope, NewAppBody);
  const { id = crypto.randomUUID(), name, description = null, homepage = null } = body;
  const { permissionPrefix = null, permissionKey = [] } = body;
  const app = { id, name, description, homepage, permissionPrefix, permissionKey };
  return respondJson(scope, 201, appBody(await services.tokens.change("token.createApp", app)));
}

async function showApp({ services, scope, id }: AdminRequest): Promise<Response> {
  return respondJson(scope, 200, appBody(await services.tokens.requireApp(id)));
}

async function updateApp({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  requireAllBuckets(principal);
  const changes = await bodyOf(services, scope, AppChangesBody);
  return respondJson(scope, 200, appBody(await services.tokens.change("token.updateApp", { id, changes })));
}

async function deleteApp({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  requireAllBuckets(principal);
  const isRevoke = flagOf(parseQuery(scope.request.url, ["revoke"]).revoke, "revoke");
  await services.tokens.change("token.deleteApp", { id, isRevoke });
  return respond(scope, 204, {});
}

async function listInstallations({ services, scope, principal }: AdminRequest): Promise<Response> {
  const query = parseQuery(scope.request.url, ["device", "app", "limit", "cursor"]);
  const filter = { deviceUuid: query.device ?? null, appId: query.app ?? null, names: principal.buckets };
  return respondRows(scope, await services.tokens.listInstallations(rowQuery(query), filter), installationBody);
}

/** The only answer besides a rotation's that shows a token. */
async function createInstallation({ services, scope, principal }: AdminRequest): Promise<Response> {
  const { deviceUuid, appId, expiresAt, ...fields } = await bodyOf(services, scope, NewInstallationBody);
  requireBucket(principal, "admin", deviceUuid);
  const { token, tokenHash, tokenHint } = createToken();
  const installation = await services.tokens.change("token.createInstallation", {
    ...fields,
    ...{ id: Bun.randomUUIDv7(), deviceUuid, appId, tokenHash, tokenHint },
    expiresAtMs: toMs(expiresAt) ?? null,
  });
  return respondJson(scope, 201, { ...installationBody(installation), token });
}

async function showInstallation({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  return respondJson(scope, 200, installationBody(await requireOwn(services, principal, id)));
}

async function updateInstallation({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  const { expiresAt, ...fields } = await bodyOf(services, scope, InstallationChangesBody);
  await requireOwn(services, principal, id);
  const changes = { ...fields, expiresAtMs: toMs(expiresAt) };
  const installation = await services.tokens.change("token.updateInstallation", { id, changes });
  return respondJson(scope, 200, installationBody(installation));
}

async function rotateInstallation({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  await requireOwn(services, principal, id);
  const { token, tokenHash, tokenHint } = createToken();
  const installation = await services.tokens.change("token.rotateInstallation", { id, tokenHash, tokenHint });
  return respondJson(scope, 200, { ...installationBody(installation), token });
}

async function deleteInstallation({ services, scope, principal, id }: AdminRequest): Promise<Response> {
  await requireOwn(services, principal, id);
  await services.tokens.change("token.deleteInstallation", { id });
  return respond(scope, 204, {});
}

/** @throws AppError installation_not_found, forbidden */
async function requireOwn({ tokens }: TokenAdminServices, principal: Principal, id: string): Promise<Installation> {
  const installation = await tokens.requireInstallation(id);
  requireBucket(principal, "admin", installation.deviceUuid);
  return installation;
}

/** An app belongs to no device: a token that is narrowed to some may only look at it. */
function requireAllBuckets({ buckets }: Principal): void {
  if (buckets !== null) throw new AppError("forbidden", "This token may not do that.", ADMIN_SCOPE);
}

/** @throws AppError invalid_parameter, invalid_json, body_too_large */
async function bodyOf<Schema extends z.ZodType>(
  { budget }: TokenAdminServices,
  scope: RequestScope,
  schema: Schema,
): Promise<z.infer<Schema>> {
  const body = await readBody(scope, BODY_BYTES_MAX, budget);
  try {
    const result = schema.safeParse(JSON.parse(requireJson(body.bytes)));
    if (result.success) return result.data;
    throw new AppError("invalid_parameter", problemOf(result.error));
  } finally {
    body.release();
  }
}

/** What is wrong first. The name of an unknown member is repeated only when it could be a misspelt one of ours. */
function problemOf({ issues: [issue] }: z.ZodError): string {
  const place = issue!.path.length === 0 ? "The body" : issue!.path.join(".");
  if (issue!.code !== "unrecognized_keys") return `${place}: ${issue!.message}`;
  const name = issue!.keys.find((key) => /^[A-Za-z]{1,32}$/.test(key));
  return `${place} has a member that is not known here${name === undefined ? "" : `: ${name}`}.`;
}

function rowQuery({ limit, cursor }: { limit?: string; cursor?: string }): RowQuery {
  return { limit: pageLimit(limit), after: cursor || null };
}

function flagOf(text: string | undefined, name: string): boolean {
  if (text === undefined || text === "false") return false;
  if (text === "true" || text === "1") return true;
  throw new AppError("invalid_parameter", `${name} is true or false.`);
}

/** Undefined stays undefined: "leave it alone". */
function toMs(time: string | null | undefined): number | null | undefined {
  return typeof time === "string" ? Date.parse(time) : time;
}

function respondRows<T>(
  scope: RequestScope,
  { items, nextCursor }: Rows<T>,
  bodyFrom: (row: T) => Record<string, unknown>,
): Response {
  return respondJson(scope, 200, { items: items.map(bodyFrom), nextCursor });
}

function deviceBody({ uuid, name, createdAtMs, updatedAtMs }: Device): Record<string, unknown> {
  return { uuid, name, createdAt: iso(createdAtMs), updatedAt: iso(updatedAtMs) };
}

function appBody({ createdAtMs, updatedAtMs, ...app }: App): Record<string, unknown> {
  return { ...app, createdAt: iso(createdAtMs), updatedAt: iso(updatedAtMs) };
}

function installationBody({
  expiresAtMs,
  installedAtMs,
  updatedAtMs,
  ...installation
}: Installation): Record<string, unknown> {
  return {
    ...installation,
    expiresAt: expiresAtMs === null ? null : iso(expiresAtMs),
    installedAt: iso(installedAtMs),
    updatedAt: iso(updatedAtMs),
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
