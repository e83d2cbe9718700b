// Administration of the token API: devices, apps, installations, for operators with the administrative scope.

import type { z } from "zod";
import { NARROWED, type Principal, requireBucket, requireRight } from "../auth/principal.ts";
import type { ByteBudget } from "../http/byte-budget.ts";
import { issueWords } from "../http/invalid-bodies.ts";
import { below, createOperatorHandler, type OperatorRequest, type OperatorRoutes } from "../http/operator-routes.ts";
import { pageLimit } from "../http/pagination.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { readBody } from "../http/read-body.ts";
import { requireNoFragment } from "../http/request-path.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respond, respondJson } from "../http/respond.ts";
import type { Handler, OperatorSurface } from "../http/surface.ts";
import { decodePath, isReserved, requireBucketName } from "../kv/kv-path.ts";
import { KiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import { formatTime } from "../shared/iso-time.ts";
import { requireJson } from "../shared/json-text.ts";
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

interface TokenAdminServices extends OperatorSurface {
  readonly tokens: TokenStore;
  readonly budget: ByteBudget;
  readonly reservedBuckets: ReadonlySet<string>;
}

type AdminRequest = OperatorRequest<TokenAdminServices>;

const BODY_BYTES_MAX = 64 * KiB;

const ROUTES: OperatorRoutes<TokenAdminServices> = below("/api/kv", {
  "/devices": { GET: listDevices, POST: createDevice },
  "/devices/:id": { GET: showDevice, PATCH: updateDevice, DELETE: deleteDevice },
  "/apps": { GET: listApps, POST: createApp },
  "/apps/:id": { GET: showApp, PATCH: updateApp, DELETE: deleteApp },
  "/installations": { GET: listInstallations, POST: createInstallation },
  "/installations/:id": { GET: showInstallation, PATCH: updateInstallation, DELETE: deleteInstallation },
  "/installations/:id/rotate": { POST: rotateInstallation },
});

const ADMIN_SCOPE = { details: { scope: "admin" } };

export function createTokenAdminHandler(services: TokenAdminServices): Handler {
  return createOperatorHandler(services, ROUTES, (principal) => {
    requireRight(principal, "admin");
    // A prefix speaks of keys; there is no part of a device that it could stand for.
    if (principal.prefix !== null) throw new AppError("forbidden", NARROWED, ADMIN_SCOPE);
  });
}

/** The `:id` of the path. @throws AppError path_invalid */
function idOf({ scope, params }: AdminRequest): string {
  requireNoFragment(scope.request.url);
  return decodePath(params.id!);
}

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

async function showDevice(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  requireBucket(principal, "admin", id);
  return respondJson(scope, 200, deviceBody(await services.tokens.requireDevice(id)));
}

async function updateDevice(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  requireBucket(principal, "admin", id);
  const { name } = await bodyOf(services, scope, DeviceChangesBody);
  return respondJson(scope, 200, deviceBody(await services.tokens.change("token.updateDevice", { uuid: id, name })));
}

async function deleteDevice(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
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

async function showApp(request: AdminRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  return respondJson(scope, 200, appBody(await services.tokens.requireApp(id)));
}

async function updateApp(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  requireAllBuckets(principal);
  const changes = await bodyOf(services, scope, AppChangesBody);
  return respondJson(scope, 200, appBody(await services.tokens.change("token.updateApp", { id, changes })));
}

async function deleteApp(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
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
    id: Bun.randomUUIDv7(),
    deviceUuid,
    appId,
    tokenHash,
    tokenHint,
    expiresAtMs: toMs(expiresAt) ?? null,
  });
  return respondJson(scope, 201, { ...installationBody(installation), token });
}

async function showInstallation(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  return respondJson(scope, 200, installationBody(await requireOwn(services, principal, id)));
}

async function updateInstallation(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  const { expiresAt, ...fields } = await bodyOf(services, scope, InstallationChangesBody);
  await requireOwn(services, principal, id);
  const changes = { ...fields, expiresAtMs: toMs(expiresAt) };
  const installation = await services.tokens.change("token.updateInstallation", { id, changes });
  return respondJson(scope, 200, installationBody(installation));
}

async function rotateInstallation(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
  await requireOwn(services, principal, id);
  const { token, tokenHash, tokenHint } = createToken();
  const installation = await services.tokens.change("token.rotateInstallation", { id, tokenHash, tokenHint });
  return respondJson(scope, 200, { ...installationBody(installation), token });
}

async function deleteInstallation(request: AdminRequest): Promise<Response> {
  const { services, scope, principal } = request;
  const id = idOf(request);
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
  if (buckets !== null) throw new AppError("forbidden", NARROWED, ADMIN_SCOPE);
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
  if (issue!.code !== "unrecognized_keys") return `${place}: ${issueWords(issue!) ?? issue!.message}`;
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
  return { uuid, name, createdAt: formatTime(createdAtMs), updatedAt: formatTime(updatedAtMs) };
}

function appBody({ createdAtMs, updatedAtMs, ...app }: App): Record<string, unknown> {
  return { ...app, createdAt: formatTime(createdAtMs), updatedAt: formatTime(updatedAtMs) };
}

function installationBody({
  expiresAtMs,
  installedAtMs,
  updatedAtMs,
  ...installation
}: Installation): Record<string, unknown> {
  return {
    ...installation,
    expiresAt: expiresAtMs === null ? null : formatTime(expiresAtMs),
    installedAt: formatTime(installedAtMs),
    updatedAt: formatTime(updatedAtMs),
  };
}
