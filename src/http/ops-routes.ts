// What operators and orchestrators ask: is it alive, is it ready, how does it fare, what is it.

import { requireAdmin, requireRight } from "../auth/principal.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { VERSION } from "../shared/version.ts";
import type { BackupReport } from "../storage/backup-store.ts";
import { methodNotAllowed, respondOptions } from "./methods.ts";
import type { Metrics } from "./metrics.ts";
import type { RequestScope } from "./request-scope.ts";
import { respond, respondJson } from "./respond.ts";
import { asOperator, type Handler, type OperatorSurface } from "./surface.ts";

const GET_ALLOW = "GET, HEAD, OPTIONS";
const BACKUP_ALLOW = "POST, OPTIONS";

/** A route for GET and HEAD that takes its pattern from the place where it is mounted. */
export function getRoute(route: string, answer: (scope: RequestScope) => Eventually<Response>): Handler {
  return function get(context) {
    const { scope } = context.env;
    scope.route = route;
    const { method } = scope.request;
    if (method === "OPTIONS") return respondOptions(scope, GET_ALLOW);
    if (method !== "GET" && method !== "HEAD") throw methodNotAllowed(GET_ALLOW);
    return answer(scope);
  };
}

export function showName(scope: RequestScope): Response {
  return respondJson(scope, 200, { name: "gokv", version: VERSION, docs: "/openapi.json" });
}

/** Comes before every limit: a process that serves at all says so. */
export function showLiveness(scope: RequestScope): Response {
  return scope.state.hasFailed
    ? respondJson(scope, 503, { status: "failed" }, { "Retry-After": "1" })
    : respondJson(scope, 200, { status: "ok" });
}

/** A full disk stays ready: reads and deletes work. */
export function showReadiness(scope: RequestScope): Response {
  const { hasFailed, isDraining } = scope.state;
  if (!hasFailed && !isDraining) return respondJson(scope, 200, { status: "ready" });
  return respondJson(scope, 503, { status: hasFailed ? "failed" : "draining" }, { "Retry-After": "1" });
}

/** POST /_admin/backup: answers when the copy was proven. */
export function createBackupRoute(surface: OperatorSurface, run: () => Promise<BackupReport>): Handler {
  return function backup(context) {
    const { scope } = context.env;
    scope.route = "/_admin/backup";
    const { method } = scope.request;
    if (method === "OPTIONS") return respondOptions(scope, BACKUP_ALLOW);
    if (method !== "POST") throw methodNotAllowed(BACKUP_ALLOW);
    return asOperator(surface, scope, async (principal) => {
      requireAdmin(principal);
      const { file, bytes, revision, entries, ms } = await scope.whileSilent(run);
      return respondJson(scope, 200, { file, bytes, revision, entries, ms });
    });
  };
}

export function createMetricsRoute(
  surface: OperatorSurface,
  metrics: Metrics,
  mode: "auth" | "open" | "off",
): (scope: RequestScope) => Eventually<Response> {
  const show = async (scope: RequestScope) => {
    const { contentType, text } = await scope.whileSilent(() => metrics.render());
    return respond(scope, 200, { "Content-Type": contentType }, text);
  };
  return function metricsRoute(scope) {
    if (mode === "off") throw new AppError("route_not_found", "There is nothing at this path.");
    if (mode === "open") return show(scope);
    return asOperator(surface, scope, (principal) => {
      requireRight(principal, "admin");
      return show(scope);
    });
  };
}

/** GET /openapi.json: the document does not change while the server runs. */
export function createDocumentRoute(document: object): (scope: RequestScope) => Eventually<Response> {
  const body = JSON.stringify(document);
  return (scope) => respond(scope, 200, { "Content-Type": "application/json" }, body);
}
