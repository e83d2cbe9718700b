// What the routes of the token API do, once it is known who asks: permission first, then the key, then the store.

import type { BudgetShare, ByteBudget } from "../http/byte-budget.ts";
import { streamPieces, takeShare } from "../http/held-bytes.ts";
import { type HeldBody, readBody } from "../http/read-body.ts";
import { respond, respondJson } from "../http/respond.ts";
import { formatEtag, parseWriteCondition } from "../kv/conditions.ts";
import { refuseContentRange } from "../kv/entry-headers.ts";
import { DEFAULT_CONTENT_TYPE, describeValue, keyNotFound, preconditionFailed, readValue } from "../kv/read-value.ts";
import { INLINE_VALUE_BYTES_MAX, MiB } from "../shared/bounds.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { formatTime } from "../shared/iso-time.ts";
import { cutMember, hasMoreMembers, requireShallowText, requireValid } from "../shared/json-text.ts";
import type { OffsetEntry, OffsetPage } from "../storage/kv-engine.ts";
import { type Author, jsonPut, planBatch, tooLarge, tooManyKeys } from "./batch-import.ts";
import { credentialMembers } from "./credential.ts";
import { type ListParameters, nextPageQuery, parseListParameters } from "./list-parameters.ts";
import { canRead, canWrite, isFull, readableRanges } from "./permissions.ts";
import { isReservedKey, RESERVED_KEYS, requireReadableKey, requireWritableKey } from "./token-keys.ts";
import { type AppRequest, LARGE_BODY_BYTES, type TokenServices } from "./token-request.ts";
import type { Installation } from "./token-tables.ts";
import { refuseConditions, refuseExpiry, requireJsonType } from "./write-headers.ts";

/** What a token in the body may add to the largest value: its member. */
const CREDENTIAL_BYTES_MAX = 1024;
const CREDENTIALS_MAX = 16;
/** A list may wait for its turn behind others that are long. */
const LIST_IDLE_SECONDS = 60;
/** What a page of values is given before it is known what it needs. */
const SMALL_PAGE_BYTES = MiB;

/** GET /:key */
export function readKey(services: TokenServices, request: AppRequest): Eventually<Response> {
  const { scope, installation, key } = request;
  appReadAuthMiddleware(installation, key);
  requireReadableKey(key);
  if (isReservedKey(key)) throw keyNotFound();
  const target = { bucket: installation.deviceUuid, key };
  if (scope.isHead) return describeValue(services, scope, target);
  return readValue(services, scope, target, () => confirm(services, request));
}

/** GET /:key/metadata */
export async function readMetadata(
  { engine }: TokenServices,
  { scope, installation, key }: AppRequest,
): Promise<Response> {
  appReadAuthMiddleware(installation, key);
  requireReadableKey(key);
  const entry = isReservedKey(key) ? null : await engine.describe(installation.deviceUuid, key);
  if (entry === null) throw keyNotFound();
  const { createdAtMs, updatedAtMs, creatorIp } = entry;
  return respondJson(scope, 200, {
    key,
    createdAt: formatTime(createdAtMs),
    updatedAt: formatTime(updatedAtMs),
    creatorIp,
  });
}

/** POST /:key */
export async function writeKey(services: TokenServices, request: AppRequest): Promise<Response> {
  const { scope, installation, key } = request;
  const { deviceUuid: bucket } = installation;
  appWriteAuthMiddleware(installation, key);
  requireWritableKey(key);
  const author = authorOf(request);
  const condition = parseWriteCondition(scope.request.headers);
  refuseExpiry(scope.request);
  refuseContentRange(scope.request.headers);
  const { tokenMaxValueBytes } = services.settings;
  const rules = { what: "value", bytesMax: tokenMaxValueBytes } as const;
  return withJsonBody(services, request, rules, async (text, now) => {
    appWriteAuthMiddleware(now, key);
    const value = new TextEncoder().encode(text);
    const outcome = await services.engine.write({ ...jsonPut(author, key, value), condition });
    if (outcome.kind === "unmet") throw preconditionFailed(outcome.revision);
    if (outcome.kind !== "created" && outcome.kind !== "replaced") throw new Error("a put creates or replaces");
    const body = {
      namespace: bucket,
      key,
      created: outcome.kind === "created",
      updatedAt: formatTime(outcome.updatedAtMs),
    };
    return respondJson(scope, 200, body, { ETag: formatEtag(outcome.revision) });
  });
}

/** DELETE /:key */
export async function deleteKey({ engine }: TokenServices, request: AppRequest): Promise<Response> {
  const { scope, installation, key } = request;
  appWriteAuthMiddleware(installation, key);
  requireWritableKey(key);
  const condition = parseWriteCondition(scope.request.headers);
  const { bucket, installationId } = authorOf(request);
  const outcome = await engine.write({ kind: "delete", bucket, installationId, key, condition });
  if (outcome.kind === "unmet") throw preconditionFailed(outcome.revision);
  if (outcome.kind === "absent") throw keyNotFound();
  return respond(scope, 204, {});
}

/** POST /_batchimport */
export async function importBatch(services: TokenServices, request: AppRequest): Promise<Response> {
  const { scope, installation } = request;
  const { engine, settings } = services;
  if (installation.isReadOnly) throw readOnly();
  refuseConditions(scope.request.headers);
  refuseExpiry(scope.request);
  refuseContentRange(scope.request.headers);
  const { tokenMaxBatchBytes, tokenMaxBatchKeys } = settings;
  const rules = { what: "batch", bytesMax: tokenMaxBatchBytes, membersMax: tokenMaxBatchKeys } as const;
  return withJsonBody(services, request, rules, async (text, now) => {
    if (now.isReadOnly) throw readOnly();
    const { total, puts, errors } = planBatch(text, {
      ...authorOf(request),
      permissions: now,
      keysMax: settings.tokenMaxBatchKeys,
      valueBytesMax: settings.tokenMaxValueBytes,
    });
    if (text.length > LARGE_BODY_BYTES) await services.searchTurns.next();
    const outcomes = puts.length === 0 ? [] : await engine.writeTogether(puts);
    const results = puts.map(({ key }, index) => ({ key, created: outcomes[index]!.kind === "created" }));
    return respondJson(scope, 200, {
      namespace: installation.deviceUuid,
      total,
      successful: results.length,
      failed: errors.length,
      results,
      ...(errors.length > 0 ? { errors } : {}),
    });
  });
}

/** DELETE / */
export async function deleteNamespace(
  { engine }: TokenServices,
  { scope, installation }: AppRequest,
): Promise<Response> {
  if (installation.isReadOnly || !isFull(installation)) {
    throw new AppError("namespace_denied", "This token may not delete the namespace.");
  }
  refuseConditions(scope.request.headers);
  await engine.wipe(installation.deviceUuid, installation.id);
  return respond(scope, 204, {});
}

/** GET /_keys */
export async function listKeys(services: TokenServices, request: AppRequest): Promise<Response> {
  const parameters = parseListParameters(request.scope.request.url, services.settings.tokenMaxLimit);
  const { total, entries } = await readPage(services, request, parameters);
  const { limit, skip } = parameters;
  return respondJson(request.scope, 200, {
    keys: entries.map((entry) => entry.key),
    total_rows: total,
    current_page: { limit, skip, count: entries.length },
    ...loadMore(`${request.mount}/_keys`, parameters, entries.length, total),
  });
}

/** GET / */
export async function listValues(services: TokenServices, request: AppRequest): Promise<Response> {
  const { scope, mount } = request;
  const parameters = parseListParameters(scope.request.url, services.settings.tokenMaxLimit);
  const { page, share } = await readValues(services, request, parameters);
  try {
    const { total, entries } = page;
    const rest = { total_rows: total, ...loadMore(`${mount}/`, parameters, entries.length, total) };
    const body = valuesBody(entries, rest);
    share.shrinkTo(body.length);
    const headers = { "Content-Type": "application/json" };
    if (body.length <= INLINE_VALUE_BYTES_MAX || scope.isHead) {
      share.release();
      return respond(scope, 200, headers, body);
    }
    scope.bytesOut = body.length;
    const stream = streamPieces(body, () => share.release());
    return respond(scope, 200, headers, stream);
  } catch (error) {
    share.release();
    throw error;
  }
}

/** GET /_info */
export async function showInfo({ tokens }: TokenServices, { scope, installation }: AppRequest): Promise<Response> {
  const { uuid, name, createdAtMs, updatedAtMs } = await tokens.requireDevice(installation.deviceUuid);
  const device = { id: uuid, uuid, name, createdAt: formatTime(createdAtMs), updatedAt: formatTime(updatedAtMs) };
  return respondJson(scope, 200, { device, hasAccount: false });
}

/** GET /_token; the token itself is never shown. */
export async function showToken({ tokens }: TokenServices, { scope, installation }: AppRequest): Promise<Response> {
  const { uuid, name } = await tokens.requireDevice(installation.deviceUuid);
  const { id, appId, deviceType, isReadOnly, note, tokenHint, permissionPrefix, permissionKey } = installation;
  return respondJson(scope, 200, {
    success: true,
    id,
    appId,
    deviceType,
    isReadOnly,
    note,
    tokenHint,
    permissionPrefix,
    permissionKey,
    expiresAt: installation.expiresAtMs === null ? null : formatTime(installation.expiresAtMs),
    installedAt: formatTime(installation.installedAtMs),
    updatedAt: formatTime(installation.updatedAtMs),
    device: { id: uuid, uuid, name, namespace: uuid },
  });
}

/** A value without a key: the path is the mistake, not the method. */
export function refuseEmptyKey(_: TokenServices, { installation }: AppRequest): never {
  appWriteAuthMiddleware(installation, "");
  throw new AppError("key_empty", "The key is empty. Use POST /kv/token/:key.");
}

/** Whether the installation may read the key; told before the store is asked, so that nobody learns what exists. */
function appReadAuthMiddleware(installation: Installation, key: string): void {
  if (!canRead(installation, key)) throw new AppError("read_denied", "this token may not read this key");
}

/** Whether the installation may write or delete the key. */
function appWriteAuthMiddleware(installation: Installation, key: string): void {
  if (installation.isReadOnly) throw readOnly();
  if (!canWrite(installation, key)) throw new AppError("write_denied", "this token may not write this key");
}

/** Lists are never refused: the query itself is narrowed to what the installation may read. */
function appListAuthMiddleware(installation: Installation) {
  return { bucket: installation.deviceUuid, ranges: readableRanges(installation), excluded: RESERVED_KEYS };
}

/**
 * To be awaited before what was found after a wait is shown: who was let in may have been revoked meanwhile, and the
 * namespace may be another's.
 * @throws AppError token_invalid
 */
async function confirm({ appGate }: TokenServices, { scope, credential }: AppRequest): Promise<void> {
  await appGate.find(scope, credential);
}

function authorOf({ scope, installation }: AppRequest): Author {
  return { bucket: installation.deviceUuid, installationId: installation.id, creatorIp: scope.clientIp };
}

function readOnly(): AppError {
  return new AppError("read_only_token", "this token may only read");
}

type Page = { total: number; entries: readonly OffsetEntry[] };

interface ValuesWanted {
  /** Null = the keys alone. */
  readonly jsonBytesMax: number | null;
  readonly begin: () => Promise<void>;
}

const KEYS_ALONE: ValuesWanted = { jsonBytesMax: null, begin: async () => undefined };

/** @throws AppError sort_too_large */
async function readPage(
  services: TokenServices,
  request: AppRequest,
  { sortBy, isReverse, limit, skip }: ListParameters,
  { jsonBytesMax, begin }: ValuesWanted = KEYS_ALONE,
): Promise<Page> {
  const { engine, settings } = services;
  const { scope, installation } = request;
  const { tokenMaxSortRows: sortRowsMax } = settings;
  const query = { ...appListAuthMiddleware(installation), sortBy, isReverse, limit, skip, sortRowsMax, jsonBytesMax };
  scope.extendIdleTimeout(LIST_IDLE_SECONDS);
  const page: OffsetPage = await engine.pageByOffset(query, { signal: scope.request.signal, begin });
  await confirm(services, request);
  if (page.entries !== null) return { total: page.total, entries: page.entries };
  throw new AppError(
    "sort_too_large",
    `${page.total} entries are too many to be sorted by ${sortBy}; sortBy=key has no such limit.`,
  );
}

/**
 * A page with its values and their share of the budget, which is taken when its turn has come. Most pages are small. A
 * larger one is read without its values at first, which tells what they take, and then with them; when they have grown
 * meanwhile, with all a page may hold.
 * @throws AppError page_too_large, sort_too_large, overloaded
 */
async function readValues(
  services: TokenServices,
  request: AppRequest,
  parameters: ListParameters,
): Promise<{ page: Page; share: BudgetShare }> {
  const bytesMax = services.settings.tokenMaxPageBytes;
  const smallBytes = Math.min(SMALL_PAGE_BYTES, bytesMax);
  for (let bytes = smallBytes; ; ) {
    const { page, share } = await readHeldPage(services, request, parameters, bytes);
    try {
      const neededBytes = requireFittingPage(page.entries, bytesMax);
      if (neededBytes <= bytes) return { page, share };
      bytes = bytes === smallBytes ? neededBytes : bytesMax;
    } catch (error) {
      share.release();
      throw error;
    }
    share.release();
  }
}

/** @throws AppError sort_too_large, overloaded */
async function readHeldPage(
  services: TokenServices,
  request: AppRequest,
  parameters: ListParameters,
  jsonBytesMax: number,
): Promise<{ page: Page; share: BudgetShare }> {
  const budget = budgetOf(services, request);
  let share = null as BudgetShare | null;
  const begin = async () => {
    share = await takeShare(budget, Math.min(jsonBytesMax, budget.limitBytes), request.scope.request.signal);
  };
  try {
    const page = await readPage(services, request, parameters, { jsonBytesMax, begin });
    return { page, share: share! };
  } catch (error) {
    share?.release();
    throw error;
  }
}

/**
 * How much its values take; only those that stand in the page count. It is never shortened silently.
 * @throws AppError page_too_large
 */
function requireFittingPage(entries: readonly OffsetEntry[], bytesMax: number): number {
  let bytes = 0;
  const fitting = entries.findIndex((entry) => {
    bytes += entry.jsonBytes;
    return bytes > bytesMax;
  });
  if (fitting < 0) return bytes;
  throw new AppError("page_too_large", `The values of this page are too large together; limit=${fitting} fits.`);
}

/** Values stand in it as they are stored, not as a parser would write them again; as bytes, since pages can be long. */
function valuesBody(entries: readonly OffsetEntry[], rest: object): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  let text = '{"items":[';
  for (const [index, { key, json, contentType, sizeBytes, createdAtMs, updatedAtMs }] of entries.entries()) {
    if (index > 0) text += ",";
    const times = { createdAt: formatTime(createdAtMs), updatedAt: formatTime(updatedAtMs) };
    if (json === null) {
      const type = contentType ?? DEFAULT_CONTENT_TYPE;
      text += JSON.stringify({ key, value: null, contentType: type, size: sizeBytes, ...times });
    } else {
      parts.push(Buffer.from(`${text}{"key":${JSON.stringify(key)},"value":`), json);
      text = `,${JSON.stringify(times).slice(1)}`;
    }
  }
  parts.push(Buffer.from(`${text}],${JSON.stringify(rest).slice(1)}`));
  return Buffer.concat(parts);
}

function loadMore(path: string, parameters: ListParameters, count: number, total: number): { load_more?: string } {
  if (count === 0 || parameters.skip + count >= total) return {};
  return { load_more: `${path}?${nextPageQuery(parameters)}` };
}

interface BodyRules {
  readonly what: "value" | "batch";
  readonly bytesMax: number;
  /** Of an object, its credential left out. */
  readonly membersMax?: number;
}

/**
 * Runs `act` with the body as JSON text of at most `bytesMax`, members that carry the credential cut out, every other
 * byte as sent; and with the installation as it is when all of it is there: a body may take its time, and the token may
 * have ended meanwhile, or lost a right. Each pass over a large body takes milliseconds: whoever else asks for
 * something comes between two of them.
 * @throws AppError token_invalid, rate_limited, invalid_content_type, invalid_json, json_too_deep, body_too_large,
 * too_many_keys, overloaded
 */
async function withJsonBody(
  services: TokenServices,
  request: AppRequest,
  { what, bytesMax, membersMax = Number.POSITIVE_INFINITY }: BodyRules,
  act: (text: string, now: Installation) => Promise<Response>,
): Promise<Response> {
  const { scope, credential, installation, body } = request;
  const { appGate, searchTurns } = services;
  const budget = budgetOf(services, request);
  requireJsonType(scope.request.headers);
  const held: HeldBody = body ?? (await readBody(scope, bytesMax + CREDENTIAL_BYTES_MAX, budget, "user"));
  try {
    const isLarge = held.bytes.length > LARGE_BODY_BYTES;
    const text = requireShallowText(held.bytes);
    // Before the rest is looked at: a body may hold a hundred times as many.
    if (hasMoreMembers(text, membersMax + CREDENTIALS_MAX)) throw tooManyKeys(membersMax);
    if (isLarge) await searchTurns.next();
    requireValid(text);
    if (isLarge) await searchTurns.next();
    const members = credentialMembers(text, credential);
    // Each is cut out of the whole text.
    if (members.length > CREDENTIALS_MAX) throw new AppError("invalid_json", "The member token is given too often.");
    // From the last to the first: what stands before a member stays where it is.
    const rest = members.reduceRight(cutMember, text);
    if (held.bytes.length > bytesMax && Buffer.byteLength(rest) > bytesMax) throw tooLarge(what, bytesMax);
    if (isLarge) await searchTurns.next();
    return await act(rest, body === null ? await appGate.find(scope, credential) : installation);
  } finally {
    // A body that was read for its token is released by whoever read it.
    if (body === null) held.release();
  }
}

/** Apps share the memory for bodies with all users, and none has all of it. */
function budgetOf({ budget }: TokenServices, { installation }: AppRequest): ByteBudget {
  return budget.ofHolder(`app ${installation.id}`);
}
