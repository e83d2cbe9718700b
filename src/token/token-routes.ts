// The token API on the wire: a namespace of JSON values for an installed app.

import { type CorsPolicy, corsHeaders, respondPreflight } from "../http/cors.ts";
import { methodNotAllowed } from "../http/methods.ts";
import { readBody } from "../http/read-body.ts";
import { requireNoFragment } from "../http/request-path.ts";
import type { RequestScope } from "../http/request-scope.ts";
import type { Handler } from "../http/surface.ts";
import { decodePath } from "../kv/kv-path.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { isValid, requireShallowText } from "../shared/json-text.ts";
import type { RateKind } from "./app-gate.ts";
import { missingToken } from "./credential.ts";
import {
  deleteKey,
  deleteNamespace,
  importBatch,
  listKeys,
  listValues,
  readKey,
  readMetadata,
  refuseEmptyKey,
  showInfo,
  showToken,
  writeKey,
} from "./token-actions.ts";
import { type AppRequest, LARGE_BODY_BYTES, type TokenServices } from "./token-request.ts";

type Act = (services: TokenServices, request: AppRequest) => Eventually<Response>;
interface Action {
  readonly kind: RateKind;
  readonly act: Act;
}
type Methods = Readonly<Partial<Record<string, readonly [RateKind, Act]>>>;

const NAMESPACE: Methods = {
  GET: ["read", listValues],
  POST: ["write", refuseEmptyKey],
  DELETE: ["delete", deleteNamespace],
};
const KEY: Methods = { GET: ["read", readKey], POST: ["write", writeKey], DELETE: ["delete", deleteKey] };
const METADATA: Methods = { GET: ["read", readMetadata] };
/** Names of routes are keys nobody can store: what is not listed here is told so by the key's own rules. */
const NAMED: Readonly<Record<string, Methods>> = {
  _keys: { ...KEY, GET: ["read", listKeys] },
  _info: { ...KEY, GET: ["read", showInfo] },
  _token: { ...KEY, GET: ["read", showToken] },
  _batchimport: { ...KEY, POST: ["batch", importBatch] },
};

const METADATA_SEGMENT = "/metadata";
const CORS_METHODS = "GET, HEAD, POST, DELETE";
const EXPOSED_HEADERS = "RateLimit, RateLimit-Policy, Retry-After, ETag, X-Request-Id";

/** The handler of everything below `mount`. */
export function createTokenHandler(services: TokenServices, mount: string): Handler {
  const cors: CorsPolicy = {
    origins: services.settings.tokenCorsOrigins,
    methods: CORS_METHODS,
    exposedHeaders: EXPOSED_HEADERS,
  };
  return function tokenApi(context) {
    const { scope } = context.env;
    scope.route = `${mount}/:key`;
    scope.surfaceHeaders = {
      "Referrer-Policy": "no-referrer",
      "Cache-Control": "private, no-cache",
      ...corsHeaders(scope, cors),
    };
    const path = context.req.path.slice(mount.length);
    if (scope.request.method === "OPTIONS") return respondPreflight(scope, allowOf(methodsOf(path)), cors);
    requireNoFragment(scope.request.url);
    const action = resolveAction(mount, path, scope);
    services.admission.enter(scope);
    const credential = services.appGate.credentialOutsideBody(scope);
    if (credential === null) return actWithBody(services, scope, mount, path, action);
    const key = keyOf(path);
    const admitted = services.appGate.admit(scope, credential, action.kind);
    return admitted instanceof Promise
      ? admitted.then((who) => action.act(services, { ...who, scope, mount, key, body: null }))
      : action.act(services, { ...admitted, scope, mount, key, body: null });
  };
}

/** No header and no query has a token: it may stand in the body, which is read for it, if it is small enough. */
async function actWithBody(
  services: TokenServices,
  scope: RequestScope,
  mount: string,
  path: string,
  action: Action,
): Promise<Response> {
  const body = await readTokenBody(services, scope);
  try {
    // Looking through it takes milliseconds: whoever else asks for something comes between two of them.
    if (body !== null && body.bytes.length > LARGE_BODY_BYTES) await services.searchTurns.next();
    const text = body === null ? null : textOrNull(body.bytes);
    const credential = services.appGate.credentialOfBody(scope, text);
    const who = await services.appGate.admit(scope, credential, action.kind);
    // Not before: strangers are not to have megabytes parsed.
    requireCarrier(scope, body!.bytes);
    return await action.act(services, { ...who, scope, mount, key: keyOf(path), body });
  } finally {
    body?.release();
  }
}

async function readTokenBody({ appGate, settings, strangers }: TokenServices, scope: RequestScope) {
  const { method, headers } = scope.request;
  if (!appGate.readsBodies() || (method !== "POST" && method !== "DELETE")) return null;
  // Not even begun: the answer will be 401, and the runtime drops the rest.
  if (Number(headers.get("content-length") ?? 0) > settings.tokenBodyAuthBytes) return null;
  try {
    return await readBody(scope, settings.tokenBodyAuthBytes, strangers, "stranger");
  } catch (error) {
    if (error instanceof AppError && error.code === "body_too_large") return null;
    throw error;
  }
}

/** What may yet turn out to be no JSON, or nested too deeply: no parser is to see it before that is known. */
function textOrNull(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** What has a token must be JSON. @throws AppError token_missing, json_too_deep */
function requireCarrier({ request }: RequestScope, bytes: Uint8Array): void {
  try {
    if (!isValid(requireShallowText(bytes))) throw missingToken();
  } catch (error) {
    // Whoever would store it refuses this too, but looks at the right first.
    const isLeftToAction = request.method === "POST" && error instanceof AppError && error.code === "json_too_deep";
    if (!isLeftToAction) throw error;
  }
}

/** @throws AppError path_invalid, method_not_allowed */
function resolveAction(mount: string, path: string, scope: RequestScope): Action {
  decodePath(path);
  const methods = methodsOf(path);
  const method = scope.request.method === "HEAD" ? "GET" : scope.request.method;
  const found = methods[method];
  if (found === undefined) throw methodNotAllowed(allowOf(methods));
  const [kind, act] = found;
  scope.route = `${mount}${routeOf(path, methods)}`;
  return { kind, act };
}

function methodsOf(path: string): Methods {
  const rest = path.slice(1);
  if (rest === "") return NAMESPACE;
  if (isMetadata(rest)) return METADATA;
  return (Object.hasOwn(NAMED, rest) ? NAMED[rest] : undefined) ?? KEY;
}

function routeOf(path: string, methods: Methods): string {
  if (methods === NAMESPACE) return "/";
  if (methods === METADATA) return "/:key/metadata";
  return methods === KEY ? "/:key" : path;
}

/** A literal last segment behind a key: a key that ends so is written with %2F. */
function isMetadata(rest: string): boolean {
  return rest.endsWith(METADATA_SEGMENT) && rest.length > METADATA_SEGMENT.length;
}

function keyOf(path: string): string {
  const rest = path.slice(1);
  return decodePath(isMetadata(rest) ? rest.slice(0, -METADATA_SEGMENT.length) : rest);
}

function allowOf(methods: Methods): string {
  const allowed = Object.keys(methods).filter((name) => methods[name]![1] !== refuseEmptyKey);
  const names = allowed.flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]));
  return [...names, "OPTIONS"].join(", ");
}
