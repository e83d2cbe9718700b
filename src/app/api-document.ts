// The OpenAPI document of what is mounted; loaded when somebody asks for it.

import { type JsonSchema, openApiDocument, type RouteDoc } from "../http/openapi.ts";
import { OPS_ROUTES } from "../http/ops-api.ts";
import { KV_ROUTES } from "../kv/kv-api.ts";
import { RELAY_ROUTES } from "../relay/relay-api.ts";
import type { ServiceName } from "../shared/settings.ts";
import { TOKEN_ROUTES } from "../token/token-api.ts";

const SERVICE_ROUTES: Readonly<Record<ServiceName, readonly RouteDoc[]>> = {
  kv: KV_ROUTES,
  token: TOKEN_ROUTES,
  relay: RELAY_ROUTES,
  task: [],
};

export function apiDocument(services: ReadonlySet<ServiceName>): JsonSchema {
  return openApiDocument([...OPS_ROUTES, ...[...services].flatMap((service) => SERVICE_ROUTES[service])]);
}
