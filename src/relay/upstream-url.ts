// The address of an upstream: what an operator may write, and the URLs that are made of it.

import { urlProblem } from "../http/outbound-url.ts";
import { AppError } from "../shared/errors.ts";

/** `v1`, `v4`, `v1beta`, `v1.1`, `v2alpha3`. */
const VERSION_SEGMENT = /^v\d+(\.\d+)*([a-z]+\d*)?$/i;

/**
 * The text as it was given, if it can be the address of an upstream: http or https, at most 2048 characters, no user
 * info, query or fragment. What it leads to is judged by OutboundTransport.judge.
 * @throws AppError invalid_field
 */
export function requireBaseUrl(text: string): string {
  const problem = problemOf(text);
  if (problem !== null) {
    throw new AppError("invalid_field", `base_url ${problem}.`, { details: { field: "base_url" } });
  }
  return text;
}

/** Completes "base_url …"; null when there is none. */
function problemOf(text: string): string | null {
  return urlProblem(text) ?? (/[?#]/.test(text) ? "must not have a query or a fragment" : null);
}

/**
 * What paths like `/chat/completions` are appended to, at a base that requireBaseUrl let pass: without a segment that
 * looks like a version, `/v1` comes between.
 */
export function apiRootOf(baseUrl: string): string {
  const { origin, pathname } = new URL(baseUrl);
  const base = pathname.replace(/\/+$/, "");
  const isComplete = base.split("/").some((segment) => VERSION_SEGMENT.test(segment));
  return `${origin}${base}${isComplete ? "" : "/v1"}`;
}

/** Scheme, host and port, in one form whatever the case, the default port or the notation of an address. */
export function originOf(baseUrl: string): string {
  return new URL(baseUrl).origin;
}
