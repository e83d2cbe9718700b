// Management of relay tokens. A key is shown once, when its token is made.

import { hashOpaque } from "../auth/opaque-token.ts";
import type { OperatorRoutes } from "../http/operator-routes.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { respond, respondJson } from "../http/respond.ts";
import { AppError } from "../shared/errors.ts";
import { maskKey } from "./key-mask.ts";
import { parseBody } from "./management-bodies.ts";
import {
  idOf,
  type ManagementRequest,
  numberOf,
  pageOf,
  type RelayAdminServices,
  readBytes,
  secondsOf,
} from "./management-request.ts";
import { createRelayKey, STRONG_KEY_MIN } from "./relay-key.ts";
import type { RelayToken } from "./relay-tables.ts";
import {
  NewRelayTokenBody,
  RelayTokenChangesBody,
  relayTokenChangesOf,
  relayTokenFieldsOf,
} from "./relay-token-bodies.ts";

/** Paths below `/api/token`, by method. */
export const RELAY_TOKEN_ROUTES: OperatorRoutes<RelayAdminServices> = {
  "": { GET: listTokens, POST: createToken },
  "/:id": { GET: showToken, PUT: updateToken, PATCH: updateToken, DELETE: deleteToken },
};

async function listTokens({ services, scope }: ManagementRequest): Promise<Response> {
  const query = parseQuery(scope.request.url, ["status", "user_id", "limit", "offset"]);
  const page = pageOf(query);
  const status = numberOf(query.status, { name: "status", min: 0, max: 2 }, null);
  const userId = numberOf(query.user_id, { name: "user_id", min: 0, max: Number.MAX_SAFE_INTEGER }, null);
  const { tokens, total } = await services.tokens.list({ status: status === 2 ? 0 : status, userId }, page);
  return respondJson(scope, 200, tokens.map(tokenBody), { "X-Total-Count": `${total}` });
}

async function createToken(request: ManagementRequest): Promise<Response> {
  const body = await readBytes(request, (bytes) => parseBody(bytes, NewRelayTokenBody, ["name"]));
  const key = body.key ?? createRelayKey();
  const token = await request.services.tokens.change("relay.createToken", {
    keyHash: hashOpaque(key),
    keyMask: maskKey(key),
    fields: relayTokenFieldsOf(body),
    isFirst: false,
  });
  const warning = key.length < STRONG_KEY_MIN ? { warning: "a short token can be guessed" } : {};
  const shown = { ...tokenBody(token!), key, ...warning };
  return respondJson(request.scope, 201, shown, { Location: `/api/token/${token!.id}` });
}

async function showToken(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  return respondJson(scope, 200, tokenBody(await services.tokens.require(idOf(request))));
}

async function updateToken(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  const id = idOf(request);
  const body = await readBytes(request, (bytes) => parseBody(bytes, RelayTokenChangesBody));
  const { keyMask } = await services.tokens.require(id);
  if (body.key !== undefined && body.key !== keyMask) {
    throw new AppError("invalid_field", "key: the key of a token does not change. Make another token.");
  }
  const token = await services.tokens.change("relay.updateToken", {
    id,
    changes: relayTokenChangesOf(body),
    addQuota: body.add_quota ?? 0,
    usedQuotaRead: body.used_quota ?? null,
  });
  return respondJson(scope, 200, tokenBody(token));
}

async function deleteToken(request: ManagementRequest): Promise<Response> {
  const { services, scope } = request;
  await services.tokens.change("relay.deleteToken", { id: idOf(request) });
  return respond(scope, 204, {});
}

/** Times in whole seconds since 1970; 0 = never used, an expiry of -1 = never. */
function tokenBody(token: RelayToken): Record<string, unknown> {
  return {
    id: token.id,
    user_id: token.userId,
    key: token.keyMask,
    status: token.status,
    name: token.name,
    created_time: secondsOf(token.createdMs),
    accessed_time: secondsOf(token.accessedMs),
    expired_time: token.expiresAtMs === null ? -1 : secondsOf(token.expiresAtMs),
    unlimited_quota: token.isUnlimited,
    remain_quota: token.remainQuota,
    used_quota: token.usedQuota,
    models: token.models,
    allow_ips: token.allowIps,
    group: token.groups.join(","),
    rpm: token.rpm,
    tpm: token.tpm,
    max_parallel: token.maxParallel,
    cache_ttl: token.cacheTtlSeconds,
  };
}
