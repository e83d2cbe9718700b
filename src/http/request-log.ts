// The access log: one line per answer, without anything that opens a door or shows a value.

import { ACCESS_LOG_PATH_BYTES_MAX } from "../shared/bounds.ts";
import { messageOf } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import { requestPath } from "./request-path.ts";
import type { RequestScope } from "./request-scope.ts";

export function logRequest(log: Log, mode: "all" | "errors" | "off", scope: RequestScope, status: number): void {
  const cause = status >= 500 ? causeOf(scope.failure) : null;
  if (cause !== null) log.error("request failed", { id: scope.id, route: scope.route, cause });
  if (mode === "off" || (mode === "errors" && status < 500)) return;
  log.info("request", {
    id: scope.id,
    method: scope.request.method,
    route: scope.route,
    path: requestPath(scope.request.url).slice(0, ACCESS_LOG_PATH_BYTES_MAX),
    status,
    ms: Math.round((performance.now() - scope.startedMs) * 100) / 100,
    in: scope.bytesIn,
    out: scope.bytesOut,
    ip: scope.clientIp,
    sub: scope.subject,
    jti: scope.tokenId,
    ...refusalOf(scope.failure, status),
  });
}

/** The code of a failure, and of a token that was not let in also why. */
function refusalOf(failure: unknown, status: number): Readonly<Record<string, string>> {
  if (!(failure instanceof Error && "code" in failure)) return {};
  const { code, cause } = failure;
  return { code: `${code}`, ...(status === 401 && typeof cause === "string" ? { reason: cause } : {}) };
}

/** What the client was not told. */
function causeOf(failure: unknown): string | null {
  const cause = failure instanceof Error ? failure.cause : undefined;
  return cause === undefined ? null : messageOf(cause);
}
