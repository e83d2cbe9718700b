// The relay on the wire: what clients of OpenAI's API ask for, in its paths and shapes.

import type { ByteBudget } from "../http/byte-budget.ts";
import { allowOf, respondOptions } from "../http/methods.ts";
import { KEPT_BODY_BYTES_MAX } from "../http/outbound-body.ts";
import { readBody, reserveParsed } from "../http/read-body.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { respond } from "../http/respond.ts";
import type { AppContext } from "../http/surface.ts";
import { UNREAD_SECONDS_MAX } from "../shared/bounds.ts";
import { AppError, type ErrorCode } from "../shared/errors.ts";
import type { ChannelPool } from "./channel-pool.ts";
import { describeAttempts } from "./relay-answers.ts";
import { ENDPOINTS, type Endpoint } from "./relay-endpoints.ts";
import type { RelayEngine } from "./relay-engine.ts";
import { RelayError, type RelayRefusal } from "./relay-errors.ts";
import type { RelayGate } from "./relay-gate.ts";
import { decodeRelayBody, parseRelayRequest, type RelayRequest } from "./relay-request.ts";
import type { RelayToken } from "./relay-tables.ts";
import type { RelayTokenStore } from "./relay-token-store.ts";

interface RelayServices {
  readonly gate: RelayGate;
  readonly engine: RelayEngine;
  readonly tokens: RelayTokenStore;
  readonly pool: ChannelPool;
  /** Of bodies. */
  readonly budget: ByteBudget;
  readonly bodyBytesMax: number;
  readonly maxInflight: number;
}

interface Asked {
  readonly services: RelayServices;
  readonly scope: RequestScope;
  readonly token: RelayToken;
  /** What stands behind the route, decoded. */
  readonly rest: string;
}

type Act = (asked: Asked) => Promise<Response>;
type Methods = Readonly<Partial<Record<string, Act>>>;

const MOUNT = "/v1";

/** Routes by their pattern below the mount. */
const ROUTES: Readonly<Record<string, Methods>> = {
  "/chat/completions": { POST: relayTo(ENDPOINTS.chat) },
  "/completions": { POST: relayTo(ENDPOINTS.completions) },
  "/embeddings": { POST: relayTo(ENDPOINTS.embeddings) },
  "/moderations": { POST: relayTo(ENDPOINTS.moderations) },
  "/responses": { POST: relayTo(ENDPOINTS.responses) },
  "/responses/:id": { GET: passResponse("GET"), DELETE: passResponse("DELETE") },
  "/models": { GET: listModels },
  "/models/:id": { GET: showModel },
  "/usage": { GET: showUsage },
};

/** Made once: in figures and the log they are looked up with every request. */
const ROUTE_NAMES: Readonly<Record<string, string>> = Object.fromEntries(
  Object.keys(ROUTES).map((pattern) => [pattern, MOUNT + pattern]),
);
const UNKNOWN_ROUTE = `${MOUNT}/*`;

const MODELS = "/models/";
const RESPONSES = "/responses/";

/** The handler of everything below `/v1`. Never throws: all it refuses has the shape that its clients know. */
export function createRelayHandler(services: RelayServices): (context: AppContext) => Promise<Response> {
  return async function relay(context) {
    const { scope } = context.env;
    const path = context.req.path.slice(MOUNT.length);
    const pattern = patternOf(path);
    const methods = Object.hasOwn(ROUTES, pattern) ? ROUTES[pattern]! : null;
    // A method that is not taken has no route of its own: it would be a series of figures for each of them.
    const isKnown = methods !== null && isTaken(methods, scope.request.method);
    scope.route = isKnown ? ROUTE_NAMES[pattern]! : UNKNOWN_ROUTE;
    // A client may send an id twice; reservations and log rows need one of their own.
    scope.id = Bun.randomUUIDv7();
    const startedMs = performance.now();
    try {
      const token = await services.gate.admit(scope);
      const rest = methods === null ? null : restOf(path, pattern);
      if (methods === null || rest === null) throw new RelayError("unknown_url", "there is nothing at this URL");
      const answer = await actionOf(methods, scope.request.method)({ services, scope, token, rest });
      // Whoever does not take an answer is let go.
      if (!scope.isWatched) scope.extendIdleTimeout(UNREAD_SECONDS_MAX);
      return answer;
    } catch (error) {
      scope.extendIdleTimeout(UNREAD_SECONDS_MAX);
      if (scope.surfaceHeaders === null) describeAttempts(scope, 0, performance.now() - startedMs);
      return respondRefusal(scope, asRelayError(error));
    }
  };
}

function isTaken(methods: Methods, method: string): boolean {
  return method === "OPTIONS" || methods[method === "HEAD" ? "GET" : method] !== undefined;
}

function actionOf(methods: Methods, method: string): Act {
  const act = methods[method === "HEAD" ? "GET" : method];
  if (act !== undefined) return act;
  const allow = allowOf(methods);
  if (method === "OPTIONS") {
    return async ({ scope }) => {
      describeAttempts(scope, 0, performance.now() - scope.startedMs);
      return respondOptions(scope, allow);
    };
  }
  throw new RelayError("method_not_allowed", "this URL does not take this method", { headers: { Allow: allow } });
}

/** Names of models may hold slashes: all of the path behind the parent is the id. Those of responses do not. */
function patternOf(path: string): string {
  if (path.startsWith(MODELS)) return `${MODELS}:id`;
  return path.startsWith(RESPONSES) && !path.includes("/", RESPONSES.length) ? `${RESPONSES}:id` : path;
}

/** The id in a path, decoded; null when there is none, "" for routes without one. */
function restOf(path: string, pattern: string): string | null {
  if (path === pattern) return "";
  try {
    return decodeURIComponent(path.slice(pattern.length - ":id".length)) || null;
  } catch {
    return null;
  }
}

function relayTo(endpoint: Endpoint): Act {
  return async ({ services, scope }) => {
    const { engine, gate, budget, bodyBytesMax } = services;
    requireRoom(scope, services);
    if (!isPlain(scope.request.headers.get("content-encoding"))) {
      throw new RelayError("unsupported_encoding", "the body must not be compressed");
    }
    // No function below refers to the bytes: they would live for as long as a stream does that has the function.
    const { bytes, release } = await readBody(scope, bodyBytesMax, budget, "user");
    const lengthBytes = bytes.length;
    let isHeld = false;
    let weightBytes = 0;
    let request: RelayRequest | null = null;
    const holdBody = () => {
      isHeld = lengthBytes <= KEPT_BODY_BYTES_MAX;
      return isHeld ? release : () => undefined;
    };
    try {
      // A body may take its time, and the token may have ended or changed meanwhile.
      const admitted = gate.admit(scope);
      const token = admitted instanceof Promise ? await admitted : admitted;
      const text = decodeRelayBody(bytes);
      weightBytes = reserveParsed(budget, text, { heldBytes: lengthBytes });
      request = parseRelayRequest(endpoint, text);
      requireModels(token, request.names);
      requireRoom(scope, services);
      scope.extendIdleTimeout(0);
      return await engine.relay({ scope, token, endpoint, request, holdBody, blamesChannel: true });
    } finally {
      if (request !== null) request.body = NO_REQUEST.body;
      budget.release(weightBytes);
      if (!isHeld) release();
    }
  };
}

/** `identity` says that nothing was done to the body. */
function isPlain(encoding: string | null): boolean {
  return encoding === null || encoding.trim().toLowerCase() === "identity";
}

const RETRY = { headers: { "Retry-After": "1" } };

/** @throws RelayError server_shutting_down, overloaded */
function requireRoom({ state }: RequestScope, { engine, maxInflight }: RelayServices): void {
  if (state.isDraining) throw new RelayError("server_shutting_down", "the server is shutting down", RETRY);
  if (engine.inflight >= maxInflight) throw new RelayError("overloaded", "too many requests are at work", RETRY);
}

function requireModels({ models }: RelayToken, names: readonly string[]): void {
  if (models.length === 0 || names.every((name) => models.includes(name))) return;
  throw new RelayError("model_not_allowed", "the API key may not use this model", { param: "model" });
}

function passResponse(method: "GET" | "DELETE"): Act {
  return async ({ services, scope, token, rest }) => {
    requireRoom(scope, services);
    scope.extendIdleTimeout(0);
    const search = searchOf(scope.request.url);
    const incoming = {
      scope,
      token,
      endpoint: STORED_RESPONSES,
      request: NO_REQUEST,
      holdBody: () => () => undefined,
      blamesChannel: search.size === 0,
    };
    return services.engine.passResponse(incoming, method, {
      responseId: rest,
      search: search.size === 0 ? "" : `?${search}`,
    });
  };
}

function searchOf(url: string): URLSearchParams {
  const start = url.indexOf("?");
  return new URLSearchParams(start < 0 ? "" : url.slice(start));
}

const STORED_RESPONSES: Endpoint = { ...ENDPOINTS.responses, cost: "none" };
/** Of what has no body. Whether a stream comes is for the upstream to say: the query is between it and the client. */
const NO_REQUEST: RelayRequest = {
  body: {},
  model: "",
  names: [""],
  isStream: false,
  wantsUsage: false,
  maxTokens: null,
  choices: 1,
  previousResponseId: null,
  isStored: false,
  isBackground: false,
};

async function listModels({ services, scope, token }: Asked): Promise<Response> {
  const data = modelsOf(services.pool, token).map(modelBody);
  return respondJson(scope, 200, { object: "list", data });
}

async function showModel({ services, scope, token, rest }: Asked): Promise<Response> {
  const model = modelsOf(services.pool, token).find(({ id }) => id === rest);
  if (model === undefined) throw new RelayError("model_not_found", "there is no such model", { param: "model" });
  return respondJson(scope, 200, modelBody(model));
}

interface Model {
  readonly id: string;
  /** Unix seconds: since when a channel serves it. */
  readonly created: number;
}

/** What enabled channels of the token's groups serve, by name, as far as the token may use it. */
function modelsOf(pool: ChannelPool, token: RelayToken): Model[] {
  const created = new Map<string, number>();
  for (const { channel } of pool.inGroups(token.groups)) {
    const named = [...channel.models, ...Object.keys(channel.modelMapping)];
    for (const id of channel.models.length > 0 ? named : [...named, ...channel.discoveredModels]) {
      const seconds = Math.floor(channel.createdMs / 1000);
      created.set(id, Math.min(created.get(id) ?? seconds, seconds));
    }
  }
  return [...created]
    .filter(([id]) => token.models.length === 0 || token.models.includes(id))
    .map(([id, seconds]) => ({ id, created: seconds }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

function modelBody({ id, created }: Model): Record<string, unknown> {
  return { id, object: "model", created, owned_by: "gokv" };
}

async function showUsage({ services, scope, token }: Asked): Promise<Response> {
  const now = await services.tokens.require(token.id);
  return respondJson(scope, 200, {
    name: now.name,
    remain_quota: now.remainQuota,
    used_quota: now.usedQuota,
    unlimited_quota: now.isUnlimited,
    expired_time: now.expiresAtMs === null ? -1 : Math.floor(now.expiresAtMs / 1000),
    rpm: now.rpm,
    tpm: now.tpm,
    max_parallel: now.maxParallel,
  });
}

function respondJson(scope: RequestScope, status: number, value: unknown): Response {
  describeAttempts(scope, 0, performance.now() - scope.startedMs);
  return respond(scope, status, { "Content-Type": "application/json" }, JSON.stringify(value));
}

function respondRefusal(scope: RequestScope, error: RelayError): Response {
  scope.failure = error;
  const headers = { ...error.headers, "Content-Type": "application/json" };
  return respond(scope, error.status, headers, JSON.stringify({ error: error.body }));
}

/** How refusals of the shared parts are called here. */
const CODES: Readonly<Partial<Record<ErrorCode, RelayRefusal>>> = {
  body_too_large: "request_too_large",
  body_incomplete: "request_incomplete",
  invalid_json: "invalid_json",
  json_too_deep: "invalid_json",
  overloaded: "overloaded",
  draining: "server_shutting_down",
  token_not_found: "invalid_api_key",
  busy: "quota_store_unavailable",
  storage_failed: "quota_store_unavailable",
};

/** While the relay is not open, for want of its store. */
export function respondUnopened(scope: RequestScope, error: unknown): Response {
  scope.route = UNKNOWN_ROUTE;
  scope.id = Bun.randomUUIDv7();
  describeAttempts(scope, 0, performance.now() - scope.startedMs);
  return respondRefusal(scope, asRelayError(error));
}

function asRelayError(error: unknown): RelayError {
  if (error instanceof RelayError) return error;
  const code = error instanceof AppError ? CODES[error.code] : undefined;
  if (error instanceof AppError && code !== undefined) {
    return new RelayError(code, error.message, { cause: error, ...(error.status === 503 ? RETRY : {}) });
  }
  return new RelayError("internal_error", "something went wrong on this side", { cause: error });
}
