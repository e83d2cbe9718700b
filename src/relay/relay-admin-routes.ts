// Management of the relay, for operators: which path and method lead where, and who is let in.

import { requireRelayRight } from "../auth/principal.ts";
import { methodNotAllowed, respondOptions } from "../http/methods.ts";
import { respondJson } from "../http/respond.ts";
import { type AppContext, asOperator } from "../http/surface.ts";
import { AppError } from "../shared/errors.ts";
import type { Eventually } from "../storage/kv-engine.ts";
import { CHANNEL_ROUTES } from "./channel-routes.ts";
import { type Act, ID, type ManagementRequest, type RelayAdminServices } from "./management-request.ts";
import { RELAY_TOKEN_ROUTES } from "./relay-token-routes.ts";
import { USAGE_LOG_ROUTES } from "./usage-log-routes.ts";

export type { RelayAdminServices };

type Methods = Readonly<Record<string, Act>>;

const REKEY: Methods = { POST: rekey };

const MOUNTS: Readonly<Record<string, Readonly<Record<string, Methods>>>> = {
  "/api/channel": CHANNEL_ROUTES,
  "/api/token": RELAY_TOKEN_ROUTES,
  "/api/log": USAGE_LOG_ROUTES,
  "/_admin/rekey": { "": REKEY },
};

/** `/api/channel/` is `/api/channel`. */
const SLASHED: readonly string[] = ["/api/channel", "/api/token"];

export function createRelayAdminHandler(services: RelayAdminServices): (context: AppContext) => Eventually<Response> {
  return function relayAdmin(context) {
    const { scope } = context.env;
    const { route, methods, id } = findRoute(context.req.path);
    scope.route = route;
    const { method } = scope.request;
    const act = methods[method === "HEAD" ? "GET" : method];
    if (act === undefined) {
      const allow = [...Object.keys(methods), ...("GET" in methods ? ["HEAD"] : []), "OPTIONS"].join(", ");
      if (method === "OPTIONS") return respondOptions(scope, allow);
      throw methodNotAllowed(allow);
    }
    return asOperator(services, scope, (principal) => {
      requireRelayRight(principal, method === "GET" || method === "HEAD" ? "relay:read" : "relay:write");
      return act({ services, scope, id });
    });
  };
}

/** @throws AppError route_not_found */
function findRoute(path: string): { route: string; methods: Methods; id: number } {
  const mount = Object.keys(MOUNTS).find((prefix) => path === prefix || path.startsWith(`${prefix}/`));
  const segments = path
    .slice(mount?.length ?? 0)
    .split("/")
    .slice(1);
  const isSlashed = segments.length === 1 && segments[0] === "";
  const named = isSlashed && SLASHED.includes(mount ?? "") ? [] : segments;
  const pattern = named.map((segment) => (ID.test(segment) ? ":id" : segment));
  const rest = pattern.map((segment) => `/${segment}`).join("");
  const routes = mount === undefined ? {} : MOUNTS[mount]!;
  if (!Object.hasOwn(routes, rest)) throw new AppError("route_not_found", "There is nothing at this path.");
  const id = named.find((segment) => ID.test(segment));
  return { route: `${mount}${rest}`, methods: routes[rest]!, id: id === undefined ? 0 : Number(id) };
}

/** Seals every key with the secret of today: all of them or none. */
async function rekey({ services, scope }: ManagementRequest): Promise<Response> {
  const { channels, monitor } = services;
  try {
    const { resealed, kid } = await channels.change("relay.rekey", { ring: channels.ring });
    await monitor.changed();
    return respondJson(scope, 200, { resealed, kid });
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "key_unreadable") throw error;
    scope.failure = error;
    const { status: statusCode, message, code, details } = error;
    return respondJson(scope, statusCode, { statusCode, message, code, ids: `${details.ids}`.split(",").map(Number) });
  }
}
