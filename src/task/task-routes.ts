// The task service on the wire: which path and method lead where, and what surrounds each request.

import type { AccessClaims } from "../auth/user-token.ts";
import { type CorsPolicy, corsHeaders, respondPreflight } from "../http/cors.ts";
import { allowOf, methodNotAllowed } from "../http/methods.ts";
import type { RequestScope } from "../http/request-scope.ts";
import { RouteTree } from "../http/route-tree.ts";
import type { Handler } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { ACCOUNT_ROUTES } from "./account-routes.ts";
import { COMMENT_ROUTES } from "./comment-routes.ts";
import { EXPORT_ROUTES } from "./export-routes.ts";
import { ITEM_ROUTES } from "./item-routes.ts";
import { JOB_ROUTES } from "./job-routes.ts";
import { STREAM_ROUTES } from "./stream-routes.ts";
import { respondTaskError } from "./task-errors.ts";
import { LIST_ROUTES } from "./task-list-routes.ts";
import type { TaskMethods, TaskRoute, UserAct } from "./task-request.ts";
import type { TaskServices } from "./task-services.ts";
import { WEBHOOK_ROUTES } from "./webhook-routes.ts";

const TASK_MOUNT = "/api/v1";

const ROUTES = new RouteTree<TaskMethods>({
  ...merge(ACCOUNT_ROUTES, ITEM_ROUTES, LIST_ROUTES, COMMENT_ROUTES, STREAM_ROUTES),
  ...merge(EXPORT_ROUTES, JOB_ROUTES, WEBHOOK_ROUTES),
});

const CORS_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE";
const EXPOSED_HEADERS = [
  "ETag",
  "Link",
  "Location",
  "X-Next-Cursor",
  "X-Total-Count",
  "X-Request-Id",
  "RateLimit",
  "RateLimit-Policy",
  "Retry-After",
  "Idempotent-Replayed",
].join(", ");
const NO_ORIGINS: ReadonlySet<string> = new Set();

/** The handler of everything below the mount. Never throws: all it refuses has the shape that its clients know. */
export function createTaskHandler(services: TaskServices): Handler {
  const cors: CorsPolicy = {
    origins: services.settings.taskCorsOrigins ?? NO_ORIGINS,
    methods: CORS_METHODS,
    exposedHeaders: EXPOSED_HEADERS,
  };
  return function taskApi(context) {
    const { scope } = context.env;
    scope.route = `${TASK_MOUNT}/*`;
    scope.surfaceHeaders = services.settings.taskCorsOrigins === null ? null : corsHeaders(scope, cors);
    try {
      const answer = handle(services, scope, context.req.path.slice(TASK_MOUNT.length), cors);
      return answer instanceof Promise ? answer.catch((error) => respondTaskError(scope, error)) : answer;
    } catch (error) {
      return respondTaskError(scope, error);
    }
  };
}

/** The answer below the mount when the service could not be opened. */
export function respondUnopened(scope: RequestScope, error: unknown): Response {
  scope.route = `${TASK_MOUNT}/*`;
  return respondTaskError(scope, error);
}

function handle(services: TaskServices, scope: RequestScope, path: string, cors: CorsPolicy): Eventually<Response> {
  const found = ROUTES.find(path);
  if (found === null) return refuse(services, scope, new AppError("not_found", "There is nothing at this path."));
  const { pattern, target: methods, params } = found;
  const { method } = scope.request;
  const route = methods[(method === "HEAD" ? "GET" : method) as "GET"];
  if (route === undefined && method !== "OPTIONS") {
    return refuse(services, scope, methodNotAllowed(allowOf(methods)));
  }
  scope.route = TASK_MOUNT + pattern;
  if (route === undefined) return respondPreflight(scope, allowOf(methods), cors);
  services.admission.enter(scope);
  if (route.auth === "none") {
    services.rates.takeAddress(scope, route.cost);
    return route.act({ services, scope, who: null, params });
  }
  if (route.auth === "either") return actAsEither(services, scope, route, params);
  const admitted = admit(services, scope);
  return admitted instanceof Promise
    ? admitted.then((who) => actAs(services, scope, who, route, params))
    : actAs(services, scope, admitted, route, params);
}

/** What is not served counts as any other request of whoever asks. */
async function refuse(services: TaskServices, scope: RequestScope, refusal: AppError): Promise<never> {
  let who: AccessClaims | null = null;
  try {
    who = await admit(services, scope);
  } catch (error) {
    if (!(error instanceof AppError) || error.status !== 401) throw error;
  }
  if (who !== null) {
    scope.subject = `${who.userId}`;
    services.rates.takeUser(scope, who.userId);
  }
  throw refusal;
}

async function actAsEither(
  services: TaskServices,
  scope: RequestScope,
  route: TaskRoute & { auth: "none" | "either" },
  params: Readonly<Record<string, string>>,
): Promise<Response> {
  let who: AccessClaims;
  try {
    who = await admit(services, scope);
  } catch (error) {
    if (!(error instanceof AppError) || error.status !== 401) throw error;
    return route.act({ services, scope, who: null, refusal: error, params });
  }
  return actAs(services, scope, who, route, params);
}

function actAs(
  services: TaskServices,
  scope: RequestScope,
  who: AccessClaims,
  route: { readonly cost: number; readonly act: UserAct },
  params: Readonly<Record<string, string>>,
): Eventually<Response> {
  scope.subject = `${who.userId}`;
  services.rates.takeUser(scope, who.userId, route.cost);
  return route.act({ services, scope, who, params });
}

/** Whoever has no valid token is counted by address: guessing is not free. */
function admit({ gate, rates }: TaskServices, scope: RequestScope): Eventually<AccessClaims> {
  const refuse = (error: unknown): never => {
    if (error instanceof AppError && error.status === 401) rates.takeAddress(scope);
    throw error;
  };
  try {
    const admitted = gate.admit(scope.request.headers.get("authorization"));
    return admitted instanceof Promise ? admitted.catch(refuse) : admitted;
  } catch (error) {
    return refuse(error);
  }
}

/** Several files may serve one path, each its own methods. */
function merge(...all: readonly Readonly<Record<string, TaskMethods>>[]): Record<string, TaskMethods> {
  const merged: Record<string, TaskMethods> = {};
  for (const routes of all) {
    for (const [pattern, methods] of Object.entries(routes)) merged[pattern] = { ...merged[pattern], ...methods };
  }
  return merged;
}
