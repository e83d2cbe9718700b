// Management of the relay, for operators: which path and method lead where, and who is let in.

import { requireRelayRight } from "../auth/principal.ts";
import { below, createOperatorHandler, type OperatorRoutes } from "../http/operator-routes.ts";
import type { Handler } from "../http/surface.ts";
import { CHANNEL_ROUTES } from "./channel-routes.ts";
import type { RelayAdminServices } from "./management-request.ts";
import { RELAY_TOKEN_ROUTES } from "./relay-token-routes.ts";
import { USAGE_LOG_ROUTES } from "./usage-log-routes.ts";

const ROUTES: OperatorRoutes<RelayAdminServices> = {
  ...below("/api/channel", CHANNEL_ROUTES),
  "/api/channel/": CHANNEL_ROUTES[""]!,
  ...below("/api/token", RELAY_TOKEN_ROUTES),
  "/api/token/": RELAY_TOKEN_ROUTES[""]!,
  ...below("/api/log", USAGE_LOG_ROUTES),
};

export function createRelayAdminHandler(services: RelayAdminServices): Handler {
  return createOperatorHandler(services, ROUTES, (principal, isReading) =>
    requireRelayRight(principal, isReading ? "relay:read" : "relay:write"),
  );
}
