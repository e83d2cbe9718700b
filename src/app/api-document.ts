// The OpenAPI document of what is mounted; loaded when somebody asks for it.

import { type JsonSchema, openApiDocument, type RouteDoc } from "../http/openapi.ts";
import { OPS_ROUTES } from "../http/ops-api.ts";
import { KV_ROUTES } from "../kv/kv-api.ts";
import { RELAY_ROUTES } from "../relay/relay-api.ts";
import type { ServiceName } from "../shared/setting-parsers.ts";
import { TASK_ROUTES } from "../task/task-api.ts";
import { TOKEN_ROUTES } from "../token/token-api.ts";
import { REKEY_ROUTES } from "./rekey-routes.ts";

const SERVICE_ROUTES: Readonly<Record<ServiceName, readonly RouteDoc[]>> = {
  kv: KV_ROUTES,
  token: TOKEN_ROUTES,
  relay: RELAY_ROUTES,
  task: TASK_ROUTES,
};

export function apiDocument(services: ReadonlySet<ServiceName>): JsonSchema {
  const sealing = services.has("relay") || services.has("task") ? REKEY_ROUTES : [];
  return openApiDocument([...OPS_ROUTES, ...sealing, ...[...services].flatMap((service) => SERVICE_ROUTES[service])]);
}
