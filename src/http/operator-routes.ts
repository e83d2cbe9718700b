// Administrative routes of every service: found by path and method, then admission, the gate, and the right to act.

import type { Principal } from "../auth/principal.ts";
import { AppError } from "../shared/errors.ts";
import { allowOf, methodNotAllowed, respondOptions } from "./methods.ts";
import type { RequestScope } from "./request-scope.ts";
import { RouteTree } from "./route-tree.ts";
import { asOperator, type Handler, type OperatorSurface } from "./surface.ts";

export interface OperatorRequest<Services> {
  readonly services: Services;
  readonly scope: RequestScope;
  readonly principal: Principal;
  /** Segments of the path, as they were sent. */
  readonly params: Readonly<Record<string, string>>;
}

type OperatorAct<Services> = (request: OperatorRequest<Services>) => Promise<Response>;

/** Patterns, each with what its methods do. */
export type OperatorRoutes<Services> = Readonly<
  Record<string, Readonly<Partial<Record<"GET" | "POST" | "PUT" | "PATCH" | "DELETE", OperatorAct<Services>>>>>
>;

/**
 * The handler of `routes`, whole paths. `requireMayAct` throws when the principal lacks the right for the method.
 * What it throws is for the renderer that all surfaces of operators share.
 */
export function createOperatorHandler<Services extends OperatorSurface>(
  services: Services,
  routes: OperatorRoutes<Services>,
  requireMayAct: (principal: Principal, isReading: boolean) => void,
): Handler {
  const tree = new RouteTree(routes);
  return function operatorRoutes(context) {
    const { scope } = context.env;
    const found = tree.find(context.req.path);
    if (found === null) throw new AppError("route_not_found", "There is nothing at this path.");
    const { pattern, target: methods, params } = found;
    scope.route = pattern;
    const { method } = scope.request;
    const isReading = method === "GET" || method === "HEAD";
    const act = methods[isReading ? "GET" : (method as "POST")];
    if (act === undefined) {
      const allow = allowOf(methods);
      if (method === "OPTIONS") return respondOptions(scope, allow);
      throw methodNotAllowed(allow);
    }
    return asOperator(services, scope, (principal) => {
      requireMayAct(principal, isReading);
      return act({ services, scope, principal, params });
    });
  };
}

/** The same routes below a mount. */
export function below<T>(mount: string, routes: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(routes).map(([pattern, methods]) => [mount + pattern, methods]));
}
