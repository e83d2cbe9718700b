// What operators and orchestrators ask: is it alive, is it ready, how does it fare, what is it.

import { requireAdmin, requireRight } from "../auth/principal.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import { VERSION } from "../shared/version.ts";
import type { BackupReport } from "../storage/backup-store.ts";
import { postRoute } from "./methods.ts";
import type { Metrics } from "./metrics.ts";
import type { RequestScope } from "./request-scope.ts";
import { respond, respondJson } from "./respond.ts";
import { asOperator, type Handler, type OperatorSurface } from "./surface.ts";

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
  return postRoute("/_admin/backup", (scope) =>
    asOperator(surface, scope, async (principal) => {
      requireAdmin(principal);
      const { file, bytes, revision, entries, ms } = await scope.whileSilent(run);
      return respondJson(scope, 200, { file, bytes, revision, entries, ms });
    }),
  );
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
