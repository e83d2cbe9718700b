// Management of the relay, for operators: which path and method lead where, and who is let in.

import { requireRelayRight } from "../auth/principal.ts";
import { below, createOperatorHandler, type OperatorRequest, type OperatorRoutes } from "../http/operator-routes.ts";
import type { Handler } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import { CHANNEL_ROUTES } from "./channel-routes.ts";
import { type Act, ID, type RelayAdminServices } from "./management-request.ts";
import { RELAY_TOKEN_ROUTES } from "./relay-token-routes.ts";
import { USAGE_LOG_ROUTES } from "./usage-log-routes.ts";

type Methods = Readonly<Record<string, Act>>;

const ROUTES: OperatorRoutes<RelayAdminServices> = numbered({
  ...below("/api/channel", CHANNEL_ROUTES),
  "/api/channel/": CHANNEL_ROUTES[""]!,
  ...below("/api/token", RELAY_TOKEN_ROUTES),
  "/api/token/": RELAY_TOKEN_ROUTES[""]!,
  ...below("/api/log", USAGE_LOG_ROUTES),
});

export function createRelayAdminHandler(services: RelayAdminServices): Handler {
  return createOperatorHandler(services, ROUTES, (principal, isReading) =>
    requireRelayRight(principal, isReading ? "relay:read" : "relay:write"),
  );
}

/** Acts of the relay are given the number in their path. */
function numbered(routes: Readonly<Record<string, Methods>>): OperatorRoutes<RelayAdminServices> {
  const withNumber = (act: Act) => (request: OperatorRequest<RelayAdminServices>) =>
    act({ services: request.services, scope: request.scope, id: idOf(request.params) });
  return Object.fromEntries(
    Object.entries(routes).map(([pattern, methods]) => [
      pattern,
      Object.fromEntries(Object.entries(methods).map(([method, act]) => [method, withNumber(act)])),
    ]),
  );
}

/** 0 without one. @throws AppError route_not_found for what is no number */
function idOf({ id }: Readonly<Record<string, string>>): number {
  if (id === undefined) return 0;
  if (!ID.test(id)) throw new AppError("route_not_found", "There is nothing at this path.");
  return Number(id);
}
