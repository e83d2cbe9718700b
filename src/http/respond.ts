// Every response of the server is built here, so that no one lacks the headers all have in common.

import type { AppError } from "../shared/errors.ts";
import { lingeringBody } from "./linger.ts";
import type { RequestScope } from "./request-scope.ts";

export type ResponseHeaders = Record<string, string>;
type ResponseBody = string | Uint8Array<ArrayBuffer> | ReadableStream | null;

/** For HEAD of a body whose length nobody knows: without it the runtime would announce 0. */
export const UNKNOWN_LENGTH = { "Transfer-Encoding": "chunked" } as const;

/**
 * Adds the request id, `nosniff`, `Cache-Control: no-store` unless another is given, and `Connection: close` when this
 * is the last answer of its connection. `headers` is taken over and changed.
 */
export function respond(
  scope: RequestScope,
  status: number,
  headers: ResponseHeaders,
  body: ResponseBody = null,
): Response {
  headers["X-Content-Type-Options"] = "nosniff";
  headers["X-Request-Id"] = scope.id;
  if (scope.surfaceHeaders !== null) Object.assign(headers, scope.surfaceHeaders);
  headers["Cache-Control"] ??= "no-store";
  if (scope.unreadBody !== null || scope.state.isDraining) headers.Connection = "close";
  if (typeof body === "string") scope.bytesOut = Buffer.byteLength(body);
  else if (body instanceof Uint8Array) scope.bytesOut = body.length;
  else if (body !== null && scope.bytesOut === 0) scope.bytesOut = null;
  if (scope.isHead && body !== null) {
    // The runtime would announce a length of 0 for the body that HEAD does not have.
    if (!(body instanceof ReadableStream)) headers["Content-Length"] = `${scope.bytesOut}`;
    scope.bytesOut = 0;
    return new Response(null, { status, headers });
  }
  if (scope.unreadBody !== null && typeof body === "string") {
    const lengthBytes = Number(scope.request.headers.get("content-length") ?? Number.NaN);
    return new Response(lingeringBody(body, scope.unreadBody, lengthBytes), { status, headers });
  }
  return new Response(body, { status, headers });
}

/** The headers of `respond` but the varying ones, made once for an answer that is given often. */
export function headerTemplate(headers: ResponseHeaders): Headers {
  return new Headers({ "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", ...headers });
}

/**
 * An answer from a template: copying it costs a third of what building the headers does. What varies is written into
 * the template, which is copied before anybody else can see it: headers of a response cost more to touch.
 */
export function respondFrom(
  scope: RequestScope,
  status: number,
  template: Headers,
  body: Uint8Array<ArrayBuffer> | null,
): Response {
  template.set("X-Request-Id", scope.id);
  const response = new Response(body, { status, headers: template });
  if (scope.surfaceHeaders !== null) {
    for (const [name, value] of Object.entries(scope.surfaceHeaders)) response.headers.set(name, value);
  }
  if (scope.state.isDraining) response.headers.set("Connection", "close");
  scope.bytesOut = body?.length ?? 0;
  return response;
}

export function respondJson(
  scope: RequestScope,
  status: number,
  value: unknown,
  headers: ResponseHeaders = {},
): Response {
  headers["Content-Type"] = "application/json";
  return respond(scope, status, headers, JSON.stringify(value));
}

/** The body and headers of an error, the same on every surface: status, message, code, in this order. */
export function respondError(scope: RequestScope, error: AppError): Response {
  scope.failure = error;
  const { status: statusCode, message, code } = error;
  return respondJson(scope, statusCode, { statusCode, message, code }, headersOf(error));
}

function headersOf({ code, status, details }: AppError): ResponseHeaders {
  const headers: ResponseHeaders = {};
  if (status === 503) headers["Retry-After"] = "1";
  switch (code) {
    case "token_missing":
    case "token_invalid":
      headers["WWW-Authenticate"] = "Bearer";
      break;
    case "rate_limited":
      headers["Retry-After"] = `${details.retryAfterSeconds}`;
      break;
    case "unauthorized":
      headers["WWW-Authenticate"] = `${details.challenge}`;
      break;
    case "forbidden":
      headers["WWW-Authenticate"] = `Bearer error="insufficient_scope", scope="${details.scope}"`;
      break;
    case "method_not_allowed":
      headers.Allow = `${details.allow}`;
      break;
    case "precondition_failed":
      if (details.revision !== undefined) headers.ETag = `"${details.revision}"`;
      break;
    case "range_not_satisfiable":
      headers["Content-Range"] = `bytes */${details.sizeBytes}`;
      break;
  }
  return headers;
}
