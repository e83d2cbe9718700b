// Cross-origin access for surfaces that browsers use (https://fetch.spec.whatwg.org/#http-cors-protocol).

import type { RequestScope } from "./request-scope.ts";
import { respond } from "./respond.ts";

export interface CorsPolicy {
  /** Null = every origin. */
  readonly origins: ReadonlySet<string> | null;
  readonly methods: string;
  readonly exposedHeaders: string;
}

const PREFLIGHT_SECONDS = 7200;
const REQUESTED_HEADERS_MAX = 1024;

/** Headers for any answer; without credentials, since tokens do not travel in cookies. */
export function corsHeaders(scope: RequestScope, { origins, exposedHeaders }: CorsPolicy): Record<string, string> {
  if (origins === null) {
    return { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": exposedHeaders };
  }
  const origin = scope.request.headers.get("origin");
  if (origin === null || !origins.has(origin)) return { Vary: "Origin" };
  return {
    Vary: "Origin",
    "Access-Control-Allow-Origin": origin,
    "Access-Control-Expose-Headers": exposedHeaders,
  };
}

/** The answer to OPTIONS; free of tokens and rates. Other origins learn what everybody does. */
export function respondPreflight(scope: RequestScope, allow: string, { methods, origins }: CorsPolicy): Response {
  const origin = scope.request.headers.get("origin");
  if (origins !== null && (origin === null || !origins.has(origin))) return respond(scope, 204, { Allow: allow });
  const requested = scope.request.headers.get("access-control-request-headers");
  return respond(scope, 204, {
    Allow: allow,
    "Access-Control-Allow-Methods": methods,
    "Access-Control-Max-Age": `${PREFLIGHT_SECONDS}`,
    ...(requested !== null && requested.length <= REQUESTED_HEADERS_MAX
      ? { "Access-Control-Allow-Headers": requested }
      : {}),
  });
}
