// Methods of a route: what is allowed, what OPTIONS says, what everything else is told.

import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../shared/eventual.ts";
import type { RequestScope } from "./request-scope.ts";
import { respond } from "./respond.ts";
import type { AppContext, Handler } from "./surface.ts";

type Answer = (scope: RequestScope, context: AppContext) => Eventually<Response>;

/** A route for GET and HEAD that takes its pattern from the place where it is mounted. */
export function getRoute(route: string, answer: Answer): Handler {
  return routeFor("GET", route, answer);
}

/** Likewise for POST. */
export function postRoute(route: string, answer: Answer): Handler {
  return routeFor("POST", route, answer);
}

function routeFor(taken: "GET" | "POST", route: string, answer: Answer): Handler {
  const allow = allowOf({ [taken]: answer });
  return function routed(context) {
    const { scope } = context.env;
    scope.route = route;
    const { method } = scope.request;
    if (method === "OPTIONS") return respondOptions(scope, allow);
    if ((method === "HEAD" ? "GET" : method) !== taken) throw methodNotAllowed(allow);
    return answer(scope, context);
  };
}

/** The Allow list of a route that takes these methods. */
export function allowOf(methods: Readonly<Partial<Record<string, unknown>>>): string {
  return [...Object.keys(methods), ...("GET" in methods ? ["HEAD"] : []), "OPTIONS"].join(", ");
}

/** The answer to OPTIONS, without CORS headers. */
export function respondOptions(scope: RequestScope, allow: string): Response {
  return respond(scope, 204, { Allow: allow });
}

export function methodNotAllowed(allow: string): AppError {
  return new AppError("method_not_allowed", `This path takes ${allow}.`, { details: { allow } });
}
