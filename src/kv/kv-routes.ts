// The KV surface on the wire: POST, PUT, GET, HEAD, DELETE of /:bucket/:key, and /_meta of it.

import { type Principal, type Right, requireKeyRight } from "../auth/principal.ts";
import { getRoute, methodNotAllowed, respondOptions } from "../http/methods.ts";
import { parseQuery } from "../http/query-parameters.ts";
import { readBody } from "../http/read-body.ts";
import { requireNoFragment } from "../http/request-path.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respond, respondJson } from "../http/respond.ts";
import { asOperator, type Handler, type OperatorSurface } from "../http/surface.ts";
import type { Eventually } from "../shared/eventual.ts";
import { formatTime, formatTimeOrNull } from "../shared/iso-time.ts";
import type { KvEntry } from "../storage/kv-engine.ts";
import { formatEtag, parseWriteCondition } from "./conditions.ts";
import { parseContentType, parseMetadata, parseTtlMs, refuseContentRange } from "./entry-headers.ts";
import { type KvTarget, parseKvPath } from "./kv-path.ts";
import {
  DEFAULT_CONTENT_TYPE,
  describeValue,
  keyNotFound,
  preconditionFailed,
  readValue,
  type ValueServices,
} from "./read-value.ts";

interface KvServices extends OperatorSurface, ValueServices {
  readonly maxValueBytes: number;
  readonly reservedBuckets: ReadonlySet<string>;
}

const ALLOW = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
const META_PREFIX = "/_meta";

type Act = (scope: RequestScope, target: KvTarget) => Eventually<Response>;

/** The catch-all: whatever no other mount took is a bucket and a key. */
export function createKvHandler(services: KvServices): Handler {
  const acts: Readonly<Record<string, readonly [Right, Act]>> = {
    GET: ["kv:read", (scope, target) => readValue(services, scope, target)],
    HEAD: ["kv:read", (scope, target) => describeValue(services, scope, target)],
    POST: ["kv:write", (scope, target) => put(services, scope, target)],
    PUT: ["kv:write", (scope, target) => put(services, scope, target)],
    DELETE: ["kv:delete", (scope, target) => remove(services, scope, target)],
  };
  return function kv(context) {
    const { scope } = context.env;
    scope.route = "/:bucket/:key";
    const { method } = scope.request;
    const act = acts[method];
    if (act === undefined) {
      if (method === "OPTIONS") return respondOptions(scope, ALLOW);
      throw methodNotAllowed(ALLOW);
    }
    return asOperator(services, scope, (principal) => {
      requireNoFragment(scope.request.url);
      const target = parseKvPath(context.req.path, services.reservedBuckets);
      requireKeyRight(principal, act[0], target.bucket, target.key);
      return act[1](scope, target);
    });
  };
}

/** GET /_meta/:bucket/:key */
export function createMetaHandler(services: KvServices): Handler {
  return getRoute("/_meta/:bucket/:key", (scope, context) =>
    asOperator(services, scope, (principal) => {
      requireNoFragment(scope.request.url);
      const target = parseKvPath(context.req.path.slice(META_PREFIX.length), services.reservedBuckets);
      return showMeta(services, scope, principal, target);
    }),
  );
}

async function showMeta(
  { engine }: KvServices,
  scope: RequestScope,
  principal: Principal,
  { bucket, key }: KvTarget,
): Promise<Response> {
  requireKeyRight(principal, "kv:read", bucket, key);
  parseQuery(scope.request.url, []);
  const entry = await engine.describe(bucket, key);
  if (entry === null) throw keyNotFound();
  return respondJson(scope, 200, { bucket, key, ...describeEntry(entry) }, { ETag: formatEtag(entry.revision) });
}

/** The members of an entry in `_meta` and in detailed lists, under their wire names. */
export function describeEntry(entry: KvEntry): Record<string, unknown> {
  return {
    size: entry.sizeBytes,
    revision: entry.revision,
    content_type: entry.contentType ?? DEFAULT_CONTENT_TYPE,
    created_at: formatTime(entry.createdAtMs),
    updated_at: formatTime(entry.updatedAtMs),
    expires_at: formatTimeOrNull(entry.expiresAtMs),
    metadata: entry.metadata === null ? {} : JSON.parse(entry.metadata),
  };
}

async function put(services: KvServices, scope: RequestScope, { bucket, key }: KvTarget): Promise<Response> {
  const { headers, url } = scope.request;
  const query = parseQuery(url, ["ttl"]);
  const condition = parseWriteCondition(headers);
  refuseContentRange(headers);
  const contentType = parseContentType(headers.get("content-type"));
  const metadata = parseMetadata(headers);
  const ttlMs = parseTtlMs(query.ttl ?? null, headers.get("x-ttl"));
  const { clientIp: creatorIp } = scope;
  const body = await readBody(scope, services.maxValueBytes, services.budget);
  try {
    const value = body.bytes;
    const write = { kind: "put", bucket, key, value, contentType, metadata, ttlMs, condition, creatorIp } as const;
    const outcome = await services.engine.write(write);
    if (outcome.kind === "unmet") throw preconditionFailed(outcome.revision);
    const headers = "revision" in outcome ? { ETag: formatEtag(outcome.revision) } : {};
    return respond(scope, 200, headers);
  } finally {
    body.release();
  }
}

async function remove({ engine }: KvServices, scope: RequestScope, { bucket, key }: KvTarget): Promise<Response> {
  parseQuery(scope.request.url, []);
  const condition = parseWriteCondition(scope.request.headers);
  const outcome = await engine.write({ kind: "delete", bucket, key, condition });
  if (outcome.kind === "unmet") throw preconditionFailed(outcome.revision);
  return respond(scope, 200, {});
}
