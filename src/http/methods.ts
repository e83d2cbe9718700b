// Methods of a route: what is allowed, what OPTIONS says, what everything else is told.

import { AppError } from "../shared/errors.ts";
import type { RequestScope } from "./request-scope.ts";
import { respond } from "./respond.ts";

/** The answer to OPTIONS, without CORS headers. */
export function respondOptions(scope: RequestScope, allow: string): Response {
  return respond(scope, 204, { Allow: allow });
}

export function methodNotAllowed(allow: string): AppError {
  return new AppError("method_not_allowed", `This path takes ${allow}.`, { details: { allow } });
}
