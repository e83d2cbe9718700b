// What clients of the task API are told when something is wrong: one shape, and the codes that its documents list.

import type { RequestScope } from "../http/request-scope.ts";
import { type ResponseHeaders, respondJson } from "../http/respond.ts";
import { AppError, type ErrorCode, internalError } from "../shared/errors.ts";

/** Failures of the parts that all surfaces share, in the words of this one. */
const WORDS: Readonly<Partial<Record<ErrorCode, ErrorCode>>> = {
  query_invalid: "invalid_request",
  path_invalid: "invalid_request",
  body_incomplete: "invalid_request",
  precondition_invalid: "invalid_request",
  invalid_field: "invalid_request",
  invalid_parameter: "invalid_request",
  json_too_deep: "invalid_json",
  cursor_invalid: "invalid_cursor",
  route_not_found: "not_found",
  overloaded: "busy",
  draining: "unavailable",
  value_damaged: "internal_error",
};

/** Whatever is no AppError is a defect: the client is told nothing, the log everything. */
export function respondTaskError(scope: RequestScope, thrown: unknown): Response {
  const error = thrown instanceof AppError ? thrown : internalError(thrown);
  scope.failure = error;
  const code = WORDS[error.code] ?? error.code;
  const { status } = code === error.code ? error : new AppError(code, "");
  const fields = error.details.fields === undefined ? {} : { fields: JSON.parse(`${error.details.fields}`) };
  return respondJson(scope, status, { error: error.message, code, ...fields }, headersOf(error, status));
}

function headersOf({ details }: AppError, status: number): ResponseHeaders {
  const headers: ResponseHeaders = {};
  if (status === 401) headers["WWW-Authenticate"] = "Bearer";
  if (status === 405) headers.Allow = `${details.allow}`;
  if (status === 503) headers["Retry-After"] = "1";
  if (details.retryAfterSeconds !== undefined) headers["Retry-After"] = `${details.retryAfterSeconds}`;
  if (status === 412 && details.etag !== undefined) headers.ETag = `${details.etag}`;
  return headers;
}
